// SPDX-License-Identifier: BSL-1.0
/// @file
/// `Room`: the members of a room and the log of its texts.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <chatproto/history_limits.hpp>
#include <chatproto/history_store.hpp>
#include <chatproto/message_queue.hpp>
#include <chatproto/peer.hpp>
#include <chatproto/room_log.hpp>

namespace chatproto {

/// A room: its members, and the log of the texts sent to it. Every member sees the texts in the same order.
///
/// A text is appended to the room's log, which each member reads at its own pace. A member that has read everything
/// sleeps: it has no place in the log, and the next text for it wakes its client. When a broadcast returns, its text is
/// in the log.
///
/// A member is *slow* if it has more unread bytes than its queue's limit. The queue's `Overflow` decides what happens
/// then:
/// - `disconnect`: the room asks the client's link to write, and the link disconnects the client if the socket takes
///   nothing. A member that is behind by `MessageQueue::hard_limit_factor` times its limit is disconnected without a
///   try. So is the member furthest behind in a log that takes more memory than twice that and 256 KiB.
/// - `block_sender`: no member is disconnected for being slow; senders wait (`must_wait`).
///
/// Thread safety: distinct objects: safe. Shared objects: safe.
class Room {
 public:
  /// A client that can get and send texts in a room. Part of the client's session; the room stores only its address. A
  /// service may derive from it (or from `Participant`) to add its own data: see `Locked::for_each`.
  class Member : public LogReader {
   public:
    /// Constructs a member that is reached through `peer` and has no name yet.
    explicit Member(Peer peer) : peer_(std::move(peer)) {}
    /// Constructs a member called `name` that is reached through `peer`.
    Member(std::string name, Peer peer) : name_(std::move(name)), peer_(std::move(peer)) {}
    Member(Member const&) = delete;
    Member& operator=(Member const&) = delete;
    virtual ~Member() = default;

    std::string const& name() const noexcept { return name_; }  ///< the user's name
    Peer const& peer() const noexcept { return peer_; }         ///< the client that gets its texts
    /// Sets the user's name. Precondition: the member is in no room.
    void name(std::string name) noexcept { name_ = std::move(name); }
    /// Returns whether the member waits for slow members (`must_wait`) or for its own client (`try_take_unread`).
    bool waits() const noexcept {
      return waits_.load(std::memory_order_relaxed) || reads_first_.load(std::memory_order_relaxed);
    }

    bool read(RoomLog::Pieces& next) final { return room_ != nullptr && room_->read(*this, next); }
    std::size_t advance(RoomLog::Pieces const& written, std::size_t bytes, std::string& rest) final {
      return room_ != nullptr ? room_->advance(*this, written, bytes, rest) : 0;
    }
    std::size_t backlog() final { return room_ != nullptr ? room_->backlog(*this) : 0; }
    void finish() noexcept final {
      if (room_ != nullptr) room_->finish(*this);
    }

   protected:
    /// Returns whether the member is in a room. Call it on the client's executor.
    bool is_added() const noexcept { return room_ != nullptr; }

   private:
    friend class Room;
    std::string name_;
    Peer peer_;
    Room* room_ = nullptr;  // the room it was added to; set by its own client
    // The room's lock guards the following members.
    RoomLog::Place place_;            // empty: the member sleeps
    std::uint64_t mark_ = 0;          // position at which it was added; if it finishes, at which it stops reading
    std::uint64_t pause_ = no_end;    // position at which it stops reading until its session has sent something
    std::uint32_t slot_ = 0;          // its index in members_
    bool listens_ = false;            // it is in members_
    bool finishes_ : 1 = false;       // it gets no texts that are sent from now on
    bool writing_ : 1 = false;        // its link is writing from the log
    bool holds_senders_ : 1 = false;  // it is slow, and senders wait for it or its link
    std::atomic<bool> waits_ = false, reads_first_ = false;

    std::uint64_t until() const noexcept { return finishes_ ? mark_ : pause_; }
  };

  Room() = default;
  Room(Room const&) = delete;
  Room& operator=(Room const&) = delete;

  /// A room whose lock is held: all of a `guarded` call is one step for other threads. Do not keep it or share it.
  class Locked {
   public:
    Locked(Locked const&) = delete;
    Locked& operator=(Locked const&) = delete;

