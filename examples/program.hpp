// SPDX-License-Identifier: BSL-1.0
/// @file
/// The common part of all programs: arguments, error messages, terminals.
#pragma once

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <ios>
#include <iostream>
#include <iterator>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#ifdef _WIN32
#include <io.h>
#else
#include <unistd.h>
#endif

#include <CLI/CLI.hpp>
#include <asio/error.hpp>
#include <asio/ip/address.hpp>

#include <chatproto/error.hpp>
#include <chatproto/version.hpp>

#include "visible.hpp"

#ifdef _WIN32
#include <shellapi.h>
#endif

namespace program {

// --- Terminals -------------------------------------------------------------------------------------------------------

inline bool is_terminal(std::FILE* stream) {
#ifdef _WIN32
  return _isatty(_fileno(stream)) != 0;
#else
  return isatty(fileno(stream)) != 0;
#endif
}

/// Makes bytes pass through a pipe or a file unchanged.
inline void pass_bytes([[maybe_unused]] std::FILE* stream) {
#ifdef _WIN32
  if (!is_terminal(stream)) _setmode(_fileno(stream), _O_BINARY);
#endif
}

/// If a program is started with stdin, stdout or stderr closed, its next socket would get that descriptor, and the
/// program would write messages into the socket. This fills each gap with a descriptor that can only fail: /dev/null,
/// opened for the wrong direction.
inline void occupy_standard_descriptors() {
#ifndef _WIN32
  for (auto const descriptor : {0, 1, 2})
    if (fcntl(descriptor, F_GETFD) == -1) open("/dev/null", descriptor == 0 ? O_WRONLY : O_RDONLY);
#endif
}

/// Returns `text` as it may be written to `stream`: made visible for a terminal, otherwise unchanged.
inline std::string shown(std::string_view text, std::FILE* stream) {
  return is_terminal(stream) ? visible(text) : std::string(text);
}

// --- Saying what is wrong --------------------------------------------------------------------------------------------

/// Prints one line on stdout, whole even when several threads print. Returns false if it could not be written. Waits
/// for the reader of stdout.
inline bool print(std::string_view line) {
  static std::mutex mutex;  // not std::osyncstream, which libc++ 19 does not have
  auto const text = shown(line, stdout) + '\n';
  auto& out = *std::cout.rdbuf();
  std::lock_guard const lock(mutex);
  return out.sputn(text.data(), static_cast<std::streamsize>(text.size())) == std::ssize(text) && out.pubsync() == 0;
}

/// As above, for a program that is useless without its output. Throws `std::runtime_error`.
inline void print_or_fail(std::string_view line) {
  errno = 0;
  if (!print(line)) throw std::runtime_error("cannot write: " + std::generic_category().message(errno));
}

/// Prints one line on stderr.
inline void complain(std::string_view line) { std::cerr << shown(line, stderr) + '\n' << std::flush; }

/// The server refused a message: `what()` is exactly its reason.
struct Refused : std::runtime_error {
  using runtime_error::runtime_error;
};

/// Several things are wrong, for instance in several files.
class Errors : public std::runtime_error {
 public:
  /// There must be one at least.
  explicit Errors(std::vector<std::string> all) : runtime_error(joined(all)), all_(std::move(all)) {}
  std::vector<std::string> const& all() const noexcept { return all_; }

 private:
  static std::string joined(std::vector<std::string> const& all) {
    auto text = all.front();
    for (auto next = all.begin() + 1; next != all.end(); ++next) text += "; " + *next;
    return text;
  }
  std::vector<std::string> all_;
};

/// Does several things of which each may fail, and then says what has failed.
class Attempts {
 public:
  void attempt(auto const& action) {
    try {
      action();
    } catch (Errors const& errors) {
      errors_.insert(errors_.end(), errors.all().begin(), errors.all().end());
    } catch (std::runtime_error const& error) {
      errors_.emplace_back(error.what());
    }
  }
  /// Throws `Errors` if anything has failed.
  void require_success() const {
    if (!errors_.empty()) throw Errors(errors_);
  }

 private:
  std::vector<std::string> errors_;
};

/// Describes why the connection to the server failed.
inline std::string describe(std::error_code const& ec) {
  if (ec == asio::error::eof) return "the server has closed the connection";
  if (ec == asio::error::timed_out) return "the server does not answer";
  if (ec.category() == chatproto::chatproto_category())
    return "the server does not speak the protocol: " + ec.message();
  return "lost the connection: " + ec.message();
}

// --- Arguments -------------------------------------------------------------------------------------------------------

/// Accepts an argument that is a whole number in decimal digits and nothing else.
inline CLI::Validator decimal(std::uint64_t least, std::uint64_t most) {
  auto const range = std::to_string(least) + " to " + std::to_string(most);
  auto const check = [=](std::string& text) {
    std::uint64_t value = 0;
    auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value < least || value > most)
      return "'" + text + "' is not a number from " + range;
    text = std::to_string(value);  // CLI11 would read 010 as 8
    return std::string();
  };
  return {check, range};
}

