// SPDX-License-Identifier: BSL-1.0
// What the fuzz targets share. Included first.
#pragma once

#undef NDEBUG  // a fuzzer without assertions finds nothing
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size);

inline std::string_view as_text(std::uint8_t const* data, std::size_t size) {
  return {reinterpret_cast<char const*>(data), size};
}
