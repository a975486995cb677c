// SPDX-License-Identifier: BSL-1.0
/// @file
/// The one I/O loop: socket <-> LineReader, MessageQueue, Session.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>

#include <asio/basic_stream_socket.hpp>
#include <asio/buffer.hpp>
#include <asio/error.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/post.hpp>

#include <chatproto/detail/flusher.hpp>
#include <chatproto/line_reader.hpp>
#include <chatproto/message_queue.hpp>
#include <chatproto/peer.hpp>

namespace chatproto::detail {

/// How much is read, or gathered to be written, at once: bytes.
inline constexpr std::size_t io_size = 64 * 1024;

/// The buffers of a thread. An idle client holds none.
struct ThreadBuffers {
  std::unique_ptr<char[]> read{new char[io_size]}, write{new char[io_size]};
  MessageQueue::Batch batch;

  static ThreadBuffers& mine() {
    static thread_local ThreadBuffers buffers;
    return buffers;
  }
};

/// One client of a `Host` (a `Server`): its socket, the lines it sends, the blocks that wait for it.
///
/// All but the queue is used on the client's executor only. It lives as long as somebody knows it (the host, an operation
/// under way, a `Peer`), but after `end()` it is only a closed queue.
///
/// A connection ends in one of two ways. At once: `end()`. In order: the queue is closed, written out, then our side
/// is shut down, and what the peer still sends is read and dropped for a moment: closing a socket that holds unread
/// bytes would reset the connection and could destroy what the peer has not yet read (RFC 1122, 4.2.2.13).
template <class Host>
class Link final : public MessageQueue, public std::enable_shared_from_this<Link<Host>> {
 public:
  using Executor = typename Host::executor_type;
  using Socket = asio::basic_stream_socket<asio::ip::tcp, Executor>;
  using Clock = std::chrono::steady_clock;

  Link(Host& host, Socket socket)
      : MessageQueue(host.options().queue_limit),
        host_(host),
        flusher_(Flusher::of(socket.get_executor())),
        socket_(std::move(socket)) {}

  /// Begins: on the client's executor. The host may have stopped it already.
  void start() {
    if (!socket_) return;
    std::error_code ec;
    socket_->non_blocking(true, ec);
    if (!ec) socket_->set_option(asio::ip::tcp::no_delay(true), ec);
    if (ec) return end();
    if (is_open()) {
      guarded([this] { session_.emplace(Opening{host_.service(), Peer(this->shared_from_this())}); });
      if (!session_) return;
      if constexpr (has_login) due_in(host_.options().login_deadline);
    }
    wait_readable();
  }

  /// Writes what waits: on the client's executor.
  void flush() {
    if (!socket_) return;
    auto& buffers = ThreadBuffers::mine();
    auto const state = drain(buffers.batch);
    if (state == State::aborted) return end();
    if (state == State::closing) session_.reset();
    std::error_code ec;
    std::size_t written = 0;
    auto const all = write(buffers, written, ec);
    if (!all && !ec) {
      put_back(buffers.batch, written);
      return wait_writable(written > 0);
    }
    buffers.batch.blocks.clear();
    if (ec) return end();
    if (std::exchange(stalled_, false)) {
      not_due();
      if constexpr (has_login)
        if (session_ && !session_->logged_in()) due_in(host_.options().login_deadline);
    }
    if (state == State::closing) finish_output();
  }

  /// When it is to be asked whether its time is over; any thread.
  Clock::time_point due() const noexcept {
    return Clock::time_point(Clock::duration(due_.load(std::memory_order_relaxed)));
  }

  /// Reads no more lines: any thread. `done` is released when the last one that was read has been carried out.
  void stop_reading(std::shared_ptr<void> done) {
    this->unless_finished([&] {
      asio::post(socket_->get_executor(),
                 [self = this->shared_from_this(), done = std::move(done)] { self->reads_lines_ = false; });
    });
  }

  /// Asks it: any thread.
  void ask_if_overdue() {
    this->unless_finished(
        [this] { asio::post(socket_->get_executor(), [self = this->shared_from_this()] { self->end_if_overdue(); }); });
  }

  Executor executor() { return socket_->get_executor(); }  ///< before it starts
  std::size_t slot = 0;                                    ///< the host's

 private:
  using Session = typename std::remove_reference_t<decltype(std::declval<Host&>().service())>::Session;
  using Flusher = detail::Flusher<Executor, Link>;
  static constexpr bool has_login = requires(Session const& session) { session.logged_in(); };

  void end_if_overdue() {
    if (!socket_ || due() > Clock::now()) return;
    if (stalled_ || !session_) return end();  // no progress, or it has lingered long enough
    not_due();
    if constexpr (has_login)
      if (!session_->logged_in()) close();
  }

  /// Lets a session that cannot be moved be made in place by `open`.
  struct Opening {
    decltype(std::declval<Host&>().service()) service;
    Peer peer;
    operator Session() { return service.open(std::move(peer)); }
  };

  void wake() override { flusher_.add(socket_->get_executor(), this->shared_from_this()); }

