// SPDX-License-Identifier: BSL-1.0
#include <chatproto/address_list.hpp>

#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <asio/ip/address.hpp>

#include "catch.hpp"

using asio::ip::make_address;
using chatproto::AddressList;

namespace {

bool is_in(std::string const& address, std::vector<std::string> const& networks) {
  AddressList list;
  for (auto const& each : networks) list.add(each);
  return list.contains(make_address(address));
}

std::string error_of(std::string_view text) {
  AddressList list;
  try {
    list.add(text);
  } catch (std::invalid_argument const& error) {
    CHECK(list.empty());
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("a list of addresses has what was added", "[address_list]") {
  CHECK(AddressList().empty());
  CHECK_FALSE(is_in("192.0.2.7", {}));
  CHECK(is_in("192.0.2.7", {"192.0.2.7"}));
  CHECK_FALSE(is_in("192.0.2.8", {"192.0.2.7", "192.0.2.9"}));
  CHECK(is_in("192.0.2.255", {"10.0.0.0/8", "192.0.2.0/24"}));
  CHECK_FALSE(is_in("192.0.3.0", {"10.0.0.0/8", "192.0.2.0/24"}));
  CHECK(is_in("192.0.2.129", {"192.0.2.128/31"}));
  CHECK_FALSE(is_in("192.0.2.130", {"192.0.2.128/31"}));
  CHECK(is_in("2001:db8::7", {"2001:db8::7"}));
  CHECK(is_in("2001:db8:ffff:ffff::7", {"2001:db8::/32"}));
  CHECK_FALSE(is_in("2001:db9::", {"2001:db8::/32"}));
  CHECK(is_in("2001:db8:0:3::", {"2001:DB8:0:2::/63"}));
}

TEST_CASE("all IPv4 addresses are not all IPv6 addresses", "[address_list]") {
  CHECK(is_in("192.0.2.7", {"0.0.0.0/0"}));
  CHECK_FALSE(is_in("::1", {"0.0.0.0/0"}));
  CHECK(is_in("::1", {"::/0"}));
  CHECK_FALSE(is_in("192.0.2.7", {"::/0"}));
}

TEST_CASE("an IPv4 address within an IPv6 address counts as IPv4", "[address_list]") {
  CHECK(is_in("::ffff:192.0.2.7", {"192.0.2.0/24"}));
  CHECK(is_in("192.0.2.7", {"::ffff:192.0.2.7"}));
  CHECK(is_in("192.0.2.7", {"::ffff:192.0.2.0/120"}));
  CHECK(is_in("192.0.2.7", {"::ffff:0:0/96"}));
  CHECK_FALSE(error_of("::ffff:0:0/95").empty());
}

TEST_CASE("what is no network is not added", "[address_list]") {
  for (auto const* text : {"", "/", "/8", "bob", "192.0.2", "192.0.2.256", "192.0.2.7 ", " 192.0.2.7", "1.2.3.4.5",
                           "fe80::1%1", "fe80::1%lo", "[::1]", "192.0.2.7:80", ":::", "192.0.2.0-9"})
    CHECK(error_of(text) == '\'' + std::string(text) + "' is not an IP address or network");
  for (auto const* text : {"10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/8x", "10.0.0.0/8/8", "10.0.0.0/ 8",
                           "10.0.0.0/99999999999"})
    CHECK(error_of(text) == '\'' + std::string(text) + "' needs a length from 0 to 32 after the slash");
  CHECK(error_of("::/129") == "'::/129' needs a length from 0 to 128 after the slash");
  CHECK(error_of("192.0.2.7/24") == "'192.0.2.7/24' is not a network: bits after the first 24 are set");
  CHECK(error_of("::1/0") == "'::1/0' is not a network: bits after the first 0 are set");
}

TEST_CASE("a list of addresses agrees with a comparison of bits", "[address_list]") {
  std::mt19937 random(1);
  auto const some = [&] { return static_cast<asio::ip::address_v4::uint_type>(random()) & 0xf00f; };  // near each other
  for (auto round = 0; round < 200; ++round) {
    AddressList list;
    std::vector<std::pair<unsigned, unsigned>> networks;
    for (auto i = 0; i < 5; ++i) {
      auto const length = random() % 33u;
      auto const mask = length == 0 ? 0u : ~0u << (32 - length);
      auto const network = some() & mask;
      list.add(asio::ip::address_v4(network).to_string() + '/' + std::to_string(length));
      networks.emplace_back(network, mask);
    }
    for (auto i = 0; i < 50; ++i) {
      auto const address = some();
      auto expected = false;
      for (auto const& [network, mask] : networks) expected = expected || (address & mask) == network;
      CHECK(list.contains(asio::ip::address_v4(address)) == expected);
    }
  }
}
