// SPDX-License-Identifier: BSL-1.0
/// @file
/// `BackplaneRequest`, for which a session's client is paused.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include <chatproto/backplane.hpp>
#include <chatproto/peer.hpp>

namespace chatproto::detail {

/// Requests of one client to a backplane, of which it waits for all.
class BackplaneRequest final : public Backplane::Waiter {
 public:
  explicit BackplaneRequest(Peer peer) noexcept : peer_(std::move(peer)) {}

  /// Returns whether an outcome is missing.
  bool is_pending() const noexcept { return pending_.load(std::memory_order_acquire) > 0; }
  /// Returns the worst outcome. Precondition: none is missing.
  Backplane::Outcome outcome() const noexcept { return worst_.load(std::memory_order_relaxed); }

  /// Begins to wait for `outcomes`. Precondition: none is missing.
  void begin(unsigned outcomes) noexcept {
    worst_.store(Backplane::Outcome::done, std::memory_order_relaxed);
    pending_.store(outcomes, std::memory_order_relaxed);
  }
  void tell(Backplane::Outcome outcome) noexcept override {
    auto worst = worst_.load(std::memory_order_relaxed);
    while (outcome > worst && !worst_.compare_exchange_weak(worst, outcome, std::memory_order_relaxed)) {
    }
    if (pending_.fetch_sub(1, std::memory_order_acq_rel) == 1) peer_.resume();
  }

 private:
  Peer const peer_;
  std::atomic<unsigned> pending_ = 0;
  std::atomic<Backplane::Outcome> worst_ = Backplane::Outcome::done;
};

/// One room that a backplane follows for a client, until it is destroyed. Movable; empty by default.
class Following {
 public:
  Following() = default;
  Following(Backplane& backplane, std::string_view room, std::shared_ptr<Backplane::Waiter> waiter) : room_(room) {
    backplane.follow(room_, std::move(waiter));
    backplane_ = &backplane;
  }
  Following(Following&& other) noexcept
      : backplane_(std::exchange(other.backplane_, nullptr)), room_(std::move(other.room_)) {}
  Following& operator=(Following other) noexcept {
    std::swap(backplane_, other.backplane_);
    std::swap(room_, other.room_);
    return *this;
  }
  ~Following() {
    if (backplane_ != nullptr) backplane_->unfollow(room_);
  }

 private:
  Backplane* backplane_ = nullptr;
  std::string room_;
};

}  // namespace chatproto::detail
