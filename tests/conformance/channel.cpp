// SPDX-License-Identifier: BSL-1.0
#include "channel.hpp"

#include <random>

#include <asio/buffer.hpp>
#include <asio/error.hpp>
#include <asio/ip/address_v4.hpp>
#include <asio/ip/address_v6.hpp>
#include <asio/post.hpp>
#include <asio/socket_base.hpp>
#include <asio/write.hpp>

#include "process.hpp"

namespace conformance {

using asio::ip::tcp;

namespace {

class SocketChannel : public Channel {
 public:
  explicit SocketChannel(tcp::socket socket) : socket_(std::move(socket)) {
    std::error_code ignored;
    socket_.set_option(tcp::no_delay(true), ignored);
  }

  void read(char* data, std::size_t size, Done done) override {
    socket_.async_read_some(asio::buffer(data, size), std::move(done));
  }

  void write(std::string_view bytes, Done done) override {
    asio::async_write(socket_, asio::buffer(bytes.data(), bytes.size()), std::move(done));
  }

  void finish() override {
    std::error_code ignored;
    socket_.shutdown(tcp::socket::shutdown_send, ignored);
  }

  void close() override {
    std::error_code ignored;
    socket_.close(ignored);
  }

  void reset() override {
    std::error_code ignored;
    socket_.set_option(asio::socket_base::linger(true, 0), ignored);
    socket_.close(ignored);
  }

 private:
  tcp::socket socket_;
};

std::uint16_t some_port() {
  constexpr unsigned first = 20000;
  constexpr unsigned count = 12000;
  static unsigned next = std::random_device{}();  // consecutive, so that no two plays get the same port
  return static_cast<std::uint16_t>(first + next++ % count);
}

/// Returns an acceptor on the loopback address. Throws std::system_error if the port is in use.
tcp::acceptor listen_on(asio::any_io_executor const& executor, asio::ip::address const& address, std::uint16_t port) {
  tcp::endpoint const endpoint(address, port);
  tcp::acceptor acceptor(executor);
  acceptor.open(endpoint.protocol());
  keep_from_programs(acceptor.native_handle());
#ifndef _WIN32                                              // there it means something else
  acceptor.set_option(tcp::acceptor::reuse_address(true));  // or connections that ended a minute ago keep it taken
#endif
  acceptor.bind(endpoint);
  acceptor.listen();
  return acceptor;
}

asio::ip::address loopback4() { return asio::ip::address_v4::loopback(); }
asio::ip::address loopback6() { return asio::ip::address_v6::loopback(); }

std::vector<tcp::acceptor> listen_on_both(asio::any_io_executor const& executor, std::uint16_t port) {
  std::vector<tcp::acceptor> result;
  result.push_back(listen_on(executor, loopback4(), port));
  if (has_ipv6(executor)) result.push_back(listen_on(executor, loopback6(), port));
  return result;
}

/// Calls `take` with one port after another until it succeeds.
template <class Take>
auto take_some_port(Take take) {
  for (int tries = 0;; ++tries) {
    try {
      return take(some_port());
    } catch (std::system_error const&) {
      if (tries == 100) throw;
    }
  }
}

}  // namespace

namespace {

/// Must be called before connecting. The receive buffer is small, and for small segments Linux makes the other end's
/// send buffer small too. On a system without these options this is an ordinary connection.
void make_narrow(tcp::socket& socket) {
  std::error_code ignored;
  socket.set_option(asio::socket_base::receive_buffer_size(1024), ignored);
#ifdef TCP_MAXSEG
  int const size = 256;
  ::setsockopt(socket.native_handle(), IPPROTO_TCP, TCP_MAXSEG, reinterpret_cast<char const*>(&size), sizeof size);
#endif
}

/// Tries the endpoints from index `at` on.
void connect_from(asio::any_io_executor const& executor, Endpoints const& endpoints, std::size_t at, bool narrow,
                  ConnectDone done) {
  auto const socket = std::make_shared<tcp::socket>(executor);
  std::error_code error;
  socket->open(endpoints[at].protocol(), error);
  if (error) return asio::post(executor, [error, done = std::move(done)] { done(error, nullptr); });
  keep_from_programs(socket->native_handle());  // at once: a program may start while this connects
  if (narrow) make_narrow(*socket);
  socket->async_connect(endpoints[at], [=, done = std::move(done)](std::error_code const& connect_error) mutable {
    if (!connect_error) return done(connect_error, std::make_unique<SocketChannel>(std::move(*socket)));
    if (at + 1 < endpoints.size()) return connect_from(executor, endpoints, at + 1, narrow, std::move(done));
    done(connect_error, nullptr);
  });
}

}  // namespace

void connect(asio::any_io_executor const& executor, Endpoints const& endpoints, bool narrow, ConnectDone done) {
  connect_from(executor, endpoints, 0, narrow, std::move(done));
}

bool no_port_left(std::error_code const& error) {
  // Asio's category does not map this error.
  return std::error_code(error.value(), std::system_category()) == std::errc::address_not_available;
}

std::uint16_t Ports::scripted() {
  if (!scripted_) scripted_ = std::make_unique<tcp::acceptor>(listen_on(executor_, loopback4(), 0));
  return scripted_->local_endpoint().port();
}

std::uint16_t Ports::dead() {
  if (!dead_) {
    dead_ = std::make_unique<tcp::acceptor>(executor_, tcp::v4());
    keep_from_programs(dead_->native_handle());
    dead_->bind(tcp::endpoint(loopback4(), 0));
  }
  return dead_->local_endpoint().port();
}

std::uint16_t Ports::busy() {
  if (busy_.empty()) busy_ = take_some_port([this](std::uint16_t port) { return listen_on_both(executor_, port); });
  return busy_.front().local_endpoint().port();
}

std::uint16_t Ports::free() {
  if (free_ == 0) free_ = free_port(executor_);
  return free_;
}

void Ports::accept(ConnectDone done) {
  scripted();
  // Not async_accept: a program that starts before its handler is called would inherit the socket.
  scripted_->async_wait(tcp::acceptor::wait_read, [this, done = std::move(done)](std::error_code error) {
    if (error) return done(error, nullptr);
    tcp::socket socket = scripted_->accept(error);
    if (error) return done(error, nullptr);
    keep_from_programs(socket.native_handle());
    done(error, std::make_unique<SocketChannel>(std::move(socket)));
  });
}

void Ports::close() {
  scripted_.reset();
  dead_.reset();
  busy_.clear();
}

std::uint16_t free_port(asio::any_io_executor const& executor) {
  return take_some_port(
      [&](std::uint16_t port) { return listen_on_both(executor, port).front().local_endpoint().port(); });
}

bool has_ipv6(asio::any_io_executor const& executor) {
  static bool const result = [&] {
    try {
      listen_on(executor, loopback6(), 0);
      return true;
    } catch (std::system_error const&) {
      return false;
    }
  }();
  return result;
}

}  // namespace conformance
