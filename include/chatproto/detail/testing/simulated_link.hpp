// SPDX-License-Identifier: BSL-1.0
/// @file
/// `SimulatedLink`: one client's connection without a socket, driven by `LinkRules`.
#pragma once

#include <algorithm>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <chatproto/detail/server/link_rules.hpp>
#include <chatproto/detail/server/near_misses.hpp>
#include <chatproto/detail/testing/client_end.hpp>
#include <chatproto/message_queue.hpp>
#include <chatproto/observer.hpp>
#include <chatproto/peer.hpp>
#include <chatproto/room_log.hpp>
#include <chatproto/server_options.hpp>
#include <chatproto/service.hpp>

namespace chatproto::detail {

/// The time of a simulation, which passes only when the simulation lets it. With a `moment`, each call of `now()`
/// advances it too, so that a turn may run out of time before its lines are done.
struct SimulatedTime {
  // What the standard library asks of a clock:
  using duration = std::chrono::steady_clock::duration;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::steady_clock::time_point;
  static constexpr bool is_steady = true;
  static time_point now() noexcept { return time += moment; }

  // For the simulation. It starts at any time that leaves room for what was before.
  static void start(std::chrono::microseconds each_call = {}) noexcept {
    time = time_point(std::chrono::hours(1));
    moment = each_call;
  }
  static inline time_point time;
  static inline std::chrono::microseconds moment{};
};

/// The bytes that a link would write.
inline std::string text_of(MessageQueue::Batch const& batch) {
  std::string text;
  for (auto const& block : batch.blocks) text += *block;
  return text.erase(0, batch.offset);
}
inline std::string text_of(RoomLog::Pieces const& pieces) {
  std::string text;
  for (std::size_t i = 0; i < pieces.count; ++i) text.append(pieces.pieces[i].data, pieces.pieces[i].size);
  return text;
}

/// Does with the rules what `Link` (detail/server/link.hpp) does, one action at a time, without a socket: the
/// simulation chooses the action. A test derives from it to observe the session, or to do something wrong.
///
/// An action may be interrupted where a hook is called: other links may then act.
template <Service S, std::derived_from<ClientEnd> Client = ClientEnd>
class SimulatedLink : public MessageQueue, public std::enable_shared_from_this<SimulatedLink<S, Client>> {
 public:
  using Session = typename S::Session;
  using Time = SimulatedTime;

  /// What a link may do next.
  enum class Action : std::uint8_t {
    lose,       ///< notice that the client has reset the connection
    read,       ///< read what the client has sent
    end_input,  ///< notice that the client has closed its side
    flush,      ///< write, because its queue or log has something
    write,      ///< write, because the client's socket takes something again
    take_turn,  ///< continue with input that waits
    run         ///< run what was posted: a task, a resume, a deadline
  };

  /// `service` and `options` must outlive the link. The client is constructed from `client`.
  SimulatedLink(S& service, ServerOptions const& options, std::uint64_t number, auto&&... client_of)
      : MessageQueue(options.queue_limit, options.overflow),
        client(std::forward<decltype(client_of)>(client_of)...),
        service_(service),
        options_(options),
        rules_(*this, options),
        number_(number) {
    static_assert(has_no_near_miss<Session>());
  }

  Client client;

  /// Opens the session.
  void start() {
    guarded([this] {
      rules_.open(Opening{*this});
      has_session_ = true;
    });
  }
  /// Appends what the link may do now.
  void list_due(std::vector<Action>& due) {
    if (busy_ || ended_) return;
    auto const reads = wants_input();
    if (client.has_reset() && (reads || rules_.wants_errors())) due.push_back(Action::lose);
    if (reads && client.sent() > 0) due.push_back(Action::read);
    if (reads && client.sent() == 0 && client.has_ended_input() && !input_ended_) due.push_back(Action::end_input);
    if (woken_) due.push_back(Action::flush);
    if (wants_writable() && (client.has_reset() || client.appetite() > 0)) due.push_back(Action::write);
    if (listed_) due.push_back(Action::take_turn);
    if (!posted_.empty()) due.push_back(Action::run);
  }
  /// Does it. `which`: for `read` how many bytes, at most `most_to_read()`; for `run` which one, the oldest is 0.
  void act(Action action, std::size_t which) {
    guarded([&] {
      switch (action) {
        case Action::lose: return rules_.end(DisconnectReason::lost);
        case Action::read: return static_cast<void>(rules_.received(client.take_sent(which)));
        case Action::end_input: return end_input();
        case Action::flush: woken_ = false; return write();
        case Action::write: return write();
        case Action::take_turn: listed_ = false; return static_cast<void>(rules_.take_turn());
        case Action::run: return run_posted(which);
      }
    });
  }
  std::size_t most_to_read() const noexcept { return std::min<std::size_t>(client.sent(), rules_.read_size()); }
  std::size_t posted() const noexcept { return posted_.size(); }
  std::size_t log_backlog() const { return reader_ != nullptr ? reader_->backlog() : 0; }

