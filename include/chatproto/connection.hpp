// SPDX-License-Identifier: BSL-1.0
/// @file
/// `Connection`, the client's end of a connection.
#pragma once

#include <chrono>
#include <cstddef>
#include <exception>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>

#include <asio/any_io_executor.hpp>
#include <asio/compose.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>

#include <chatproto/detail/client/send_receive_op.hpp>
#include <chatproto/message.hpp>

namespace chatproto {

/// The client's end of a connection: connects, and sends and receives messages, or arbitrary lines for other protocols.
///
/// @code
/// chatproto::Connection connection;
/// connection.connect("localhost", "47374");
/// connection.request(chatproto::Message("slogin", "bob"));
/// @endcode
///
/// Each operation has three forms: a blocking call that throws `std::system_error`; a blocking call with a trailing
/// `std::error_code&`, which does not; and an asynchronous one that takes a completion token. Blocking calls do not
/// need the executor's context to run. At most one operation that sends and one that receives may be under way;
/// `request` is both.
///
/// Errors: those of the system and of Asio; `asio::error::eof` if the other end has closed; `asio::error::timed_out`;
/// `asio::error::operation_aborted` after `cancel()`; `Errc::malformed` and `Errc::line_too_long` for input that is not
/// a message (what follows it can still be received); and the errors of `encode` for output (nothing is sent then).
///
/// A send or a request that is interrupted by its time limit, `cancel()` or its cancellation slot closes the
/// connection, because half a line cannot be taken back, and a late reply would be taken for the reply to another
/// request. An interrupted receive loses nothing.
///
/// An asynchronous operation copies what it sends before its initiating function returns.
///
/// Thread safety: distinct objects: safe. Shared objects: unsafe, even for two blocking calls, except that any thread
/// may call `cancel()` and start asynchronous operations: use those to send and receive at once. The executor must not
/// run two handlers at once: use a context run by one thread, or a strand.
class Connection {
  void set_up(asio::any_io_executor executor) {
    state_ = std::make_shared<detail::ConnectionState>(std::move(executor));
  }

  template <class Signature, class Operation, class Token>
  auto compose(Operation operation, Token& token) {
    return asio::async_compose<Token, Signature>(std::move(operation), token, state_->socket);
  }

  std::string line_of(MessageView message, std::error_code& ec) const {
    return encode(message, ec, state_->line_limit);
  }
  std::string line_of(std::string_view text, std::error_code& ec) const {
    return encode_line(text, ec, state_->line_limit);
  }

  /// Returns the operation that sends `what` and then waits for what `Take` extracts.
  template <class Take = void>
  auto sending(auto const& what) const {
    std::error_code ec;
    auto line = std::make_shared<std::string const>(line_of(what, ec));
    return detail::SendReceiveOp<true, Take>{{state_}, std::move(line), ec};
  }

  auto throwing(char const* what, auto const& call) {
    std::error_code ec;
    if constexpr (std::is_void_v<decltype(call(ec))>) {
      call(ec);
      if (ec) throw std::system_error(ec, what);
    } else {
      auto result = call(ec);
      if (ec) throw std::system_error(ec, what);
      return result;
    }
  }

 public:
  using executor_type = asio::any_io_executor;  ///< Asynchronous operations complete on it.

  /// Constructs a connection for blocking calls only.
  Connection() : own_context_(std::make_unique<asio::io_context>(1)) { set_up(own_context_->get_executor()); }
  /// Asynchronous operations complete on `executor`, unless their handlers have an associated executor.
  explicit Connection(executor_type executor) { set_up(std::move(executor)); }
  /// As above, with the executor of `context`, which one thread runs.
  explicit Connection(asio::io_context& context) : Connection(context.get_executor()) {}
  /// Takes over a connected socket, such as one that was accepted. Throws `std::system_error`.
  explicit Connection(asio::ip::tcp::socket connected) : Connection(connected.get_executor()) {
    throwing("connection", [&](auto& ec) { state_->adopt(std::move(connected), ec); });
  }
  /// Moves the connection. Precondition: no operation is under way. A moved-from connection may only be destroyed.
  Connection(Connection&&) noexcept = default;
  Connection& operator=(Connection&&) = delete;
  /// Closes the connection. Asynchronous operations under way end with `asio::error::operation_aborted`.
  ~Connection() {
    if (!state_) return;  // moved from
    if (state_->async_operations > 0)
      state_->cancel();
    else
      state_->close();
  }

  /// Returns the executor that the connection was constructed with.
  executor_type get_executor() const { return state_->socket.get_executor(); }
  /// Returns whether the connection is open, as far as it knows.
  bool is_open() const { return state_->socket.is_open(); }
  /// Returns the server's address and port. Errors: those of the socket; the result is then empty.
  asio::ip::tcp::endpoint remote_endpoint(std::error_code& ec) const { return state_->socket.remote_endpoint(ec); }

  /// Limits the duration of each operation that begins from now on, including name look-up. 0, the default: no limit.
  void time_limit(std::chrono::milliseconds limit) noexcept { state_->time_limit = limit; }

  /// Passes the bytes of later connections through a layer of `layers`, such as a `TlsClient`. Its handshake is part of
  /// `connect`, whose errors then include the layer's. Null: the lines travel as they are.
  void layer(std::shared_ptr<LayerFactory> layers) noexcept { state_->layers = std::move(layers); }

  /// Limits the memory, in bytes, of the deliveries that `request` keeps for `receive`. The default is 32 MiB, more
  /// than a chatproto server lets wait for one client. The delivery that exceeds the limit is kept too, and the request
  /// ends with `Errc::inbox_full`. So 0 suits a client that expects no deliveries.
  void inbox_limit(std::size_t bytes) noexcept { state_->inbox_limit = bytes; }

