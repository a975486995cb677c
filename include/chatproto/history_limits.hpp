// SPDX-License-Identifier: BSL-1.0
/// @file
/// `HistoryLimits` and `HistoryMemory`: how much rooms keep of what was said.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>

namespace chatproto {

/// How much rooms keep of what was said, for receivers that ask for it later.
struct HistoryLimits {
  static constexpr std::size_t most_bytes = 256 * 1024;  ///< The highest limit of `bytes` that has an effect.

  std::size_t lines = 0;  ///< The last texts of each room; 0: nothing is kept.
  /// The most bytes that these have, as whole lines; see `most_bytes`. A client whose queue's hard limit is lower is
  /// disconnected when it asks for so much.
  std::size_t bytes = 64 * 1024;
  /// The most bytes of memory that the logs of all rooms take before their histories become shorter. The histories of
  /// rooms that nobody is in take at most half of it. Counts for `ServerOptions::memory_limit`, so it must be well
  /// below that.
  std::size_t memory = 32 * 1024 * 1024;

  /// Returns whether anything is kept.
  explicit operator bool() const noexcept { return lines > 0 && bytes > 0; }
};

/// The memory of logs that keep histories within the same limits. The logs count what they take and give back.
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
  /// Sets the number of rooms that share the memory.
  void rooms(std::size_t count) noexcept { rooms_.store(count, std::memory_order_relaxed); }
  /// Returns the bytes of memory that the logs hold.
  std::size_t held() const noexcept { return held_.load(std::memory_order_relaxed); }
  /// Returns whether the logs hold more than they may.
  bool is_full() const noexcept { return held() > limits_.memory; }
  /// Returns the bytes of memory that each room can have, if all have the same.
  std::size_t share() const noexcept {
    return limits_.memory / 2 / std::max<std::size_t>(rooms_.load(std::memory_order_relaxed), 1);
  }

 private:
  HistoryLimits limits_;
  std::atomic<std::size_t> held_ = 0, rooms_ = 0;
};

}  // namespace chatproto
