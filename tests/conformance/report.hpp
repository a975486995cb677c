// SPDX-License-Identifier: BSL-1.0
// Collects the results of the scenes while they are played.
#pragma once

#include <array>
#include <cstddef>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "form.hpp"
#include "options.hpp"
#include "play.hpp"
#include "profile.hpp"
#include "scene.hpp"

namespace conformance {

/// Begins why a scene is skipped that runs a program which was not named.
inline constexpr std::string_view needs_program = "needs --program ";

/// One test of the report: a scene, or all scenes at the same time, or with their bytes in pieces.
struct Result {
  enum class Kind { passed, failed, open, skipped, unchecked };
  Kind kind = Kind::passed;
  Level level = Level::basic;
  std::string name;
  std::string title;
  std::string rule;
  std::string why;                ///< open: why it may differ; skipped, unchecked: why it has no result
  std::vector<std::string> told;  ///< failed, open: what happened, line by line
  bool cut_off = false;           ///< unchecked: because the run ended before
};

/// What a profile's rule has earned: all its points, if one of its tests has passed, none has failed, and the run did
/// not end before all were played.
struct Marks {
  Rule const* rule = nullptr;
  Result::Kind kind = Result::Kind::skipped;  ///< skipped: it does not count
  unsigned points = 0;
  std::vector<Result const*> tests;
};

struct Results {
  std::vector<Result> tests;  ///< by level, then in the order in which the scenes were named
  std::size_t plays = 0;
  std::string stopped;  ///< why the run ended early; empty if it did not

  [[nodiscard]] std::size_t count(Result::Kind kind) const;
  [[nodiscard]] std::size_t count(Result::Kind kind, Level level) const;
  [[nodiscard]] int exit_code() const;
  [[nodiscard]] std::vector<Marks> marks(Profile const& profile) const;
};

class Report {
 public:
  Report(Options const& options, std::vector<Scene> const& scenes) : options_(options), scenes_(scenes) {}

  /// Adds the result of a play; null if it succeeded. Returns whether it went as it should.
  bool add(Scene const& scene, Form form, Failure const* failure);

  /// Adds a scene that is not played, with the reason.
  void skip(Scene const& scene, std::string const& why) { outcomes_[&scene].skipped = why; }

  /// Returns the first failure of a scene that has failed in one piece.
  [[nodiscard]] Failure const& failure_of(Scene const& scene) const { return outcomes_.at(&scene).failed[0]->failure; }

  /// Replaces what is told of a generated scene that has failed.
  /// It uses what the scene that is shown uses.
  void tell(Scene const& scene, Failure const& failure, std::string const& rule, std::set<std::string> uses,
            std::vector<std::string> remarks);

  /// Adds a scene that is not played because another one has failed.
  void cannot_check(Scene const& scene, std::string const& failed) { outcomes_[&scene].unchecked = failed; }

  /// Whether a scene has failed such that this form of it would show nothing new.
  [[nodiscard]] bool gave_up(Scene const& scene, Form form) const;

  /// Records a problem of the server under test that no scene has caused.
  void server(std::string const& what) { server_ = what; }

  void stop(std::string const& why) { stopped_ = why; }

  /// Records that everything has been played. Without this, the run has ended early.
  void complete() { complete_ = true; }

  [[nodiscard]] Results results() const;

 private:
  struct Failed {
    Form form;
    Failure failure;
  };
  struct Outcome {
    std::size_t plays = 0;
    std::array<std::optional<Failed>, 4> failed;  ///< the first failure for each kind of form
    std::array<bool, 4> played{};
    std::string skipped;
    std::string unchecked;             ///< the scene that has failed before
    std::string rule;                  ///< if not the scene's
    std::set<std::string> uses;        ///< with the rule
    std::vector<std::string> remarks;  ///< to be told after the failure
  };

  [[nodiscard]] static std::optional<Failed> const& of(Outcome const& outcome, Form::Kind kind) {
    return outcome.failed[static_cast<std::size_t>(kind)];
  }
  [[nodiscard]] Result of_scene(Scene const& scene) const;
  [[nodiscard]] static bool failed(Outcome const& outcome);
  [[nodiscard]] std::optional<Result> together() const;
  [[nodiscard]] std::optional<Result> in_pieces(Form::Kind kind) const;
  [[nodiscard]] Result all_scenes(Result result, Form::Kind kind, std::size_t played,
                                  std::vector<Scene const*> const& failed, std::string const& how) const;
  void excuse(std::vector<Result>& tests) const;
  [[nodiscard]] std::vector<std::string> told(Scene const& scene, Failed const& failed) const;

  Options const& options_;
  std::vector<Scene> const& scenes_;
  std::map<Scene const*, Outcome> outcomes_;
  std::string server_;
  std::string stopped_;
  bool complete_ = false;
};

}  // namespace conformance