/// Adds an option in seconds, which may have a fraction.
inline void add_seconds(CLI::App& app, std::string const& name, std::chrono::milliseconds& time,
                        std::string const& description) {
  auto const check = [](std::string const& text) {
    auto const digits =
        text.find_first_not_of("0123456789.") == text.npos && text.find_first_of("0123456789") != text.npos;
    auto const plain = digits && text.size() < 10 && std::count(text.begin(), text.end(), '.') <= 1;
    return plain ? std::string() : "'" + text + "' is not a number of seconds";
  };
  auto const set = [&time](double seconds) {
    time = std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1000));
  };
  app.add_option_function<double>(name, set, description)
      ->check(check, "")
      ->type_name("SECONDS")
      ->default_str(CLI::detail::to_string(static_cast<double>(time.count()) / 1000));
}

/// Checks an option that is an IP address.
inline std::string check_address(std::string const& text) {
  std::error_code ec;
  asio::ip::make_address(text, ec);
  return ec ? "'" + text + "' is not an IP address" : std::string();
}

#ifdef _WIN32
/// Returns the arguments without the program's name, in UTF-8, because main() gets them in the system's code page. The
/// last comes first, as CLI11 expects.
inline std::vector<std::string> utf8_arguments() {
  auto count = 0;
  auto* const arguments = ::CommandLineToArgvW(::GetCommandLineW(), &count);
  std::vector<std::string> result;
  for (auto i = count - 1; i > 0; --i) {
    auto const size = ::WideCharToMultiByte(CP_UTF8, 0, arguments[i], -1, nullptr, 0, nullptr, nullptr);
    std::string text(static_cast<std::size_t>(size), '\0');
    ::WideCharToMultiByte(CP_UTF8, 0, arguments[i], -1, text.data(), size, nullptr, nullptr);
    text.pop_back();  // the NUL
    result.push_back(std::move(text));
  }
  ::LocalFree(arguments);
  return result;
}
#endif

/// Reads the arguments into the options of `app`, which gets the name that the program was called by, and runs the
/// program. Returns its exit code. An exception becomes one line on stderr and exit code 1.
template <class Body>
int run(CLI::App& app, int argc, char** argv, Body body) {
  occupy_standard_descriptors();
  pass_bytes(stdin);
  pass_bytes(stdout);
  pass_bytes(stderr);
  std::filesystem::path const called(argc > 0 ? argv[0] : "chatproto");
  app.name((called.extension() == ".exe" ? called.stem() : called.filename()).string());
  auto const version = std::to_string(CHATPROTO_VERSION_MAJOR) + '.' + std::to_string(CHATPROTO_VERSION_MINOR) + '.' +
                       std::to_string(CHATPROTO_VERSION_PATCH);
  app.set_version_flag("--version", app.get_name() + " of chatproto " + version);
  std::string usage = "usage: " + app.get_name();
  auto const flags = app.get_options([](CLI::Option const* o) { return !o->get_positional(); });
  if (flags.size() > 2) usage += " [OPTION]...";  // more than --help and --version
  for (auto const* option : app.get_options([](CLI::Option const* o) { return o->get_positional(); }))
    usage += ' ' + option->get_name();
  auto const say = [&](std::string const& what) { complain(app.get_name() + ": " + visible(what)); };
  try {
#ifdef _WIN32
    app.parse(utf8_arguments());
#else
    app.parse(argc, argv);
#endif
    return body();
  } catch (CLI::Success const& help_or_version) {
    return app.exit(help_or_version);
  } catch (CLI::ValidationError const& error) {
    say(error.what() + (" (" + usage + ')'));
  } catch (CLI::ParseError const& error) {
    complain(usage + " (" + visible(error.what()) + "; see --help)");
  } catch (Refused const& refused) {
    complain(refused.what());
  } catch (Errors const& errors) {
    for (auto const& error : errors.all()) say(error);
  } catch (std::system_error const& error) {
    say(describe(error.code()));
  } catch (std::exception const& error) {
    say(error.what());
  }
  return 1;
}

}  // namespace program
