// SPDX-License-Identifier: BSL-1.0
/// @file
/// `BackplaneRules`: how a server shares the logs of its rooms with others, without a connection.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <chatproto/backplane.hpp>
#include <chatproto/detail/backplane/block.hpp>
#include <chatproto/detail/held_memory.hpp>

namespace chatproto::detail {

/// A place in a room's log. Blocks are numbered from 1 in each *incarnation* of the log; it gets a new one if the
/// engine has forgotten the log.
struct LogPosition {
  std::uint64_t incarnation = 0;  // 0: no position
  std::uint64_t number = 0;

  bool operator==(LogPosition const&) const = default;
};

/// What the engine has answered to a look at a room's log: its end, and the blocks after the asked position, in order
/// and without a gap, possibly not all of them. If it was asked for the past: the last blocks instead.
struct LogView {
  LogPosition end;
  std::vector<std::string_view> blocks;
  std::uint64_t first = 0;  // the number of the first block; not for the past
};

/// The engine's answer to an append.
enum class AppendResult : std::uint8_t {
  stored,   ///< now or by an earlier attempt
  refused,  ///< not stored
  unknown,  ///< nobody can tell
  again,    ///< not stored, and another attempt may succeed at once
};

/// The rules of a server's share in the logs that one engine holds. Their owner reports events (connected, a block has
/// come, time has passed), and does what they ask for.
///
/// - **Delivered is only what comes back**, in the order of numbers. A block whose number is not the next one makes a
///   *gap*: the rules look at the log for what is missing. If the log no longer has it, the room is *lost*.
/// - **An append is tried until its outcome is known**, under one number, so that the engine can refuse what it has
///   stored already. One is under way for each room; what comes meanwhile is joined into the next. So a second attempt
///   cannot overtake anything.
/// - **A beat** that we publish comes back after all that was stored before it. So it proves that the connections live,
///   and that everything has been delivered to those who wait for the end of a log.
/// - **An epoch** is one life of the engine. In a new one, nothing is known of what was: all rooms are lost, and so is
///   what was under way.
/// - Silence counts only while this process runs, in steps of at most two ticks. (Otherwise a process that was stopped
///   would drop its connections, and what waits in them.)
///
/// `Owner` has these functions, none of which calls back, except that `reconnect` may call `disconnected`:
/// `deliver(room, said)`, `lost(room)`, `past(room, said)` and `left(room)`, as in `Backplane::Sink`; and, called only
/// while connected, `append(room, sequence, incarnation, is_retry, block)`, `look(room, position, wants_past)`,
/// `subscribe(room)`, `unsubscribe(room)`, `renew(room)` (so that the engine does not forget it), `beat(number)` and
/// `reconnect()`.
///
/// Thread safety: distinct objects: safe. Shared objects: unsafe.
template <class Owner>
class BackplaneRules {
 public:
  using Time = std::chrono::milliseconds;
  using Outcome = Backplane::Outcome;
  /// A waiter that is told `unknown` if it is not told anything before its end, such as when memory is short.
  class Waiter {
   public:
    template <class W>
    Waiter(std::shared_ptr<W> waiter) noexcept : waiter_(std::move(waiter)) {}
    Waiter(Waiter&&) noexcept = default;
    Waiter& operator=(Waiter&& other) noexcept {
      std::swap(waiter_, other.waiter_);
      return *this;
    }
    ~Waiter() { tell(Outcome::unknown); }
    void tell(Outcome outcome) noexcept {
      if (auto const waiter = std::exchange(waiter_, nullptr)) waiter->tell(outcome);
    }
    bool is_told() const noexcept { return waiter_ == nullptr; }

   private:
    std::shared_ptr<Backplane::Waiter> waiter_;  // null: nobody waits
  };

  static constexpr Time tick_period{100};

  /// `renewal`: the time between two renewals of a room that is followed.
  BackplaneRules(Owner& owner, BackplaneTimes const& times, Time renewal)
      : owner_(owner), times_(times), renewal_(renewal) {}
  BackplaneRules(BackplaneRules const&) = delete;
  BackplaneRules& operator=(BackplaneRules const&) = delete;

  // --- What the server wants ----------------------------------------------------------------------------------------

