// SPDX-License-Identifier: BSL-1.0
/// @file
/// Raises the limit of open files and connections of a process.
#pragma once

#include <cstdint>
#include <limits>

#ifndef _WIN32
#include <sys/resource.h>
#endif

namespace program {

/// Raises the limit of open descriptors as far as the system allows, and returns it.
inline std::uint64_t raise_descriptor_limit() {
#ifndef _WIN32
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_max != RLIM_INFINITY) return limit.rlim_max;
  }
#endif
  return std::numeric_limits<std::uint64_t>::max();
}

}  // namespace program
