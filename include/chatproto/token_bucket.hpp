// SPDX-License-Identifier: BSL-1.0
/// @file
/// `TokenBucket`, a rate limiter.
#pragma once

#include <algorithm>
#include <cassert>
#include <chrono>

namespace chatproto {

/// A token bucket: holds up to `burst` tokens and gains `rate` tokens per second. It starts full.
///
/// @code
/// chatproto::TokenBucket bucket(2, 10);  // two a second, and ten at once
/// auto const now = chatproto::TokenBucket::Clock::now();
/// if (!bucket.take(now)) std::cout << "in " << bucket.wait(now).count() << " ns\n";
/// @endcode
///
/// Thread safety: distinct objects: safe. Shared objects: unsafe.
class TokenBucket {
 public:
  using Clock = std::chrono::steady_clock;  ///< not affected by changes of the wall clock

  /// Constructs a full bucket. `rate`, in tokens per second, is greater than 0; `burst` is at least 1.
  TokenBucket(double rate, double burst)
      : each_(std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(std::min(1 / rate, 1e9)))),
        depth_(std::chrono::duration_cast<Clock::duration>(
            std::chrono::duration<double>(std::min((burst - 1) / rate, 1e9)))) {
    assert(rate > 0 && burst >= 1);
  }

  /// Takes a token if there is one. Returns whether it did.
  bool take(Clock::time_point now) {
    if (wait(now) > Clock::duration::zero()) return false;
    owe(now);
    return true;
  }

  /// Takes a token even if there is none yet, which delays later ones.
  void owe(Clock::time_point now) { full_ = std::max(full_, now) + each_; }

  /// Returns how long it takes until there is a token; 0 if there is one.
  Clock::duration wait(Clock::time_point now) const { return std::max(full_ - depth_ - now, Clock::duration::zero()); }

  /// Returns whether no token is missing.
  bool is_full(Clock::time_point now) const { return full_ <= now; }

 private:
  // Represents the bucket by a time: it is full again at `full_`, which each missing token delays by `each_`.
  Clock::duration each_, depth_;
  Clock::time_point full_{};
};

}  // namespace chatproto