  /// `entry`: see `encode_said`.
  void append(std::string_view name, std::string entry, Waiter waiter) {
    if (silence() >= times_.refuse) {
      ++counts_.refused;
      return waiter.tell(Outcome::not_done);
    }
    auto& room = this->room(name);
    auto const size = entry.size();
    room.waiting.push_back({std::move(entry), std::move(waiter)});
    count_held(size);
    append_next(room);
  }
  void follow(std::string_view name, Waiter waiter) {
    auto& room = this->room(name);
    room.is_wanted = true;
    if (room.state != State::idle) return at_end(name, std::move(waiter));
    room.state = State::subscribing;
    if (is_connected_) owner_.subscribe(room.name);
    if (has_given_up_) return waiter.tell(Outcome::not_done);
    room.asked.push_back({std::move(waiter), now_});
  }
  void unfollow(std::string_view name) {
    auto const at = rooms_.find(name);
    if (at == rooms_.end()) return;
    at->second.is_wanted = false;
    if (at->second.state != State::subscribing) stop_following(at->second);  // its confirmation must not come later
  }
  void at_end(std::string_view name, Waiter waiter) {
    if (has_given_up_) return waiter.tell(Outcome::not_done);
    next_beat_.push_back({{std::move(waiter), now_}, std::string(name)});
    if (is_connected_ && beat_ == 0) send_beat();
  }

  // --- What the engine tells ----------------------------------------------------------------------------------------

  /// Both connections are made, to the same life of the engine.
  void connected(std::string const& epoch) {
    is_connected_ = true;
    heard_ = now_;
    has_given_up_ = false;
    auto const is_new = epoch_ != epoch;
    for (auto& [name, room] : rooms_) {
      if (is_new) {
        conclude(room, Outcome::unknown);
        forget_position(room);
        room.incarnation = 0;
      }
      drop_held(room);
      if (room.state != State::idle && !room.is_wanted) stop_following(room);
      if (room.state != State::idle) {
        room.state = State::subscribing;
        owner_.subscribe(name);
      }
      if (room.sequence != 0) send(room, true);
      append_next(room);
    }
    epoch_ = epoch;  // not before: if memory is short, the next attempt is told of the same epoch
    send_beat();
  }
  /// The connections are closed, or about to be.
  void disconnected() {
    is_connected_ = false;
    beat_ = 0;
    for (auto& [name, room] : rooms_) room.looks = room.looks_again = room.has_dropped = false;
    auto questions = std::exchange(this_beat_, {});
    next_beat_.insert(next_beat_.begin(), std::move_iterator(questions.begin()), std::move_iterator(questions.end()));
  }
  /// The engine has answered an append.
  void appended(std::string_view name, std::uint64_t sequence, AppendResult result, std::uint64_t incarnation) {
    auto const at = rooms_.find(name);
    if (at == rooms_.end() || at->second.sequence != sequence || sequence == 0) return;  // given up meanwhile
    auto& room = at->second;
    if (result == AppendResult::refused && room.is_retry) result = AppendResult::unknown;  // the first may be stored
    switch (result) {
      case AppendResult::again: return send(room, room.is_retry);
      case AppendResult::stored: room.incarnation = incarnation; break;
      case AppendResult::unknown: room.incarnation = 0; break;
      case AppendResult::refused: break;
    }
    conclude(room, result == AppendResult::stored    ? Outcome::done
                   : result == AppendResult::refused ? Outcome::not_done
                                                     : Outcome::unknown);
    append_next(room);
  }
  /// The engine has confirmed a subscription.
  void subscribed(std::string_view name) {
    auto const at = rooms_.find(name);
    if (at == rooms_.end() || at->second.state != State::subscribing) return;
    at->second.state = State::looking;
    look(at->second);
  }
  /// The engine has answered a look. `view` is null if it could not be carried out.
  void looked(std::string_view name, LogView const* view) {
    auto const at = rooms_.find(name);
    if (at == rooms_.end() || !std::exchange(at->second.looks, false)) return;
    auto& room = at->second;
    if (view == nullptr) {
      refuse_waiting(room);
      if (!room.is_wanted && room.state != State::subscribing) return stop_following(room);
      room.looks_again = room.state == State::looking;  // at the next sweep
      if (room.position.incarnation == 0)               // nobody follows it yet
        for (auto& [waiter, since] : std::exchange(room.asked, {})) waiter.tell(Outcome::not_done);
      return;
    }
    room.incarnation = view->end.incarnation;
    append_next(room);
    if (std::exchange(room.looks_again, false)) return look(room);  // it was asked for too early
    if (room.state == State::looking) catch_up(room, *view);
  }
  /// A block was published in a room.
  void came(std::string_view name, LogPosition const& at, std::string_view block) {
    auto const found = rooms_.find(name);
    if (found == rooms_.end()) return;
    auto& room = found->second;
    if (room.state == State::looking) return keep(room, at, block);
    if (room.state != State::following || is_known(room, at)) return;
    if (is_next(room, at)) return deliver(room, at, block);
    keep(room, at, block);
    room.state = State::looking;
    look(room);
  }
  /// Our beat has come back.
  void beat_came(std::uint64_t beat) {
    if (beat != beat_ || beat == 0) return;
    beat_ = 0;
    heard_ = now_;
    for (auto& question : std::exchange(this_beat_, {})) {
      auto const room = rooms_.find(question.room);
      if (room == rooms_.end() || room->second.state == State::following)
        question.waiter.tell(Outcome::done);
      else
        room->second.asked.push_back({std::move(question.waiter), question.since});
    }
    if (!next_beat_.empty()) send_beat();
  }

