// SPDX-License-Identifier: BSL-1.0
// Shrinks generated scenes that have failed: finds a shorter walk that fails in the same way.
#pragma once

#include <chrono>
#include <cstddef>
#include <deque>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "play.hpp"
#include "report.hpp"
#include "scene.hpp"
#include "walk.hpp"

namespace conformance {

/// Chooses the scenes to be played, one at a time, and reports the shortest that fails.
///
/// A smaller walk counts only if it fails in the same way, and the shortest only if it fails once more.
class Shrinker {
 public:
  Shrinker(Report& report, Settings const& settings) : report_(report), settings_(settings) {}

  /// Adds a scene that has failed, if it is a generated one.
  void add(Scene const& scene, Failure const& failure);

  /// Whether enough scenes that fail like this are shrunk already; the report tells of others briefly.
  [[nodiscard]] bool has_enough(Failure const& failure) const;
  [[nodiscard]] bool has_enough(Scene const& scene) const { return has_enough(report_.failure_of(scene)); }

  /// Adds a generated scene that has failed while others were played, and is not played again.
  void pass_over(Scene const& scene);

  /// Returns the next scene to play, or null if nothing is left. It stays valid until the next call.
  Scene const* next();

  /// The settings for that scene.
  [[nodiscard]] Settings const& settings();

  /// Whether the server's end has to be waited for.
  [[nodiscard]] bool server_ends() const { return !cases_.empty() && cases_.front().way == server_ended; }

  /// Takes the result of that scene; null if it has passed.
  void played(Failure const* failure);

 private:
  static constexpr char const* server_ended = "the server ended";
  static constexpr std::size_t enough = 8;
  static constexpr std::ptrdiff_t enough_of_a_way = 3;

  struct Smaller {
    Walk walk;
    std::size_t cut = 0;  ///< how many actions were dropped at once; 0 when none was
  };
  struct Case {
    Scene const* scene = nullptr;
    std::string way;  ///< in which it fails
    Failure failure, first_failure;
    WalkScene shortest, original;
    std::deque<Smaller> candidates;
    std::size_t cut = 0;
    std::size_t plays = 0;
    std::set<std::string> tried;
    std::chrono::steady_clock::time_point begin;
    bool shrunk = false;
    bool confirming = false;
    int confirmations = 0;
  };

  [[nodiscard]] static std::string way_of(Failure const& failure);
  static void find_candidates(Case& of);
  [[nodiscard]] bool take_candidate(Case& of);
  void end(bool confirmed);
  void pass_over(Scene const& scene, Failure failure);
  void tell(Scene const& scene, WalkScene const& shown, Failure const& failure, std::vector<std::string> remarks);

  Report& report_;
  Settings const& settings_;
  Settings shorter_;
  std::deque<Case> cases_;
  std::chrono::steady_clock::duration spent_{};
  Scene current_;
  WalkScene candidate_;
  std::size_t candidate_cut_ = 0;
};

}  // namespace conformance
