// SPDX-License-Identifier: BSL-1.0
#include <chatproto/version.hpp>

#include <string>

#include "catch.hpp"

TEST_CASE("the header and the build know the same version", "[version]") {
  auto const of_header = std::to_string(CHATPROTO_VERSION_MAJOR) + '.' + std::to_string(CHATPROTO_VERSION_MINOR) + '.' +
                         std::to_string(CHATPROTO_VERSION_PATCH);
  CHECK(of_header == PROJECT_VERSION);  // defined by the build
}

#if CHATPROTO_VERSION < 100
#error "CHATPROTO_VERSION must be comparable in #if, and is at least 0.1.0"
#endif