    /// Like `Room::add`.
    void add(Member& member) const { room_.add_locked(member); }
    /// Like `Room::broadcast`.
    std::size_t broadcast(std::string_view from, std::string_view lines) const {
      return room_.say(lines, {from, false});
    }
    /// Like `Room::send_to`.
    std::size_t send_to(std::string_view user, std::string_view lines) const { return room_.say(lines, {user, true}); }
    /// Returns the number of members.
    std::size_t size() const noexcept { return room_.members_.size(); }
    /// Returns whether a member is called `name`.
    bool has(std::string_view name) const noexcept {
      auto const key = hash(name);
      return std::any_of(room_.members_.begin(), room_.members_.end(), [&](Slot const& s) { return s.is(name, key); });
    }
    /// Calls `look(Member&)` for each member, in no particular order. A service whose members derive from `Member`
    /// casts the argument back. `look` must not add a member or send a text.
    void for_each(auto const& look) const {
      for (auto const& slot : room_.members_) look(*slot.member);
    }

   private:
    friend class Room;
    explicit Locked(Room& room) noexcept : room_(room) {}
    Room& room_;
  };

  /// Calls `use(Locked&)` under the room's lock and returns its result: for what must be one step, such as checking
  /// that a name is free, entering and announcing it; and for a service's own data that only such calls access. Any
  /// other use of a room or a `RoomTable` within it would deadlock, including `Participant::send` and the end of a
  /// `Membership`. Of a member it may read `name()` and `peer()`. Exceptions propagate.
  decltype(auto) guarded(auto&& use) {
    std::lock_guard const lock(mutex_);
    Locked locked(*this);
    return use(locked);
  }

  /// Adds `member`, which then gets all texts sent from now on. It must be in no room, and be removed before it is
  /// destroyed.
  void add(Member& member) {
    guarded([&](Locked& room) { room.add(member); });
  }

  /// Returns what `member` has not read and marks it as read, for a session that sends something which must not
  /// overtake it. Copies all of it, under the room's lock: prefer `try_take_unread`.
  std::string take_unread(Member& member) {
    std::lock_guard const lock(mutex_);
    return take_unread_locked(member);
  }
  /// As above, unless it is so much (more than 1/16 of the queue's limit) that it should not be copied. Then returns
  /// nothing, and the session must pause the client and hold back what it sends. When the client has been written what
  /// was said until now, the room resumes it, `Member::waits` is false, and the session must call this again. What is
  /// said meanwhile comes after what the session then sends.
  std::optional<std::string> try_take_unread(Member& member) {
    std::lock_guard const lock(mutex_);
    if (!must_read_first(member)) return take_unread_locked(member);
    if (member.pause_ == no_end) member.pause_ = log_.end();
    return std::nullopt;
  }
  /// Makes `member` get no text that is said from now on. Returns whether what it has not read is so little that
  /// `remove` may copy it. If not, the session must pause the client before it calls `remove`: the room resumes it as
  /// above.
  bool try_finish(Member& member) noexcept {
    std::lock_guard const lock(mutex_);
    finish_locked(member);
    return !must_read_first(member);
  }
  /// Removes `member`, which was added to this room, and returns what it has not read. Removes it even if this throws
  /// `std::bad_alloc`.
  std::string remove(Member& member) {
    struct Removal {
      Room& room;
      Member& member;
      ~Removal() {
        room.remove_locked(member);
        member.peer_.queue().follow(nullptr);
        member.room_ = nullptr;
      }
    };
    std::lock_guard const lock(mutex_);
    Removal const removal{*this, member};
    member.pause_ = no_end;
    auto end = member.place_;
    return unread_text(member, end);
  }

  /// Disconnects all members, for the reason `why`: texts for them may be missing. They get none that are sent later.
  /// Forgets its history, where they would be missing too.
  void disconnect_all(MessageQueue::State why) noexcept {
    std::lock_guard const lock(mutex_);
    ++losses_;
    log_.forget_history();
    for (std::size_t i = members_.size(); i > 0; --i) {  // from the end, because removing moves others there
      auto& member = *members_[i - 1].member;
      member.peer_.queue().cut(why);
      if (!member.writing_)
        remove_locked(member);
      else
        finish_locked(member);  // its link still needs the text
    }
  }

  /// Sends `lines`, which are whole lines, to every member whose name is not `from`. Returns the number of these
  /// members. If it throws `std::bad_alloc`, nothing was sent.
  std::size_t broadcast(std::string_view from, std::string_view lines) {
    return guarded([&](Locked& room) { return room.broadcast(from, lines); });
  }
  /// As above, for every member whose name is `user`.
  std::size_t send_to(std::string_view user, std::string_view lines) {
    return guarded([&](Locked& room) { return room.send_to(user, lines); });
  }

