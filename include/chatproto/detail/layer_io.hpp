// SPDX-License-Identifier: BSL-1.0
/// @file
/// Reading through a layer as from a socket, at both ends of a connection.
#pragma once

#include <cstddef>
#include <system_error>

#include <asio/error.hpp>

#include <chatproto/layer.hpp>

namespace chatproto::detail {

/// Reads at most `size` bytes. `ec` is `asio::error::eof` if the other end has closed its side, or
/// `asio::error::would_block`; `wait` then says what for.
inline std::size_t read_some(Layer& layer, char* bytes, std::size_t size, Layer::Wait& wait, std::error_code& ec) {
  auto const result = layer.read_some(bytes, size);
  wait = result.wait;
  ec = result.error;
  if (!ec && wait != Layer::Wait::nothing)
    ec = asio::error::would_block;
  else if (!ec && result.bytes == 0)
    ec = asio::error::eof;
  return result.bytes;
}

}  // namespace chatproto::detail