  // --- Time ---------------------------------------------------------------------------------------------------------

  /// To be called every `tick_period`, with the time since the last call.
  void tick(Time passed) {
    now_ += std::min(passed, 2 * tick_period);
    if (is_connected_ && beat_ == 0 && now_ - beat_sent_ >= times_.beat) send_beat();
    if (is_connected_ && silence() >= times_.reconnect) owner_.reconnect();
    sweep();
  }

  /// How long nothing was heard of the engine.
  Time silence() const noexcept { return heard_ ? now_ - *heard_ : Time::max(); }
  bool is_connected() const noexcept { return is_connected_; }
  BackplaneCounts const& counts() const noexcept { return counts_; }
  /// How many rooms have a block under way.
  std::size_t under_way() const noexcept { return under_way_; }

 private:
  static constexpr std::size_t most_joined = 64 * 1024;      // bytes in one append, unless one entry has more
  static constexpr std::size_t most_held = 4 * 1024 * 1024;  // bytes of a room that wait for earlier ones
  static constexpr Time remembered{10'000};                  // how long a room is, with its log, after its last use

  enum class State : std::uint8_t {
    idle,         // not followed
    subscribing,  // until the engine confirms
    looking,      // for what was missed; what comes meanwhile is held
    following,
  };
  struct Waiting {
    std::string entry;
    Waiter waiter;
  };
  struct Asked {
    Waiter waiter;
    Time since;
  };
  struct Question : Asked {
    std::string room;
  };
  struct Held {
    LogPosition at;
    std::string block;
  };
  struct Room {
    std::string_view name;  // the key in `rooms_`
    Time used{};            // last
    Time renewed{};         // last
    // What is appended:
    std::vector<Waiting> waiting;
    std::string block;              // under way
    std::vector<Waiter> waiters;    // for it
    std::uint64_t sequence = 0;     // of it; 0: none is
    std::uint64_t sent_to = 0;      // the incarnation to which it was sent first
    Time sent_at{};                 // first
    bool is_retry = false;          // it was sent before
    std::uint64_t incarnation = 0;  // of the log, as far as is known; 0: unknown
    // What is delivered:
    State state = State::idle;
    bool is_wanted = false;    // to be followed
    bool looks = false;        // a look is under way
    bool looks_again = false;  // it was sent too early, or failed
    bool has_dropped = false;  // something that came was not held
    LogPosition position;      // of the last block delivered; none: the next one may be any
    std::vector<Held> held;
    std::size_t held_bytes = 0;
    std::vector<Asked> asked;  // who waits until it follows
  };

  // --- Appending ----------------------------------------------------------------------------------------------------

  /// Sends what waits, if nothing is under way.
  void append_next(Room& room) {
    if (!is_connected_ || room.sequence != 0 || room.waiting.empty()) return;
    if (room.incarnation == 0) return look(room);
    auto const begin = room.waiting.begin();
    auto end = begin;
    std::size_t size = 0;
    do size += end->entry.size();
    while (++end != room.waiting.end() && size + end->entry.size() <= most_joined);
    room.block.reserve(size);  // then memory can no longer be short: an entry is moved once, or not at all
    room.waiters.reserve(static_cast<std::size_t>(end - begin));
    for (auto at = begin; at != end; ++at) {
      room.block += at->entry;
      room.waiters.push_back(std::move(at->waiter));
    }
    room.waiting.erase(begin, end);
    room.sequence = ++last_sequence_;
    ++under_way_;
    room.sent_to = room.incarnation;
    room.sent_at = now_;
    send(room, false);
  }
  void send(Room& room, bool is_retry) {
    room.is_retry = is_retry;
    owner_.append(room.name, room.sequence, room.sent_to, is_retry, room.block);
  }
  /// Ends what is under way.
  void conclude(Room& room, Outcome outcome) {
    if (std::exchange(room.sequence, 0) == 0) return;
    --under_way_;
    count_held(-room.block.size());
    room.block.clear();
    if (room.waiting.empty()) {  // a room that falls silent holds no buffers
      room.block.shrink_to_fit();
      room.waiting.shrink_to_fit();
    }
    auto waiters = std::exchange(room.waiters, {});
    for (auto& waiter : waiters) waiter.tell(outcome);
    if (outcome == Outcome::done)
      ++counts_.appended;
    else
      (outcome == Outcome::unknown ? counts_.unknown : counts_.refused) += waiters.size();
  }
  /// Refuses what waits to be sent.
  void refuse_waiting(Room& room) {
    for (auto& [entry, waiter] : std::exchange(room.waiting, {})) {
      count_held(-entry.size());
      waiter.tell(Outcome::not_done);
      ++counts_.refused;
    }
  }

  // --- Delivering ---------------------------------------------------------------------------------------------------

  static bool is_known(Room const& room, LogPosition const& at) noexcept {
    return at.incarnation == room.position.incarnation && at.number <= room.position.number;
  }
  static bool is_next(Room const& room, LogPosition const& at) noexcept {
    return at.incarnation == room.position.incarnation ? at.number == room.position.number + 1 : at.number == 1;
  }
  void deliver(Room& room, LogPosition const& at, std::string_view block) {
    room.position = at;
    room.used = room.renewed = now_;
    ++counts_.delivered;
    Backplane::Said said;
    do {
      if (!decode_said(block, said)) return lose(room, at);  // somebody else writes to the engine
      owner_.deliver(room.name, said);
    } while (!block.empty());
  }
  void tell_past(Room& room, std::string_view block) {
    Backplane::Said said;
    do {
      if (!decode_said(block, said)) return owner_.left(room.name);  // as above; it forgets what came before
      owner_.past(room.name, said);
    } while (!block.empty());
  }
  /// Goes on behind `at`, where the next block need not follow what was delivered.
  void lose(Room& room, LogPosition const& at) {
    ++counts_.rooms_lost;
    owner_.lost(room.name);
    room.position = at;
    drop_held(room);
    room.has_dropped = room.state == State::looking;
  }
  /// What is between the last block delivered and the end of the log is not there any more.
  void begin_anew(Room& room) {
    lose(room, {});
    room.has_dropped = false;  // the log's end is behind all that was held
    look(room);
  }
  void look(Room& room) {
    if (std::exchange(room.looks, true)) {
      room.looks_again = true;
      return;
    }
    room.renewed = now_;
    auto const is_to_follow = room.state == State::looking;
    auto const at = is_to_follow ? room.position : LogPosition();
    owner_.look(room.name, at, is_to_follow && at.incarnation == 0);
  }
  void keep(Room& room, LogPosition const& at, std::string_view block) {
    if (room.held_bytes + block.size() > most_held) {
      room.has_dropped = true;
      return;
    }
    room.held.push_back({at, std::string(block)});
    room.held_bytes += block.size();
    count_held(block.size());
  }
  void drop_held(Room& room) {
    room.held.clear();
    count_held(-std::exchange(room.held_bytes, 0));
  }
  /// Delivers what was missed, then what was held meanwhile.
  void catch_up(Room& room, LogView const& view) {
    auto const& end = view.end;
    if (room.position.incarnation == 0) {
      room.position = end;  // whoever waits for the room gets what is appended from now on
      for (auto const& block : view.blocks) tell_past(room, block);
    } else if (end.incarnation != room.position.incarnation || end.number < room.position.number) {
      return begin_anew(room);
    } else if (end.number > room.position.number) {
      if (view.blocks.empty() || view.first != room.position.number + 1) return begin_anew(room);
      ++counts_.gaps_closed;
      for (auto const& block : view.blocks) deliver(room, {end.incarnation, room.position.number + 1}, block);
      if (room.position.number < end.number) return look(room);
    }
    auto const held = std::exchange(room.held, {});
    drop_held(room);
    auto is_complete = !std::exchange(room.has_dropped, false);
    for (auto const& [at, block] : held) {
      if (!is_complete) break;
      if (is_next(room, at))
        deliver(room, at, block);
      else
        is_complete = is_known(room, at);
    }
    // All that was held is in the log, so another look will find what is not delivered now.
    if (!is_complete) return look(room);
    room.state = State::following;
    for (auto& [waiter, since] : std::exchange(room.asked, {})) waiter.tell(Outcome::done);
    if (!room.is_wanted) stop_following(room);
  }
  void stop_following(Room& room) {
    if (is_connected_ && room.state != State::idle) owner_.unsubscribe(room.name);
    if (room.state != State::idle) owner_.left(room.name);
    room.state = State::idle;
    room.position = {};
    room.has_dropped = room.looks_again = false;
    drop_held(room);
    for (auto& [waiter, since] : std::exchange(room.asked, {})) waiter.tell(Outcome::not_done);
  }
  void send_beat() {
    beat_ = ++last_beat_;
    beat_sent_ = now_;
    this_beat_ = std::exchange(next_beat_, {});
    owner_.beat(beat_);
  }

  // --- Time ---------------------------------------------------------------------------------------------------------

  void sweep() {
    auto const is_silent = silence() >= times_.refuse;
    if (silence() >= times_.give_up && !std::exchange(has_given_up_, true)) give_up();
    auto const is_late = [this](Asked const& one) { return has_given_up_ || now_ - one.since >= times_.give_up; };
    for (auto* const questions : {&this_beat_, &next_beat_}) end_late(*questions, is_late);
    // A part of the rooms at a time: 100,000 of them would hold up for milliseconds what comes meanwhile.
    auto at = rooms_.lower_bound(next_swept_);
    for (auto left = rooms_.size() / 5 + 1; left > 0 && at != rooms_.end(); --left) {
      auto& room = at->second;
      if (is_silent) refuse_waiting(room);
      if (room.sequence != 0 && now_ - room.sent_at >= times_.give_up) {
        conclude(room, Outcome::unknown);
        append_next(room);
      }
      end_late(room.asked, is_late);
      if (is_connected_ && room.looks_again && !room.looks) {
        room.looks_again = false;
        look(room);
      }
      if (is_connected_ && room.state == State::following && now_ - room.renewed >= renewal_) {
        room.renewed = now_;
        owner_.renew(room.name);
      }
      auto const is_used = room.state != State::idle || room.sequence != 0 || !room.waiting.empty() || room.looks ||
                           (room.incarnation != 0 && now_ - room.used < remembered);
      is_used ? ++at : at = rooms_.erase(at);
    }
    next_swept_ = at != rooms_.end() ? at->first : std::string();
  }
  static void end_late(auto& all, auto const& is_late) {
    for (auto& one : all)
      if (is_late(one)) one.waiter.tell(Outcome::not_done);
    std::erase_if(all, [](auto const& one) { return one.waiter.is_told(); });
  }
  /// Nobody waits any longer for an engine that is silent.
  void give_up() {
    for (auto& [name, room] : rooms_) {
      conclude(room, Outcome::unknown);
      forget_position(room);
    }
  }
  void forget_position(Room& room) {
    if (room.state != State::idle && room.position.incarnation != 0) lose(room, {});
  }

  Room& room(std::string_view name) {
    auto at = rooms_.find(name);
    if (at == rooms_.end()) {
      at = rooms_.try_emplace(std::string(name)).first;
      at->second.name = at->first;
    }
    at->second.used = now_;
    return at->second;
  }
  /// Adds to the bytes that are held for rooms.
  void count_held(std::size_t bytes) noexcept { held_.set(held_bytes_ += bytes); }

  Owner& owner_;
  BackplaneTimes const times_;
  Time const renewal_;
  std::map<std::string, Room, std::less<>> rooms_;  // not a hash table: clients choose the names
  std::vector<Question> this_beat_, next_beat_;     // who waits for the beat under way, and for the one after it
  std::string epoch_;                               // of the engine
  std::uint64_t last_sequence_ = 0, last_beat_ = 0;
  std::uint64_t beat_ = 0;  // under way; 0: none
  Time now_{};              // time that has passed while the process ran
  Time beat_sent_{};
  std::string next_swept_;     // a room; empty: the first
  std::optional<Time> heard_;  // when the engine was last heard of
  std::size_t under_way_ = 0;
  std::size_t held_bytes_ = 0;
  HeldShare held_;
  BackplaneCounts counts_;
  bool is_connected_ = false;
  bool has_given_up_ = true;  // nobody need wait: the engine is silent
};

}  // namespace chatproto::detail
