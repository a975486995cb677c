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

#include <chatproto/detail/events.hpp>
#include <chatproto/detail/flusher.hpp>
#include <chatproto/detail/transfer.hpp>
#include <chatproto/line_reader.hpp>
#include <chatproto/message_queue.hpp>
#include <chatproto/observer.hpp>
#include <chatproto/peer.hpp>
#include <chatproto/service.hpp>
#include <chatproto/token_bucket.hpp>

namespace chatproto::detail {

/// One client of a `Host` (a `Server`): its socket, the lines it sends, the blocks that wait for it.
///
/// All but the queue is used on the client's executor only. It lives as long as somebody knows it (the host, an operation
/// under way, a `Peer`), but after `end()` it is only a closed queue.
///
/// A connection ends in one of two ways. At once: `end()`. In order: the queue is closed, written out, then our side
/// is shut down, and what the peer still sends is read and dropped for a moment: closing a socket that holds unread
/// bytes would reset the connection and could destroy what the peer has not yet read (RFC 1122, 4.2.2.13).
///
/// Whatever throws here, as for want of memory, costs this client and nobody else: each handler is `guarded`.
template <class Host>
class Link final : public MessageQueue, public std::enable_shared_from_this<Link<Host>> {
 public:
  using Executor = typename Host::executor_type;
  using Socket = asio::basic_stream_socket<asio::ip::tcp, Executor>;
  using Clock = std::chrono::steady_clock;

  /// The `number`th client of the host.
  Link(Host& host, Socket socket, std::uint64_t number)
      : MessageQueue(host.options().queue_limit, host.options().overflow),
        host_(host),
        flusher_(socket.get_executor()),
        socket_(std::move(socket)),
        reader_(host.options().line_limit),
        number_(number) {}

  /// Begins: on the client's executor. The host may have stopped it already.
  void start() noexcept {
    guarded([this] {
      if (!socket_) return;
      std::error_code ec;
      socket_->non_blocking(true, ec);
      if (!ec) socket_->set_option(asio::ip::tcp::no_delay(true), ec);
      if (ec) return end(Ended::lost, ec);
      if (is_open()) {
        auto& events = host_.events();
        if (events.observed() && !events.connected(number_, remote_address(*socket_))) return end(Ended::failed);
        auto const& options = host_.options();
        if (options.rate > 0) bucket_ = std::make_unique<TokenBucket>(options.rate, std::max(options.rate_burst, 1.0));
        session_.emplace(Opening{*this});
        if constexpr (has_login) due_in(options.login_deadline);
      }
      wait_readable();
    });
  }

  /// It could not be told to begin.
  void drop() noexcept { end(Ended::failed); }

  /// Writes what waits: on the client's executor.
  void flush() noexcept {
    guarded([this] { write_out(); });
  }

  /// When it is to be asked whether its time is over; any thread.
  Clock::time_point due() const noexcept {
    if (has_failed()) return Clock::time_point();  // and could not be told
    return Clock::time_point(Clock::duration(due_.load(std::memory_order_relaxed)));
  }

  /// Reads no more lines: any thread. `done` is released when the last one that was read has been carried out.
  void stop_reading(std::shared_ptr<void> done) noexcept {
    post([](Link& link, auto&) { link.reads_lines_ = false; }, std::move(done));
  }
  /// Asks it: any thread.
  void ask_if_overdue() noexcept {
    post([](Link& link, auto&) { link.end_if_overdue(); });
  }
  /// It may send again: any thread.
  void end_throttle() noexcept {
    post([](Link& link, auto&) {
      link.throttled_ = false;
      link.go_on();
    });
  }

  Executor executor() { return socket_->get_executor(); }  ///< before it starts
  std::uint32_t& slot() noexcept { return slot_; }         ///< its place, where the host keeps its links

 private:
  using Session = typename std::remove_reference_t<decltype(std::declval<Host&>().service())>::Session;
  using Flusher = detail::Flusher<Executor, Link>;
  static constexpr bool has_login = requires(Session const& session) { session.logged_in(); };

  /// What was read and is not handed over yet.
  struct Held {
    std::string bytes;
    std::size_t taken = 0;  // of these
  };

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

  /// Whatever is thrown within cuts this client, and nobody else is touched.
  void guarded(auto&& call) noexcept {
    try {
      call();
    } catch (...) {
      end(Ended::failed);
    }
  }

  /// Calls `action` on the client's executor with what is to be kept until then, if the link has not finished; false: it will not
  /// be called. Any thread. All actions are of one type, as each type of handler costs the compiler some hundredth of a second.
  bool post(void (*action)(Link&, std::shared_ptr<void>& kept), std::shared_ptr<void> kept = nullptr) noexcept {
    auto posted = false;
    try {
      this->unless_finished([&] {
        asio::post(socket_->get_executor(),
                   [self = this->shared_from_this(), action, kept = std::move(kept)]() mutable {
                     self->guarded([&] { action(*self, kept); });
                   });
        posted = true;
      });
    } catch (...) {
      cut(State::failed);
    }
    return posted;
  }

