// SPDX-License-Identifier: BSL-1.0
// Steps of a play that receive the lines of several streams in any order, and then the same lines again.
#include "play.hpp"

namespace conformance {

void Play::merge() {
  role().merge.clear();
  Streams streams;
  std::size_t last = index_;
  for (; last < scene_.steps.size(); ++last) {
    Step const& other = scene_.steps[last];
    if (other.verb != Verb::receive || other.stream == 0 || other.actor != step().actor) break;
    streams[other.stream].push_back(last);
  }
  merge_line(std::move(streams), last - index_);
}

void Play::merge_line(Streams streams, std::size_t left) {
  role().inbox.wait_for_line(guarded([this, streams = std::move(streams), left]() mutable {
    auto const line = take_line();
    if (!line) return;
    limit_step();
    std::string expected;
    for (auto& [stream, steps] : streams) {
      if (steps.empty()) continue;
      Text const& text = scene_.steps[steps.front()].text;
      if (!text.matches(*line, fill_)) {
        expected += (expected.empty() ? "" : "  or  ") + text.shown(fill_);
        continue;
      }
      steps.erase(steps.begin());
      role().merge.push_back(*line);
      if (left > 1) return merge_line(std::move(streams), left - 1);
      // The steps of the merge were played in some order; continue after them.
      std::size_t const merged = step().actor;
      while (index_ < scene_.steps.size() && step().verb == Verb::receive && step().stream != 0 &&
             step().actor == merged)
        ++index_;
      return next();
    }
    fail("the line " + expected, escaped(*line + "\n"));
  }));
}

void Play::same(std::size_t at) {
  std::vector<std::string> const& lines = roles_[step().other].merge;
  if (at == lines.size()) return advance();
  role().inbox.wait_for_line(guarded([this, at, &lines] {
    auto const line = take_line();
    if (!line) return;
    if (*line != lines[at])
      return fail(
          "the line " + escaped(lines[at]) + ", which '" + scene_.actors[step().other].name + "' got at this place",
          escaped(*line + "\n"));
    same(at + 1);
  }));
}

}  // namespace conformance
