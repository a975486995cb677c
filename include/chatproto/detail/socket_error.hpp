// SPDX-License-Identifier: BSL-1.0
/// @file
/// What has gone wrong with a socket.
#pragma once

#include <system_error>

#include <asio/error.hpp>
#include <asio/socket_base.hpp>

namespace chatproto::detail {

/// Whether nothing is wrong, but the socket has nothing to read now, or takes nothing.
inline bool would_block(std::error_code const& ec) noexcept {
  return ec == asio::error::would_block || ec == asio::error::try_again || ec == asio::error::interrupted;
}

/// What has gone wrong with `socket`, as its connecting, while nobody asked.
std::error_code error_of(auto& socket) {
  asio::detail::socket_option::integer<SOL_SOCKET, SO_ERROR> error;
  std::error_code ec;
  socket.get_option(error, ec);
  return ec ? ec : std::error_code(error.value(), asio::error::get_system_category());
}

}  // namespace chatproto::detail
