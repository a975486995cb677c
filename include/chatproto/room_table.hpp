// SPDX-License-Identifier: BSL-1.0
/// @file
/// `RoomTable`, which holds all rooms by name, and `Participant`, a client's way through them.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <chatproto/history_limits.hpp>
#include <chatproto/history_store.hpp>
#include <chatproto/message_queue.hpp>
#include <chatproto/peer.hpp>
#include <chatproto/room.hpp>

namespace chatproto {

/// A table of rooms by name. The first client to enter a room creates it; it is destroyed when the last one leaves.
///
/// If the rooms keep histories, a room that everybody has left stays *idle*: until the idle rooms take too much memory,
/// or there would be too many rooms. The one that was left first goes first.
///
/// @code
/// chatproto::RoomTable rooms;
/// struct Queue : chatproto::MessageQueue {
///   void wake() override {}
/// };
/// auto const queue = std::make_shared<Queue>();  // in a server: the session's peer
/// chatproto::Room::Member alice("alice", chatproto::Peer(queue));
///
/// auto const cafe = rooms.enter("cafe");
/// cafe.room().add(alice);
/// cafe.room().broadcast("bob", "delivery:cafe:bob:hey!\n");  // wakes the queue; a link would read the log
/// std::cout << cafe.room().remove(alice);                      // here nobody has read it
/// @endcode
///
/// Thread safety: distinct objects: safe. Shared objects: safe.
class RoomTable {
 public:
  /// A stay in a room, which ends when it is destroyed. Movable; empty by default.
  class Membership {
   public:
    Membership() = default;  ///< in no room
    /// Takes over the membership of `other`, which is then empty.
    Membership(Membership&& other) noexcept : entry_(std::exchange(other.entry_, nullptr)) {}
    /// Leaves its own room and takes over the membership of `other`.
    Membership& operator=(Membership other) noexcept {
      std::swap(entry_, other.entry_);
      return *this;
    }
    ~Membership() {
      if (entry_ != nullptr) entry_->second.table.leave(*entry_);
    }

    /// Returns whether it holds a room.
    explicit operator bool() const noexcept { return entry_ != nullptr; }
    /// Returns the room's name. Precondition: not empty.
    std::string const& name() const noexcept { return entry_->first; }
    /// Returns the room. Precondition: not empty.
    Room& room() const noexcept { return entry_->second.room; }

   private:
    friend class RoomTable;
    struct CountedRoom;
    using Entry = std::pair<std::string const, CountedRoom>;
    struct CountedRoom {
      explicit CountedRoom(RoomTable& owner) : table(owner) {}

      RoomTable& table;  // here and not in each membership: a server has many more clients than rooms
      Room room;
      // The table's lock guards the following members.
      std::size_t stays = 0;
      std::size_t idle_bytes = 0;                 // memory of an idle room, otherwise 0
      Entry *before = nullptr, *after = nullptr;  // in the list of idle rooms
    };
    explicit Membership(Entry& entry) noexcept : entry_(&entry) {}

    Entry* entry_ = nullptr;
  };

  RoomTable() = default;
  /// Constructs a table that has at most `max_rooms` rooms with at most `max_members` clients each; 0: no limit. Its
  /// rooms keep histories within the limits `history`.
  RoomTable(std::size_t max_rooms, std::size_t max_members, HistoryLimits const& history = {}) noexcept
      : max_rooms_(max_rooms), max_members_(max_members), history_(history) {}

  /// Loads the histories that `store` has, and keeps them there from now on. The store must outlive the table. Throws
  /// what its `load` throws. Precondition: there are no rooms yet, and they keep histories.
  void use(HistoryStore& store) {
    store_ = &store;
    Membership in;
    store.load([&](std::string_view name, HistoryStore::Said const& said) {
      if (!in || in.name() != name) {
        in = {};  // that room is idle now, and gives its place to this one if there are too many
        in = enter(name);
      }
      in.room().restore(said.lines, {said.user, said.only});
    });
  }

