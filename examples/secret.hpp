// SPDX-License-Identifier: BSL-1.0
/// @file
/// Reading secrets: from a file, from stdin, from the terminal without echo.
#pragma once

#include <array>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>

#include <fcntl.h>
#ifdef _WIN32
#include <io.h>
#else
#include <termios.h>
#include <unistd.h>
#endif

#include <chatproto/login.hpp>

#include "program.hpp"

namespace program {

/// While it lives, a terminal does not show what is typed, unless it is no terminal. A signal that ends the program
/// first makes the terminal show it again.
class NoEcho {
 public:
  explicit NoEcho(int descriptor) {
    terminal = descriptor;
#ifdef _WIN32
    auto* const console = reinterpret_cast<HANDLE>(_get_osfhandle(descriptor));
    has_changed_ = GetConsoleMode(console, &old) != 0 && SetConsoleMode(console, old & ~DWORD(ENABLE_ECHO_INPUT));
#else
    if (tcgetattr(descriptor, &old) != 0) return;
    auto silent = old;
    silent.c_lflag &= ~tcflag_t(ECHO);
    for (std::size_t i = 0; i < signals.size(); ++i) old_handlers_[i] = std::signal(signals[i], show_and_end);
    has_changed_ = tcsetattr(descriptor, TCSAFLUSH, &silent) == 0;
#endif
  }
  NoEcho(NoEcho const&) = delete;
  NoEcho& operator=(NoEcho const&) = delete;
  ~NoEcho() {
#ifdef _WIN32
    if (has_changed_) SetConsoleMode(reinterpret_cast<HANDLE>(_get_osfhandle(terminal)), old);
#else
    if (!has_changed_) return;
    tcsetattr(terminal, TCSANOW, &old);
    for (std::size_t i = 0; i < signals.size(); ++i) std::signal(signals[i], old_handlers_[i]);
#endif
  }

 private:
  static inline int terminal;  // not members, because a signal handler gets no object
#ifdef _WIN32
  static inline DWORD old;
#else
  static inline termios old;
  static constexpr std::array signals = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
  static void show_and_end(int signal) {
    tcsetattr(terminal, TCSANOW, &old);
    std::signal(signal, SIG_DFL);
    raise(signal);
  }
  std::array<void (*)(int), signals.size()> old_handlers_ = {};
#endif
  bool has_changed_ = false;
};

/// A file descriptor that is closed in the end.
class Descriptor {
 public:
  Descriptor(char const* path, int how) : number_(::open(path, how)) {}
  Descriptor(Descriptor const&) = delete;
  Descriptor& operator=(Descriptor const&) = delete;
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }
  int number() const noexcept { return number_; }

 private:
  int number_;
};

/// Reads one line, byte by byte, so that nothing behind it is taken. Returns nothing at the end of the input. Throws
/// `std::runtime_error`.
inline std::optional<chatproto::Secret> read_secret(int descriptor, std::string const& from) {
  struct Line {
    std::array<char, 1024> bytes;
    std::size_t size = 0;
    ~Line() { chatproto::Secret::wipe(bytes.data(), bytes.size()); }
  } line;
  for (;;) {
    char byte = 0;
    auto const count = ::read(descriptor, &byte, 1);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw std::runtime_error("cannot read " + from + ": " + std::generic_category().message(errno));
    if (count == 0 && line.size == 0) return std::nullopt;
    if (count == 0 || byte == '\n') break;
    if (line.size == line.bytes.size()) throw std::runtime_error(from + ": a secret is not that long");
    line.bytes[line.size++] = byte;
  }
  if (line.size > 0 && line.bytes[line.size - 1] == '\r') --line.size;
  return chatproto::Secret({line.bytes.data(), line.size});
}

/// Asks for a secret on the program's terminal, even if stdin is another file. Throws `std::runtime_error`.
inline chatproto::Secret ask_for_secret(std::string const& prompt) {
#ifdef _WIN32
  Descriptor const in("CONIN$", O_RDWR), out("CONOUT$", O_RDWR);
#else
  Descriptor const in("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
  auto const& out = in;
#endif
  if (in.number() < 0) throw std::runtime_error("there is no terminal on which to ask for the secret");
  auto const show = [&](std::string_view text) {
    return ::write(out.number(), text.data(), static_cast<unsigned>(text.size())) >= 0;
  };
  std::optional<chatproto::Secret> secret;
  {
    NoEcho const no_echo(in.number());
    show(prompt);
    secret = read_secret(in.number(), "the terminal");
  }
  show("\n");
  if (!secret) throw std::runtime_error("no secret");
  return std::move(*secret);
}

/// Reads a file of one line. Throws `std::runtime_error`.
inline chatproto::Secret secret_from_file(std::string const& path) {
#ifdef _WIN32
  constexpr auto how = O_RDONLY | O_BINARY;
#else
  constexpr auto how = O_RDONLY | O_CLOEXEC;
#endif
  auto const shown = "'" + path + "'";
  Descriptor const file(path.c_str(), how);
  if (file.number() < 0)
    throw std::runtime_error("cannot read " + shown + ": " + std::generic_category().message(errno));
  auto secret = read_secret(file.number(), shown);
  if (!secret || secret->empty()) throw std::runtime_error(shown + " has no secret in its first line");
  if (read_secret(file.number(), shown)) throw std::runtime_error(shown + " has more than one line");
  return std::move(*secret);
}

}  // namespace program
