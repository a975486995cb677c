// SPDX-License-Identifier: BSL-1.0
/// @file
/// What was said and is not in the file yet.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <new>
#include <string>
#include <string_view>
#include <utility>

#include <chatproto/history_store.hpp>

namespace chatproto::detail {

/// How much a file keeps of each room.
struct KeptLines {
  std::size_t lines, bytes;  // at least 1

  /// Returns where the kept part of `text` begins, of which `count` lines are the last ones of a room.
  std::size_t begin(std::string_view text, std::size_t count) const noexcept {
    std::size_t at = 0;
    for (; at < text.size() && (count > lines || text.size() - at > bytes); --count) at = text.find('\n', at) + 1;
    return at;
  }
};

/// Consecutive lines with the same audience.
struct KeptText {
  std::string user, lines;
  std::size_t count = 0;  // lines
  bool only = false;

  std::size_t memory() const noexcept {
    return sizeof(KeptText) + 4 * sizeof(void*) + user.capacity() + lines.capacity();
  }
};

/// What is to be written of a room.
struct RoomChange {
  bool anew = false;       // first, everything older is deleted
  std::uint64_t used = 0;  // greater than that of rooms that were used before; 0: only look at the limits
  std::size_t lines = 0, bytes = 0;
  std::list<KeptText> texts = {};
};

/// What is to be written at once.
struct HistoryBatch {
  bool anew = false;  // first, the histories of all rooms are deleted
  std::map<std::string, RoomChange, std::less<>> rooms = {};
  std::size_t text_memory = 0, room_memory = 0;
  std::uint64_t texts = 0;

  bool is_empty() const noexcept { return !anew && rooms.empty(); }
};

/// The texts that wait for the file, with a bound. What a room's history would not keep is not even queued. If the
/// texts of a room do not fit, they are dropped, and what the file has of the room from before is to be deleted: its
/// history has no gap.
///
/// Thread safety: distinct objects: safe. Shared objects: unsafe.
class HistoryQueue {
 public:
  /// Texts, and the names of their rooms, may each take `most` bytes.
  HistoryQueue(KeptLines const& limits, std::size_t most) noexcept : limits_(limits), most_(most) {}

  void append(std::string_view room, HistoryStore::Said const& said) noexcept {
    auto const count = static_cast<std::size_t>(std::count(said.lines.begin(), said.lines.end(), '\n'));
    if (count == 0) return;
    try {
      auto* const change = find(room);
      if (change == nullptr) {
        lost_ += count;
        return;
      }
      change->used = ++used_;
      auto const from = limits_.begin(said.lines, count);
      auto const kept = said.lines.substr(from);
      auto const left = from == 0 ? count : static_cast<std::size_t>(std::count(kept.begin(), kept.end(), '\n'));
      if (from > 0) drop(*change);  // older texts are beyond the limits
      if (!kept.empty() && !add(*change, {kept, said.user, said.only}, left)) {
        lost_ += change->lines + left;
        drop(*change);
      }
    } catch (std::bad_alloc const&) {
      lost_ += count;
      drop_all();
    }
  }
  /// Makes a room's limits be looked at.
  void touch(std::string_view room) noexcept try {
    find(room);
  } catch (std::bad_alloc const&) {  // they will be, when something is said there
  }
  /// Drops everything, so that all histories begin anew.
  void drop_all() noexcept {
    lost_ += waiting_.texts;
    text_memory_ -= waiting_.text_memory;
    room_memory_ -= waiting_.room_memory;
    waiting_.rooms.clear();
    waiting_.text_memory = waiting_.room_memory = 0;
    waiting_.texts = 0;
    waiting_.anew = true;
  }

  bool is_empty() const noexcept { return waiting_.is_empty(); }
  /// Returns whether to write soon.
  bool is_large() const noexcept { return text_memory_ >= most_ / 4 || room_memory_ >= most_ / 4; }
  /// Takes all that waits. Its memory counts until `done` is called.
  HistoryBatch take() noexcept { return std::exchange(waiting_, {}); }
  void done(HistoryBatch const& batch) noexcept {
    text_memory_ -= batch.text_memory;
    room_memory_ -= batch.room_memory;
  }
  /// Counts texts that will not be kept.
  void lose(std::uint64_t texts) noexcept { lost_ += texts; }
  std::uint64_t lost() const noexcept { return lost_; }
  std::uint64_t texts() const noexcept { return waiting_.texts; }
  std::size_t memory() const noexcept { return text_memory_ + room_memory_; }

 private:
  static constexpr std::size_t most_together = 4096;  // bytes of texts in one row

  /// Returns what waits of the room; null if not even its name fits.
  RoomChange* find(std::string_view room) {
    if (auto const at = waiting_.rooms.find(room); at != waiting_.rooms.end()) return &at->second;
    auto const memory = sizeof(*waiting_.rooms.begin()) + 4 * sizeof(void*) + room.size() + 1;
    if (room_memory_ + memory > most_) {
      drop_all();
      return nullptr;
    }
    auto& change = waiting_.rooms.try_emplace(std::string(room)).first->second;
    waiting_.room_memory += memory;
    room_memory_ += memory;
    return &change;
  }
  bool add(RoomChange& change, HistoryStore::Said const& said, std::size_t count) {
    auto* const last = change.texts.empty() ? nullptr : &change.texts.back();
    if (last != nullptr && last->only == said.only && last->user == said.user &&
        last->lines.size() + said.lines.size() <= most_together) {
      if (text_memory_ + said.lines.size() > most_) return false;
      auto const before = last->memory();
      last->lines += said.lines;
      last->count += count;
      count_memory(last->memory() - before);
    } else {
      KeptText text{std::string(said.user), std::string(said.lines), count, said.only};
      if (text_memory_ + text.memory() > most_) return false;
      change.texts.push_back(std::move(text));
      count_memory(change.texts.back().memory());
    }
    change.lines += count;
    change.bytes += said.lines.size();
    waiting_.texts += count;
    while (change.lines - change.texts.front().count >= limits_.lines ||
           change.bytes - change.texts.front().lines.size() >= limits_.bytes) {
      change.anew = true;  // what is in the file is older still
      drop_first(change);
    }
    return true;
  }
  void count_memory(std::size_t bytes) noexcept {
    text_memory_ += bytes;
    waiting_.text_memory += bytes;
  }
  void drop_first(RoomChange& change) noexcept {
    auto const& first = change.texts.front();
    text_memory_ -= first.memory();
    waiting_.text_memory -= first.memory();
    waiting_.texts -= first.count;
    change.lines -= first.count;
    change.bytes -= first.lines.size();
    change.texts.pop_front();
  }
  void drop(RoomChange& change) noexcept {
    while (!change.texts.empty()) drop_first(change);
    change.anew = true;
  }

  KeptLines const limits_;
  std::size_t const most_;
  HistoryBatch waiting_;
  std::size_t text_memory_ = 0, room_memory_ = 0;  // with what was taken
  std::uint64_t used_ = 0, lost_ = 0;
};

}  // namespace chatproto::detail
