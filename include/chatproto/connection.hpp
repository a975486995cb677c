// SPDX-License-Identifier: BSL-1.0
/// @file
/// The client's end of a connection.
#pragma once

#include <chrono>
#include <cstddef>
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

/// The client's end: connects, sends messages and receives them, or lines where a protocol has other ones.
///
/// @code
/// chatproto::Connection connection;
/// connection.connect("localhost", "47374");
/// connection.request(chatproto::Message("slogin", "bob"));
/// @endcode
///
/// Each operation comes as a blocking call, which throws `std::system_error`; the same with a trailing
/// `std::error_code&`, which does not; and asynchronously, with a completion token. Blocking calls need nobody to
/// run the executor's context. One operation that sends and one that receives may be under way at a time, `request` is
/// both.
///
/// Errors: those of the system and of Asio, `asio::error::eof` when the other end has closed, `asio::error::timed_out`,
/// `asio::error::operation_aborted` after `cancel()`, `Errc::malformed` and `Errc::line_too_long` for what comes in and
/// is no message (what follows it can still be received), and the errors of `encode` for what is to be sent (nothing is
/// sent then).
///
/// A send or a request that is cut short by its time limit, `cancel()` or its cancellation slot closes the connection:
/// half a line cannot be taken back, and a late reply would be taken for another's. A receive that is cut short loses
/// nothing.
///
/// What an asynchronous operation sends is copied before its initiating function returns.
///
/// Thread safety: distinct objects: safe. Shared objects: unsafe, also for two blocking calls of two threads, but for
/// `cancel()` and the start of an asynchronous operation, which are safe from any thread: to listen and to talk at
/// once, use those. The executor must not run two handlers at once: a context of one thread, or a strand.
class Connection {
  void set_up(asio::any_io_executor executor) {
    state_ = std::make_shared<detail::ConnectionState>(std::move(executor));
  }

  template <class Signature, class Operation, class Token>
  auto compose(Operation operation, Token& token) {
    return asio::async_compose<Token, Signature>(std::move(operation), token, state_->socket);
  }

  // What is to be sent, as a line.
  std::string line_of(MessageView message, std::error_code& ec) const {
    return encode(message, ec, state_->line_limit);
  }
  std::string line_of(std::string_view text, std::error_code& ec) const {
    return encode_line(text, ec, state_->line_limit);
  }

  /// The operation that sends `what`, and waits for what `Take` takes.
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
  using executor_type = asio::any_io_executor;  ///< on which asynchronous operations complete

  /// For blocking calls only.
  Connection() : own_context_(std::make_unique<asio::io_context>(1)) { set_up(own_context_->get_executor()); }
  /// Asynchronous operations complete on `executor`, unless their handlers name another.
  explicit Connection(executor_type executor) { set_up(std::move(executor)); }
  /// As above; `context` is run by one thread.
  explicit Connection(asio::io_context& context) : Connection(context.get_executor()) {}
  /// Of a socket that is connected, such as one that was accepted. Throws `std::system_error`.
  explicit Connection(asio::ip::tcp::socket connected) : Connection(connected.get_executor()) {
    throwing("connection", [&](auto& ec) { state_->adopt(std::move(connected), ec); });
  }
  /// Only while nothing is under way; the other may only be destroyed then.
  Connection(Connection&&) noexcept = default;
  Connection& operator=(Connection&&) = delete;
  /// Closes the connection; asynchronous operations under way end with `asio::error::operation_aborted`.
  ~Connection() {
    if (!state_) return;  // moved from
    if (state_->async_operations > 0)
      state_->cancel();
    else
      state_->close();
  }

  /// The one that it was made with.
  executor_type get_executor() const { return state_->socket.get_executor(); }
  /// Whether it is connected, as far as it knows.
  bool is_open() const { return state_->socket.is_open(); }

  /// Limits the time of each operation that begins from now on, name look-up included; 0, the default: no limit.
  void time_limit(std::chrono::milliseconds limit) noexcept { state_->time_limit = limit; }

  /// Limits the memory, in bytes, of the deliveries that `request` keeps for `receive`; the default is 32 MiB, more
  /// than a chatproto server lets wait for one client. The delivery that exceeds it is kept too, and the request ends
  /// with `Errc::inbox_full`. So 0 suits a client that wants no deliveries.
  void inbox_limit(std::size_t bytes) noexcept { state_->inbox_limit = bytes; }

  /// Limits each line that is sent or returned from now on, messages included: bytes, terminator included; the default
  /// is `max_line`. A longer one is `Errc::line_too_long`: it is not sent, or it is dropped and the next one can be
  /// received. A server that is to take such lines must be told too (`ServerOptions::line_limit`).
  ///
  /// Call it only while nothing is under way; connected or not, and it holds for later connections too. It counts for
  /// an unfinished line as well; but what was reported as too long stays dropped. With 1 only empty lines fit, with 0
  /// none; more than 4 GiB - 1 means that.
  void line_limit(std::size_t bytes) noexcept { state_->limit_lines(bytes); }

  /// Ends whatever is under way, from any thread, with `asio::error::operation_aborted`, and ends the connection. It
  /// may be connected again.
  void cancel() { state_->cancel(); }
  /// Closes the connection.
  void close() { state_->close(); }

  /// Connects to a port, or service name, of a host: tries each of its addresses. Closes the connection that it had.
  /// Errors: of the look-up (`asio::error::host_not_found`), or of the last address
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

  /// Waits for the next message.
  Message receive(std::error_code& ec) { return state_->receive<detail::TakeMessage>(state_->deadline(), ec); }
  /// As above; throws.
  Message receive() {
    return throwing("receive", [&](auto& ec) { return receive(ec); });
  }

  /// Sends one message and waits for its reply, the next `ok` or `err`. Deliveries that come in meanwhile are kept for
  /// `receive`, up to `inbox_limit`: `Errc::inbox_full` closes the connection, but what was kept can still be received.
  /// Another message is `Errc::unexpected`.
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

  /// Sends one line that need not be a message; it comes without its terminator.
  void send_line(std::string_view text, std::error_code& ec) {
    auto const line = line_of(text, ec);
    if (!ec) state_->send(line, state_->deadline(), ec);
  }
  /// As above; throws.
  void send_line(std::string_view text) {
    throwing("send_line", [&](auto& ec) { send_line(text, ec); });
  }

  /// Waits for the next line, whatever it is, and returns it without its terminator. (A delivery that `request` keeps
  /// for `receive` does not come again.)
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

  /// Sends one message and waits for its reply, as `request`. Completion signature: `void(std::error_code,
  /// chatproto::Message)`.
  template <class Token>
  auto async_request(MessageView message, Token&& token) {
    return compose<void(std::error_code, Message)>(sending<detail::TakeReply>(message), token);
  }

  /// Sends one line, as `send_line`. Completion signature: `void(std::error_code)`.
  template <class Token>
  auto async_send_line(std::string_view text, Token&& token) {
    return compose<void(std::error_code)>(sending(text), token);
  }

  /// Waits for the next line, as `receive_line`. Completion signature: `void(std::error_code, std::string)`.
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
