// SPDX-License-Identifier: BSL-1.0
// Forms: the ways in which the same bytes reach the other end.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "scene.hpp"

namespace conformance {

/// Whole: what an actor sends without waiting for an answer goes out at once. Split: the bytes of one actor are cut
/// at one place. Bytewise: every actor's bytes go out one at a time, as far as cuts_of() allows.
struct Form {
  enum class Kind { whole, split, bytewise };
  Kind kind = Kind::whole;
  std::size_t actor = 0;  ///< split: whose bytes
  std::size_t at = 0;     ///< split: after so many of its bytes

  [[nodiscard]] std::string name(Scene const& scene) const;
};

/// What an actor sends without waiting in between: the steps [first, last), and the bytes.
struct Burst {
  std::size_t first = 0, last = 0;
  std::string bytes;
};

/// The burst that begins with a step.
Burst burst_at(Scene const& scene, std::size_t step, Text::Words const& words);

/// Where the bytes of each actor are cut, counted through all its bursts and never at the end of one. That is
/// everywhere for an actor that sends no more than `everywhere` bytes, else at the places that matter.
std::vector<std::vector<std::size_t>> cuts_of(Scene const& scene, std::size_t everywhere);

inline constexpr std::size_t split_everywhere = 400;
inline constexpr std::size_t bytewise_everywhere = 4096;

/// The forms of a scene: whole, then those of the other kinds that are asked for.
std::vector<Form> forms_of(Scene const& scene, bool split, bool bytewise);

}  // namespace conformance
