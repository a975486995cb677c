// SPDX-License-Identifier: BSL-1.0
/// @file
/// What a server program and a service manager, such as systemd, tell each other: the sockets that the manager has
/// opened for the program (sd_listen_fds(3)), and the program's state (sd_notify(3)). Both take so few lines that no
/// program needs libsystemd. On Windows they do nothing.
#pragma once

#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#ifndef _WIN32
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#endif

namespace program {

// --- Sockets ---------------------------------------------------------------------------------------------------------

/// A TCP socket that listens already.
struct ManagedSocket {
  int descriptor = -1;
  std::string name;  ///< "unknown" if the service manager gave it none
};

#ifndef _WIN32

/// Returns the value of an environment variable as a number. Throws `std::runtime_error` if it is none in this range.
inline int number_in(char const* variable, std::string_view value, int most) {
  int number = 0;
  auto const [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error == std::errc() && end == value.data() + value.size() && number >= 1 && number <= most) return number;
  throw std::runtime_error(std::string(variable) + " is '" + std::string(value) + "', not a number from 1 to " +
                           std::to_string(most));
}

/// Returns whether this descriptor is a TCP socket that listens.
inline bool listens(int descriptor) {
  auto const option = [&](int name) {
    int value = -1;
    socklen_t size = sizeof value;
    return ::getsockopt(descriptor, SOL_SOCKET, name, &value, &size) == 0 ? value : -1;
  };
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  return option(SO_TYPE) == SOCK_STREAM && option(SO_ACCEPTCONN) == 1 &&
         ::getsockname(descriptor, reinterpret_cast<sockaddr*>(&address), &size) == 0 &&
         (address.ss_family == AF_INET || address.ss_family == AF_INET6);
}

/// Returns the sockets that the service manager has opened for this process. Empty if it has opened none, or if the
/// variables are meant for another process. Throws `std::runtime_error` if the variables are wrong, or a descriptor is
/// not a TCP socket that listens.
inline std::vector<ManagedSocket> managed_sockets() {
  auto const *const process = std::getenv("LISTEN_PID"), *const amount = std::getenv("LISTEN_FDS");
  if (process == nullptr || amount == nullptr) return {};
  if (number_in("LISTEN_PID", process, 1 << 30) != ::getpid()) return {};
  constexpr auto first = 3;
  std::vector<ManagedSocket> sockets(static_cast<std::size_t>(number_in("LISTEN_FDS", amount, 100)));
  auto const* const all_names = std::getenv("LISTEN_FDNAMES");
  std::string_view names = all_names != nullptr ? all_names : "";
  for (std::size_t i = 0; i < sockets.size(); ++i) {
    auto& socket = sockets[i];
    socket.descriptor = first + static_cast<int>(i);
    auto const end = names.find(':');
    socket.name = all_names != nullptr ? names.substr(0, end) : "unknown";
    if (all_names != nullptr && (end == names.npos) != (i + 1 == sockets.size()))
      throw std::runtime_error("LISTEN_FDNAMES is '" + std::string(all_names) + "', but LISTEN_FDS is " + amount);
    names.remove_prefix(end == names.npos ? names.size() : end + 1);
    if (!listens(socket.descriptor))
      throw std::runtime_error("descriptor " + std::to_string(socket.descriptor) + " ('" + socket.name +
                               "', of LISTEN_FDS) is not a TCP socket that listens");
  }
  return sockets;
}

#else
inline std::vector<ManagedSocket> managed_sockets() { return {}; }
#endif

// --- Notifications ---------------------------------------------------------------------------------------------------

/// Notifies the service manager that has started the program, if that asked for it (NOTIFY_SOCKET).
///
/// Thread safety: distinct objects: safe. Shared objects: safe.
class ServiceManager {
 public:
  /// Throws `std::runtime_error` if NOTIFY_SOCKET is not the address of a local socket.
  ServiceManager() {
#ifndef _WIN32
    auto const* const name = std::getenv("NOTIFY_SOCKET");
    if (name == nullptr) return;
    name_ = name;
    auto const is_abstract = name_.starts_with('@');
    if ((!is_abstract && !name_.starts_with('/')) || name_.size() < 2 || name_.size() >= sizeof address_.sun_path)
      throw std::runtime_error("NOTIFY_SOCKET is '" + name_ + "', neither a path nor '@' and a name, or too long");
    address_.sun_family = AF_UNIX;
    name_.copy(address_.sun_path, name_.size());
    if (is_abstract) address_.sun_path[0] = '\0';
    // The name of an abstract socket ends with the address, a path with a NUL.
    size_ = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name_.size() + (is_abstract ? 0 : 1));
#endif
  }

  /// The program serves. Throws `std::runtime_error` if the service manager cannot be notified: it would wait in vain.
  void ready(std::string_view status) const {
    if (auto const error = notify("READY=1\nSTATUS=" + std::string(status)))
      throw std::runtime_error("cannot notify the service manager at '" + name_ + "': " + error.message());
  }
  /// The program reads its files again, until it says `reloaded`.
  void reloading() const {
#ifndef _WIN32
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);  // the clock that the service manager reads too
    notify("RELOADING=1\nMONOTONIC_USEC=" + std::to_string(now.tv_sec * std::int64_t(1'000'000) + now.tv_nsec / 1000));
#endif
  }
  void reloaded(std::string_view status) const { notify("READY=1\nSTATUS=" + std::string(status)); }
  /// The program stops, which may take this time.
  void stopping(std::chrono::microseconds time) const {
    notify("STOPPING=1\nSTATUS=Stopping\nEXTEND_TIMEOUT_USEC=" + std::to_string(time.count()));
  }

 private:
  /// Sends one datagram. Returns the error, if there is one.
  std::error_code notify([[maybe_unused]] std::string_view state) const noexcept {
#ifndef _WIN32
    if (name_.empty()) return {};
    auto const socket = ::socket(AF_UNIX, SOCK_DGRAM, 0);
    if (socket < 0) return {errno, std::generic_category()};
    ::fcntl(socket, F_SETFD, FD_CLOEXEC);
    auto const sent =
        ::sendto(socket, state.data(), state.size(), 0, reinterpret_cast<sockaddr const*>(&address_), size_);
    std::error_code const error(sent < 0 ? errno : 0, std::generic_category());
    ::close(socket);
    return error;
#else
    return {};
#endif
  }

  std::string name_;
#ifndef _WIN32
  sockaddr_un address_ = {};
  socklen_t size_ = 0;
#endif
};

}  // namespace program
