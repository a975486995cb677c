// SPDX-License-Identifier: BSL-1.0
/// @file
/// `Events`, a server's counters and the calls to its observer.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <system_error>

#include <chatproto/observer.hpp>

namespace chatproto::detail {

using Counter = std::atomic<std::uint64_t>;
inline void add(Counter& counter, std::uint64_t n) noexcept { counter.fetch_add(n, std::memory_order_relaxed); }

/// The counters of reads and writes.
struct alignas(64) Traffic {
  Counter lines_in = 0, bytes_in = 0, bytes_out = 0, throttled = 0;
};

/// Counts events and notifies the observer, if there is one. Thread safety: shared objects: safe.
class Events {
 public:
  explicit Events(Observer* observer) noexcept : observer_(observer) {}

  bool observed() const noexcept { return observer_ != nullptr; }
  /// Counts an accepted client and returns its number.
  std::uint64_t accepted() noexcept { return 1 + accepted_.fetch_add(1, std::memory_order_relaxed); }
  /// Returns the counters for the client's traffic. There are several sets, so that threads that serve different
  /// clients rarely contend for a cache line.
  Traffic& traffic(std::uint64_t number) noexcept {
    return traffic_[static_cast<std::size_t>(number % traffic_.size())];
  }

  /// Returns false if the observer has thrown.
  bool connected(std::uint64_t number, std::string_view address) noexcept {
    return tell([&] { observer_->connected(number, address); });
  }
  bool logged_in(std::uint64_t number, std::string_view name) noexcept {
    return tell([&] { observer_->logged_in(number, name); });
  }
  void threw(std::uint64_t number, std::string_view what) noexcept {
    tell([&] { observer_->threw(number, what); });
  }
  void ended(std::uint64_t number, DisconnectReason reason, std::error_code const& error) noexcept {
    ended_[static_cast<std::size_t>(reason)].fetch_add(1, std::memory_order_release);
    tell([&] { observer_->ended(number, reason, error); });
  }
  /// `address()` returns the client's address as text.
  void refused(RefusalReason reason, auto const& address) noexcept {
    add(refused_[static_cast<std::size_t>(reason)], 1);
    tell([&] { observer_->refused(address(), reason); });
  }
  void accept_failed(std::error_code const& error) noexcept {
    add(accept_errors_, 1);
    tell([&] { observer_->accept_failed(error); });
  }

  /// Returns all counters, but not the bytes that are queued or held.
  ServerStats stats() const noexcept {
    ServerStats stats;
    std::uint64_t gone = 0;  // read first, or a client that ends meanwhile would have ended before it was accepted
    for (std::size_t i = 0; i < ended_.size(); ++i) gone += stats.ended[i] = ended_[i].load(std::memory_order_acquire);
    stats.accepted = accepted_;
    stats.clients = stats.accepted - gone;
    for (std::size_t i = 0; i < refused_.size(); ++i) stats.refused[i] = refused_[i];
    stats.accept_errors = accept_errors_;
    stats.observer_failures = observer_failures_;
    for (auto const& each : traffic_) {
      stats.lines_in += each.lines_in;
      stats.bytes_in += each.bytes_in;
      stats.bytes_out += each.bytes_out;
      stats.throttled += each.throttled;
    }
    return stats;
  }

 private:
  bool tell(auto const& call) noexcept {
    try {
      if (observer_ != nullptr) call();
      return true;
    } catch (...) {
      add(observer_failures_, 1);
      return false;
    }
  }

  Observer* const observer_;
  Counter accepted_ = 0, accept_errors_ = 0, observer_failures_ = 0;
  std::array<Counter, disconnect_reasons> ended_ = {};
  std::array<Counter, refusal_reasons> refused_ = {};
  std::array<Traffic, 16> traffic_;
};

}  // namespace chatproto::detail
