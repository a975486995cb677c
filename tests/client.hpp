// SPDX-License-Identifier: BSL-1.0
// Clients that report every byte and how the connection ended, with or without a socket, for tests with many clients.
#pragma once

#include <chatproto/chat_service.hpp>
#include <chatproto/detail/layer_io.hpp>
#include <chatproto/detail/testing/random.hpp>
#include <chatproto/layer.hpp>
#include <chatproto/line_reader.hpp>
#include <chatproto/message_queue.hpp>
#include <chatproto/room_log.hpp>

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <asio/buffer.hpp>
#include <asio/error.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/socket_base.hpp>

#include "sanitized.hpp"
#include "support.hpp"

namespace raw {

using chatproto::detail::Random;
using Clock = std::chrono::steady_clock;
using Time = std::chrono::milliseconds;

// Instrumented programs are several times slower and get less to do.
inline constexpr bool instrumented = CHATPROTO_SANITIZED != 0;

/// Returns a number from the environment, or `otherwise` if it is not set.
inline std::uint64_t setting(char const* name, std::uint64_t otherwise) {
  auto const* const text = std::getenv(name);
  return text != nullptr && *text != '\0' ? std::strtoull(text, nullptr, 10) : otherwise;
}
inline std::uint64_t seed() { return setting("CHATPROTO_SEED", std::random_device()()); }

/// The result of a client's read.
struct Reading {
  enum Kind { line, end, broken, silence };
  Kind kind;
  std::string text = {};  // of a line, including its LF
};

/// Bytes that were received and not read yet.
class Input {
 public:
  void append(std::string_view bytes) {
    bytes_.erase(0, std::exchange(begin_, 0));
    bytes_.append(bytes);
  }
  std::optional<std::string> line() {
    auto const lf = bytes_.find('\n', begin_);
    if (lf == std::string::npos) return std::nullopt;
    auto const begin = std::exchange(begin_, lf + 1);
    return bytes_.substr(begin, begin_ - begin);
  }
  /// Returns the bytes after the last whole line.
  std::string rest() const { return bytes_.substr(begin_); }

 private:
  std::string bytes_;
  std::size_t begin_ = 0;
};

/// A client's end of a connection. Write errors show in later reads.
class Client {
 public:
  /// `layers`: makes the layer that the bytes pass through, if any.
  explicit Client(std::uint16_t port, chatproto::LayerFactory* layers = nullptr) {
    socket_.connect({asio::ip::address_v4::loopback(), port});
    socket_.set_option(asio::ip::tcp::no_delay(true));
    socket_.non_blocking(true);
    if (layers != nullptr) shake_hands(*layers);
  }

  void write(std::string_view bytes) {
    for (auto const end = Clock::now() + test::patience;;) {
      std::error_code ec;
      bytes.remove_prefix(write_some(bytes, ec));
      if (would_block(ec) ? !wait(asio::socket_base::wait_write, end) : ec || bytes.empty()) return;
    }
  }

  /// Shuts down sending, and continues to read.
  void half_close() {
    if (layer_) {
      layer_->close_output();
      return write({});
    }
    std::error_code ignored;
    socket_.shutdown(asio::socket_base::shutdown_send, ignored);
  }
  void close() {
    if (layer_ && socket_.is_open()) half_close();
    std::error_code ignored;
    socket_.close(ignored);
  }
  /// Aborts the connection, so that the other end sees an error.
  void reset() {
    std::error_code ignored;
    socket_.set_option(asio::socket_base::linger(true, 0), ignored);
    socket_.close(ignored);
  }

  Reading read(Time time = test::patience) {
    for (auto const end = Clock::now() + time;;) {
      if (auto line = input_.line()) return {Reading::line, *std::move(line)};
      char buffer[16 * 1024];
      std::error_code ec;
      auto const size = read_some(buffer, sizeof buffer, ec);
      if (!ec)
        input_.append({buffer, size});
      else if (ec == asio::error::eof)
        return {Reading::end, input_.rest()};
      else if (!would_block(ec))
        return {Reading::broken, ec.message()};
      else if (!wait(asio::socket_base::wait_read, end))
        return {Reading::silence, input_.rest()};
    }
  }

 private:
  static bool would_block(std::error_code const& ec) {
    return ec == asio::error::would_block || ec == asio::error::try_again;
  }

