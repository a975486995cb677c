// SPDX-License-Identifier: BSL-1.0
/// @file
/// Waiting for a client, and taking it, on systems where these differ.
#pragma once

#include <cstddef>
#include <system_error>
#include <utility>

#include <asio/basic_socket_acceptor.hpp>
#include <asio/error.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/socket_base.hpp>
#include <asio/steady_timer.hpp>
#ifdef _WIN32
#include <asio/windows/overlapped_ptr.hpp>
#endif

namespace chatproto::detail {

// Asio's own names for an acceptor and a timer take any executor, at run time; that alone costs the compiler a tenth of a
// server's time. These belong to a server's own context.
using ContextExecutor = asio::io_context::executor_type;
using ContextAcceptor = asio::basic_socket_acceptor<asio::ip::tcp, ContextExecutor>;
using ContextTimer = asio::steady_timer::rebind_executor<ContextExecutor>::other;

/// The clients who come to an acceptor that does not block. Used on its context only.
///
/// To wait and then to take lets the client choose its executor when it is there.
class Listener {
 public:
  explicit Listener(ContextAcceptor& acceptor) : acceptor_(acceptor) {}
  Listener(Listener const&) = delete;
  Listener& operator=(Listener const&) = delete;

#ifndef _WIN32
  /// Calls `handler` when there is a client, or with what went wrong.
  void async_wait(auto handler) { acceptor_.async_wait(asio::socket_base::wait_read, std::move(handler)); }

  /// Takes it; `would_block` if there is none.
  void take(auto& socket, std::error_code& ec) { acceptor_.accept(socket, ec); }

  /// Nobody is waited for or taken any more; who has not been taken is cut.
  void close() {
    std::error_code ignored;
    acceptor_.close(ignored);
  }

 private:
#else
  // Asio's wait_read is a read there, which a listener cannot, and its accept ties the client to an executor before there
  // is one. So the system accepts into a socket that Asio does not know yet.
  ~Listener() { drop(); }

  void async_wait(auto handler) {
    if (!there_) drop();
    auto const family = acceptor_.local_endpoint().protocol().family();
    if (!there_) client_ = ::WSASocketW(family, SOCK_STREAM, IPPROTO_TCP, nullptr, 0, WSA_FLAG_OVERLAPPED);
    asio::windows::overlapped_ptr operation(
        acceptor_.get_executor(), [this, handler = std::move(handler)](std::error_code const& ec, std::size_t) {
          there_ = client_ != INVALID_SOCKET && (there_ || !ec);
          handler(ec);
        });
    if (there_) return operation.complete({}, 0);
    DWORD received = 0;
    auto const done = ::AcceptEx(acceptor_.native_handle(), client_, addresses_, 0, sizeof addresses_ / 2,
                                 sizeof addresses_ / 2, &received, operation.get());
    std::error_code const ec(done ? 0 : ::WSAGetLastError(), asio::error::get_system_category());
    if (ec && ec.value() != ERROR_IO_PENDING) return operation.complete(ec, 0);
    operation.release();
  }

  void take(auto& socket, std::error_code& ec) {
    ec = asio::error::would_block;
    if (!there_) return;
    auto listener = acceptor_.native_handle();
    ::setsockopt(client_, SOL_SOCKET, SO_UPDATE_ACCEPT_CONTEXT, reinterpret_cast<char const*>(&listener),
                 sizeof listener);
    socket.assign(acceptor_.local_endpoint().protocol(), client_, ec);
    if (ec) return drop();
    there_ = false;
    client_ = INVALID_SOCKET;
  }

  void close() {
    std::error_code ignored;
    acceptor_.close(ignored);
    drop();
  }

 private:
  void drop() {
    if (client_ != INVALID_SOCKET) ::closesocket(client_);
    there_ = false;
    client_ = INVALID_SOCKET;
  }

  SOCKET client_ = INVALID_SOCKET;  // who is there, or is waited for
  bool there_ = false;
  char addresses_[2 * (sizeof(sockaddr_in6) + 16)];
#endif
  ContextAcceptor& acceptor_;
};

}  // namespace chatproto::detail
