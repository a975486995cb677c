// SPDX-License-Identifier: BSL-1.0
/// @file
/// `RedisConnection`: commands to Redis and its replies.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <initializer_list>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <hiredis/hiredis.h>
#include <hiredis/read.h>
#include <asio/connect.hpp>
#include <asio/error.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/address.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/post.hpp>

#include <chatproto/detail/layer_io.hpp>
#include <chatproto/detail/socket_error.hpp>
#include <chatproto/layer.hpp>

namespace chatproto::detail {

/// The text of a reply; empty if it has none.
inline std::string_view text_of(::redisReply const& reply) noexcept {
  return reply.str != nullptr ? std::string_view(reply.str, static_cast<std::size_t>(reply.len)) : std::string_view();
}
/// The element of a reply; null if it is no array or has fewer.
inline ::redisReply const* element(::redisReply const& reply, std::size_t index) noexcept {
  return reply.type == REDIS_REPLY_ARRAY && index < static_cast<std::size_t>(reply.elements) ? reply.element[index]
                                                                                             : nullptr;
}

/// Gets what happens at a connection to Redis. After `failed` there is nothing more.
class RedisEvents {
 public:
  virtual void connected() = 0;
  virtual void replied(::redisReply const& reply) = 0;
  virtual void failed(std::string_view why) = 0;

 protected:
  ~RedisEvents() = default;
};

/// A connection to Redis. It has no time limit; whoever has one calls `close`. It fails if a reply is larger than any
/// that Redis gives to our commands, because the other end may be something else.
///
/// Thread safety: distinct objects: safe. Shared objects: unsafe; everything happens in the context's one thread.
class RedisConnection : public std::enable_shared_from_this<RedisConnection> {
 public:
  /// `events` must live until `close`.
  RedisConnection(asio::io_context& context, RedisEvents& events)
      : events_(&events), resolver_(context), socket_(context), reader_(::redisReaderCreate()) {
    if (!reader_) throw std::bad_alloc();
    reader_->maxbuf = 4 * read_size;  // otherwise it allocates its buffer anew for each large read
    reader_->privdata = this;
    unlimited_ = limited_ = *std::exchange(reader_->fn, &limited_);
    limited_.createString = [](::redisReadTask const* task, char* text, std::size_t size) -> void* {
      // In a program of 32 bits, the reader takes a size for one that it has read.
      auto& self = *static_cast<RedisConnection*>(task->privdata);
      return self.is_within(size, most_bytes) ? self.unlimited_.createString(task, text, size) : nullptr;
    };
    limited_.createArray = &create_array;
  }
  RedisConnection(RedisConnection const&) = delete;
  RedisConnection& operator=(RedisConnection const&) = delete;
  ~RedisConnection() = default;

