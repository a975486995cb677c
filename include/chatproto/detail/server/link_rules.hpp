// SPDX-License-Identifier: BSL-1.0
/// @file
/// `LinkRules`: how a link treats its client, without a socket.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <chatproto/detail/held_memory.hpp>
#include <chatproto/error.hpp>
#include <chatproto/line_reader.hpp>
#include <chatproto/message_queue.hpp>
#include <chatproto/observer.hpp>
#include <chatproto/room_log.hpp>
#include <chatproto/server_options.hpp>
#include <chatproto/token_bucket.hpp>

namespace chatproto::detail {

/// The output of one write: the blocks from the queue, then the text that the client's session reads from a log.
struct Output {
  MessageQueue::Batch batch;
  RoomLog::Pieces log;
};

/// The rules of one client's link: when it reads, passes lines to the session, writes, waits and ends. The link reports
/// events (bytes read or written, time passed) and then asks what to do.
///
/// - Lines are handled in *turns*: after `turn_lines` lines or `turn_time` the other clients of the thread get theirs.
/// - The session gets no line while more than `reply_limit` bytes wait for the client, so the link does not read from a
///   client that does not take its replies. Before the write deadline such a client is not disconnected, unless the
///   queue's limit is less than the replies of one turn.
/// - A client is disconnected for too much output only after a write was tried and its socket took nothing. (Its queue
///   and its room enforce the hard limit.)
/// - A session that reads a room's log lives until it has read what was there when the link noticed the close.
///
/// `Owner` is the client's queue (a `MessageQueue`) and has the server's `options()`. The rules call its
/// `logged_in(name)`, which returns false to end the client, and its `throttled(time)`, which must call `end_throttle`
/// after that time. `Time::now()` returns the current time; tests use their own clock.
///
/// Thread safety: any thread may call `due()` and `held()`; all else runs on the client's executor.
template <class Session, class Owner, class Time = std::chrono::steady_clock>
class LinkRules {
 public:
  using Clock = std::chrono::steady_clock;

  LinkRules(Owner& owner, ServerOptions const& options) : owner_(owner), lines_(options.line_limit) {
    if (options.rate > 0) rate_.reset(new Rate{{options.rate, std::max(options.rate_burst, 1.0)}});
  }

  /// Begins the handshake of a layer, before `open`.
  void begin_handshake() { due_in(options().login_deadline); }
  /// Constructs the session by converting `maker`.
  void open(auto const& maker) {
    session_.emplace(maker);
    due_ = none;
    if constexpr (has_login) due_in(options().login_deadline);
  }

  // --- What is wanted -----------------------------------------------------------------------------------------------

  /// Why the client has ended; empty while it has not.
  std::optional<DisconnectReason> const& over() const noexcept { return over_; }
  /// Whether to read as soon as there is input. A client that does not take its output is read once more, so that its
  /// end is noticed.
  bool wants_input() const noexcept { return may_take() && !unread_ && (!input_ended_ || (lingering_ && !is_shut_)); }
  /// The most bytes to read at once.
  std::size_t read_size() const noexcept { return read_size_; }
  /// Whether to wait for an error of the connection, although there is nothing to read or write.
  bool wants_errors() const noexcept { return (paused_ || throttled_) && !stalled_; }
  /// Whether to call `take_turn` after the other clients have had their turn.
  bool wants_turn() const noexcept { return yielded_ && !over_; }
  /// Whether to write again as soon as the socket takes something.
  bool wants_writable() const noexcept { return stalled_; }
  /// Whether to shut down our side of the connection and call `shut_down`.
  bool wants_shutdown() const noexcept { return all_written_ && !lingering_ && !over_; }
  /// Whether a server that drains waits for the client: until it has logged in, and when it gets no more lines, until
  /// its session has finished (`on_input_end`).
  bool is_awaited() const {
    if (!takes_lines()) return false;
    if (!reads_lines_) return finishes_;
    if constexpr (has_login) return !session_->logged_in();
    return false;
  }
  /// When to call `time_is_over`. Any thread.
  Clock::time_point due() const noexcept {
    return Clock::time_point(Clock::duration(due_.load(std::memory_order_relaxed)));
  }