  /// The time has changed.
  void pass_time() {
    if (throttle_end_ <= Time::time) {
      throttle_end_ = Time::time_point::max();
      post([](SimulatedLink& link, auto&) { link.rules_.end_throttle(); });
    }
    if (deadline() <= Time::time) post([](SimulatedLink& link, auto&) { link.end_if_overdue(); });
  }
  /// The rate limit holds the client back until then; `max()`: it does not.
  Time::time_point throttle_end() const noexcept { return throttle_end_; }
  /// The server drains: the session gets no more lines.
  void stop_reading() {
    post([](SimulatedLink& link, auto&) { link.reads_lines_ = false, link.rules_.stop_reading(); });
  }

  bool is_paused() const noexcept { return paused_; }
  bool is_busy() const noexcept { return busy_; }      ///< acting
  bool is_woken() const noexcept { return woken_; }    ///< has something to write
  bool is_listed() const noexcept { return listed_; }  ///< for a turn
  bool reads_lines() const noexcept { return reads_lines_; }
  bool has_session() const noexcept { return has_session_; }
  bool has_ended() const noexcept { return ended_; }
  bool has_input_ended() const noexcept { return input_ended_; }
  Peer peer() { return Peer(this->shared_from_this()); }

  /// Ends the link without a reason: the simulation is over.
  void drop() noexcept {
    ended_ = true;
    finish();
    rules_.forget();
    posted_.clear();
  }

 protected:
  // Hooks. The session's functions:
  virtual void on_line(Session& session, std::string_view line) { session.on_line(line); }
  virtual void on_bad_line(Session& session, std::error_code ec) {
    if constexpr (TakesBadLines<Session>) session.on_bad_line(ec);
  }
  virtual void flush(Session& session) {
    if constexpr (Flushes<Session>) session.flush();
  }
  virtual void on_resume(Session& session) {
    if constexpr (Resumes<Session>) session.on_resume();
  }
  virtual void run_task(Task& task) { rules_.run(task); }

  // What the rules want:
  virtual bool wants_input() { return rules_.wants_input(); }
  virtual bool wants_writable() { return rules_.wants_writable(); }
  virtual bool wants_turn() { return rules_.wants_turn(); }
  virtual bool wants_shutdown() { return rules_.wants_shutdown(); }
  virtual Time::time_point deadline() { return rules_.due(); }

  // What happens at the connection:
  virtual void end_input() {
    input_ended_ = true;
    rules_.input_ended();
  }
  /// The output was taken from the queue, and is not written yet. `found`: there may be some.
  virtual void took_output(bool /*found*/) {}
  virtual std::string bytes_of(Output const& output) { return text_of(output.batch) + text_of(output.log); }
  /// Writes as many bytes as the client accepts. Returns their number.
  virtual std::size_t write_bytes(std::string_view bytes) = 0;
  virtual void shut_down() {
    client.see_end();
    rules_.shut_down();
  }
  virtual void forget_session() { rules_.forget(); }
  virtual void was_ended(DisconnectReason reason) = 0;
  virtual void threw(std::string_view what) = 0;

  // Called by the rules:
  virtual bool logged_in(std::string_view /*name*/) { return true; }
  virtual void throttled(Time::duration time) { throttle_end_ = Time::time + time; }

