// SPDX-License-Identifier: BSL-1.0
/// @file
/// Listens and accepts, whatever happens.
#pragma once

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <asio/basic_stream_socket.hpp>
#include <asio/buffer.hpp>
#include <asio/error.hpp>
#include <asio/ip/tcp.hpp>

#include <chatproto/detail/listener.hpp>
#include <chatproto/listen.hpp>

namespace chatproto::detail {

/// Accepts the clients of a `Host` (a `Server`), each on an executor of the host's policy.
///
/// Used on the host's own context only. An error never ends it. It asks again at once if one connection was lost; if
/// descriptors or memory are short, and after errors that it does not know, after 10 ms, doubling to 1 s.
template <class Host, class Policy>
class Acceptor {
 public:
  /// Listens on one address, or on all if it is empty. Throws `std::system_error`.
  Acceptor(Host& host, std::string const& address, std::uint16_t port)
      : host_(host), acceptor_(host.context()), retry_(host.context()) {
    listen(acceptor_, port, address);
    acceptor_.non_blocking(true);
    port_ = acceptor_.local_endpoint().port();
  }

  std::uint16_t port() const noexcept { return port_; }

  void start() { accept_when_ready(); }

  void stop() {
    listener_.close();
    retry_.cancel();
    next_executor_.reset();
  }

 private:
  using tcp = asio::ip::tcp;
  using Executor = typename Policy::executor_type;
  using Socket = asio::basic_stream_socket<tcp, ContextExecutor>;  // of who is refused

  void accept_when_ready() {
    if (!acceptor_.is_open()) return;
    listener_.async_wait([this](std::error_code const& ec) {
      if (!acceptor_.is_open()) return;
      if (ec) return accept_later();
      accept();
    });
  }

  void accept_later() {
    retry_.expires_after(retry_delay_);
    retry_delay_ = std::min<std::chrono::milliseconds>(2 * retry_delay_, std::chrono::seconds(1));
    retry_.async_wait([this](std::error_code const&) { accept_when_ready(); });
  }

  void accept() {
    for (auto i = 0; i < 64; ++i) {  // then the host's timers have their turn
      std::error_code ec;
      try {
        accept_one(ec);
      } catch (std::system_error const& error) {
        ec = error.code();
      } catch (...) {
        ec = asio::error::no_memory;
      }
      if (ec == asio::error::would_block || ec == asio::error::try_again) break;
      if (!ec)
        retry_delay_ = first_delay;
      else if (ec != asio::error::connection_aborted && ec != asio::error::interrupted && ec != system_error(EPROTO))
        return accept_later();
    }
    accept_when_ready();
  }

  void accept_one(std::error_code& ec) {
    if (!next_executor_) {
      try {
        next_executor_.emplace(host_.policy_.next_executor());
      } catch (std::system_error const& error) {
        if (is_shortage(error.code())) throw;
        return refuse_one(ec);
      }
    }
    asio::basic_stream_socket<tcp, Executor> socket(*next_executor_);
    listener_.take(socket, ec);
    if (ec) return;
    next_executor_.reset();
    host_.add(std::move(socket));
  }

  /// No thread could be made for a client: it is told, and the others are served.
  void refuse_one(std::error_code& ec) {
    auto const socket = std::make_shared<Socket>(host_.context());
    listener_.take(*socket, ec);
    if (ec) return;
    std::error_code ignored;
    socket->non_blocking(true, ignored);
    socket->write_some(asio::buffer(std::string_view("err:server full\n")), ignored);
    socket->shutdown(asio::socket_base::shutdown_send, ignored);
    auto const timer = std::make_shared<ContextTimer>(host_.context(), host_.options().linger);
    timer->async_wait([socket, timer](std::error_code const&) {
      std::error_code closed;
      socket->close(closed);
    });
    drop_input(socket, timer);
  }

  /// What a refused client sends must not reset the connection, see `Link`.
  static void drop_input(std::shared_ptr<Socket> const& socket, std::shared_ptr<ContextTimer> const& timer) {
    socket->async_wait(asio::socket_base::wait_read, [socket, timer](std::error_code ec) {
      char dropped[4096];
      if (!ec) socket->read_some(asio::buffer(dropped), ec);
      if (ec && ec != asio::error::would_block) return static_cast<void>(timer->cancel());
      drop_input(socket, timer);
    });
  }

  static std::error_code system_error(int value) noexcept { return {value, asio::error::get_system_category()}; }

  static bool is_shortage(std::error_code const& ec) noexcept {
    // Asio's category does not map all of its errors to std::errc.
    return ec == asio::error::no_descriptors || ec == system_error(ENFILE) || ec == asio::error::no_buffer_space ||
           ec == asio::error::no_memory || ec == std::errc::too_many_files_open ||
           ec == std::errc::too_many_files_open_in_system || ec == std::errc::no_buffer_space ||
           ec == std::errc::not_enough_memory;
  }

  static constexpr auto first_delay = std::chrono::milliseconds(10);

  Host& host_;
  ContextAcceptor acceptor_;
  Listener listener_{acceptor_};
  ContextTimer retry_;
  std::chrono::milliseconds retry_delay_ = first_delay;
  std::optional<Executor> next_executor_;  // made for a client that was not there after all
  std::uint16_t port_ = 0;
};

}  // namespace chatproto::detail
