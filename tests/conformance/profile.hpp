// SPDX-License-Identifier: BSL-1.0
// A profile: which rules an exercise sets, and how many points each gives. README.md describes the format.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "scene.hpp"

namespace conformance {

/// The tests that are not a scene, but what many scenes have in common; and those of perturb.py and sanitize.py, which
/// a profile may name as well.
inline constexpr char const* common_tests[] = {"split",     "bytewise",    "together",         "server",
                                               "perturbed", "left-behind", "thread-sanitizer", "address-sanitizer"};

struct Rule {
  struct Open {
    Text tests;  ///< a pattern
    std::string why;
  };
  unsigned points = 0;
  std::string name;
  std::vector<Text> tests;  ///< names and patterns
  std::vector<Open> open;   ///< tests that are played but do not count
};

class Profile {
 public:
  /// Parses the text of a profile. Throws BadScene.
  Profile(std::string const& file, std::string_view text, std::set<std::string> const& tests);

  [[nodiscard]] std::string const& title() const { return title_; }
  [[nodiscard]] std::vector<Rule> const& rules() const { return rules_; }

  /// Whether the server may end its lines in \r\n, whatever a scene says.
  [[nodiscard]] bool any_line_end() const { return any_line_end_; }

  /// Whether programs may write prompts to stdout, also where it is no terminal.
  [[nodiscard]] bool prompts_anywhere() const { return prompts_anywhere_; }

  /// Returns the rule that a test belongs to, or null if it belongs to none.
  [[nodiscard]] Rule const* rule_of(std::string_view test) const;

  /// Returns why the profile leaves open whether the test passes, or an empty string if it does not.
  [[nodiscard]] std::string open(std::string_view test) const;

 private:
  std::string title_;
  bool any_line_end_ = false;
  bool prompts_anywhere_ = false;
  std::vector<Rule> rules_;
};

/// Returns the profile of a name that is part of this program, or else of a file. Each of its patterns must match one
/// of the tests. Throws BadScene.
Profile find_profile(std::string const& name, std::set<std::string> const& tests);

}  // namespace conformance
