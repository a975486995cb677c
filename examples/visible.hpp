// SPDX-License-Identifier: BSL-1.0
/// @file
/// Makes the control characters of a text visible, so that it is safe for a terminal.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace program {

/// A character in UTF-8 (RFC 3629): its value and its length in bytes.
struct Character {
  std::uint32_t value;
  std::size_t size;
};

inline std::optional<Character> first_character(std::string_view text) {
  auto const byte = [&](std::size_t i) -> std::uint32_t { return static_cast<unsigned char>(text[i]); };
  auto const lead = byte(0);
  if (lead < 0x80) return Character{lead, 1};
  std::size_t const size = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc0 || lead >= 0xf8 || text.size() < size) return std::nullopt;
  auto value = lead & (0x7fu >> size);
  for (std::size_t i = 1; i < size; ++i) {
    if ((byte(i) & 0xc0u) != 0x80) return std::nullopt;
    value = value << 6 | (byte(i) & 0x3fu);
  }
  constexpr std::uint32_t least[] = {0x80, 0x800, 0x10000};
  if (value < least[size - 2]) return std::nullopt;                                  // an overlong encoding
  if (value > 0x10ffff || (value >= 0xd800 && value < 0xe000)) return std::nullopt;  // not a character
  return Character{value, size};
}

/// Returns whether a character beyond ASCII controls how others are shown: the C1 control characters, those that change
/// the direction of writing, and the line and paragraph separators.
inline bool is_control(std::uint32_t value) {
  return value < 0xa0 || value == 0x061c || value == 0x200e || value == 0x200f ||
         (value >= 0x2028 && value <= 0x202e) || (value >= 0x2066 && value <= 0x2069);
}

/// Returns `text` with everything that could control a terminal made visible: `^[` for ESC and so on, `<9b>` or
/// `<202e>` for a control character beyond ASCII, and `invalid` for a byte that is not UTF-8; if that is empty, `<9b>`.
inline std::string visible(std::string_view text, std::string_view invalid = {}) {
  std::string result;
  auto const append_hex = [&result](std::uint32_t value) {
    result += '<';
    for (auto shift = value > 0xff ? 12u : 4u;; shift -= 4) {
      result += "0123456789abcdef"[value >> shift & 15u];
      if (shift == 0) break;
    }
    result += '>';
  };
  while (!text.empty()) {
    auto const character = first_character(text);
    auto const size = character ? character->size : 1;
    auto const value = character ? character->value : static_cast<unsigned char>(text.front());
    if (value < 0x20 || value == 0x7f)
      result.append(1, '^').append(1, static_cast<char>(value ^ 0x40u));
    else if (!character && !invalid.empty())
      result += invalid;
    else if (!character || (value >= 0x80 && is_control(value)))
      append_hex(value);
    else
      result.append(text.substr(0, size));
    text.remove_prefix(size);
  }
  return result;
}

}  // namespace program
