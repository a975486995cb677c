// SPDX-License-Identifier: BSL-1.0
/// @file
/// `shrink`, which finds a shorter list of steps that still fails.
#pragma once

#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

namespace chatproto::detail {

/// Makes a list of steps shorter and simpler as long as it fails. `replay` plays a list and returns the steps that were
/// carried out, if that failed, and nothing otherwise. A `Step` has a `client`, a `simplify`, which makes it simpler
/// and returns whether it was not so before, and a `join`, which appends the next step to it if it can.
///
/// A step is removed or simplified only if the rest still fails, so the result fails, and without any of its steps it
/// would not. Ends after `replays` at the latest.
template <class Step>
std::vector<Step> shrink(std::vector<Step> steps, std::size_t clients, auto const& replay, std::size_t replays) {
  auto const accept = [&](std::vector<Step> candidate) {
    if (replays == 0) return false;
    --replays;
    auto played = replay(candidate);
    if (!played || played->size() > candidate.size()) return false;
    steps = std::move(*played);
    return true;
  };
  auto const begin = [](std::vector<Step>& list, std::size_t at) {
    return list.begin() + static_cast<std::ptrdiff_t>(at);
  };

  for (auto changed = true; changed && replays > 0;) {
    changed = false;
    for (std::size_t client = 0; client < clients; ++client) {
      auto rest = steps;
      if (std::erase_if(rest, [&](Step const& step) { return step.client == client; }) > 0)
        changed = accept(std::move(rest)) || changed;
    }
    for (auto size = (steps.size() + 1) / 2; size > 0; size /= 2)
      for (std::size_t at = 0; at + size <= steps.size();) {
        auto rest = steps;
        rest.erase(begin(rest, at), begin(rest, at + size));
        if (accept(std::move(rest)))
          changed = true;
        else
          ++at;
      }
    auto simpler = steps;
    auto is_simpler = false;
    for (auto& step : simpler) is_simpler = step.simplify() || is_simpler;
    if (is_simpler && accept(std::move(simpler)))
      changed = true;
    else
      for (std::size_t at = 0; is_simpler && at < steps.size(); ++at)
        if (auto one = steps; one[at].simplify()) changed = accept(std::move(one)) || changed;
    for (std::size_t at = 0; at + 1 < steps.size(); ++at) {
      auto joined = steps;
      if (!joined[at].join(joined[at + 1])) continue;
      joined.erase(begin(joined, at + 1));
      changed = accept(std::move(joined)) || changed;
    }
  }
  return steps;
}

}  // namespace chatproto::detail
