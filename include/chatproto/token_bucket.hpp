// SPDX-License-Identifier: BSL-1.0
/// @file
/// How often something may happen.
#pragma once

#include <algorithm>
#include <cassert>
#include <chrono>

namespace chatproto {

/// A token bucket: holds up to `burst` tokens and gets `rate` new ones each second; it is full at first.
///
/// @code
/// chatproto::TokenBucket bucket(2, 10);  // two a second, and ten at once
/// auto const now = chatproto::TokenBucket::Clock::now();
/// if (!bucket.take(now)) std::cout << "in " << bucket.wait(now).count() << " ns\n";
/// @endcode
///
/// Thread safety: distinct objects: safe; shared objects: unsafe.
class TokenBucket {
 public:
  using Clock = std::chrono::steady_clock;  ///< which no change of the wall clock disturbs

  /// `rate` is above 0 and in tokens per second, `burst` at least 1.
  TokenBucket(double rate, double burst)
      : each_(std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(std::min(1 / rate, 1e9)))),
        depth_(std::chrono::duration_cast<Clock::duration>(
            std::chrono::duration<double>(std::min((burst - 1) / rate, 1e9)))) {
    assert(rate > 0 && burst >= 1);
  }

  /// Takes a token, if there is one.
  bool take(Clock::time_point now) {
    if (wait(now) > Clock::duration::zero()) return false;
    owe(now);
    return true;
  }

  /// Takes a token that may not be there yet: later ones come later.
  void owe(Clock::time_point now) { full_ = std::max(full_, now) + each_; }

  /// How long until there is a token; 0: there is one.
  Clock::duration wait(Clock::time_point now) const { return std::max(full_ - depth_ - now, Clock::duration::zero()); }

 private:
  // The bucket as a clock: it is full again at `full_`, and each token that is missing has put that off by `each_`.
  Clock::duration each_, depth_;
  Clock::time_point full_{};
};

}  // namespace chatproto