  /// Returns whether `sender` must wait because a slow member's queue blocks senders, or because one above the hard
  /// limit is being written to and cannot be disconnected now. If so, the room has listed it as waiting, and its
  /// session must pause the client and hold back the replies. When each such member has at most half of its limit
  /// unread, or its write is over, or it is gone, the room resumes the client, and `Member::waits` is false. A sender
  /// that leaves before that must call `stop_waiting`.
  bool must_wait(Member& sender) {
    if (!makes_senders_wait()) return false;
    std::lock_guard const lock(mutex_);
    if (holding_ == 0) return false;
    if (!sender.waits_) waiting_.push_back(&sender);
    sender.waits_ = true;
    return true;
  }
  /// Returns whether senders must wait now. Another thread may change that at any time.
  bool makes_senders_wait() const noexcept { return holding_.load(std::memory_order_relaxed) > 0; }
  /// Removes `sender` from the waiting senders. It no longer waits for its own client either.
  void stop_waiting(Member& sender) noexcept {
    std::lock_guard const lock(mutex_);
    sender.reads_first_ = false;
    if (sender.waits_.exchange(false)) waiting_.erase(std::find(waiting_.begin(), waiting_.end(), &sender));
  }

  /// Makes the room keep what was said last, also when nobody is in it. `memory` says how much and must outlive it. So
  /// must `store` and `name`, if there are any: the store then gets what is said.
  /// Precondition: nothing was said yet, and `memory.limits()` is not empty.
  void keep_history(HistoryMemory& memory, HistoryStore* store = nullptr, std::string_view name = {}) noexcept {
    log_.keep_history(memory);
    store_ = store;
    name_ = name;
  }
  /// Appends to the history what was said before, elsewhere or as a store has kept it. No member gets it: if one has
  /// still something to read, which this would follow, nothing is kept.
  void restore(std::string_view lines, RoomLog::Audience const& audience) {
    std::lock_guard const lock(mutex_);
    auto const reads = [](Slot const& slot) { return !slot.member->finishes_; };
    if (std::any_of(members_.begin(), members_.begin() + static_cast<std::ptrdiff_t>(awake_), reads))
      log_.forget_history();
    else
      log_.append(lines, audience);
  }
  /// Forgets the history. The store, if there is one, keeps what it has.
  void forget_history() noexcept {
    std::lock_guard const lock(mutex_);
    log_.forget_history();
  }
  /// Returns the last texts, at most `most`, that the room has kept and that `member` would have got before it was
  /// added. What it gets from then on follows without a gap. Precondition: it was added.
  RoomLog::History history(Member const& member, std::size_t most) const {
    std::lock_guard const lock(mutex_);
    return member.finishes_ ? RoomLog::History() : log_.history(member.name_, member.mark_, most);
  }
  /// Returns the bytes of memory of what it has kept.
  std::size_t history_memory() const noexcept {
    std::lock_guard const lock(mutex_);
    return log_.history_memory();
  }

  /// Who is in a room.
  struct Roster {
    std::size_t members = 0;         ///< how many
    std::vector<std::string> names;  ///< different names, sorted
    bool is_complete = true;         ///< whether these are all names
  };
  /// Returns how many members the room has, and as many of their names as fit in `most_bytes`, with one byte more for
  /// each. In a large room it does not look at all members.
  Roster roster(std::size_t most_bytes) const {
    std::lock_guard const lock(mutex_);
    Roster result;
    result.members = members_.size() - finishing_;
    auto const end = std::min(members_.size(), most_looked_at);
    result.is_complete = end == members_.size();
    std::size_t bytes = 0;
    for (std::size_t i = 0; i < end; ++i) {
      auto const& member = *members_[i].member;
      if (member.finishes_) continue;
      auto const at = std::lower_bound(result.names.begin(), result.names.end(), member.name_);
      if (at != result.names.end() && *at == member.name_) continue;
      if (bytes + member.name_.size() + 1 > most_bytes) {
        result.is_complete = false;
        continue;
      }
      bytes += member.name_.size() + 1;
      result.names.insert(at, member.name_);
    }
    return result;
  }

  /// Returns how often `disconnect_all` was called.
  std::size_t losses() const noexcept {
    std::lock_guard const lock(mutex_);
    return losses_;
  }

  /// Returns the number of members.
  std::size_t size() const noexcept {
    std::lock_guard const lock(mutex_);
    return members_.size();
  }
  /// Returns the bytes of memory of its log, including its history; 0 if every member has read everything.
  std::size_t memory() const noexcept {
    std::lock_guard const lock(mutex_);
    return awake_ > 0 ? log_.memory() : 0;
  }

