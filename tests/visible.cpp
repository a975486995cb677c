// SPDX-License-Identifier: BSL-1.0
#include "../examples/visible.hpp"

#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

#include "catch.hpp"

namespace {

using program::visible;

std::string hex(char const* format, std::uint32_t value) {
  char text[16];
  std::snprintf(text, sizeof text, format, static_cast<unsigned>(value));
  return text;
}

std::string raw_byte(std::uint32_t byte) { return hex("<%02x>", byte); }

std::string ascii(std::uint32_t byte) {
  if (byte == 0x7f) return "^?";
  return byte < 0x20 ? std::string("^") + "@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_"[byte]
                     : std::string(1, static_cast<char>(byte));
}

std::string utf8(std::uint32_t value) {
  auto const more = [value](unsigned shift) { return static_cast<char>(0x80 | (value >> shift & 0x3f)); };
  if (value < 0x80) return {static_cast<char>(value)};
  if (value < 0x800) return {static_cast<char>(0xc0 | value >> 6), more(0)};
  if (value < 0x10000) return {static_cast<char>(0xe0 | value >> 12), more(6), more(0)};
  return {static_cast<char>(0xf0 | value >> 18), more(12), more(6), more(0)};
}

// How a character beyond ASCII must be shown.
std::string beyond_ascii(std::uint32_t value) {
  if (value < 0xa0) return raw_byte(value);
  for (auto const control :
       {0x061c, 0x200e, 0x200f, 0x2028, 0x2029, 0x202a, 0x202b, 0x202c, 0x202d, 0x202e, 0x2066, 0x2067, 0x2068, 0x2069})
    if (value == static_cast<std::uint32_t>(control)) return hex("<%04x>", value);
  return utf8(value);
}

}  // namespace

TEST_CASE("On a terminal, each sequence of one byte or two is shown so that it controls nothing") {
  auto const one = [](std::uint32_t byte) { return byte < 0x80 ? ascii(byte) : raw_byte(byte); };
  std::string wrong;
  for (std::uint32_t first = 0; first < 0x100; ++first) {
    std::string const text(1, static_cast<char>(first));
    if (visible(text) != one(first)) wrong += raw_byte(first) + ' ';
    for (std::uint32_t second = 0; second < 0x100; ++second) {
      auto const is_character = first >= 0xc2 && first < 0xe0 && second >= 0x80 && second < 0xc0;
      auto const expected =
          is_character ? beyond_ascii((first & 0x1f) << 6 | (second & 0x3f)) : one(first) + one(second);
      if (visible(text + static_cast<char>(second)) != expected) wrong += raw_byte(first) + raw_byte(second) + ' ';
    }
  }
  CHECK(wrong == "");
}

TEST_CASE("On a terminal, each character that is not a control character is shown unchanged") {
  std::string wrong;
  for (std::uint32_t value = 0x80; value < 0x110000; ++value)
    if ((value < 0xd800 || value > 0xdfff) && visible(utf8(value)) != beyond_ascii(value)) wrong += hex("%x ", value);
  CHECK(wrong == "");
}

TEST_CASE("On a terminal, bytes that are not UTF-8 are shown one by one") {
  std::string wrong;
  for (std::uint32_t value = 0xd800; value < 0xe000; ++value) {  // surrogates
    auto const text = utf8(value);
    std::string expected;
    for (auto const c : text) expected += raw_byte(static_cast<unsigned char>(c));
    if (visible(text) != expected) wrong += hex("%x ", value);
  }
  CHECK(wrong == "");
  CHECK(visible("\xed\xa0\x80") == "<ed><a0><80>");
  // Beyond U+10FFFF, with CSI in its rest; invalid lead bytes.
  CHECK(visible("\xf7\xbf\x9b\x9b") == "<f7><bf><9b><9b>");
  CHECK(visible("\xf4\x90\x80\x80") == "<f4><90><80><80>");
  CHECK(visible("\xf8\x88\x80\x80\x80") == "<f8><88><80><80><80>");
  CHECK(visible("\xff\xfe") == "<ff><fe>");
  // Longer than necessary.
  CHECK(visible("\xc0\x9b[2J") == "<c0><9b>[2J");
  CHECK(visible("\xe0\x80\x9b") == "<e0><80><9b>");
  CHECK(visible("\xf0\x80\x80\x9b") == "<f0><80><80><9b>");
  CHECK(visible("\xf0\x8f\xbf\xbf") == "<f0><8f><bf><bf>");
  // Truncated, by the end or by another character.
  CHECK(visible("\xe2\x82") == "<e2><82>");
  CHECK(visible("\xf0\x9f\x98") == "<f0><9f><98>");
  CHECK(visible("\xe2\x82"
                "A\xe2\x82\xac") == "<e2><82>A\xe2\x82\xac");
  CHECK(visible("\xe2\x1b\x9b") == "<e2>^[<9b>");
  CHECK(visible("\xf0\x9f\xc3\xa9") == "<f0><9f>\xc3\xa9");
}
