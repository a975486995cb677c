// SPDX-License-Identifier: BSL-1.0
/// @file
/// How much memory this process holds for clients.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace chatproto::detail {

/// Bytes that all servers of this process hold for their clients: logs of rooms, output and input that waits. One
/// number for all of them, as the process has one memory. Any thread.
class HeldMemory {
 public:
  static void add(std::size_t bytes) noexcept { total_.fetch_add(bytes, std::memory_order_relaxed); }
  static void remove(std::size_t bytes) noexcept { total_.fetch_sub(bytes, std::memory_order_relaxed); }
  static std::size_t total() noexcept { return total_.load(std::memory_order_relaxed); }

 private:
  static inline std::atomic<std::size_t> total_ = 0;
};

/// One holder's share. It is counted in whole steps of 4 KiB, so less is not counted: those who hold little never touch
/// the shared number.
class HeldShare {
 public:
  HeldShare() = default;
  HeldShare(HeldShare const&) = delete;
  HeldShare& operator=(HeldShare const&) = delete;
  ~HeldShare() { set(0); }

  /// The holder holds so many bytes now.
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