  /// Connects; the events are told of it. `layer` may be null.
  void connect(std::string const& host, std::uint16_t port, std::shared_ptr<LayerFactory> layer) {
    auto const service = std::to_string(port);
    auto connect_to = [self = shared_from_this(), host, layer = std::move(layer)](Endpoints const& found) {
      asio::async_connect(self->socket_, found, [=](std::error_code ec, asio::ip::tcp::endpoint const&) {
        if (self->events_ == nullptr) return;
        if (ec) return self->fail(ec.message());
        self->guarded([&] { self->begin(host, layer.get()); });
      });
    };
    // An address is not looked up: it would wait behind a name, while DNS does not answer.
    std::error_code not_an_address;
    if (auto const address = asio::ip::make_address(host, not_an_address); !not_an_address)
      return connect_to(Endpoints::create({address, port}, host, service));
    resolver_.async_resolve(host, service,
                            [self = shared_from_this(), host, connect_to = std::move(connect_to)](
                                std::error_code ec, Endpoints const& found) {
                              if (self->events_ == nullptr) return;
                              if (ec) return self->fail("cannot look up " + host + ": " + ec.message());
                              connect_to(found);
                            });
  }
  /// Sends a command, with those that are sent in the same turn of the context.
  void send(std::initializer_list<std::string_view> words) {
    if (events_ == nullptr) return;
    std::array<char const*, 16> data;
    std::array<std::size_t, 16> sizes;
    std::size_t count = 0;
    for (auto const& word : words) {
      data[count] = word.data() != nullptr ? word.data() : "";
      sizes[count++] = word.size();
    }
    char* command = nullptr;
    auto const size = ::redisFormatCommandArgv(&command, static_cast<int>(count), data.data(), sizes.data());
    if (size < 0) throw std::bad_alloc();
    std::unique_ptr<char, decltype(&std::free)> const owner(command, &std::free);
    output_.append(command, static_cast<std::size_t>(size));
    if (std::exchange(will_write_, true)) return;
    asio::post(socket_.get_executor(), [self = shared_from_this()] {
      self->will_write_ = false;
      if (self->events_ != nullptr && !self->waits_to_write_) self->guarded([&] { self->write(); });
    });
  }
  /// Bytes that wait to be written.
  std::size_t pending() const noexcept { return output_.size() - written_; }
  /// Ends the connection without an event.
  void close() noexcept {
    events_ = nullptr;
    resolver_.cancel();
    std::error_code ignored;
    socket_.close(ignored);
  }

 private:
  using Endpoints = asio::ip::tcp::resolver::results_type;

  static constexpr std::size_t read_size = 64 * 1024;  // bytes
  static constexpr int reads_at_once = 16;
  // Of one reply. The largest has 64 blocks of 64 KiB; only errors, numbers and sizes are lines.
  static constexpr std::size_t most_bytes = 16 * 1024 * 1024, most_line = 64 * 1024, most_elements = 1024;

  struct Free {
    void operator()(::redisReader* reader) const noexcept { ::redisReaderFree(reader); }
    void operator()(::redisReply* reply) const noexcept { ::freeReplyObject(reply); }
  };

  bool is_within(std::size_t size, std::size_t limit) noexcept {
    is_too_large_ = is_too_large_ || size > limit;
    return !is_too_large_;
  }
  /// The reader would allocate memory for as many elements as are announced. `Size`: the type depends on its version.
  template <class Size>
  static void* create_array(::redisReadTask const* task, Size size) {
    auto& self = *static_cast<RedisConnection*>(task->privdata);
    auto const elements = static_cast<std::size_t>(size);
    if (!self.is_within(elements, most_elements - self.elements_)) return nullptr;
    self.elements_ += elements;
    return self.unlimited_.createArray(task, size);
  }
  void fail_to_read() { fail(is_too_large_ ? "a reply is too large" : reader_->errstr); }

  void begin(std::string const& host, LayerFactory* layer) {
    socket_.non_blocking(true);
    socket_.set_option(asio::ip::tcp::no_delay(true));
    if (layer == nullptr) return start();
    layer_ = layer->make_layer(socket_.native_handle(), host);
    shake_hands();
  }
  void shake_hands() {
    auto const step = layer_->handshake();
    if (step.error) return fail(step.error.message());
    if (step.wait == Layer::Wait::nothing) return start();
    wait(step.wait, &RedisConnection::shake_hands);
  }
  void start() {
    events_->connected();
    if (events_ != nullptr) read();
  }
  /// Calls `then` when the socket allows it.
  void wait(Layer::Wait what, void (RedisConnection::*then)()) {
    auto const type = what == Layer::Wait::read ? asio::ip::tcp::socket::wait_read : asio::ip::tcp::socket::wait_write;
    socket_.async_wait(type, [self = shared_from_this(), then](std::error_code ec) {
      if (self->events_ == nullptr) return;
      if (ec) return self->fail(ec.message());
      self->guarded([&] { ((*self).*then)(); });
    });
  }
  void guarded(auto const& call) {
    try {
      call();
    } catch (std::exception const& error) {
      fail(error.what());
    }
  }
  void fail(std::string_view why) {
    auto* const events = events_;
    close();
    if (events != nullptr) events->failed(why);
  }