  /// Enters the room called `name`, creating it if necessary. The table must outlive the membership, which is empty if
  /// the room or the table is full.
  Membership enter(std::string_view name) {
    std::lock_guard const lock(mutex_);
    auto const at = rooms_.find(name);
    auto const is_full = [](std::size_t size, std::size_t most) { return most > 0 && size >= most; };
    if (at != rooms_.end() ? is_full(at->second.stays, max_members_) : is_full(rooms_.size() - idle_, max_rooms_))
      return {};
    if (at != rooms_.end()) return stay(*at);
    auto& entry = *rooms_.try_emplace(std::string(name), *this).first;
    if (history_.limits()) entry.second.room.keep_history(history_, store_, entry.first);
    if (max_rooms_ > 0 && rooms_.size() > max_rooms_) destroy(*first_idle_);
    return stay(entry);
  }
  /// Enters the room called `name` if it exists. Otherwise returns an empty membership.
  Membership enter_existing(std::string_view name) {
    std::lock_guard const lock(mutex_);
    auto const at = rooms_.find(name);
    return at != rooms_.end() ? stay(*at) : Membership();
  }

  /// Forgets the history of the room called `name`, if there is one.
  void forget_history(std::string_view name) noexcept {
    std::lock_guard const lock(mutex_);
    auto const at = rooms_.find(name);
    if (at == rooms_.end()) return;
    at->second.room.forget_history();
    if (at->second.idle_bytes > 0) destroy(*at);
  }

  /// Returns the number of rooms, without those that are idle.
  std::size_t size() const {
    std::lock_guard const lock(mutex_);
    return rooms_.size() - idle_;
  }
  /// Returns the limits of the rooms' histories.
  HistoryLimits const& history_limits() const noexcept { return history_.limits(); }
  /// Returns the bytes of memory of all histories.
  std::size_t history_memory() const noexcept { return history_.held(); }
  /// Returns `HistoryMemory::step`.
  std::size_t history_step() const noexcept { return history_.step(); }
  /// Returns the bytes of memory of all logs; see `Room::memory`.
  std::size_t memory() const {
    std::lock_guard const lock(mutex_);
    return std::accumulate(
        rooms_.begin(), rooms_.end(), std::size_t(),
        [](std::size_t sum, Membership::Entry const& entry) { return sum + entry.second.room.memory(); });
  }

 private:
  using Entry = Membership::Entry;

  Membership stay(Entry& entry) noexcept {
    if (entry.second.idle_bytes > 0) remove_from_idle(entry);
    ++entry.second.stays;
    return Membership(entry);
  }
  void leave(Entry& entry) noexcept {
    std::lock_guard const lock(mutex_);
    if (--entry.second.stays > 0) return;
    add_to_idle(entry, entry.second.room.history_memory());
    while (idle_bytes_ > history_.limits().memory / 2) destroy(*first_idle_);
  }
  /// Keeps a room that nobody is in, whose history takes this much memory. Destroys it if it has kept nothing.
  void add_to_idle(Entry& entry, std::size_t bytes) noexcept {
    if (bytes == 0) return destroy(entry);
    auto& room = entry.second;
    room.idle_bytes = bytes + sizeof(Entry) + entry.first.size();
    room.before = std::exchange(last_idle_, &entry);
    (room.before != nullptr ? room.before->second.after : first_idle_) = &entry;
    ++idle_;
    idle_bytes_ += room.idle_bytes;
  }
  void remove_from_idle(Entry& entry) noexcept {
    auto& room = entry.second;
    auto* const before = std::exchange(room.before, nullptr);
    auto* const after = std::exchange(room.after, nullptr);
    (before != nullptr ? before->second.after : first_idle_) = after;
    (after != nullptr ? after->second.before : last_idle_) = before;
    --idle_;
    idle_bytes_ -= std::exchange(room.idle_bytes, 0);
  }
  /// Destroys a room that nobody is in.
  void destroy(Entry& entry) noexcept {
    if (entry.second.idle_bytes > 0) remove_from_idle(entry);
    rooms_.erase(rooms_.find(entry.first));
  }

