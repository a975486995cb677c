// SPDX-License-Identifier: BSL-1.0
/// @file
/// What a link does with its socket: buffers, writing a batch, naming the other end.
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <string>
#include <system_error>

#include <asio/buffer.hpp>
#include <asio/error.hpp>
#include <asio/ip/tcp.hpp>

#include <chatproto/detail/of_this_thread.hpp>
#include <chatproto/message_queue.hpp>

namespace chatproto::detail {

/// How much is read, or gathered to be written, at once: bytes.
inline constexpr std::size_t io_size = 64 * 1024;

/// The buffers of a thread. An idle client holds none.
struct ThreadBuffers {
  std::unique_ptr<char[]> read{new char[io_size]}, write{new char[io_size]};
  MessageQueue::Batch batch;

  static ThreadBuffers& mine() { return of_this_thread<ThreadBuffers>(); }
};

inline bool would_block(std::error_code const& ec) noexcept {
  return ec == asio::error::would_block || ec == asio::error::try_again || ec == asio::error::interrupted;
}

/// Writes the drained batch as far as the peer takes it, and counts the bytes; true: all of it.
bool write(auto& socket, ThreadBuffers& buffers, std::size_t& written, std::error_code& ec) {
  auto const& blocks = buffers.batch.blocks;
  auto skip = buffers.batch.offset;
  for (std::size_t i = 0; i < blocks.size();) {
    // One block goes straight from where it lies; several are gathered, which is cheaper than writev.
    asio::const_buffer chunk(blocks[i]->data() + skip, blocks[i]->size() - skip);
    auto next = i + 1;
    if (next < blocks.size() && chunk.size() + blocks[next]->size() <= io_size) {
      auto* const gathered = buffers.write.get();
      auto size = chunk.size();
      std::memcpy(gathered, chunk.data(), size);
      for (; next < blocks.size() && size + blocks[next]->size() <= io_size; ++next) {
        std::memcpy(gathered + size, blocks[next]->data(), blocks[next]->size());
        size += blocks[next]->size();
      }
      chunk = asio::const_buffer(gathered, size);
    }
    while (chunk.size() > 0) {
      auto const n = socket.write_some(chunk, ec);
      if (would_block(ec)) ec.clear();
      if (ec) return false;
      written += n;
      if (n < chunk.size()) return false;
      chunk += n;
    }
    i = next;
    skip = 0;
  }
  return true;
}

/// Address and port of the other end as they are written in a URL: "127.0.0.1:47374", "[::1]:47374". Empty if it has gone.
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