  void read() {
    auto const keep = shared_from_this();
    for (int i = 0; i < reads_at_once; ++i) {
      auto wanted = Layer::Wait::read;
      std::error_code ec;
      auto const size = layer_ ? read_some(*layer_, buffer_.data(), buffer_.size(), wanted, ec)
                               : socket_.read_some(asio::buffer(buffer_), ec);
      if (would_block(ec))
        return wait(wanted == Layer::Wait::nothing ? Layer::Wait::read : wanted, &RedisConnection::read);
      if (ec) return fail(ec == asio::error::eof ? "Redis has closed the connection" : ec.message());
      if (::redisReaderFeed(reader_.get(), buffer_.data(), size) != REDIS_OK) return fail_to_read();
      unfinished_ += size;
      for (;;) {
        void* found = nullptr;
        if (::redisReaderGetReply(reader_.get(), &found) != REDIS_OK) return fail_to_read();
        if (found == nullptr) break;
        unfinished_ = elements_ = 0;
        std::unique_ptr<::redisReply, Free> const reply(static_cast<::redisReply*>(found));
        events_->replied(*reply);
        if (events_ == nullptr) return;
      }
      std::string_view const rest(reader_->buf + reader_->pos, reader_->len - reader_->pos);
      auto const line = std::min(rest.find('\n'), rest.size());  // the reader searches it from its begin each time
      if (!is_within(unfinished_, most_bytes) || !is_within(line, most_line)) return fail_to_read();
    }
    asio::post(socket_.get_executor(), [self = shared_from_this()] {  // others have waited
      if (self->events_ != nullptr) self->guarded([&] { self->read(); });
    });
  }

  void write() {
    waits_to_write_ = false;
    for (auto more = true; more;) {
      auto const step = write_some();
      if (step.error) return fail(step.error.message());
      written_ += step.bytes;
      if (step.wait != Layer::Wait::nothing) {
        waits_to_write_ = true;
        // While much is sent there may always be something that waits. What is moved here is less than was written.
        if (written_ > pending()) output_.erase(0, std::exchange(written_, 0));
        return wait(step.wait, &RedisConnection::write);
      }
      more = pending() > 0 || (layer_ && step.bytes > 0);
    }
    output_.clear();
    written_ = 0;
    if (output_.capacity() > 16 * read_size) output_.shrink_to_fit();
  }
  Layer::Result write_some() {
    auto const* const data = output_.data() + written_;
    if (!layer_) {
      std::error_code ec;
      auto const bytes = socket_.write_some(asio::buffer(data, pending()), ec);
      if (would_block(ec)) return {.wait = Layer::Wait::write};
      return {.bytes = bytes, .error = ec};
    }
    auto const flushed = layer_->flush();
    if (flushed.error || flushed.wait != Layer::Wait::nothing || pending() == 0)
      return {.wait = flushed.wait, .error = flushed.error};
    return layer_->write(data, pending());
  }

  RedisEvents* events_;  // null: closed
  asio::ip::tcp::resolver resolver_;
  asio::ip::tcp::socket socket_;
  std::unique_ptr<Layer> layer_;
  ::redisReplyObjectFunctions unlimited_, limited_;  // the reader's own, and those that it uses
  std::unique_ptr<::redisReader, Free> reader_;
  std::size_t unfinished_ = 0, elements_ = 0;  // bytes and elements of a reply that is not complete
  bool is_too_large_ = false;
  std::array<char, read_size> buffer_;
  std::string output_;
  std::size_t written_ = 0;      // bytes of output_
  bool will_write_ = false;      // posted
  bool waits_to_write_ = false;  // for the socket
};

}  // namespace chatproto::detail
