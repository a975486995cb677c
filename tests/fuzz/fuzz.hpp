// SPDX-License-Identifier: BSL-1.0
// Helpers for the fuzz targets. Must be included first.
#pragma once

#undef NDEBUG  // without assertions a fuzzer finds nothing
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size);

inline std::string_view as_text(std::uint8_t const* data, std::size_t size) {
  return {reinterpret_cast<char const*>(data), size};
}
