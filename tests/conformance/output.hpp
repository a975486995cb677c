// SPDX-License-Identifier: BSL-1.0
// The formats in which results are written.
#pragma once

#include <iosfwd>

#include "report.hpp"

namespace conformance {

/// For people.
void write_text(std::ostream& out, Results const& results, bool verbose);

/// Test Anything Protocol, version 13.
void write_tap(std::ostream& out, Results const& results);

/// JUnit's XML: a test suite for each level.
void write_junit(std::ostream& out, Results const& results);

}  // namespace conformance