  void end_if_overdue() {
    if (!socket_) return;
    if (has_failed()) return end(Ended::failed);
    if (due() > Clock::now()) return;
    if (stalled_) return end(Ended::write_deadline);
    if (!session_) return end(why_);  // it has lingered long enough
    not_due();
    if constexpr (has_login)
      if (!session_->logged_in()) {
        why_ = Ended::login_deadline;
        close();
      }
  }

  // --- In ---

  void pause_input() override { paused_ = true; }
  void resume_input(std::shared_ptr<MessageQueue> then) noexcept override {
    auto const posted = post(
        [](Link& link, std::shared_ptr<void>& kept) {
          link.guarded([&] {  // or whoever waits for it would wait for ever
            if (std::exchange(link.paused_, false)) link.go_on();
          });
          if (kept) std::static_pointer_cast<MessageQueue>(kept)->resume_input(nullptr);
        },
        then);
    if (!posted && then) then->resume_input(nullptr);
  }

  void wait_readable() {
    if (!may_read() || std::exchange(waits_readable_, true)) return;
    socket_->async_wait(Socket::wait_read, [self = this->shared_from_this()](std::error_code const& ec) {
      self->waits_readable_ = false;
      self->guarded([&] {
        if (!self->socket_) return;
        if (self->may_read()) self->read_once(ec);
        if (self->socket_) self->wait_readable();
      });
    });
  }
  Traffic& traffic() noexcept { return host_.events().traffic(number_); }
  bool may_take() const noexcept { return !paused_ && !throttled_; }
  /// A peer that does not take our replies is not heard, where it is not cut for that.
  bool waits_for_peer() const noexcept { return stalled_ && host_.options().overflow == Overflow::block_sender; }
  bool may_read() const noexcept { return may_take() && !input_ended_ && !waits_for_peer(); }

  /// After a pause, or when the peer takes our replies again.
  void go_on() {
    if (!socket_ || !may_take() || waits_for_peer()) return;
    auto held = std::exchange(held_, nullptr);
    if (!reads_lines_) held = nullptr;
    auto const bytes = held ? std::string_view(held->bytes).substr(held->taken) : std::string_view();
    if (session_) take_lines(bytes, std::move(held));
    // What has come in meanwhile comes before what comes in now; so does the end of it.
    auto more = true;
    for (auto i = 0; more && i < most_reads && socket_ && may_read(); ++i) more = read_once({});
    if (socket_) wait_readable();
  }

  /// Reads what is there, up to a buffer; whether there was something.
  bool read_once(std::error_code ec) {
    auto* const buffer = ThreadBuffers::mine().read.get();
    std::size_t size = 0;
    if (!ec) size = socket_->read_some(asio::buffer(buffer, io_size), ec);
    add(traffic().bytes_in, size);
    if (ec == asio::error::eof)
      input_ended();
    else if (ec && !would_block(ec))
      end(Ended::lost, ec);
    else if (session_ && reads_lines_ && size > 0)
      take_lines({buffer, size}, nullptr);
    return size > 0;
  }

  /// `from`: where the bytes lie, if they were held.
  void take_lines(std::string_view bytes, std::unique_ptr<Held> from) {
    std::uint64_t lines = 0;
    reader_.feed(bytes);
    while (is_open() && may_take()) {  // what comes after a close is ignored
      if (bucket_ && throttle()) break;
      auto const line = reader_.next();
      if (!line) break;
      ++lines;
      if (bucket_) bucket_->take(Clock::now());
      if (!line->too_long)
        session_->on_line(line->text);
      else if constexpr (requires { session_->on_bad_line(std::error_code()); })
        session_->on_bad_line(Errc::line_too_long);
    }
    add(traffic().lines_in, lines);
    if (auto const rest = reader_.take_rest(); !rest.empty() && !may_take()) {
      if (!from) from = std::make_unique<Held>(Held{std::string(rest)});
      from->taken = from->bytes.size() - rest.size();
      held_ = std::move(from);
    }
    if constexpr (requires { session_->flush(); }) session_->flush();
    if constexpr (has_login)
      if (!logged_in_ && session_->logged_in()) greet();
    if (!is_open()) session_.reset();
  }

  void greet() {
    logged_in_ = true;
    if (!stalled_) not_due();
    std::string_view name;
    if constexpr (requires { name = session_->name(); }) name = session_->name();
    if (!host_.events().logged_in(number_, name)) end(Ended::failed);
  }

