// SPDX-License-Identifier: BSL-1.0
// The formats of the results.
#pragma once

#include <iosfwd>

#include "report.hpp"

namespace conformance {

/// Writes text for people. The profile is null if there is none, here and below.
void write_text(std::ostream& out, Results const& results, Profile const* profile, bool verbose);

/// Writes Test Anything Protocol, version 13.
void write_tap(std::ostream& out, Results const& results);

/// Writes JUnit's XML, with a test suite for each level.
void write_junit(std::ostream& out, Results const& results);

/// Writes JSON: all results, and the points if there is a profile. README.md describes it.
void write_json(std::ostream& out, Results const& results, Profile const* profile);

}  // namespace conformance
