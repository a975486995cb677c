// SPDX-License-Identifier: BSL-1.0
/// @file
/// `HeldMemory` and `HeldShare`, which count the memory that the process holds for clients.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

#include <chatproto/detail/visibility.hpp>

namespace chatproto::detail {

/// Counts the bytes that all servers of the process hold for clients: logs of rooms, pending output and pending input.
/// There is one count, because a process has one memory. Any thread may use it.
class CHATPROTO_ONE_PER_PROCESS HeldMemory {
 public:
  static void add(std::size_t bytes) noexcept { total_.fetch_add(bytes, std::memory_order_relaxed); }
  static void remove(std::size_t bytes) noexcept { total_.fetch_sub(bytes, std::memory_order_relaxed); }
  static std::size_t total() noexcept { return total_.load(std::memory_order_relaxed); }

 private:
  static inline std::atomic<std::size_t> total_ = 0;
};

/// One owner's share. It is counted in steps of 4 KiB, rounded down, so that owners of little memory never touch the
/// shared counter.
class HeldShare {
 public:
  HeldShare() = default;
  HeldShare(HeldShare const&) = delete;
  HeldShare& operator=(HeldShare const&) = delete;
  ~HeldShare() { set(0); }

  /// Sets the number of bytes that the owner holds now.
  void set(std::size_t bytes) noexcept {
    auto const steps = static_cast<std::uint32_t>(bytes / step);
    if (steps == steps_) return;
    auto const before = std::exchange(steps_, steps);
    steps > before ? HeldMemory::add((steps - before) * step) : HeldMemory::remove((before - steps) * step);
  }

 private:
  static constexpr std::size_t step = 4096;  // bytes
  std::uint32_t steps_ = 0;
};

}  // namespace chatproto::detail
