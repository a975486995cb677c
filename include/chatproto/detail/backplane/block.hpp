// SPDX-License-Identifier: BSL-1.0
/// @file
/// Encodes what was said for a log that several servers share.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <system_error>

#include <chatproto/backplane.hpp>
#include <chatproto/message.hpp>

namespace chatproto::detail {

// A block is a sequence of entries. An entry is a line "FROM TO TEXTS SIZE", in which TO is "*" for everybody, and then
// SIZE bytes of TEXTS lines.

/// Returns `said` as an entry of a block.
inline std::string encode_said(Backplane::Said const& said) {
  std::string entry;
  entry.reserve(said.from.size() + said.to.size() + said.lines.size() + 40);
  entry.append(said.from).append(1, ' ').append(said.to.empty() ? "*" : said.to).append(1, ' ');
  entry.append(std::to_string(said.texts)).append(1, ' ').append(std::to_string(said.lines.size())).append(1, '\n');
  return entry.append(said.lines);
}

/// Removes the first entry from `block` and returns true. Returns false if `block` does not begin with an entry.
inline bool decode_said(std::string_view& block, Backplane::Said& said) {
  auto const end = block.find('\n');
  if (end == std::string_view::npos) return false;
  auto header = block.substr(0, end);
  auto const next = [&header] {
    auto const word = header.substr(0, header.find(' '));
    header.remove_prefix(std::min(header.size(), word.size() + 1));
    return word;
  };
  auto const number = [](std::string_view digits, auto& value) {
    auto const [at, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    return error == std::errc() && at == digits.data() + digits.size();
  };
  said.from = next();
  said.to = next();
  std::size_t size = 0;
  if (!number(next(), said.texts) || !number(next(), size) || !header.empty()) return false;
  if (said.to == "*") said.to = {};
  if (!is_valid_name(said.from) || (!said.to.empty() && !is_valid_name(said.to))) return false;
  block.remove_prefix(end + 1);
  if (size == 0 || size > block.size()) return false;
  said.lines = block.substr(0, size);
  block.remove_prefix(size);
  // A line of another length would mislead whoever reads the connection.
  std::uint32_t lines = 0;
  for (auto rest = said.lines; !rest.empty(); ++lines) {
    auto const length = rest.find('\n') + 1;
    if (length == 0 || length > max_line) return false;
    rest.remove_prefix(length);
  }
  return lines == said.texts;
}

}  // namespace chatproto::detail
