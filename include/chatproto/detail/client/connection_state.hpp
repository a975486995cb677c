// SPDX-License-Identifier: BSL-1.0
/// @file
/// `ConnectionState`, which a Connection shares with its asynchronous operations, and the blocking calls.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <asio/any_io_executor.hpp>
#include <asio/bind_cancellation_slot.hpp>
#include <asio/buffer.hpp>
#include <asio/cancellation_signal.hpp>
#include <asio/connect.hpp>
#include <asio/error.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>
#include <asio/write.hpp>

#include <chatproto/detail/client/blocking_io.hpp>
#include <chatproto/detail/layer_io.hpp>
#include <chatproto/detail/socket_error.hpp>
#include <chatproto/layer.hpp>
#include <chatproto/line_reader.hpp>
#include <chatproto/message.hpp>

namespace chatproto::detail {

/// The state of a `Connection`.
///
/// Only `cancel` may be called during another call, from any thread.
struct ConnectionState : std::enable_shared_from_this<ConnectionState> {
  explicit ConnectionState(asio::any_io_executor executor)
      : socket(executor), resolver(executor), send_limit(executor), receive_limit(executor) {}

  Clock::time_point deadline() const {
    return time_limit.count() > 0 ? Clock::now() + time_limit : Clock::time_point::max();
  }

  /// Returns the next whole line that was read, if there is one; valid until the next read.
  std::optional<std::string_view> next_line(std::error_code& ec) {
    auto const line = reader.next();
    if (!line) return std::nullopt;
    if (line->too_long) {
      ec = Errc::line_too_long;
      return std::nullopt;
    }
    return line->text;
  }

  /// As above, parsed as a message.
  std::optional<Message> next_message(std::error_code& ec) {
    auto const line = next_line(ec);
    if (!line) return std::nullopt;
    auto const message = parse(*line, ec);
    if (ec) return std::nullopt;
    return Message(message);
  }

  /// Returns the next message for an operation, if it was read already. For a request that is an `ok` or `err`;
  /// deliveries before it are kept for `receive`.
  std::optional<Message> take(bool reply, std::error_code& ec) {
    if (!reply && !inbox.empty()) {
      auto message = std::move(inbox.front());
      inbox.pop_front();
      inbox_size -= size_of(message);
      return message;
    }
    while (auto message = next_message(ec)) {
      if (!reply || message->tag == tag::ok || message->tag == tag::err) return message;
      if (message->tag != tag::delivery) {
        ec = Errc::unexpected;
        break;
      }
      inbox_size += size_of(*message);
      inbox.push_back(std::move(*message));
      if (inbox_size > inbox_limit) {
        ec = Errc::inbox_full;
        close();  // the reply may still come, and would be taken for that of the next request
        break;
      }
    }
    return std::nullopt;
  }
  static std::size_t size_of(Message const& kept) { return sizeof kept + kept.payload.size(); }

  void begin_connect() {
    close();
    reader = LineReader(line_limit);
    inbox.clear();
    inbox_size = 0;
    cancelled = false;
    read_error = {};  // of a read of the previous connection
  }
  void limit_lines(std::size_t bytes) noexcept {
    reader.limit(bytes);
    line_limit = reader.limit();
  }
  void adopt(asio::ip::tcp::socket connected, std::error_code& ec) {
    socket = std::move(connected);
    configure(ec);
  }
  void configure(std::error_code& ec) {
    socket.non_blocking(true, ec);
    if (!ec) socket.set_option(asio::ip::tcp::no_delay(true), ec);
  }
  void close() {
    std::lock_guard const lock(mutex);
    if (layer && !pending_connect) {
      layer->close_output();
      layer->flush();
    }
    layer.reset();
    layer_waits = Layer::Wait::nothing;
    std::error_code ignored;
    socket.cancel(ignored);  // Wine's close does not end a write of which a part was sent
    socket.close(ignored);
  }

  // With a layer, or without.

