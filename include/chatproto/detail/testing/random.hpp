// SPDX-License-Identifier: BSL-1.0
/// @file
/// `Random`: reproducible random choices.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>

namespace chatproto::detail {

/// Random choices that are the same on every system for the same seed, unlike those of the distributions of `<random>`.
/// Cheap to seed.
///
/// Thread safety: distinct objects: safe. Shared objects: unsafe.
class Random {
 public:
  /// Starts at a random place, else each seed would repeat the numbers of the seed before it.
  explicit Random(std::uint64_t seed) : state_(seed) { state_ = next(); }

  /// Returns a number below `end`, which is not 0.
  std::size_t below(std::size_t end) { return static_cast<std::size_t>(next() % end); }
  /// Returns one of these numbers or one in between.
  std::size_t between(std::size_t first, std::size_t last) { return first + below(last - first + 1); }
  /// Returns true with a chance of `chance` in a hundred.
  bool percent(std::size_t chance) { return below(100) < chance; }
  /// Returns an element of `range`, which is not empty.
  auto const& one_of(auto const& range) { return range[below(std::size(range))]; }

 private:
  std::uint64_t next() {  // splitmix64
    auto bits = state_ += 0x9e3779b97f4a7c15u;
    bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9u;
    bits = (bits ^ (bits >> 27)) * 0x94d049bb133111ebu;
    return bits ^ (bits >> 31);
  }
  std::uint64_t state_;
};

}  // namespace chatproto::detail
