// SPDX-License-Identifier: BSL-1.0
/// @file
/// Functions that examine socket errors.
#pragma once

#include <system_error>

#include <asio/error.hpp>
#include <asio/socket_base.hpp>

namespace chatproto::detail {

/// Returns whether `ec` only means that the socket has nothing to read, or takes nothing, for now.
inline bool would_block(std::error_code const& ec) noexcept {
  return ec == asio::error::would_block || ec == asio::error::try_again || ec == asio::error::interrupted;
}

/// Returns the pending error of `socket` (SO_ERROR), such as that of a connect.
std::error_code error_of(auto& socket) {
  asio::detail::socket_option::integer<SOL_SOCKET, SO_ERROR> error;
  std::error_code ec;
  socket.get_option(error, ec);
  return ec ? ec : std::error_code(error.value(), asio::error::get_system_category());
}

}  // namespace chatproto::detail
