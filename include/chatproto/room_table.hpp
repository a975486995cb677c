// SPDX-License-Identifier: BSL-1.0
/// @file
/// All rooms by name, and a client's way through them.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <string>
#include <string_view>
#include <utility>

#include <chatproto/message_queue.hpp>
#include <chatproto/peer.hpp>
#include <chatproto/room.hpp>

namespace chatproto {

/// All rooms by name. A room is made when the first enters and is gone when the last has left.
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
/// Thread safety: distinct objects: safe; shared objects: safe.
class RoomTable {
 public:
  /// A stay in a room: leaves it when it is destroyed. Movable; empty by default.
  class Membership {
   public:
    Membership() = default;  ///< in no room
    /// Takes the stay of `other`, which is empty then.
    Membership(Membership&& other) noexcept : table_(std::exchange(other.table_, nullptr)), entry_(other.entry_) {}
    /// Leaves the room that it was in.
    Membership& operator=(Membership other) noexcept {
      std::swap(table_, other.table_);
      std::swap(entry_, other.entry_);
      return *this;
    }
    ~Membership() {
      if (table_ != nullptr) table_->leave(*entry_);
    }

    /// Whether it is in a room.
    explicit operator bool() const noexcept { return table_ != nullptr; }
    std::string const& name() const noexcept { return entry_->first; }  ///< of the room; not when empty
    Room& room() const noexcept { return entry_->second.room; }         ///< not when empty

   private:
    friend class RoomTable;
    struct CountedRoom {
      Room room;
      std::size_t stays = 0;  // guarded by the table's lock
    };
    using Entry = std::pair<std::string const, CountedRoom>;
    Membership(RoomTable& table, Entry& entry) noexcept : table_(&table), entry_(&entry) {}

    RoomTable* table_ = nullptr;
    Entry* entry_ = nullptr;
  };

  /// Enters the room called `name`, made if it does not exist. The table outlives the stay.
  Membership enter(std::string_view name) {
    std::lock_guard const lock(mutex_);
    auto const at = rooms_.find(name);
    auto& entry = at != rooms_.end() ? *at : *rooms_.try_emplace(std::string(name)).first;
    ++entry.second.stays;
    return {*this, entry};
  }
  /// Enters the room called `name` if it exists; if not, the stay is empty.
  Membership enter_existing(std::string_view name) {
    std::lock_guard const lock(mutex_);
    auto const at = rooms_.find(name);
    if (at == rooms_.end()) return {};
    ++at->second.stays;
    return {*this, *at};
  }

  /// How many rooms there are.
  std::size_t size() const {
    std::lock_guard const lock(mutex_);
    return rooms_.size();
  }
  /// Bytes of memory that their logs hold.
  std::size_t memory() const {
    std::lock_guard const lock(mutex_);
    return std::accumulate(
        rooms_.begin(), rooms_.end(), std::size_t(),
        [](std::size_t sum, Membership::Entry const& entry) { return sum + entry.second.room.memory(); });
  }

 private:
  void leave(Membership::Entry& entry) noexcept {
    std::lock_guard const lock(mutex_);
    if (--entry.second.stays == 0) rooms_.erase(rooms_.find(entry.first));
  }

  mutable std::mutex mutex_;
  // Not hashed: clients choose the names.
  std::map<std::string, Membership::CountedRoom, std::less<>> rooms_;
};

/// A client in the rooms of a table, at most in one at a time: what a session has whose service has rooms.
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
/// chatproto::Server<chatproto::ThreadPool, Shouting> server({.port = 47375});
/// @endcode
///
/// Where queues make senders wait (`Overflow::block_sender`), a session asks `Room::must_wait` after it has spoken, and
/// pauses its client, as the chat's does. Otherwise the room's log has no bound.
///
/// If you derive from it, and `Room::guarded` reads your data, your destructor must call `leave()`. Otherwise another
/// thread may read data that is already destroyed.
///
/// Thread safety: distinct objects: safe; shared objects: unsafe. It is used on its client's executor.
class Participant : public Room::Member {
 public:
  using Member::Member;
  ~Participant() override { leave(); }

  /// Enters the room called `name`, made if it does not exist, after it has left the one that it was in. It may speak
  /// there, and hears nothing before `listen()`. The table outlives its stay.
  void enter(RoomTable& table, std::string_view name) {
    auto next = table.enter(name);
    leave();
    membership_ = std::move(next);
  }
  /// From now on it gets what is said in the room. Precondition: it is in one.
  void listen() {
    if (!is_added()) membership_.room().add(*this);
  }
  /// The same within `Room::guarded`; `room` is its room.
  void listen(Room::Locked& room) {
    if (!is_added()) room.add(*this);
  }
  /// Leaves its room, if it is in one. What was said before is still sent; if memory is too short for that, the client
  /// is cut.
  void leave() noexcept {
    if (!membership_) return;
    membership_.room().stop_waiting(*this);  // always: the room may be about to resume it
    try {
      if (is_added()) hand_over(membership_.room().remove(*this));
    } catch (...) {
      peer().queue().cut(MessageQueue::State::failed);
    }
    membership_ = {};
  }
  /// Sends whole lines to its client, after what was said to it before. (What `Peer::send` sends may overtake that.)
  PushResult send(std::string lines) {
    if (is_added()) hand_over(membership_.room().take_unread(*this));
    return peer().send(std::move(lines));
  }

  bool is_in_room() const noexcept { return static_cast<bool>(membership_); }   ///< whether it may speak
  bool listens() const noexcept { return is_added(); }                          ///< whether it is a member of the room
  Room& room() const noexcept { return membership_.room(); }                    ///< precondition: it is in one
  std::string const& room_name() const noexcept { return membership_.name(); }  ///< the same

 private:
  void hand_over(std::string unread) {
    if (!unread.empty()) peer().queue().push_unread(std::make_shared<std::string const>(std::move(unread)));
  }

  RoomTable::Membership membership_;
};

}  // namespace chatproto