  std::size_t const max_rooms_ = 0, max_members_ = 0;
  HistoryMemory history_ = HistoryMemory({});
  HistoryStore* store_ = nullptr;
  mutable std::mutex mutex_;
  Entry *first_idle_ = nullptr, *last_idle_ = nullptr;
  std::size_t idle_ = 0, idle_bytes_ = 0;  // idle rooms, and their memory
  // Not a hash table: clients choose the names.
  std::map<std::string, Membership::CountedRoom, std::less<>> rooms_;
};

/// A client's presence in the rooms of a table, in at most one at a time: a member of the session, if the service has
/// rooms.
///
/// @code
/// struct Shouting {
///   struct Session {
///     chatproto::Participant me;
///     chatproto::RoomTable& rooms;
///     void on_line(std::string_view line) {
///       if (!me.is_in_room()) {
///         me.enter(rooms, "hall");
///         me.listen();
///       }
///       me.room().broadcast("", std::string(line) + '\n');
///     }
///   };
///   Session open(chatproto::Peer peer) { return {chatproto::Participant(std::move(peer)), rooms}; }
///   chatproto::RoomTable rooms;
/// };
/// chatproto::Server<chatproto::ThreadPool, Shouting> server({.port = 17375});
/// @endcode
///
/// A session should call `Room::must_wait` after sending a text, and pause its client if true, as the chat's does.
/// Otherwise the room's log has no bound: where queues make senders wait (`Overflow::block_sender`), or while a link
/// that writes from it is late.
///
/// If `Room::guarded` reads data of a derived class, its destructor must call `leave()`. Otherwise another thread may
/// read data that is already destroyed.
///
/// Thread safety: distinct objects: safe. Shared objects: unsafe. Use it on its client's executor.
class Participant : public Room::Member {
 public:
  using Member::Member;
  ~Participant() override { leave(); }

  /// Enters the room called `name`, creating it if necessary, after leaving the current one. The client may then send
  /// texts there; it gets none before `listen()`. The table must outlive the stay. Returns false if the room or the
  /// table is full; the client then stays where it is.
  bool enter(RoomTable& table, std::string_view name) {
    auto next = table.enter(name);
    if (!next) return false;
    enter(std::move(next));
    return true;
  }
  /// As above, for a room of which `next` is a membership already. Precondition: `next` is not empty.
  void enter(RoomTable::Membership next) noexcept {
    leave();
    membership_ = std::move(next);
  }
  /// Makes the client get all texts sent from now on. Precondition: it is in a room.
  void listen() {
    if (!is_added()) membership_.room().add(*this);
  }
  /// As above, from within `Room::guarded`. Precondition: `room` is the client's room.
  void listen(Room::Locked& room) {
    if (!is_added()) room.add(*this);
  }
  /// Leaves its room, if it is in one. Texts sent before still arrive; if memory is too short for that, the client is
  /// disconnected.
  void leave() noexcept {
    if (!membership_) return;
    membership_.room().stop_waiting(*this);  // even if it does not wait: the room may be about to resume it
    try {
      if (is_added()) hand_over(membership_.room().remove(*this));
    } catch (...) {
      peer().queue().cut(MessageQueue::State::failed);
    }
    membership_ = {};
  }
  /// As above, if the client has little to read before that (at most 1/16 of its queue's limit). Otherwise returns
  /// false, and the session must pause the client. It gets no text that is said from now on; when it has been written
  /// those before, the room resumes it, and `waits()` is false. Then call this again.
  bool try_leave() noexcept {
    if (is_added() && !membership_.room().try_finish(*this)) return false;
    leave();
    return true;
  }
  /// Sends whole lines to the client, after its room's earlier texts. (Lines sent by `Peer::send` may overtake those.)
  /// Copies those that the client has not read: prefer `try_send` in rooms where much is said.
  PushResult send(std::string lines) {
    if (is_added()) hand_over(membership_.room().take_unread(*this));
    return peer().send(std::move(lines));
  }
  /// As above, and empties `lines`, if the client has little to read before them (at most 1/16 of its queue's limit).
  /// Otherwise returns nothing, and the session must pause the client. When it has been written what was said until
  /// now, the room resumes it, and `waits()` is false. Then call this again.
  std::optional<PushResult> try_send(std::string& lines) {
    if (is_added()) {
      auto unread = membership_.room().try_take_unread(*this);
      if (!unread) return std::nullopt;
      hand_over(std::move(*unread));
    }
    return peer().send(std::exchange(lines, {}));
  }

  /// Returns whether it is in a room.
  bool is_in_room() const noexcept { return static_cast<bool>(membership_); }
  /// Returns whether it is a member of its room.
  bool listens() const noexcept { return is_added(); }
  /// Returns its room. Precondition: it is in one.
  Room& room() const noexcept { return membership_.room(); }
  /// Returns the name of its room. Precondition: it is in one.
  std::string const& room_name() const noexcept { return membership_.name(); }

 private:
  void hand_over(std::string unread) {
    if (!unread.empty()) peer().queue().push_unread(std::make_shared<std::string const>(std::move(unread)));
  }

  RoomTable::Membership membership_;
};

}  // namespace chatproto
