// SPDX-License-Identifier: BSL-1.0
#include "../examples/ban_file.hpp"

#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <string_view>

#include <asio/ip/address.hpp>

#include "catch.hpp"

namespace {

std::string error_of(std::string_view text) {
  try {
    program::parse_bans(text, "bans");
  } catch (std::runtime_error const& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("a file of bans has addresses, networks, names and comments", "[ban_file]") {
  auto const bans = program::parse_bans(
      "# who is banned\n"
      "192.0.2.7   # since May\r\n"
      "\n"
      " \t2001:db8::/32\t\n"
      "#198.51.100.7\n"
      "mallory\n"
      "  10 # a name\n"
      "Eve",
      "bans");
  CHECK(bans.addresses.contains(asio::ip::make_address("192.0.2.7")));
  CHECK(bans.addresses.contains(asio::ip::make_address("2001:db8::7")));
  CHECK_FALSE(bans.addresses.contains(asio::ip::make_address("198.51.100.7")));
  CHECK(bans.names == decltype(bans.names){"10", "Eve", "mallory"});
  auto const nobody = program::parse_bans("\n# nobody", "bans");
  CHECK(nobody.addresses.empty());
  CHECK(nobody.names.empty());
}

TEST_CASE("an error in a file of bans names its line", "[ban_file]") {
  CHECK(error_of("bob\n\n# x\n192.0.2.7 bob\n") == "bans:4: '192.0.2.7 bob' is not an IP address or network");
  CHECK(error_of("192.0.2.7/24") == "bans:1: '192.0.2.7/24' is not a network: bits after the first 24 are set");
  CHECK(error_of("b\xc3\xb6se").starts_with("bans:1: "));
  CHECK(error_of("bob\n\0"  // ends here
                 )
            .empty());
  CHECK(error_of(std::string_view("bob\nal\0ice\n", 11)).starts_with("bans:2: "));
}

TEST_CASE("a file of bans must be readable", "[ban_file]") {
  auto const folder = std::filesystem::temp_directory_path() / "chatproto-no-such-folder";
  try {
    program::read_bans((folder / "bans").string());
    FAIL("it was read");
  } catch (std::runtime_error const& error) {
    CHECK(std::string(error.what()).find("bans: ") != std::string::npos);
  }
  CHECK_THROWS_AS(program::read_bans(std::filesystem::temp_directory_path().string()), std::runtime_error);
}
