// SPDX-License-Identifier: BSL-1.0
/// @file
/// Reading from and writing to a socket of the system that does not block.
#pragma once

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstddef>
#include <system_error>

#ifdef _WIN32
#include <winsock2.h>
#else
#include <sys/socket.h>
#endif

#include <chatproto/layer.hpp>

namespace chatproto::detail {

inline std::error_code last_socket_error() noexcept {
#ifdef _WIN32
  return {::WSAGetLastError(), std::system_category()};
#else
  return {errno, std::system_category()};
#endif
}
#ifdef _WIN32
inline int io_size_of(std::size_t size) noexcept { return static_cast<int>(std::min<std::size_t>(size, INT_MAX)); }
#else
inline std::size_t io_size_of(std::size_t size) noexcept { return size; }
#endif

/// The flag by which sending to a connection that is gone raises no signal, where there is one.
#ifdef MSG_NOSIGNAL
inline constexpr int no_signal = MSG_NOSIGNAL;
#else
inline constexpr int no_signal = 0;
#endif

/// Calls `call`, which moves bytes, until it is not interrupted. Returns how many it moved. 0: `ended`, or `ec` says
/// why, or it would block.
std::size_t move_bytes(auto const& call, bool& ended, std::error_code& ec) {
  for (;;) {
    auto const n = call();
    ended = n == 0;
    if (n >= 0) return static_cast<std::size_t>(n);
    auto const error = last_socket_error();
    if (error == std::errc::interrupted) continue;
    if (error != std::errc::operation_would_block && error != std::errc::resource_unavailable_try_again) ec = error;
    return 0;
  }
}

/// Receives at most `size` bytes.
inline std::size_t receive_some(NativeSocket socket, char* bytes, std::size_t size, bool& ended, std::error_code& ec) {
  return move_bytes([&] { return ::recv(socket, bytes, io_size_of(size), 0); }, ended, ec);
}
/// Sends at most `size` bytes, without a signal if the connection is gone. `more_follows`: the system may wait for
/// more.
inline std::size_t send_some(NativeSocket socket, char const* bytes, std::size_t size,
                             [[maybe_unused]] bool more_follows, std::error_code& ec) {
  auto flags = no_signal;
#ifdef MSG_MORE
  if (more_follows) flags |= MSG_MORE;
#endif
  bool ended = false;
  return move_bytes([&] { return ::send(socket, bytes, io_size_of(size), flags); }, ended, ec);
}

}  // namespace chatproto::detail
