// SPDX-License-Identifier: BSL-1.0
// Forms: the ways in which the same bytes reach the other end.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "scene.hpp"

namespace conformance {

/// Whole: what an actor sends without waiting for an answer is sent at once. Split: the bytes of one actor are split at
/// one place. Bytewise: every actor's bytes are sent one at a time, as far as cuts_of() allows. Alone: whole, while no
/// other scene is played.
struct Form {
  enum class Kind { whole, split, bytewise, alone };
  Kind kind = Kind::whole;
  std::size_t actor = 0;  ///< split: whose bytes
  std::size_t at = 0;     ///< split: how many of its bytes come before

  [[nodiscard]] std::string name(Scene const& scene) const;
};

/// What an actor sends without waiting in between: the steps [first, last), and their bytes.
struct Burst {
  std::size_t first = 0, last = 0;
  std::string bytes;
};

/// Returns the burst that begins with a step.
Burst burst_at(Scene const& scene, std::size_t step, Text::Words const& words);

/// Returns where the bytes of each actor are split, counted through all its bursts and never at the end of one:
/// everywhere for an actor that sends at most `everywhere` bytes, else at the places that matter.
std::vector<std::vector<std::size_t>> cuts_of(Scene const& scene, std::size_t everywhere);

inline constexpr std::size_t split_everywhere = 400;
inline constexpr std::size_t bytewise_everywhere = 4096;

/// Returns the forms of a scene: whole, then those of the other kinds that are asked for.
std::vector<Form> forms_of(Scene const& scene, bool split, bool bytewise);

}  // namespace conformance
