// SPDX-License-Identifier: BSL-1.0
#include "form.hpp"

#include <algorithm>
#include <set>

namespace conformance {
namespace {

/// Adds the places that matter in a long text: near its ends, its line ends, the limit of a line, common buffer sizes,
/// and a sample in between.
void add_places(std::set<std::size_t>& places, std::string const& bytes, std::size_t offset) {
  std::size_t const size = bytes.size();
  auto const near = [&](std::size_t place, std::size_t before, std::size_t after) {
    for (std::size_t i = place - std::min(place, before); i <= std::min(size, place + after); ++i)
      places.insert(offset + i);
  };
  near(0, 0, 4);
  near(size, 8, 0);
  std::size_t ends = 0;
  std::size_t begin = 0;
  for (std::size_t end = bytes.find('\n'); end != bytes.npos; end = bytes.find('\n', begin)) {
    if (++ends <= 20) near(end, 2, 2);
    if (end - begin + 1 >= max_line - 1) near(begin + max_line, 2, 2);
    begin = end + 1;
  }
  if (size - begin >= max_line - 1) near(begin + max_line, 2, 2);
  for (std::size_t power = 512; power < size; power *= 2) near(power, 1, 1);
  constexpr std::size_t samples = 32;
  for (std::size_t i = 1; i < samples; ++i) places.insert(offset + size * i / samples);
}

}  // namespace

std::string Form::name(Scene const& scene) const {
  switch (kind) {
    case Kind::whole: return "whole";
    case Kind::split: return "split " + scene.actors[actor].name + " at " + std::to_string(at);
    case Kind::bytewise: return "bytewise";
    case Kind::alone: break;
  }
  return "alone";
}

Burst burst_at(Scene const& scene, std::size_t step, Text::Words const& words) {
  Burst burst{step, step, {}};
  std::size_t const actor = scene.steps[step].actor;
  for (; burst.last < scene.steps.size(); ++burst.last) {
    Step const& next = scene.steps[burst.last];
    if (next.verb != Verb::send || next.actor != actor) break;
    burst.bytes += next.text.bytes(words);
  }
  return burst;
}

std::vector<std::vector<std::size_t>> cuts_of(Scene const& scene, std::size_t everywhere) {
  std::vector<std::vector<Burst>> bursts(scene.actors.size());
  for (std::size_t i = 0; i < scene.steps.size();) {
    bool const of_fence = scene.actors[scene.steps[i].actor].name == fence_actor;
    if (scene.steps[i].verb != Verb::send || of_fence) {
      ++i;
      continue;
    }
    Burst burst = burst_at(scene, i, sample_word);
    i = burst.last;
    bursts[scene.steps[burst.first].actor].push_back(std::move(burst));
  }

  std::vector<std::vector<std::size_t>> result;
  for (std::vector<Burst> const& of_actor : bursts) {
    std::size_t total = 0;
    for (Burst const& burst : of_actor) total += burst.bytes.size();
    std::set<std::size_t> places;
    std::size_t offset = 0;
    for (Burst const& burst : of_actor) {
      if (total <= everywhere)
        for (std::size_t i = 1; i < burst.bytes.size(); ++i) places.insert(offset + i);
      else
        add_places(places, burst.bytes, offset);
      places.erase(offset);
      offset += burst.bytes.size();
      places.erase(offset);
    }
    result.emplace_back(places.begin(), places.end());
  }
  return result;
}

std::vector<Form> forms_of(Scene const& scene, bool split, bool bytewise) {
  std::vector<Form> forms(1);
  if (scene.whole_only) return forms;
  if (split) {
    auto const cuts = cuts_of(scene, split_everywhere);
    for (std::size_t actor = 0; actor < cuts.size(); ++actor)
      for (std::size_t const at : cuts[actor]) forms.push_back({Form::Kind::split, actor, at});
  }
  if (bytewise) forms.push_back({Form::Kind::bytewise, 0, 0});
  return forms;
}

}  // namespace conformance