  /// Whether `due` has changed since the last call.
  bool has_new_deadline() noexcept { return std::exchange(new_deadline_, false); }
  /// Bytes held for the client outside its queue, at the last `measure`. Any thread.
  std::size_t held() const noexcept { return held_.load(std::memory_order_relaxed); }

  // --- Input --------------------------------------------------------------------------------------------------------

  /// `bytes` were read, while input was wanted. Returns how many lines the session got.
  std::size_t received(std::string_view bytes) {
    if (!reads_lines_ || !takes_lines()) return 0;
    auto const lines = take_lines(bytes, nullptr);
    if (!unread_ && bytes.size() == read_size_) read_size_ = std::min<std::uint32_t>(2 * read_size_, most_read);
    return lines;
  }
  /// The client has closed its side. Or, if not `is_shut`, it sends what makes no sense, and the rest of that is to be
  /// dropped. Its pending output is still written.
  void input_ended(bool is_shut = true) {
    input_ended_ = true;
    is_shut_ = is_shut;
    if (lingering_) return end(why_);
    tell_input_end();
    if (!finishes_) close_after_input();
  }
  /// Continues with input that waits, as it is the link's turn again. Returns how many lines the session got. Calls the
  /// session's `flush()` even if it got none, because it may hold back replies.
  std::size_t take_turn() {
    yielded_ = false;
    if (!takes_lines() || paused_) return 0;
    auto unread = std::exchange(unread_, nullptr);
    auto const bytes = unread ? std::string_view(unread->bytes).substr(unread->taken) : std::string_view();
    return take_lines(bytes, std::move(unread));
  }
  /// Passes no more lines to the session until `resume()`, which also closes a client that sends no more.
  void pause() noexcept { paused_ = true; }
  /// Ends the pause, if there is one.
  std::size_t resume() {
    if (!std::exchange(paused_, false) || !takes_lines()) return 0;
    if constexpr (requires { session_->on_resume(); }) session_->on_resume();
    auto const lines = take_turn();
    if (!paused_) finishes_ = false;
    if (input_ended_ && !finishes_) close_after_input();
    return lines;
  }
  /// Ends the wait for the rate limit.
  std::size_t end_throttle() {
    throttled_ = false;
    return take_turn();
  }
  /// Runs a task for the session, unless the client is closed or gone, or `stop_reading` was called: after that no
  /// session may send anything.
  void run(MessageQueue::Task& task) {
    if (!reads_lines_ || !takes_lines()) return;
    task.run();
    flush();
  }
  /// Passes no more lines to the session, ever.
  void stop_reading() {
    reads_lines_ = false;
    drop_input();
    tell_input_end();
  }
  /// Updates `held`. `in_layer`: bytes that the layer holds.
  void measure(std::size_t in_layer = 0) {
    auto const bytes = in_layer + input_size() + (reader_ ? reader_->backlog() : 0);
    held_ = static_cast<std::uint32_t>(std::min<std::size_t>(bytes, ~std::uint32_t()));
  }
  /// Sets what to write after the queue. Null: nothing.
  void follow(LogReader* reader) noexcept { reader_ = reader; }

  // --- Output -------------------------------------------------------------------------------------------------------

