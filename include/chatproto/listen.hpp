// SPDX-License-Identifier: BSL-1.0
/// @file
/// `listen`, which sets up an acceptor for a server.
#pragma once

#include <cstdint>
#include <exception>
#include <string>
#include <system_error>

#include <asio/basic_socket_acceptor.hpp>
#include <asio/ip/address.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/ip/v6_only.hpp>
#include <asio/socket_base.hpp>
#ifndef _WIN32
#include <fcntl.h>
#endif

namespace chatproto {

/// Opens `acceptor`, binds it and starts to listen, as `Server` does: on `address`, or, if that is empty, on all
/// addresses: IPv6 and IPv4, or only IPv4 if the system cannot do both with one socket.
///
/// Port 0 selects a free port, see `acceptor.local_endpoint()`. A server can restart on its port at once, and no two
/// servers can have the same port. Child processes do not inherit the socket. Throws `std::system_error`, whose text
/// names the port.
///
/// Thread safety: distinct objects: safe. Shared objects: unsafe.
template <class Executor>
void listen(asio::basic_socket_acceptor<asio::ip::tcp, Executor>& acceptor, std::uint16_t port,
            std::string const& address = {}) {
  using asio::ip::tcp;
  try {
    std::error_code ec;
    tcp::endpoint endpoint(tcp::v6(), port);
    if (!address.empty()) endpoint = {asio::ip::make_address(address), port};
    acceptor.open(endpoint.protocol(), ec);
    if (!ec && address.empty()) acceptor.set_option(asio::ip::v6_only(false), ec);
    if (ec && address.empty()) {  // a machine without IPv6, or whose IPv6 sockets take no IPv4, as OpenBSD's
      std::error_code ignored;
      acceptor.close(ignored);
      endpoint = {tcp::v4(), port};
      acceptor.open(endpoint.protocol(), ec);
    }
    if (ec) throw std::system_error(ec);
#ifdef _WIN32
    ::SetHandleInformation(reinterpret_cast<HANDLE>(static_cast<SOCKET>(acceptor.native_handle())), HANDLE_FLAG_INHERIT,
                           0);
#else
    ::fcntl(acceptor.native_handle(), F_SETFD, FD_CLOEXEC);
#endif
#ifdef _WIN32  // on Windows SO_REUSEADDR would let a second server take the port
    acceptor.set_option(asio::detail::socket_option::boolean<SOL_SOCKET, SO_EXCLUSIVEADDRUSE>(true));
#else  // allows a restart at once
    acceptor.set_option(asio::socket_base::reuse_address(true));
#endif
    acceptor.bind(endpoint);
    acceptor.listen(4096);  // the system reduces this to what it allows
  } catch (std::system_error const& error) {
    auto const where = (address.empty() ? "" : address + ' ') + "port " + std::to_string(port);
    throw std::system_error(error.code(), "cannot listen on " + where);
  }
}

}  // namespace chatproto
