// SPDX-License-Identifier: BSL-1.0
/// @file
/// `KeyedBuckets`, a token bucket for each key.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <unordered_map>

#include <chatproto/token_bucket.hpp>

namespace chatproto::detail {

/// A token bucket for each key, such as an address. Keeps at most so many of those that are not full. If there are
/// more, it forgets the one that would be full first: whoever has many addresses gains little by that, and the others
/// are not locked out.
///
/// Thread safety: distinct objects: safe. Shared objects: unsafe.
class KeyedBuckets {
 public:
  using Clock = TokenBucket::Clock;

  /// `rate` and `burst`: see `TokenBucket`. `most` is at least 1.
  KeyedBuckets(double rate, double burst, std::size_t most) : new_(rate, burst), full_at_(rate, 1), most_(most) {}

  /// Returns how long it takes until the key has a token; 0 if it has one.
  Clock::duration wait(std::string const& key, Clock::time_point now) const {
    auto const at = buckets_.find(key);
    return at != buckets_.end() ? at->second.tokens.wait(now) : Clock::duration::zero();
  }
  /// Takes a token, even if there is none yet, which delays later ones.
  void owe(std::string const& key, Clock::time_point now) {
    if (buckets_.size() >= most_ && buckets_.count(key) == 0) make_room(now);
    auto& bucket = buckets_.try_emplace(key, Bucket{new_, full_at_}).first->second;
    bucket.tokens.owe(now);
    bucket.full_at.owe(now);
  }
  /// Returns the number of keys that it keeps.
  std::size_t size() const noexcept { return buckets_.size(); }

 private:
  struct Bucket {
    TokenBucket tokens;
    TokenBucket full_at;  // of one token: has one as soon as `tokens` is full
  };

  void make_room(Clock::time_point now) {
    auto const left = [now](auto const& entry) { return entry.second.full_at.wait(now); };
    std::erase_if(buckets_, [&](auto const& entry) { return left(entry) == Clock::duration::zero(); });
    if (buckets_.size() < most_) return;
    buckets_.erase(std::min_element(buckets_.begin(), buckets_.end(),
                                    [&](auto const& a, auto const& b) { return left(a) < left(b); }));
  }

  TokenBucket const new_, full_at_;
  std::size_t const most_;
  std::unordered_map<std::string, Bucket> buckets_;
};

}  // namespace chatproto::detail
