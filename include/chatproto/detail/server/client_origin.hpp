// SPDX-License-Identifier: BSL-1.0
/// @file
/// `ClientOrigin`, where a client comes from, and `ProxyLayer`, which learns it from a proxy.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>
#include <system_error>

#include <asio/buffer.hpp>
#include <asio/error.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/socket_base.hpp>

#include <chatproto/address_limits.hpp>
#include <chatproto/detail/server/proxy_header.hpp>
#include <chatproto/detail/server/socket_io.hpp>
#include <chatproto/detail/socket_error.hpp>
#include <chatproto/layer.hpp>
#include <chatproto/observer.hpp>

namespace chatproto::detail {

/// Where a client comes from. A link has one only if its server has limits by address, bans or proxies.
struct ClientOrigin {
  asio::ip::tcp::endpoint endpoint;  ///< of the client; of its proxy while `awaits_header`
  bool awaits_header = false;        ///< of the PROXY protocol
  LayerFactory* layers = nullptr;    ///< of the listener; may be null
  AddressLimits::Place place = {};
};

/// Returns the line that tells a client why it is refused.
inline std::string_view refusal_line(RefusalReason reason) noexcept {
  switch (reason) {
    case RefusalReason::too_many: return "err:too many clients from your address\n";
    case RefusalReason::too_fast: return "err:too many new clients from your address, try again later\n";
    case RefusalReason::banned: return "err:your address is banned\n";
    case RefusalReason::full: break;
  }
  return "err:server full\n";
}

/// Reads the header of the PROXY protocol as the handshake of a layer, which then ends. Reads nothing that follows.
template <class Socket>
class ProxyLayer final : public Layer {
 public:
  explicit ProxyLayer(Socket& socket) : socket_(socket) {}

  Result handshake() override {
    auto* const bytes = ThreadBuffers::mine().read.get();
    std::error_code ec;
    auto const size = socket_.receive(asio::buffer(bytes, io_size), asio::socket_base::message_peek, ec);
    if (would_block(ec)) return {.wait = Wait::read};
    // Not left in the socket: the wait for more would end at once.
    if (!ec) socket_.receive(asio::buffer(bytes, header_.feed({bytes, size})), 0, ec);
    if (!ec && header_.state() == ProxyHeader::State::invalid) ec = make_error_code(std::errc::protocol_error);
    return {.wait = header_.state() == ProxyHeader::State::incomplete ? Wait::read : Wait::nothing, .error = ec};
  }
  /// The client, once the handshake is done; empty: the proxy itself.
  std::optional<asio::ip::tcp::endpoint> const& client() const noexcept { return header_.client(); }

  Result read_some(char*, std::size_t) override { return {}; }
  Result write(char const*, std::size_t) override { return {}; }
  Result flush() override { return {}; }
  bool has_input() const noexcept override { return false; }
  void close_output() noexcept override {}

 private:
  Socket& socket_;
  ProxyHeader header_;
};

}  // namespace chatproto::detail
