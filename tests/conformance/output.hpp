// SPDX-License-Identifier: BSL-1.0
// The formats of the results.
#pragma once

#include <iosfwd>

#include "report.hpp"

namespace conformance {

/// Writes text for people.
void write_text(std::ostream& out, Results const& results, bool verbose);

/// Writes Test Anything Protocol, version 13.
void write_tap(std::ostream& out, Results const& results);

/// Writes JUnit's XML, with a test suite for each level.
void write_junit(std::ostream& out, Results const& results);

}  // namespace conformance
