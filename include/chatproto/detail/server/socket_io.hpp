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

#include <chatproto/detail/server/link_rules.hpp>
#include <chatproto/detail/server/of_this_thread.hpp>
#include <chatproto/detail/socket_error.hpp>

namespace chatproto::detail {

/// The most bytes to read, or to gather for a write, at once.
inline constexpr std::size_t io_size = 64 * 1024;

/// The buffers of a thread. An idle client has none.
struct ThreadBuffers {
  std::unique_ptr<char[]> read{new char[io_size]}, write{new char[io_size]};
  Output output;

  static ThreadBuffers& mine() { return of_this_thread<ThreadBuffers>(); }
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

/// Returns the other end's address and port as in a URL: "127.0.0.1:47374", "[::1]:47374". Empty if the other end is
/// gone.
std::string remote_address(auto const& socket) {
  std::error_code ec;
  auto const endpoint = socket.remote_endpoint(ec);
  if (ec) return {};
  auto const address = endpoint.address();
  auto const is_mapped = address.is_v6() && address.to_v6().is_v4_mapped();  // an IPv4 client of an IPv6 socket
  auto text =
      is_mapped ? asio::ip::make_address_v4(asio::ip::v4_mapped, address.to_v6()).to_string() : address.to_string();
  if (address.is_v6() && !is_mapped) text = '[' + text + ']';
  return text + ':' + std::to_string(endpoint.port());
}

}  // namespace chatproto::detail