 private:
  static constexpr std::uint64_t no_end = ~std::uint64_t();
  static constexpr std::size_t most_limit = ~std::size_t() / 1024;  // so that sums do not overflow
  static constexpr std::size_t most_at_once = 64 * 1024;            // bytes; see RoomLog::read
  static constexpr std::size_t most_looked_at = 4096;               // members; see roster

  /// A member and the hash of its name, which settles most comparisons of names.
  struct Slot {
    Member* member;
    std::size_t hash;
    bool is(std::string_view name, std::size_t key) const noexcept { return hash == key && member->name_ == name; }
  };
  static std::size_t hash(std::string_view name) noexcept { return std::hash<std::string_view>()(name); }

  void add_locked(Member& member) {
    members_.push_back({&member, hash(member.name_)});
    member.slot_ = static_cast<std::uint32_t>(members_.size() - 1);
    member.room_ = this;
    member.mark_ = log_.end();
    member.pause_ = no_end;
    member.finishes_ = false;
    member.listens_ = true;
    member.writing_ = false;
    member.peer_.queue().follow(&member);
  }
  std::size_t say(std::string_view lines, RoomLog::Audience const& audience) {
    auto const key = hash(audience.user);
    auto const is_named = [&](Slot const& slot) { return slot.is(audience.user, key); };
    auto const listens = [&](Slot const& slot) { return is_named(slot) && !slot.member->finishes_; };
    auto reached = static_cast<std::size_t>(std::count_if(members_.begin(), members_.end(), listens));
    if (!audience.only) reached = members_.size() - finishing_ - reached;
    if ((reached == 0 && !log_.keeps_history()) || lines.empty()) return reached;
    auto const place = log_.append(lines, audience);
    if (store_ != nullptr) store_->append(name_, {lines, audience.user, audience.only});
    for (auto i = awake_; i < members_.size(); ++i)
      if (is_named(members_[i]) == audience.only) wake(*members_[i].member, place);
    if (log_.end() >= next_look_ || log_.memory() > most_memory_) look_for_slow_members();
    return reached;
  }

  void swap(std::size_t a, std::size_t b) noexcept {
    std::swap(members_[a], members_[b]);
    members_[a].member->slot_ = static_cast<std::uint32_t>(a);
    members_[b].member->slot_ = static_cast<std::uint32_t>(b);
  }
  void wake(Member& member, RoomLog::Place const& place) noexcept {
    swap(member.slot_, awake_++);
    log_.pin(member.place_, place);
    auto& queue = member.peer_.queue();
    auto const limit = std::min(queue.limit(), most_limit);
    next_look_ = std::min(next_look_, place.position() + limit);
    auto const most = 2 * MessageQueue::hard_limit_factor * limit + 4 * most_at_once + log_.most_history();
    most_memory_ = std::max(most_memory_, most);
    queue.notify();
  }
  void sleep(Member& member) noexcept {
    if (!member.place_) return;
    log_.unpin(member.place_);
    swap(member.slot_, --awake_);
    release_senders(member);
    resume_reader(member);
  }
  void remove_locked(Member& member) noexcept {
    if (!std::exchange(member.listens_, false)) return;
    sleep(member);
    if (member.finishes_) --finishing_;
    swap(member.slot_, members_.size() - 1);
    members_.pop_back();
  }