  void shake_hands(chatproto::LayerFactory& layers) {
    layer_ = layers.make_layer(socket_.native_handle(), "localhost");
    for (auto const end = Clock::now() + test::patience;;) {
      auto const result = layer_->handshake();
      if (result.error) throw std::system_error(result.error);
      if (result.wait == chatproto::Layer::Wait::nothing) return;
      if (!wait(result.wait == chatproto::Layer::Wait::read ? asio::socket_base::wait_read
                                                            : asio::socket_base::wait_write,
                end))
        throw std::runtime_error("no handshake");
    }
  }
  /// Also writes what the layer holds. `would_block`: it still holds some.
  std::size_t write_some(std::string_view bytes, std::error_code& ec) {
    if (!layer_) return bytes.empty() ? 0 : socket_.write_some(asio::buffer(bytes), ec);
    auto result = layer_->flush();
    result.bytes = 0;
    if (!result.error && result.wait == chatproto::Layer::Wait::nothing && !bytes.empty())
      result = layer_->write(bytes.data(), bytes.size());
    ec = result.error;
    if (!ec && result.wait != chatproto::Layer::Wait::nothing) ec = asio::error::would_block;
    return result.bytes;
  }
  std::size_t read_some(char* bytes, std::size_t size, std::error_code& ec) {
    if (!layer_) return socket_.read_some(asio::buffer(bytes, size), ec);
    auto wait = chatproto::Layer::Wait::nothing;
    return chatproto::detail::read_some(*layer_, bytes, size, wait, ec);
  }

  bool wait(asio::socket_base::wait_type what, Clock::time_point end) {
    auto done = false;
    socket_.async_wait(what, [&done](std::error_code const&) { done = true; });
    io_.restart();
    io_.run_until(end);
    auto const in_time = done;
    if (!in_time) {
      std::error_code ignored;
      socket_.cancel(ignored);
      io_.restart();
      io_.run();
    }
    return in_time;
  }

  asio::io_context io_{1};
  asio::ip::tcp::socket socket_{io_};
  std::unique_ptr<chatproto::Layer> layer_;
  Input input_;
};

/// A client without a socket: a session, used by one thread, that is called as a link would call it, and a queue that
/// is sometimes drained only in part, as by a socket.
class SessionClient {
 public:
  explicit SessionClient(chatproto::ChatService& service)
      : session_(new Session(service.open(chatproto::Peer(queue_)))) {}
  ~SessionClient() { close(); }

  void write(std::string_view bytes) {
    if (!session_) return;
    reader_.feed(bytes);
    while (queue_->is_open()) {
      auto const line = reader_.next();
      if (!line) break;
      if (line->too_long)
        session_->on_bad_line(chatproto::Errc::line_too_long);
      else
        session_->on_line(line->text);
    }
    session_->flush();
    if (!queue_->is_open()) session_.reset();
  }

  void half_close() {
    session_.reset();
    queue_->close();
  }
  void close() {
    session_.reset();
    queue_->finish();
  }
  void reset() { close(); }

  Reading read(Time time = test::patience) {
    for (auto const end = Clock::now() + time;;) {
      if (auto line = input_.line()) return {Reading::line, *std::move(line)};
      auto const state = queue_->drain(batch_);
      if (take()) continue;
      if (state == chatproto::MessageQueue::State::closing)
        return {Reading::end, input_.rest()};
      else if (state == chatproto::MessageQueue::State::aborted)
        return {Reading::broken, "aborted"};
      else if (!queue_->wait_until(end))
        return {Reading::silence, input_.rest()};
    }
  }

 private:
  using Session = chatproto::ChatService::Session;

  class Queue final : public chatproto::MessageQueue {
   public:
    Queue() : MessageQueue(64 * 1024 * 1024) {}

    bool wait_until(Clock::time_point end) {
      std::unique_lock lock(mutex_);
      if (Clock::now() >= end) return std::exchange(woken_, false);  // even an expired wait costs time
      return awake_.wait_until(lock, end, [this] { return std::exchange(woken_, false); });
    }

    chatproto::LogReader* log = nullptr;  // which the session reads besides the queue

   private:
    void follow(chatproto::LogReader* reader) noexcept override { log = reader; }
    void wake() override {
      std::lock_guard const lock(mutex_);
      woken_ = true;
      awake_.notify_one();
    }

    std::mutex mutex_;
    std::condition_variable awake_;
    bool woken_ = false;
  };

  /// Takes the drained batch or a part of it, else the session's log. Returns false if there was nothing.
  bool take() {
    if (batch_.blocks.empty()) return take_log();
    auto const bytes = test::text_of(batch_);
    auto const part = random_.percent(50) ? bytes.size() : random_.below(bytes.size() + 1);
    input_.append(std::string_view(bytes).substr(0, part));
    if (part < bytes.size()) queue_->put_back(batch_, part);
    return true;
  }
  bool take_log() {
    chatproto::RoomLog::Pieces pieces;
    if (queue_->log == nullptr || !queue_->log->read(pieces)) return false;
    input_.append(test::text_of(pieces));
    std::string rest;
    queue_->log->advance(pieces, pieces.size, rest);
    return true;
  }

  Random random_{0};
  std::shared_ptr<Queue> queue_ = std::make_shared<Queue>();
  std::unique_ptr<Session> session_;
  chatproto::LineReader reader_;
  chatproto::MessageQueue::Batch batch_;
  Input input_;
};

}  // namespace raw