  /// Finds what to write now; the link must then call `written`. Returns false if the client has ended.
  bool next_output(Output& output) {
    output.log.count = output.log.size = 0;
    switch (queue().drain(output.batch)) {
      case MessageQueue::State::open: break;
      case MessageQueue::State::closing: close_session(); break;
      case MessageQueue::State::aborted: end(DisconnectReason::aborted); break;
      case MessageQueue::State::overflowed: end(DisconnectReason::overflow); break;
      case MessageQueue::State::failed: end(DisconnectReason::failed); break;
      case MessageQueue::State::over_memory: end(DisconnectReason::memory); break;
      case MessageQueue::State::room_lost: end(DisconnectReason::room_lost); break;
    }
    if (over_) return false;
    if (reader_) reader_->read(output.log);
    return true;
  }
  /// The socket, or its layer, took `bytes` of the output. `is_held`: the layer holds some of it or of earlier output.
  /// `has_moved`: the socket took something of that.
  void written(Output& output, std::size_t bytes, bool is_held = false, bool has_moved = false) {
    auto& batch = output.batch;
    std::size_t queued = 0;
    for (auto const& block : batch.blocks) queued += block->size();
    queued -= batch.offset;
    auto const stalled = is_held || bytes < queued + output.log.size;
    std::size_t backlog = 0;
    std::string rest;
    if (output.log.size > 0) backlog = reader_->advance(output.log, bytes - std::min(bytes, queued), rest);
    if (!stalled) return all_is_written(backlog);
    if (bytes >= queued) {
      batch.clear();
      if (!rest.empty()) batch.blocks.push_back(std::make_shared<std::string const>(std::move(rest)));
    }
    queue().put_back(batch, bytes >= queued ? 0 : bytes);
    all_written_ = false;
    has_moved = has_moved || bytes > 0;
    if (!has_moved && queue().overflow() == Overflow::disconnect &&
        std::max(backlog, queue().queued_bytes()) > queue().limit())
      return end(DisconnectReason::overflow);
    if (!std::exchange(stalled_, true) || has_moved) due_in(options().write_deadline);
    unblock();
  }
  /// Our side of the connection was shut down.
  void shut_down() {
    lingering_ = true;
    paused_ = throttled_ = blocked_ = yielded_ = false;
    drop_input();
    due_in(options().linger);
  }

  // --- Time ---------------------------------------------------------------------------------------------------------

  /// Acts on the deadline if it has passed. If the client is stalled, a write was just tried. `in_handshake`: the
  /// layer's handshake is not done.
  void time_is_over(Clock::time_point now, bool in_handshake = false) {
    if (over_ || due() > now) return;
    if (in_handshake) return end(DisconnectReason::handshake);
    if (stalled_) return end(DisconnectReason::write_deadline);
    if (lingering_) return end(why_);
    due_ = none;
    if constexpr (has_login)
      if (session_ && !session_->logged_in()) {
        why_ = DisconnectReason::login_deadline;
        queue().close();
      }
  }
  /// Ends the client, for this reason unless it had ended before.
  void end(DisconnectReason reason) noexcept {
    if (!over_) over_ = reason;
  }
  /// Closes a client that gets no session, when its output is written.
  void refuse() {
    why_ = DisconnectReason::refused;
    queue().close();
  }
  /// Returns the name of the session's user, if it has one.
  std::string name() const {
    if constexpr (requires { std::string(session_->name()); })
      if (session_) return std::string(session_->name());
    return {};
  }
  /// Destroys the session and all input kept for it.
  void forget() noexcept {
    session_.reset();
    drop_input();
  }

  static constexpr std::size_t turn_lines = 1024;
  static constexpr auto turn_time = std::chrono::microseconds(200);
  static constexpr std::size_t reply_limit = 32 * 1024;                     // bytes
  static constexpr std::uint32_t least_read = 4096, most_read = 64 * 1024;  // bytes

 private:
  static constexpr bool has_login = requires(Session const& session) { session.logged_in(); };
  static constexpr std::size_t clock_step = 8;  // lines between two looks at the clock
  static constexpr Clock::rep none = std::numeric_limits<Clock::rep>::max();

  /// Input that was read but not passed to the session yet.
  struct UnreadInput {
    std::string bytes;
    std::size_t taken = 0;  // bytes that the session got
  };

  /// The rate limit.
  struct Rate {
    TokenBucket bucket;
    std::uint32_t unfinished = 0;  // bytes since the last line, including dropped ones
  };