  /// Whether the client must wait for the rate limit. Not shorter than what a timer costs is worth.
  bool throttle() {
    auto const wait = bucket_->wait(Clock::now());
    if (wait <= Clock::duration::zero()) return false;
    throttled_ = true;
    add(traffic().throttled, 1);
    auto const& options = host_.options();  // longer than it takes to fill the bucket would be slower than the rate
    std::chrono::duration<double> const worth(std::min(0.01, std::max(options.rate_burst, 1.0) / options.rate));
    host_.end_throttle_in(std::max(wait, std::chrono::duration_cast<Clock::duration>(worth)), this->weak_from_this());
    return true;
  }

  /// The peer sends no more. What waits for it is still written.
  void input_ended() {
    input_ended_ = true;
    session_.reset();
    if (lingering_) return end(why_);
    close();
  }

  // --- Out ---

  void wake() override { flusher_.add(socket_->get_executor(), this->shared_from_this()); }
  void wake_failed() noexcept override { host_.watch_deadlines(); }

  void write_out() {
    if (!socket_) return;
    auto& buffers = ThreadBuffers::mine();
    auto const state = drain(buffers.batch);
    struct Clear {
      Batch& batch;
      ~Clear() { batch.clear(); }
    } const clear{buffers.batch};
    if (state == State::aborted) return end(Ended::aborted);
    if (state == State::overflowed) return end(Ended::overflow);
    if (state == State::failed) return end(Ended::failed);
    if (state == State::closing) session_.reset();
    std::error_code ec;
    std::size_t written = 0;
    auto const all = write(*socket_, buffers, written, ec);
    add(traffic().bytes_out, written);
    if (ec) return end(Ended::lost, ec);
    if (!all) {
      put_back(buffers.batch, written);
      return wait_writable(written > 0);
    }
    if (std::exchange(stalled_, false)) {
      not_due();
      if constexpr (has_login)
        if (session_ && !session_->logged_in()) due_in(host_.options().login_deadline);
      if (state != State::closing && host_.options().overflow == Overflow::block_sender) return go_on();
    }
    if (state == State::closing) finish_output();
  }

  /// Everything is written and nothing more will be.
  void finish_output() {
    if (input_ended_) return end(why_);
    std::error_code ec;
    socket_->shutdown(Socket::shutdown_send, ec);
    if (ec) return end(Ended::lost, ec);
    lingering_ = true;
    due_in(host_.options().linger);
    paused_ = throttled_ = false;
    wait_readable();
  }

  void wait_writable(bool progress) {
    if (!std::exchange(stalled_, true) || progress) due_in(host_.options().write_deadline);
    if (std::exchange(waits_writable_, true)) return;
    socket_->async_wait(Socket::wait_write, [self = this->shared_from_this()](std::error_code const& ec) {
      self->waits_writable_ = false;
      if (ec) return self->end(Ended::lost, ec);
      self->flush();
    });
  }

  /// Ends it now. Whatever still holds this link finds a closed queue.
  void end(Ended reason, std::error_code const& error = {}) noexcept {
    if (!socket_) return;
    finish();  // from here on nobody wakes us
    session_.reset();
    held_.reset();
    std::error_code ignored;
    socket_->close(ignored);
    socket_.reset();
    host_.events().ended(number_, reason, error);
    host_.remove(*this);
  }

  void not_due() noexcept { due_.store(never, std::memory_order_relaxed); }
  void due_in(std::chrono::milliseconds time) noexcept {
    due_.store((Clock::now() + time).time_since_epoch().count(), std::memory_order_relaxed);
    host_.watch_deadlines();
  }

  static constexpr int most_reads = 4;  // of a client that floods, before others have their turn
  static constexpr Clock::rep never = std::numeric_limits<Clock::rep>::max();

  Host& host_;
  [[no_unique_address]] Flusher flusher_;
  std::optional<Socket> socket_;  // gone when the link has ended
  std::optional<Session> session_;
  LineReader reader_;
  std::atomic<Clock::rep> due_ = never;
  std::unique_ptr<Held> held_;           // read, but the session has paused or the client must wait
  std::unique_ptr<TokenBucket> bucket_;  // of a client whose rate is limited
  std::uint64_t number_;
  std::uint32_t slot_ = 0;
  Ended why_ = Ended::closed;    // if it ends in order
  bool paused_ = false;          // by the session
  bool throttled_ = false;       // by the rate limit
  bool logged_in_ = false;       // and the observer knows
  bool reads_lines_ = true;      // the host has not stopped
  bool stalled_ = false;         // the peer did not take all
  bool waits_readable_ = false;  // an operation is under way
  bool waits_writable_ = false;  // the same
  bool input_ended_ = false;     // the peer sends no more
  bool lingering_ = false;       // we send no more
};

}  // namespace chatproto::detail
