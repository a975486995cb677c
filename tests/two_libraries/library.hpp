// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <system_error>

namespace one {
std::error_code malformed();
std::size_t hold(std::size_t bytes);  // of all libraries together, afterwards
}  // namespace one
namespace two {
std::error_code malformed();
std::size_t hold(std::size_t bytes);
}  // namespace two