  /// Bytes of input held: those not passed on yet, and an unfinished line.
  std::size_t input_size() const noexcept { return (unread_ ? unread_->bytes.size() : 0) + lines_.held(); }
  bool takes_lines() const noexcept { return session_ && queue().is_open(); }
  bool may_take() const noexcept { return !paused_ && !throttled_ && !yielded_; }
  bool output_waits() { return queue().queued_bytes() > reply_limit || (reader_ && reader_->backlog() > reply_limit); }

  /// Passes lines to the session until the turn ends. `from` owns the bytes if an earlier turn left them; otherwise it
  /// is null.
  std::size_t take_lines(std::string_view bytes, std::unique_ptr<UnreadInput> from) {
    std::size_t lines = 0;
    Clock::time_point end_of_turn;
    blocked_ = output_waits();
    lines_.feed(bytes);
    while (queue().is_open() && may_take() && !blocked_) {  // input after a close is ignored
      if (rate_ && throttle()) break;
      auto const line = lines_.next();
      if (!line) break;
      if (rate_) rate_->bucket.take(Time::now());
      if (!line->too_long)
        session_->on_line(line->text);
      else if constexpr (requires { session_->on_bad_line(std::error_code()); })
        session_->on_bad_line(make_error_code(Errc::line_too_long));
      blocked_ = queue().queued_bytes() > reply_limit;  // one line may get a long reply
      if (++lines % clock_step != 0) continue;
      auto const now = Time::now();
      if (lines == clock_step) end_of_turn = now + turn_time;
      yielded_ = lines >= turn_lines || now > end_of_turn;
    }
    auto const rest = lines_.take_rest();
    if (rate_) charge_unfinished(lines, bytes.size() - rest.size());
    keep(rest, bytes.size(), std::move(from));
    held_input_.set(input_size());
    flush();
    return lines;
  }
  /// Lets the session send what it held back.
  void flush() {
    if constexpr (requires { session_->flush(); }) session_->flush();
    if constexpr (has_login)
      if (!logged_in_ && session_->logged_in()) tell_login();
    if (!queue().is_open() && !reader_) session_.reset();
    blocked_ = blocked_ || output_waits();
  }
  void drop_input() noexcept {
    unread_.reset();
    static_cast<void>(std::exchange(lines_, LineReader(0)));  // an assignment would keep the memory
    held_input_.set(0);
  }
  void keep(std::string_view rest, std::size_t of, std::unique_ptr<UnreadInput> from) {
    if (rest.empty() || !queue().is_open()) {
      yielded_ = false;
      return;
    }
    read_size_ = std::clamp(static_cast<std::uint32_t>(of - rest.size()), least_read, most_read);
    if (!from) {
      from = std::make_unique<UnreadInput>();
      from->bytes = rest;
    }
    from->taken = from->bytes.size() - rest.size();
    unread_ = std::move(from);
  }

  /// Whether the rate limit makes the client wait. It then waits at least 10 ms, as less is not worth a timer.
  bool throttle() {
    auto const wait = rate_->bucket.wait(Time::now());
    if (wait <= Clock::duration::zero()) return false;
    throttled_ = true;
    // But not longer than it takes to fill the bucket, or the client would be slower than its rate.
    std::chrono::duration<double> const worth(std::min(0.01, std::max(options().rate_burst, 1.0) / options().rate));
    owner_.throttled(std::max(wait, std::chrono::duration_cast<Clock::duration>(worth)));
    return true;
  }
  /// Charges an unfinished line as one line for each `line_limit` bytes.
  void charge_unfinished(std::size_t lines, std::size_t bytes) {
    auto unfinished = lines > 0 ? 0 : rate_->unfinished + bytes;
    auto const limit = std::max<std::size_t>(options().line_limit, 1);
    for (; unfinished >= limit; unfinished -= limit) rate_->bucket.owe(Time::now());
    rate_->unfinished = static_cast<std::uint32_t>(unfinished);
  }

