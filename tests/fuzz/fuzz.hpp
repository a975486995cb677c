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

/// Takes a number from the input; 0 at its end.
inline unsigned take_byte(std::string_view& rest) {
  if (rest.empty()) return 0;
  auto const value = static_cast<unsigned char>(rest[0]);
  rest.remove_prefix(1);
  return value;
}
/// Takes a text from the input, and its length.
inline std::string_view take_text(std::string_view& rest) {
  auto const size = take_byte(rest);
  auto const text = rest.substr(0, size);
  rest.remove_prefix(text.size());
  return text;
}
