// SPDX-License-Identifier: BSL-1.0
// The report: what was played, and each failure. Another format (TAP, JUnit) would be another class like this one.
#pragma once

#include <cstddef>
#include <iosfwd>
#include <map>
#include <string>

#include "form.hpp"
#include "options.hpp"
#include "play.hpp"
#include "scene.hpp"

namespace conformance {

class Report {
 public:
  Report(std::ostream& out, Options const& options) : out_(out), options_(options) {}

  /// A play has ended; null when it went well.
  void add(Scene const& scene, Form form, Failure const* failure);

  /// A scene that is not played at all, and why.
  void skip(Scene const& scene, std::string const& why);

  /// Whether a scene has failed so often that its other forms would tell nothing new.
  [[nodiscard]] bool gave_up(Scene const& scene) const;

  /// A form that is not played because of that.
  void leave_out(Scene const& scene) { ++counts_[&scene].left_out; }

  /// Something outside the scenes went wrong; the run is no success.
  void stop(std::string const& why);

  /// Writes the last lines; the exit code.
  int finish();

 private:
  struct Count {
    std::size_t passed = 0, failed = 0, left_out = 0;
  };

  void write(Scene const& scene, Form form, Failure const& failure, char const* word);

  std::ostream& out_;
  Options const& options_;
  std::map<Scene const*, Count> counts_;
  std::map<Scene const*, std::size_t> open_failures_;
  std::size_t skipped_ = 0;
  bool stopped_ = false;
};

}  // namespace conformance