  void tell_login() {
    logged_in_ = true;
    if (!stalled_) due_ = none;
    auto const tell = [this](std::string_view name) {  // `name` may view a temporary string
      if (!owner_.logged_in(name)) end(DisconnectReason::failed);
    };
    if constexpr (requires { tell(session_->name()); })
      tell(session_->name());
    else
      tell({});
  }

  /// There will be no more lines. If the session pauses its client now, it has to finish something.
  void tell_input_end() {
    if constexpr (requires { session_->on_input_end(); }) {
      if (finishes_ || !takes_lines()) return;
      auto const was_paused = std::exchange(paused_, false);
      session_->on_input_end();
      finishes_ = paused_;
      paused_ = paused_ || was_paused;
    }
  }
  /// The client sends no more, and the session does not wait for anything.
  void close_after_input() {
    if (reader_)
      reader_->finish();  // now, because a stalled queue is drained later
    else
      session_.reset();
    queue().close();
  }
  /// The queue is closed: the session gets no more lines, and lives only until its log is read.
  void close_session() {
    closing_ = true;
    if (reader_)
      reader_->finish();
    else
      session_.reset();
  }

  void all_is_written(std::size_t backlog) {
    if (std::exchange(stalled_, false)) {
      due_ = none;
      if constexpr (has_login)
        if (session_ && !session_->logged_in()) due_in(options().login_deadline);
    }
    if (backlog == 0) held_ = static_cast<std::uint32_t>(input_size());
    if (backlog > 0) {
      queue().notify();  // continues after the others of its thread have written
    } else if (closing_) {
      session_.reset();
      if (is_shut_) return end(why_);
      all_written_ = true;
    }
    unblock();
  }
  /// Passes lines to the session again when the client has taken enough.
  void unblock() {
    if (!blocked_ || output_waits()) return;
    blocked_ = false;
    yielded_ = session_.has_value();
  }

  void due_in(std::chrono::milliseconds time) noexcept {
    constexpr std::chrono::milliseconds longest = std::chrono::hours(1'000'000);
    due_.store((Time::now() + std::min(time, longest)).time_since_epoch().count(), std::memory_order_relaxed);
    new_deadline_ = true;
  }

  MessageQueue& queue() const noexcept { return owner_; }
  ServerOptions const& options() const noexcept { return owner_.options(); }

  Owner& owner_;
  std::optional<Session> session_;
  LineReader lines_;
  LogReader* reader_ = nullptr;
  std::unique_ptr<UnreadInput> unread_;
  std::unique_ptr<Rate> rate_;  // null: no rate limit
  std::atomic<Clock::rep> due_ = none;
  HeldShare held_input_;
  std::uint32_t read_size_ = 16 * 1024;
  std::atomic<std::uint32_t> held_ = 0;
  std::optional<DisconnectReason> over_;
  DisconnectReason why_ = DisconnectReason::closed;  // the reason if it closes in order
  bool paused_ = false;                              // by the session
  bool throttled_ = false;                           // by the rate limit
  bool yielded_ = false;                             // its turn is over
  bool blocked_ = false;                             // by output that waits
  bool stalled_ = false;                             // the socket did not take all
  bool new_deadline_ = false;                        // due_ was set and the link has not asked since
  // Bits, because an idle client should cost little.
  bool reads_lines_ : 1 = true;   // until stop_reading()
  bool logged_in_ : 1 = false;    // and the owner was told
  bool input_ended_ : 1 = false;  // there will be no more lines
  bool is_shut_ : 1 = false;      // because the client has closed its side
  bool closing_ : 1 = false;      // the queue takes no more
  bool all_written_ : 1 = false;  // everything is written, and nothing will follow
  bool lingering_ : 1 = false;    // our side is shut down
  bool finishes_ : 1 = false;     // there are no more lines, but the session has something to finish
};

}  // namespace chatproto::detail
