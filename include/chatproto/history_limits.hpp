// SPDX-License-Identifier: BSL-1.0
/// @file
/// `HistoryLimits` and `HistoryMemory`: how much rooms keep of what was said.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>

namespace chatproto {

/// How much rooms keep of what was said, for receivers that ask for it later.
struct HistoryLimits {
  static constexpr std::size_t most_bytes = 128 * 1024;  ///< The highest limit of `bytes` that has an effect.

  std::size_t lines = 0;  ///< The last texts of each room; 0: nothing is kept.
  /// The most bytes of text kept for a room, in whole lines; see `most_bytes`. It must be well below
  /// `ServerOptions::queue_limit`, or a client that is slow to read is disconnected when it asks for so much. A room of
  /// many small texts for different users, which take more memory than their bytes, keeps less.
  std::size_t bytes = 64 * 1024;
  /// The bytes of memory that the histories of all rooms may take. While a room goes on talking, it keeps no more than
  /// a 64th of what is left of that, but always its last texts. Rooms that nobody is in take at most half. Counts
  /// towards `ServerOptions::memory_limit`, so it must be well below that.
  std::size_t memory = 32 * 1024 * 1024;

  /// Returns whether anything is kept.
  explicit operator bool() const noexcept { return lines > 0 && bytes > 0; }
};

/// The memory of histories that are kept within the same limits. Their logs count what they take and give back.
///
/// Thread safety: distinct objects: safe. Shared objects: safe.
class HistoryMemory {
 public:
  /// Constructs a count of 0 bytes.
  explicit HistoryMemory(HistoryLimits const& limits) noexcept : limits_(limits) {
    limits_.bytes = std::min(limits.bytes, HistoryLimits::most_bytes);
  }

  /// Returns the limits; `bytes` is at most `most_bytes`.
  HistoryLimits const& limits() const noexcept { return limits_; }
  /// A log has taken memory.
  void add(std::size_t bytes) noexcept { held_.fetch_add(bytes, std::memory_order_relaxed); }
  /// A log has given memory back.
  void remove(std::size_t bytes) noexcept { held_.fetch_sub(bytes, std::memory_order_relaxed); }
  /// Returns the bytes of memory that the histories hold.
  std::size_t held() const noexcept { return held_.load(std::memory_order_relaxed); }
  /// Returns the bytes of memory that the history of one room may hold at most, whatever others hold.
  std::size_t most_in_room() const noexcept { return 2 * limits_.bytes; }
  /// Returns the bytes of memory that the history of a room that goes on talking may hold now: a part of what is free.
  /// Then rooms that talk have about the same, and some is always left for a new one.
  std::size_t room_limit() const noexcept {
    auto const used = held();
    return used < limits_.memory ? std::min((limits_.memory - used) / 64, most_in_room()) : 0;
  }
  /// Returns the bytes of memory in which a room is to keep and forget texts: between 1 and 32 KiB. What is said at
  /// once should not be much longer, as the last texts are always kept.
  std::size_t step() const noexcept {
    return std::clamp<std::size_t>(std::bit_floor(room_limit() / 4), 1024, 32 * 1024);
  }

 private:
  HistoryLimits limits_;
  std::atomic<std::size_t> held_ = 0;
};

}  // namespace chatproto
