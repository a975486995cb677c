// SPDX-License-Identifier: BSL-1.0
/// @file
/// Reads the file of those who may not use the server.
#pragma once

#include <cerrno>
#include <cstddef>
#include <fstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>

#include <chatproto/address_list.hpp>
#include <chatproto/message.hpp>

namespace program {

/// Reads one ban from each line of `text`: an address, a network (192.0.2.0/24) or a user's name. A `#` begins a
/// comment. Throws `std::runtime_error`, whose text names the line in `file`.
inline chatproto::Bans parse_bans(std::string_view text, std::string const& file) {
  chatproto::Bans bans;
  for (std::size_t number = 1; !text.empty(); ++number) {
    auto line = text.substr(0, text.find('\n'));
    text.remove_prefix(line.size() < text.size() ? line.size() + 1 : line.size());
    line = line.substr(0, line.find('#'));
    auto const first = line.find_first_not_of(" \t\r");
    if (first == line.npos) continue;
    line = line.substr(first, line.find_last_not_of(" \t\r") - first + 1);
    try {
      if (chatproto::is_valid_name(line))
        bans.names.emplace(line);
      else
        bans.addresses.add(line);
    } catch (std::invalid_argument const& error) {
      throw std::runtime_error(file + ':' + std::to_string(number) + ": " + error.what());
    }
  }
  return bans;
}

/// Reads the file. Throws `std::runtime_error`, whose text names it.
inline chatproto::Bans read_bans(std::string const& file) {
  errno = 0;
  std::ifstream in(file, std::ios::binary);
  std::string text;
  for (char byte = 0; in.get(byte);) text += byte;
  if (!in.is_open() || in.bad()) throw std::runtime_error(file + ": " + std::generic_category().message(errno));
  return parse_bans(text, file);
}

}  // namespace program
