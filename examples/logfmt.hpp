// SPDX-License-Identifier: BSL-1.0
/// @file
/// Formats log lines as `key=value` fields.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace program {

/// Appends ` key=value`. No value can pass for another key or line: a value with anything but letters, digits and
/// `._:/%+-[]` is quoted, with `\` before `"` and `\`, and every byte that is not printable ASCII written as `\x0a`.
inline void append_field(std::string& line, std::string_view key, std::string_view value) {
  constexpr std::string_view plain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:/%+-[]";
  constexpr auto digits = "0123456789abcdef";
  line.append(1, ' ').append(key).append(1, '=');
  if (!value.empty() && value.find_first_not_of(plain) == value.npos) {
    line.append(value);
    return;
  }
  line += '"';
  for (auto const character : value) {
    auto const byte = static_cast<unsigned char>(character);
    if (byte < 0x20 || byte >= 0x7f)
      line.append("\\x").append(1, digits[byte >> 4]).append(1, digits[byte & 15u]);
    else if (character == '"' || character == '\\')
      line.append(1, '\\').append(1, character);
    else
      line += character;
  }
  line += '"';
}
inline void append_field(std::string& line, std::string_view key, std::uint64_t value) {
  append_field(line, key, std::to_string(value));
}

}  // namespace program