  // Called by the queue:
  void wake() override { woken_ = true; }
  void pause_input() override {
    paused_ = true;
    rules_.pause();
  }
  void resume_input() noexcept override {
    post([](SimulatedLink& link, auto&) {
      link.paused_ = false;
      link.rules_.resume();
    });
  }
  bool post(std::shared_ptr<Task> task) override {
    return post([](SimulatedLink& link, auto& kept) { link.run_task(*kept); }, std::move(task));
  }
  void follow(LogReader* reader) noexcept override { rules_.follow(reader_ = reader); }
  std::uint64_t id() const noexcept override { return number_; }

 private:
  /// Passes a session's calls through the hooks.
  struct Observed {
    SimulatedLink& link;
    Session session;

    ~Observed() { link.has_session_ = false; }
    void on_line(std::string_view line) { link.on_line(session, line); }
    void on_bad_line(std::error_code ec) { link.on_bad_line(session, ec); }
    void flush() { link.flush(session); }
    void on_resume() { link.on_resume(session); }
    void on_input_end() requires SeesInputEnd<Session> { session.on_input_end(); }
    bool logged_in() const requires TellsLogin<Session> { return session.logged_in(); }
    decltype(auto) name() const requires TellsName<Session> { return session.name(); }
  };
  struct Opening {
    SimulatedLink& link;
    operator Observed() const {
      auto const info = [this] {
        return ClientInfo{.address = "127.0.0.1:" + std::to_string(50'000 + link.number_), .is_loopback = true};
      };
      return {link, open_session(link.service_, link.peer(), info)};
    }
  };

 protected:
  using Rules = LinkRules<Observed, SimulatedLink, Time>;
  Rules& rules() noexcept { return rules_; }

 private:
  friend Rules;
  ServerOptions const& options() const noexcept { return options_; }

  struct Posted {
    void (*run)(SimulatedLink&, std::shared_ptr<Task> const&);
    std::shared_ptr<Task> task;
  };
  bool post(decltype(Posted::run) run, std::shared_ptr<Task> task = nullptr) {
    return this->unless_finished([&] { posted_.push_back({run, std::move(task)}); });
  }

  /// Calls `call`, then does what the rules want. An exception ends this client and no other.
  void guarded(auto const& call) {
    busy_ = true;
    try {
      call();
      go_on();
    } catch (std::exception const& error) {
      fail(error.what());
    } catch (...) {
      fail("not a std::exception");
    }
    busy_ = false;
  }
  void fail(std::string_view what) {
    threw(what);
    rules_.end(DisconnectReason::failed);
    end();
  }
  void go_on() {
    if (rules_.over()) return end();
    if (wants_shutdown()) shut_down();
    if (wants_turn()) listed_ = true;
  }
  void run_posted(std::size_t which) {
    auto const at = posted_.begin() + static_cast<std::ptrdiff_t>(which);
    auto const posted = std::move(*at);
    posted_.erase(at);
    posted.run(*this, posted.task);
  }
  void end_if_overdue() {
    if (rules_.due() > Time::time) return;
    if (wants_writable()) write();
    rules_.time_is_over(Time::time);
  }
  void write() {
    auto const found = rules_.next_output(output_);
    took_output(found);
    if (!found) return output_.batch.clear();
    if (client.has_reset()) {
      output_.batch.clear();
      return rules_.end(DisconnectReason::lost);
    }
    rules_.written(output_, write_bytes(bytes_of(output_)));
    output_.batch.clear();
  }
  void end() {
    if (std::exchange(ended_, true)) return;
    this->finish();
    forget_session();
    std::exchange(posted_, {}).clear();
    was_ended(*rules_.over());
  }

  S& service_;
  ServerOptions const& options_;
  Rules rules_;
  Output output_;
  LogReader* reader_ = nullptr;
  std::vector<Posted> posted_;  // the oldest first
  Time::time_point throttle_end_ = Time::time_point::max();
  std::uint64_t const number_;
  bool busy_ = false, woken_ = false, listed_ = false, paused_ = false;
  bool reads_lines_ = true, input_ended_ = false, ended_ = false, has_session_ = false;
};

}  // namespace chatproto::detail