  /// Limits the length in bytes, terminator included, of each line sent or returned from now on, messages included. The
  /// default is `max_line`. A longer line is `Errc::line_too_long`: it is not sent, or it is dropped and the next one
  /// can be received. A server must accept such lines too (`ServerOptions::line_limit`).
  ///
  /// Call it only while no operation is under way. The limit holds for later connections too. It applies to an
  /// unfinished line, but a line already reported as too long stays dropped. With 1 only empty lines fit, with 0 none;
  /// more than 4 GiB - 1 means that.
  void line_limit(std::size_t bytes) noexcept { state_->limit_lines(bytes); }

  /// Ends all operations under way with `asio::error::operation_aborted`, and the connection. Any thread may call it.
  /// The object can connect again.
  void cancel() { state_->cancel(); }
  /// Closes the connection.
  void close() { state_->close(); }

  /// Connects to a port, or service name, of a host, trying each of its addresses. Closes the previous connection.
  /// Errors: those of the look-up (`asio::error::host_not_found`), or of the last address
  /// (`asio::error::connection_refused`).
  void connect(std::string_view host, std::string_view service, std::error_code& ec) {
    state_->connect(host, service, ec);
  }
  /// As above; throws.
  void connect(std::string_view host, std::string_view service) {
    throwing("connect", [&](auto& ec) { connect(host, service, ec); });
  }

  /// Sends one message.
  void send(MessageView message, std::error_code& ec) {
    auto const line = line_of(message, ec);
    if (!ec) state_->send(line, state_->deadline(), ec);
  }
  /// As above; throws.
  void send(MessageView message) {
    throwing("send", [&](auto& ec) { send(message, ec); });
  }

  /// Waits for the next message and returns it.
  Message receive(std::error_code& ec) { return state_->receive<detail::TakeMessage>(state_->deadline(), ec); }
  /// As above; throws.
  Message receive() {
    return throwing("receive", [&](auto& ec) { return receive(ec); });
  }

  /// Sends one message and returns its reply, the next `ok` or `err`. Deliveries that arrive first are kept for
  /// `receive`, up to `inbox_limit`: `Errc::inbox_full` closes the connection, but what was kept can still be received.
  /// Any other message is `Errc::unexpected`.
  Message request(MessageView message, std::error_code& ec) {
    auto const until = state_->deadline();
    auto const line = line_of(message, ec);
    if (ec) return {};
    state_->send(line, until, ec);
    if (ec) return {};
    auto reply = state_->receive<detail::TakeReply>(until, ec);
    if (ec == asio::error::timed_out || ec == asio::error::operation_aborted) state_->close();
    return reply;
  }
  /// As above; throws.
  Message request(MessageView message) {
    return throwing("request", [&](auto& ec) { return request(message, ec); });
  }

  /// Sends `text`, which need not be a message, as one line. `text` has no terminator.
  void send_line(std::string_view text, std::error_code& ec) {
    auto const line = line_of(text, ec);
    if (!ec) state_->send(line, state_->deadline(), ec);
  }
  /// As above; throws.
  void send_line(std::string_view text) {
    throwing("send_line", [&](auto& ec) { send_line(text, ec); });
  }

  /// Waits for the next line, which need not be a message, and returns it without its terminator. (It does not return a
  /// delivery that `request` has kept for `receive`.)
  std::string receive_line(std::error_code& ec) { return state_->receive<detail::TakeLine>(state_->deadline(), ec); }
  /// As above; throws.
  std::string receive_line() {
    return throwing("receive_line", [&](auto& ec) { return receive_line(ec); });
  }

  /// Connects. Completion signature: `void(std::error_code)`.
  template <class Token>
  auto async_connect(std::string host, std::string service, Token&& token) {
    return compose<void(std::error_code)>(detail::ConnectOperation{{state_}, std::move(host), std::move(service)},
                                          token);
  }

  /// Sends one message. Completion signature: `void(std::error_code)`.
  template <class Token>
  auto async_send(MessageView message, Token&& token) {
    return compose<void(std::error_code)>(sending(message), token);
  }

  /// Waits for the next message. Completion signature: `void(std::error_code, chatproto::Message)`.
  template <class Token>
  auto async_receive(Token&& token) {
    return compose<void(std::error_code, Message)>(detail::SendReceiveOp<false, detail::TakeMessage>{{state_}, nullptr},
                                                   token);
  }

  /// Sends one message and waits for its reply, like `request`. Completion signature:
  /// `void(std::error_code, chatproto::Message)`.
  template <class Token>
  auto async_request(MessageView message, Token&& token) {
    return compose<void(std::error_code, Message)>(sending<detail::TakeReply>(message), token);
  }

  /// Sends one line, like `send_line`. Completion signature: `void(std::error_code)`.
  template <class Token>
  auto async_send_line(std::string_view text, Token&& token) {
    return compose<void(std::error_code)>(sending(text), token);
  }

  /// Waits for the next line, like `receive_line`. Completion signature: `void(std::error_code, std::string)`.
  template <class Token>
  auto async_receive_line(Token&& token) {
    return compose<void(std::error_code, std::string)>(
        detail::SendReceiveOp<false, detail::TakeLine>{{state_}, nullptr}, token);
  }

 private:
  std::unique_ptr<asio::io_context> own_context_;
  std::shared_ptr<detail::ConnectionState> state_;
};

}  // namespace chatproto