  std::size_t read_some(std::error_code& ec) {
    if (!layer) return socket.read_some(asio::buffer(buffer), ec);
    return detail::read_some(*layer, buffer.data(), buffer.size(), layer_waits, ec);
  }
  /// Also would block as long as the layer holds output.
  std::size_t write_some(std::string_view bytes, std::error_code& ec) {
    if (!layer) return socket.write_some(asio::buffer(bytes), ec);
    auto held = layer->flush();
    std::size_t taken = 0;
    if (!held.error && held.wait == Layer::Wait::nothing && !bytes.empty()) {
      held = layer->write(bytes.data(), bytes.size());
      taken = held.bytes;
    }
    ec = held.error;
    if (!ec && held.wait != Layer::Wait::nothing) ec = asio::error::would_block;
    return taken;
  }
  asio::socket_base::wait_type layer_wait() const noexcept {
    return layer_waits == Layer::Wait::write ? asio::socket_base::wait_write : asio::socket_base::wait_read;
  }
  /// Makes the layer, if there is to be one.
  void make_layer(std::string_view host, std::error_code& ec) {
    if (!layers) return;
    try {
      layer = layers->make_layer(socket.native_handle(), host);
    } catch (std::system_error const& error) {
      ec = error.code();
    }
  }
  /// Continues the handshake. Would block, with what to wait for in `layer_waits`, until it is done.
  void handshake(std::error_code& ec) {
    auto const result = layer->handshake();
    ec = result.error;
    layer_waits = result.wait;
    if (!ec && result.wait != Layer::Wait::nothing) ec = asio::error::would_block;
  }

  void cancel() {
    cancelled = true;
    std::lock_guard const lock(mutex);
    if (lookup) lookup->cancel();
    std::error_code ignored;
    if (socket.is_open()) socket.shutdown(asio::socket_base::shutdown_both, ignored);  // wakes a thread that waits
    if (async_operations > 0)
      asio::post(socket.get_executor(), [state = shared_from_this()] {
        state->close();
        state->send_limit.cancel();
        state->receive_limit.cancel();
      });
  }

  void connect(std::string_view host, std::string_view service, std::error_code& ec) {
    begin_connect();
    auto const until = deadline();
    auto const endpoints = resolve(host, service, until, ec);
    if (ec) return;
    ec = asio::error::not_found;
    for (auto const& entry : endpoints) {
      connect(entry.endpoint(), until, ec);
      if (!ec) make_layer(host, ec);
      if (!ec && layer) {
        transfer(false, until, ec, [&] { return handshake(ec), !ec; });
        if (ec) {
          layer.reset();  // its handshake is not done, so it has nothing to close
          close();
        }
        return;  // another address would fail for the same reason, or hide it
      }
      if (!ec) return;
      close();
      if (cancelled || Clock::now() >= until) return;
    }
  }

  /// Asio's blocking connect has no time limit, and an asynchronous one needs a context that runs.
  void connect(asio::ip::tcp::endpoint const& endpoint, Clock::time_point until, std::error_code& ec) {
    ec.clear();
    {
      std::lock_guard const lock(mutex);  // a later cancel() finds a connecting socket to shut down
      if (cancelled) ec = asio::error::operation_aborted;
      if (!ec) socket.open(endpoint.protocol(), ec);
      if (!ec) configure(ec);
      if (!ec) ec = begin_to_connect(socket, endpoint);
    }
    if (ec != asio::error::in_progress && ec != asio::error::would_block) return;
    ec.clear();
    if (!poll_until(socket, true, until, cancelled, ec) && !ec) ec = asio::error::timed_out;
    if (cancelled) ec = asio::error::operation_aborted;
    if (!ec) ec = error_of(socket);
  }

