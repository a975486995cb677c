// SPDX-License-Identifier: BSL-1.0
/// @file
/// A link's socket operations: buffers, writing a batch, naming the other end.
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <string>
#include <system_error>

#include <asio/buffer.hpp>
#include <asio/error.hpp>
#include <asio/ip/tcp.hpp>

#include <chatproto/detail/addresses.hpp>
#include <chatproto/detail/server/link_rules.hpp>
#include <chatproto/detail/server/of_this_thread.hpp>
#include <chatproto/detail/socket_error.hpp>
#include <chatproto/layer.hpp>
#include <chatproto/service.hpp>

namespace chatproto::detail {

/// The most bytes to read, or to gather for a write, at once.
inline constexpr std::size_t io_size = 64 * 1024;

/// The buffers of a thread. An idle client has none.
struct ThreadBuffers {
  std::unique_ptr<char[]> read{new char[io_size]}, write{new char[io_size]};
  Output output;

  static ThreadBuffers& mine() { return of_this_thread<ThreadBuffers>(); }
};

/// Passes output to a layer as to a socket.
struct LayerOutput {
  Layer& layer;
  Layer::Result& held;  ///< the result of the last step; `bytes`: all bytes that the layer took

  std::size_t write_some(asio::const_buffer bytes, std::error_code& ec) {
    ec = asio::error::would_block;
    if (held.wait != Layer::Wait::nothing) return 0;
    auto const result = layer.write(static_cast<char const*>(bytes.data()), bytes.size());
    held = {held.bytes + result.bytes, result.wait, result.error};
    ec = result.error;
    return result.bytes;
  }
};

/// Writes the output until the socket takes no more. Returns the number of bytes written.
std::size_t write(auto& socket, ThreadBuffers& buffers, std::error_code& ec) {
  auto const& batch = buffers.output.batch;  // Clang 14 cannot capture structured bindings
  auto const& log = buffers.output.log;
  auto const count = batch.blocks.size() + log.count;
  auto const chunk_at = [&, blocks = batch.blocks.size(), skip = batch.offset](std::size_t i) {
    if (i >= blocks) return asio::const_buffer(log.pieces[i - blocks].data, log.pieces[i - blocks].size);
    return asio::buffer(*batch.blocks[i]) + (i == 0 ? skip : 0);
  };
  std::size_t written = 0;
  for (std::size_t i = 0; i < count;) {
    // One chunk is written from where it is; several are gathered, which is cheaper than writev.
    auto chunk = chunk_at(i++);
    if (i < count && chunk.size() + chunk_at(i).size() <= io_size) {
      auto* const gathered = buffers.write.get();
      auto size = chunk.size();
      std::memcpy(gathered, chunk.data(), size);
      for (; i < count && size + chunk_at(i).size() <= io_size; ++i) {
        std::memcpy(gathered + size, chunk_at(i).data(), chunk_at(i).size());
        size += chunk_at(i).size();
      }
      chunk = asio::const_buffer(gathered, size);
    }
    while (chunk.size() > 0) {
      auto const n = socket.write_some(chunk, ec);
      if (would_block(ec)) ec.clear();
      if (ec) return written;
      written += n;
      if (n < chunk.size()) return written;
      chunk += n;
    }
  }
  return written;
}

/// Returns an address and port as in a URL: "127.0.0.1:47374", "[::1]:47374".
inline std::string to_text(asio::ip::tcp::endpoint const& endpoint) {
  auto const address = unmapped(endpoint.address());
  auto const text = address.to_string();
  return (address.is_v6() ? '[' + text + ']' : text) + ':' + std::to_string(endpoint.port());
}

/// Returns what a client's address tells of it.
inline ClientInfo info_of(asio::ip::tcp::endpoint const& endpoint) {
  return {.address = to_text(endpoint), .is_loopback = unmapped(endpoint.address()).is_loopback()};
}

/// Returns what the other end of `socket` tells of the client. The address is empty if the other end is gone.
ClientInfo info_of(auto const& socket) {
  std::error_code ec;
  auto const endpoint = socket.remote_endpoint(ec);
  return ec ? ClientInfo() : info_of(endpoint);
}

}  // namespace chatproto::detail