  /// Calls into the service. If it throws, this client is cut and nobody else is touched.
  void guarded(auto&& call) noexcept {
    try {
      call();
    } catch (...) {
      end();
    }
  }

  void wait_readable() {
    socket_->async_wait(Socket::wait_read,
                        [self = this->shared_from_this()](std::error_code const& ec) { self->on_readable(ec); });
  }

  void on_readable(std::error_code ec) {
    if (!socket_) return;
    auto* const buffer = ThreadBuffers::mine().read.get();
    std::size_t size = 0;
    if (!ec) size = socket_->read_some(asio::buffer(buffer, io_size), ec);
    if (ec == asio::error::eof) return input_ended();
    if (ec && !would_block(ec)) return end();
    if (session_ && reads_lines_ && size > 0) guarded([&] { take_lines({buffer, size}); });
    if (socket_) wait_readable();
  }

  void take_lines(std::string_view bytes) {
    reader_.feed(bytes);
    while (is_open()) {  // what comes after a close is ignored
      auto const line = reader_.next();
      if (!line) break;
      if (!line->too_long)
        session_->on_line(line->text);
      else if constexpr (requires { session_->on_bad_line(std::error_code()); })
        session_->on_bad_line(Errc::line_too_long);
    }
    if constexpr (requires { session_->flush(); }) session_->flush();
    if (!is_open())
      session_.reset();
    else if constexpr (has_login)
      if (!stalled_ && has_due() && session_->logged_in()) not_due();
  }

  /// The peer sends no more. What waits for it is still written.
  void input_ended() {
    input_ended_ = true;
    session_.reset();
    if (lingering_) return end();
    close();
  }

  /// Everything is written and nothing more will be.
  void finish_output() {
    if (input_ended_) return end();
    std::error_code ec;
    socket_->shutdown(Socket::shutdown_send, ec);
    if (ec) return end();
    lingering_ = true;
    due_in(host_.options().linger);
  }

  /// Writes the drained batch as far as the peer takes it; true: all of it.
  bool write(ThreadBuffers& buffers, std::size_t& written, std::error_code& ec) {
    auto const& blocks = buffers.batch.blocks;
    auto skip = buffers.batch.offset;
    for (std::size_t i = 0; i < blocks.size();) {
      // One block goes straight from where it lies; several are gathered, which is cheaper than writev.
      asio::const_buffer chunk(blocks[i]->data() + skip, blocks[i]->size() - skip);
      auto next = i + 1;
      if (next < blocks.size() && chunk.size() + blocks[next]->size() <= io_size) {
        auto* const gathered = buffers.write.get();
        auto size = chunk.size();
        std::memcpy(gathered, chunk.data(), size);
        for (; next < blocks.size() && size + blocks[next]->size() <= io_size; ++next) {
          std::memcpy(gathered + size, blocks[next]->data(), blocks[next]->size());
          size += blocks[next]->size();
        }
        chunk = asio::const_buffer(gathered, size);
      }
      while (chunk.size() > 0) {
        auto const n = socket_->write_some(chunk, ec);
        if (would_block(ec)) ec.clear();
        if (ec) return false;
        written += n;
        if (n < chunk.size()) return false;
        chunk += n;
      }
      i = next;
      skip = 0;
    }
    return true;
  }

  void wait_writable(bool progress) {
    if (!std::exchange(stalled_, true) || progress) due_in(host_.options().write_deadline);
    if (std::exchange(waits_writable_, true)) return;
    socket_->async_wait(Socket::wait_write, [self = this->shared_from_this()](std::error_code const& ec) {
      self->waits_writable_ = false;
      if (ec) return self->end();
      self->flush();
    });
  }

  /// Ends it now. Whatever still holds this link finds a closed queue.
  void end() {
    if (!socket_) return;
    finish();  // from here on nobody wakes us
    session_.reset();
    std::error_code ignored;
    socket_->close(ignored);
    socket_.reset();
    host_.remove(*this);
  }

  static bool would_block(std::error_code const& ec) noexcept {
    return ec == asio::error::would_block || ec == asio::error::try_again || ec == asio::error::interrupted;
  }

  bool has_due() const noexcept { return due_.load(std::memory_order_relaxed) != never; }
  void not_due() noexcept { due_.store(never, std::memory_order_relaxed); }
  void due_in(std::chrono::milliseconds time) {
    due_.store((Clock::now() + time).time_since_epoch().count(), std::memory_order_relaxed);
    host_.watch_deadlines();
  }

  static constexpr Clock::rep never = std::numeric_limits<Clock::rep>::max();

  Host& host_;
  Flusher& flusher_;
  std::optional<Socket> socket_;  // gone when the link has ended
  std::optional<Session> session_;
  LineReader reader_;
  std::atomic<Clock::rep> due_ = never;
  bool reads_lines_ = true;      // the host has not stopped
  bool stalled_ = false;         // the peer did not take all
  bool waits_writable_ = false;  // an operation is under way
  bool input_ended_ = false;     // the peer sends no more
  bool lingering_ = false;       // we send no more
};

}  // namespace chatproto::detail