  Lookup::Results resolve(std::string_view host, std::string_view service, Clock::time_point until,
                          std::error_code& ec) {
    auto const numeric = asio::ip::tcp::resolver::numeric_host;
    auto results = resolver.resolve(host, service, numeric, ec);
    if (!ec) return results;
    ec.clear();
    auto const asked = Lookup::start(std::string(host), std::string(service));
    {
      std::lock_guard const lock(mutex);
      lookup = asked;
      if (cancelled) asked->cancel();
    }
    std::unique_lock waiting(asked->mutex);
    auto const is_done = [&asked] { return asked->done; };
    if (until == Clock::time_point::max())
      asked->changed.wait(waiting, is_done);
    else
      asked->changed.wait_until(waiting, until, is_done);
    ec = asked->done ? asked->error : asio::error::timed_out;
    if (!ec) results = std::move(asked->results);
    waiting.unlock();
    std::lock_guard const lock(mutex);
    lookup.reset();
    return results;
  }

  void send(std::string_view line, Clock::time_point until, std::error_code& ec) {
    transfer(true, until, ec, [&] {
      line.remove_prefix(write_some(line, ec));
      return line.empty() && !ec;
    });
    // Half a line cannot be taken back: the next line would become part of it.
    if (ec) close();
  }

  /// Waits for what `Take` extracts.
  template <class Take>
  typename Take::Result receive(Clock::time_point until, std::error_code& ec) {
    ec.clear();
    auto taken = Take::from(*this, ec);
    if (!taken && !ec)
      transfer(false, until, ec, [&] {
        auto const n = read_some(ec);
        if (!ec) reader.feed({buffer.data(), n});
        taken = Take::from(*this, ec);
        return taken.has_value();
      });
    return taken ? std::move(*taken) : typename Take::Result();
  }

  /// Calls the non-blocking `step` until it is done or fails, and waits whenever it would block.
  void transfer(bool writable, Clock::time_point until, std::error_code& ec, auto const& step) {
    for (;;) {
      ec.clear();
      if (step()) return;
      if (ec == asio::error::would_block || ec == asio::error::try_again) {
        ec.clear();
        if (!poll_until(socket, writable || layer_waits == Layer::Wait::write, until, cancelled, ec) && !ec)
          ec = asio::error::timed_out;
      } else if (!ec && Clock::now() >= until) {  // the other end takes or sends continuously, and `step` is never done
        ec = asio::error::timed_out;
      }
      if (cancelled) ec = asio::error::operation_aborted;
      if (ec) return;
    }
  }

  // The asynchronous operations, used only on the executor. Each waits on a timer, which is its time limit; the end of
  // the read or write that it needs cancels the timer. So a limit or a cancellation takes effect at once, and a read
  // that completes too late is kept for the next operation.

  void start_connect(std::string const& host, std::string const& service) {
    begin_connect();
    pending_connect = true;
    resolver.async_resolve(
        host, service, [self = shared_from_this(), host](std::error_code const& ec, auto const& results) {
          if (!self->pending_connect) return;  // the operation has ended
          if (ec) return self->connect_ended(ec);
          asio::async_connect(self->socket, results, [self, host](std::error_code result, auto const&) {
            if (!self->pending_connect) return;
            if (!result) self->configure(result);
            if (!result) self->make_layer(host, result);
            self->continue_connect(result);
          });
        });
  }
  /// Connected: continues the layer's handshake, if there is one.
  void continue_connect(std::error_code ec) {
    if (!pending_connect) return;
    if (!ec && !socket.is_open()) ec = asio::error::operation_aborted;  // by `close`, while this was queued
    if (!ec && layer) handshake(ec);
    if (ec != asio::error::would_block) return connect_ended(ec);
    socket.async_wait(layer_wait(),
                      [self = shared_from_this()](std::error_code const& result) { self->continue_connect(result); });
  }
  void connect_ended(std::error_code ec) {
    if (!std::exchange(pending_connect, false)) return;
    if (ec) layer.reset();
    connect_error = ec;
    receive_limit.cancel();
  }