  bool read(Member& member, RoomLog::Pieces& next) noexcept {
    std::lock_guard const lock(mutex_);
    if (!member.place_) return false;
    log_.read(member.place_, member.name_, member.until(), most_at_once, next);
    if (next.size > 0) return member.writing_ = true;
    go_to(member, next.end);  // nothing in it is for this member
    return false;
  }
  std::size_t advance(Member& member, RoomLog::Pieces const& written, std::size_t bytes, std::string& rest) {
    std::lock_guard const lock(mutex_);
    member.writing_ = false;
    if (!member.place_) return 0;  // the member was disconnected meanwhile
    go_to(member, bytes < written.size ? log_.after(member.place_, member.name_, bytes, rest) : written.end);
    return unread(member);
  }
  /// Moves the member's place to `place`, up to which it has read.
  void go_to(Member& member, RoomLog::Place const& place) noexcept {
    log_.move(member.place_, place);
    if (place.position() >= member.until()) return member.finishes_ ? remove_locked(member) : resume_reader(member);
    if (log_.is_at_end(place)) return sleep(member);
    auto const& queue = member.peer_.queue();
    if (queue.overflow() != Overflow::block_sender || unread(member) <= queue.limit() / 2) release_senders(member);
  }
  /// Returns whether `member` has too much unread to copy. If so, the room resumes it when it has read that.
  bool must_read_first(Member& member) const noexcept {
    if (!member.place_ || member.peer_.queue().is_cut()) return false;
    auto const unread = std::min(log_.end(), member.until()) - member.place_.position();
    return member.reads_first_ = unread > member.peer_.queue().limit() / 16;
  }
  std::string take_unread_locked(Member& member) {
    auto end = member.place_;
    auto unread = unread_text(member, end);
    member.pause_ = no_end;
    if (member.finishes_) {
      remove_locked(member);
    } else if (!end || log_.is_at_end(end) || member.peer_.queue().is_cut()) {
      sleep(member);
    } else {  // it had to read first, and something was said meanwhile
      go_to(member, end);
      resume_reader(member);
      member.peer_.queue().notify();
    }
    return unread;
  }
  /// Returns what `member` has not read from `place` on, and moves `place` after that.
  std::string unread_text(Member const& member, RoomLog::Place& place) const {
    if (!place || member.peer_.queue().is_cut()) return {};
    return log_.read_all(place, member.name_, member.until());
  }
  std::size_t unread(Member const& member) const noexcept {
    if (!member.place_) return 0;
    return static_cast<std::size_t>((member.finishes_ ? member.mark_ : log_.end()) - member.place_.position());
  }
  std::size_t backlog(Member const& member) const noexcept {
    std::lock_guard const lock(mutex_);
    return unread(member);
  }
  void finish(Member& member) noexcept {
    std::lock_guard const lock(mutex_);
    finish_locked(member);
  }
  void finish_locked(Member& member) noexcept {
    if (!member.place_) return remove_locked(member);
    if (member.finishes_) return;
    member.mark_ = log_.end();
    member.finishes_ = true;
    ++finishing_;
  }

  /// Finds slow members and decides when to look again.
  void look_for_slow_members() noexcept {
    auto most = std::size_t(), limit = most_limit;  // most unread bytes, smallest limit
    auto const is_bloated = log_.memory() > most_memory_;
    for (std::size_t i = 0; i < awake_;) {
      auto& member = *members_[i].member;
      auto& queue = member.peer_.queue();
      auto const behind = static_cast<std::size_t>(log_.end() - member.place_.position());  // what it pins
      auto const is_last = is_bloated && log_.is_first(member.place_);
      if (behind > queue.limit() || is_last) {
        auto const is_over = is_last || behind / MessageQueue::hard_limit_factor >= queue.limit();
        if (queue.overflow() == Overflow::block_sender || (is_over && member.writing_)) {
          if (!member.holds_senders_) ++holding_;
          member.holds_senders_ = true;
        } else if (is_over) {
          queue.cut(MessageQueue::State::overflowed);
          remove_locked(member);
          continue;
        } else if (unread(member) > queue.limit()) {
          queue.notify(true);  // makes a stalled link try a write; other links are awake already
        }
      }
      most = std::max(most, behind);
      limit = std::min(limit, queue.limit());
      ++i;
    }
    // If no member is slow, none can be before this many more bytes. If one is, look again soon, or at each text if
    // senders wait.
    next_look_ = log_.end() + (most < limit ? limit - most : holding_ > 0 ? 0 : std::min(limit / 16, most_at_once));
  }

  void resume_reader(Member& member) noexcept {
    if (member.reads_first_.exchange(false)) member.peer_.resume();
  }
  void release_senders(Member& member) noexcept {
    if (!member.holds_senders_) return;
    member.holds_senders_ = false;
    if (--holding_ > 0) return;
    for (auto* const sender : waiting_) {
      sender->waits_ = false;
      sender->peer_.resume();
    }
    waiting_.clear();
  }

  mutable std::mutex mutex_;
  RoomLog log_;
  HistoryStore* store_ = nullptr;
  std::string_view name_;                 // for the store
  std::vector<Slot> members_;             // the awake members come first
  std::size_t awake_ = 0;                 // how many are awake
  std::size_t finishing_ = 0;             // how many only read up to their mark_
  std::size_t losses_ = 0;                // calls of disconnect_all
  std::size_t most_memory_ = 0;           // a log with more bytes disconnects its last reader
  std::vector<Member*> waiting_;          // waiting senders
  std::atomic<std::size_t> holding_ = 0;  // how many members hold up senders
  std::uint64_t next_look_ = 0;           // log's end at which to look for slow members
};

}  // namespace chatproto
