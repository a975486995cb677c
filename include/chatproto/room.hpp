// SPDX-License-Identifier: BSL-1.0
/// @file
/// Rooms: who is in one, and the ordered broadcast to them.
#pragma once

#include <cassert>
#include <cstddef>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <chatproto/peer.hpp>

namespace chatproto {

/// Those who listen in one room, and one order for all that they get.
///
/// A broadcast pushes to every member's queue while it holds the room's lock. That gives the room one order, and
/// makes what was pushed complete when it returns. It does nothing else under the lock.
///
/// Thread safety: distinct objects: safe; shared objects: safe.
class Room {
 public:
  /// Somebody who can be in a room: lives in its session and is known to the room by address.
  class Member {
   public:
    /// A user called `name`, reached through `peer`.
    Member(std::string name, Peer peer) : name_(std::move(name)), peer_(std::move(peer)) {}
    Member(Member const&) = delete;
    Member& operator=(Member const&) = delete;

    std::string const& name() const noexcept { return name_; }  ///< the user's
    Peer const& peer() const noexcept { return peer_; }         ///< where its deliveries go

   private:
    friend class Room;
    std::string name_;
    Peer peer_;
    std::size_t slot_ = 0;  // its place in members_; guarded by the room's lock
  };

  Room() = default;
  Room(Room const&) = delete;
  Room& operator=(Room const&) = delete;

  /// Adds `member`, which is in no room and is removed before it dies. It gets all that is broadcast from now on.
  void add(Member& member) {
    std::lock_guard const lock(mutex_);
    members_.push_back(&member);
    member.slot_ = members_.size() - 1;
  }

  /// Removes `member`, which is in this room. When this returns the room no longer knows it.
  void remove(Member& member) noexcept {
    std::lock_guard const lock(mutex_);
    assert(member.slot_ < members_.size() && members_[member.slot_] == &member);
    members_[member.slot_] = members_.back();
    members_[member.slot_]->slot_ = member.slot_;
    members_.pop_back();
  }

  /// Queues `block` for every member whose name is not `from`; returns in how many queues it stands. `pressure`: of who says it.
  std::size_t broadcast(std::string_view from, SharedBlock const& block, Backpressure* pressure = nullptr) noexcept {
    return send_if([from](Member const& member) { return member.name_ != from; }, block, pressure);
  }

  /// The same for every member whose name is `user`.
  std::size_t send_to(std::string_view user, SharedBlock const& block, Backpressure* pressure = nullptr) noexcept {
    return send_if([user](Member const& member) { return member.name_ == user; }, block, pressure);
  }

 private:
  std::size_t send_if(auto const& wants, SharedBlock const& block, Backpressure* pressure) noexcept {
    std::size_t reached = 0;
    std::lock_guard const lock(mutex_);
    for (auto const* member : members_)
      if (wants(*member) && member->peer_.send(block, pressure) == PushResult::queued) ++reached;
    return reached;
  }

  std::mutex mutex_;
  std::vector<Member*> members_;
};

/// All rooms by name. A room is made when the first enters and is gone when the last has left.
///
/// @code
/// chatproto::RoomTable rooms;
/// auto const queue = std::make_shared<chatproto::BlockingMessageQueue>();  // in a server: the peer that a session is given
/// chatproto::Room::Member alice("alice", chatproto::Peer(queue));
///
/// auto const cafe = rooms.enter("cafe");
/// cafe.room().add(alice);
/// cafe.room().broadcast("bob", std::make_shared<std::string const>("delivery:cafe:bob:hey!\n"));
/// std::cout << *queue->pop_for(std::chrono::seconds(1));
/// cafe.room().remove(alice);
/// @endcode
///
/// Thread safety: distinct objects: safe; shared objects: safe.
class RoomTable {
 public:
  /// A stay in a room: leaves it when it is destroyed. Movable; empty by default.
  class Stay {
   public:
    Stay() = default;  ///< in no room
    /// Takes the stay of `other`, which is empty then.
    Stay(Stay&& other) noexcept : table_(std::exchange(other.table_, nullptr)), entry_(other.entry_) {}
    /// Leaves the room that it was in.
    Stay& operator=(Stay other) noexcept {
      std::swap(table_, other.table_);
      std::swap(entry_, other.entry_);
      return *this;
    }
    ~Stay() {
      if (table_ != nullptr) table_->leave(*entry_);
    }

    /// Whether it is in a room.
    explicit operator bool() const noexcept { return table_ != nullptr; }
    std::string const& name() const noexcept { return entry_->first; }  ///< of the room; not when empty
    Room& room() const noexcept { return entry_->second.room; }         ///< not when empty

   private:
    friend class RoomTable;
    struct Use {
      Room room;
      std::size_t stays = 0;  // guarded by the table's lock
    };
    using Entry = std::pair<std::string const, Use>;
    Stay(RoomTable& table, Entry& entry) noexcept : table_(&table), entry_(&entry) {}

    RoomTable* table_ = nullptr;
    Entry* entry_ = nullptr;
  };

  /// Enters the room called `name`, made if it does not exist. The table outlives the stay.
  Stay enter(std::string_view name) {
    std::lock_guard const lock(mutex_);
    auto const at = rooms_.find(name);
    auto& entry = at != rooms_.end() ? *at : *rooms_.try_emplace(std::string(name)).first;
    ++entry.second.stays;
    return {*this, entry};
  }

  /// How many rooms there are.
  std::size_t size() const {
    std::lock_guard const lock(mutex_);
    return rooms_.size();
  }

 private:
  struct Hash : std::hash<std::string_view> {
    using is_transparent = void;
  };

  void leave(Stay::Entry& entry) noexcept {
    std::lock_guard const lock(mutex_);
    if (--entry.second.stays == 0) rooms_.erase(rooms_.find(entry.first));
  }

  mutable std::mutex mutex_;
  std::unordered_map<std::string, Stay::Use, Hash, std::equal_to<>> rooms_;
};

}  // namespace chatproto