  void start_write(std::shared_ptr<std::string const> line) {
    pending_write = true;
    if (layer)  // not at once: the operation does not wait for the end yet
      return asio::post(socket.get_executor(),
                        [self = shared_from_this(), line] { self->write_to_layer(line, 0, {}); });
    auto const bytes = asio::buffer(*line);
    asio::async_write(socket, bytes, [self = shared_from_this(), line](std::error_code const& ec, std::size_t) {
      self->write_ended(ec);
    });
  }
  void write_to_layer(std::shared_ptr<std::string const> line, std::size_t written, std::error_code ec) {
    if (!layer) ec = asio::error::operation_aborted;
    if (!ec) written += write_some(std::string_view(*line).substr(written), ec);
    if (ec != asio::error::would_block) return write_ended(ec);
    socket.async_wait(asio::socket_base::wait_write,
                      [self = shared_from_this(), line = std::move(line), written](std::error_code const& result) {
                        self->write_to_layer(line, written, result);
                      });
  }
  void write_ended(std::error_code const& ec) {
    pending_write = false;
    write_error = ec;
    send_limit.cancel();
  }

  void start_read() {
    if (!std::exchange(pending_read, true)) layer ? wait_for_layer() : read_socket();
  }
  void read_socket() {
    socket.async_read_some(asio::buffer(buffer),
                           asio::bind_cancellation_slot(
                               read_stop.slot(), [self = shared_from_this()](std::error_code const& ec, std::size_t n) {
                                 self->read_ended(ec, n);
                               }));
  }
  void wait_for_layer() {
    if (layer_waits != Layer::Wait::write && layer->has_input())
      return asio::post(socket.get_executor(), [self = shared_from_this()] { self->read_layer({}); });
    socket.async_wait(layer_wait(), asio::bind_cancellation_slot(
                                        read_stop.slot(), [self = shared_from_this()](std::error_code const& ec) {
                                          self->read_layer(ec);
                                        }));
  }
  void read_layer(std::error_code ec) {
    if (!layer) ec = asio::error::operation_aborted;
    auto const n = ec ? 0 : read_some(ec);
    ec == asio::error::would_block ? wait_for_layer() : read_ended(ec, n);
  }
  void read_ended(std::error_code const& ec, std::size_t n) {
    pending_read = false;
    if (!ec)
      reader.feed({buffer.data(), n});
    else if (ec != asio::error::operation_aborted)
      read_error = ec;
    receive_limit.cancel();
  }

  asio::ip::tcp::socket socket;
  std::shared_ptr<LayerFactory> layers;            // for later connections
  std::unique_ptr<Layer> layer;                    // of this one; null: lines travel as they are
  Layer::Wait layer_waits = Layer::Wait::nothing;  // what its handshake, or a read, waits for
  asio::ip::tcp::resolver resolver;
  asio::steady_timer send_limit, receive_limit;  // of the asynchronous operations
  bool pending_connect = false, pending_write = false, pending_read = false;
  std::error_code connect_error, write_error, read_error;
  asio::cancellation_signal read_stop;
  std::chrono::milliseconds time_limit{0};
  std::size_t line_limit = max_line;  // only read by operations, because any thread may start one that sends
  LineReader reader;
  std::array<char, 8192> buffer;
  std::deque<Message> inbox;  // read but not yet returned
  std::size_t inbox_size = 0, inbox_limit = std::size_t{32} << 20;

  std::mutex mutex;  // guards what cancel() uses: opening and closing the socket, and lookup
  std::shared_ptr<Lookup> lookup;
  std::atomic<bool> cancelled = false;
  std::atomic<int> async_operations = 0;
};

// What an operation may wait for: `from` extracts it from the input, if it is there.

struct TakeMessage {
  using Result = Message;
  static std::optional<Message> from(ConnectionState& state, std::error_code& ec) { return state.take(false, ec); }
};

struct TakeReply {
  using Result = Message;
  static std::optional<Message> from(ConnectionState& state, std::error_code& ec) { return state.take(true, ec); }
};

struct TakeLine {
  using Result = std::string;
  static std::optional<std::string> from(ConnectionState& state, std::error_code& ec) {
    auto const line = state.next_line(ec);
    return line ? std::optional<std::string>(*line) : std::nullopt;
  }
};

}  // namespace chatproto::detail
