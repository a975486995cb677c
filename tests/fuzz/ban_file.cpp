// SPDX-License-Identifier: BSL-1.0
// A file of bans is read as its lines are read one by one, and its first bad line is the one that is named.
#include "fuzz.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "../../examples/ban_file.hpp"

int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  auto const text = as_text(data, size);
  std::string first_error;
  decltype(chatproto::Bans::names) names;
  auto has_addresses = false;
  std::size_t number = 1, begin = 0;
  for (; begin <= size && first_error.empty(); ++number) {
    auto const end = std::min(text.find('\n', begin), size);
    try {
      auto one = program::parse_bans(text.substr(begin, end - begin), "bans");
      assert(one.names.empty() || one.addresses.empty());
      names.merge(one.names);
      has_addresses = has_addresses || !one.addresses.empty();
    } catch (std::runtime_error const& error) {
      first_error = error.what();
      assert(first_error.starts_with("bans:1: "));
      first_error.replace(5, 1, std::to_string(number));
    }
    begin = end + 1;
  }
  try {
    auto const bans = program::parse_bans(text, "bans");
    assert(first_error.empty());
    assert(bans.names == names && bans.addresses.empty() != has_addresses);
    for (auto const& name : names) assert(chatproto::is_valid_name(name));
  } catch (std::runtime_error const& error) {
    assert(first_error == error.what());
  }
  return 0;
}
