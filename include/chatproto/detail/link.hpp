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
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>

#include <asio/basic_stream_socket.hpp>
#include <asio/buffer.hpp>
#include <asio/error.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/post.hpp>

#include <chatproto/detail/flusher.hpp>
#include <chatproto/detail/transfer.hpp>
#include <chatproto/line_reader.hpp>
#include <chatproto/message_queue.hpp>
#include <chatproto/peer.hpp>
#include <chatproto/service.hpp>

namespace chatproto::detail {

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
      guarded([this] { session_.emplace(Opening{*this}); });
      if (!session_) return;
      if constexpr (has_login) due_in(host_.options().login_deadline);
    }
    if (!paused_) wait_readable();
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
    auto const all = write(*socket_, buffers, written, ec);
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
    Link& link;
    operator Session() {
      auto& service = link.host_.service();
      Peer peer(link.shared_from_this());
      if constexpr (Opens<std::remove_reference_t<decltype(service)>, Peer, std::string>)
        return service.open(std::move(peer), remote_address(*link.socket_));
      else
        return service.open(std::move(peer));
    }
  };

  void pause_input() override { paused_ = true; }
  void resume_input(std::shared_ptr<MessageQueue> then) override {
    auto resumed = false;
    this->unless_finished([&] {
      resumed = true;
      asio::post(socket_->get_executor(), [self = this->shared_from_this(), then] {
        self->resume();
        if (then) then->resume_input(nullptr);
      });
    });
    if (!resumed && then) then->resume_input(nullptr);
  }
  void resume() {
    if (!socket_ || !std::exchange(paused_, false)) return;
    auto const held = std::exchange(held_, nullptr);
    if (held && session_ && reads_lines_) guarded([&] { take_lines(*held); });
    // What has come in meanwhile comes before what comes in now; so does the end of it.
    auto more = true;
    for (auto i = 0; more && i < most_reads && socket_ && !paused_; ++i) more = read_once({});
    read_on();
  }

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
    read_once(ec);
    read_on();
  }
  void read_on() {
    if (socket_ && !paused_ && !input_ended_) wait_readable();
  }

  /// Reads what is there, up to a buffer; whether there was something.
  bool read_once(std::error_code ec) {
    auto* const buffer = ThreadBuffers::mine().read.get();
    std::size_t size = 0;
    if (!ec) size = socket_->read_some(asio::buffer(buffer, io_size), ec);
    if (ec == asio::error::eof)
      input_ended();
    else if (ec && !would_block(ec))
      end();
    else if (session_ && reads_lines_ && size > 0)
      guarded([&] { take_lines({buffer, size}); });
    return size > 0;
  }

  void take_lines(std::string_view bytes) {
    reader_.feed(bytes);
    while (is_open() && !paused_) {  // what comes after a close is ignored
      auto const line = reader_.next();
      if (!line) break;
      if (!line->too_long)
        session_->on_line(line->text);
      else if constexpr (requires { session_->on_bad_line(std::error_code()); })
        session_->on_bad_line(Errc::line_too_long);
    }
    if (paused_ && is_open()) held_ = std::make_unique<std::string>(reader_.take_rest());
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
    if (std::exchange(paused_, false)) wait_readable();
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

  bool has_due() const noexcept { return due_.load(std::memory_order_relaxed) != never; }
  void not_due() noexcept { due_.store(never, std::memory_order_relaxed); }
  void due_in(std::chrono::milliseconds time) {
    due_.store((Clock::now() + time).time_since_epoch().count(), std::memory_order_relaxed);
    host_.watch_deadlines();
  }

  static constexpr int most_reads = 4;  // of a client that floods, before others have their turn
  static constexpr Clock::rep never = std::numeric_limits<Clock::rep>::max();

  Host& host_;
  Flusher& flusher_;
  std::optional<Socket> socket_;  // gone when the link has ended
  std::optional<Session> session_;
  LineReader reader_;
  std::atomic<Clock::rep> due_ = never;
  std::unique_ptr<std::string> held_;  // read, but the session has paused
  bool paused_ = false;
  bool reads_lines_ = true;      // the host has not stopped
  bool stalled_ = false;         // the peer did not take all
  bool waits_writable_ = false;  // an operation is under way
  bool input_ended_ = false;     // the peer sends no more
  bool lingering_ = false;       // we send no more
};

}  // namespace chatproto::detail
