// SPDX-License-Identifier: BSL-1.0
#include <chatproto/detail/server/proxy_header.hpp>

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "catch.hpp"

using namespace std::string_literals;
using chatproto::detail::ProxyHeader;
using State = ProxyHeader::State;

namespace {

struct Result {
  State state;
  std::size_t taken;
  std::string client;  // empty: the address of the connection counts
};

Result read_at_once(std::string_view bytes) {
  ProxyHeader header;
  auto const taken = header.feed(bytes);
  if (!header.client()) return {header.state(), taken, ""};
  auto const& client = *header.client();
  return {header.state(), taken, client.address().to_string() + ' ' + std::to_string(client.port())};
}

/// Reads the bytes at once, and in two parts split anywhere, which must give the same.
Result read(std::string const& bytes) {
  auto const whole = read_at_once(bytes);
  for (std::size_t split = 0; split <= bytes.size(); ++split) {
    ProxyHeader header;
    auto const first = header.feed(std::string_view(bytes).substr(0, split));
    auto const second = header.feed(std::string_view(bytes).substr(split));
    CHECK(header.state() == whole.state);
    CHECK(first + second == whole.taken);
    CHECK(header.client().has_value() == !whole.client.empty());
  }
  return whole;
}

bool is_invalid(std::string const& bytes) { return read(bytes).state == State::invalid; }

std::string v2(char command, char family, std::string const& rest) {
  auto const size = rest.size();
  return "\r\n\r\n\0\r\nQUIT\n"s + command + family + static_cast<char>(size >> 8) + static_cast<char>(size & 255) +
         rest;
}

auto const ipv4 = "\xcb\x00\x71\x07\x0a\x00\x00\x01\xc4\x88\xb9\x0e"s;  // 203.0.113.7:50312, 10.0.0.1:47374
auto const ipv6 = "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07"s + std::string(16, '\1') + "\xc4\x88\xb9\x0e"s;

}  // namespace

TEST_CASE("version 1 names the client", "[proxy_header]") {
  auto const v4 = read("PROXY TCP4 203.0.113.7 10.0.0.1 50312 47374\r\nslogin:bob\n");
  CHECK(v4.state == State::complete);
  CHECK(v4.taken == 45);
  CHECK(v4.client == "203.0.113.7 50312");
  auto const v6 = read("PROXY TCP6 2001:DB8::7 ::1 65535 0\r\n\r\n");
  CHECK(v6.state == State::complete);
  CHECK(v6.taken == 36);
  CHECK(v6.client == "2001:db8::7 65535");
  auto const longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"s;
  CHECK(read("PROXY TCP6 " + longest + ' ' + longest + " 65535 65535\r\n").client == longest + " 65535");
}

TEST_CASE("version 1 may name no client", "[proxy_header]") {
  for (auto const& line : {"PROXY UNKNOWN\r\n"s, "PROXY UNKNOWN \r\n"s, "PROXY UNKNOWN any thing\0 at all\r\n"s,
                           "PROXY UNKNOWN " + std::string(91, 'x') + "\r\n"}) {
    auto const result = read(line + "slogin:bob\n");
    CHECK(result.state == State::complete);
    CHECK(result.taken == line.size());
    CHECK(result.client.empty());
  }
}

TEST_CASE("version 1 is read strictly", "[proxy_header]") {
  for (auto const& line : {"slogin:bob\n"s,
                           "PROXX"s,
                           "proxy TCP4 1.2.3.4 1.2.3.4 1 1\r\n"s,
                           "PROXY  TCP4 1.2.3.4 1.2.3.4 1 1\r\n"s,
                           "PROXY\tTCP4 1.2.3.4 1.2.3.4 1 1\r\n"s,
                           "PROXY \r\n"s,
                           "PROXY TCP4\r\n"s,
                           "PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n"s,
                           "PROXY TCP4 1.2.3.4 1.2.3.4 1 1 \r\n"s,
                           "PROXY TCP4 1.2.3.4 1.2.3.4 1 1 1\r\n"s,
                           "PROXY TCP4 1.2.3.4  1.2.3.4 1 1\r\n"s,
                           "PROXY TCP5 1.2.3.4 1.2.3.4 1 1\r\n"s,
                           "PROXY UDP4 1.2.3.4 1.2.3.4 1 1\r\n"s,
                           "PROXY UNKNOWNS\r\n"s,
                           "PROXY unknown\r\n"s,
                           "PROXY TCP4 ::1 ::1 1 1\r\n"s,
                           "PROXY TCP6 1.2.3.4 1.2.3.4 1 1\r\n"s,
                           "PROXY TCP4 1.2.3.4 ::1 1 1\r\n"s,
                           "PROXY TCP4 1.2.3.04 1.2.3.4 1 1\r\n"s,
                           "PROXY TCP4 1.2.3.256 1.2.3.4 1 1\r\n"s,
                           "PROXY TCP4 1.2.3 1.2.3.4 1 1\r\n"s,
                           "PROXY TCP4 1.2.3.4 localhost 1 1\r\n"s,
                           "PROXY TCP6 fe80::1%1 ::1 1 1\r\n"s,
                           "PROXY TCP6 fe80::1%lo ::1 1 1\r\n"s,
                           "PROXY TCP6 ::1::1 ::1 1 1\r\n"s,
                           "PROXY TCP6 1:2:3:4:5:6:7 ::1 1 1\r\n"s,
                           "PROXY TCP6 12345:: ::1 1 1\r\n"s,
                           "PROXY TCP4 1.2.3.4 1.2.3.4 65536 1\r\n"s,
                           "PROXY TCP4 1.2.3.4 1.2.3.4 01 1\r\n"s,
                           "PROXY TCP4 1.2.3.4 1.2.3.4 1 00\r\n"s,
                           "PROXY TCP4 1.2.3.4 1.2.3.4 -1 1\r\n"s,
                           "PROXY TCP4 1.2.3.4 1.2.3.4 +1 1\r\n"s,
                           "PROXY TCP4 1.2.3.4 1.2.3.4 1 \r\n"s,
                           "PROXY TCP4 1.2.3.4 1.2.3.4 1 1\n"s,
                           "PROXY TCP4 1.2.3.4 1.2.3.4 1 1\r\r\n"s,
                           "PROXY UNKNOWN\n"s,
                           "PROXY UNKNOWN a\rb"s,
                           "PROXY UNKNOWN " + std::string(92, 'x') + "\r\n",
                           "PROXY " + std::string(101, 'x'),
                           "PROXY TCP4 1.2.3.4\0 1.2.3.4 1 1\r\n"s}) {
    INFO(line);
    CHECK(is_invalid(line));
  }
}

TEST_CASE("version 2 names the client", "[proxy_header]") {
  auto const v4 = read(v2('\x21', '\x11', ipv4) + "slogin:bob\n");
  CHECK(v4.state == State::complete);
  CHECK(v4.taken == 28);
  CHECK(v4.client == "203.0.113.7 50312");
  auto const v6 = read(v2('\x21', '\x21', ipv6) + '\0');
  CHECK(v6.state == State::complete);
  CHECK(v6.taken == 52);
  CHECK(v6.client == "2001:db8::7 50312");
  auto const extended = v2('\x21', '\x11', ipv4 + "\x04\x00\x03..."s);
  CHECK(read(extended + "\r\n").taken == extended.size());
  CHECK(read(extended).client == "203.0.113.7 50312");
}

TEST_CASE("version 2 may name no client", "[proxy_header]") {
  std::string const unix_addresses(216, 'x');
  for (auto const& header :
       {v2('\x20', '\x00', ""), v2('\x20', '\x11', ipv4), v2('\x20', '\xff', "abc"), v2('\x21', '\x00', ""),
        v2('\x21', '\x00', "abc"), v2('\x21', '\x10', ""), v2('\x21', '\x12', ipv4), v2('\x21', '\x22', ipv6),
        v2('\x21', '\x31', unix_addresses), v2('\x21', '\x32', unix_addresses + "abc")}) {
    auto const result = read(header + "slogin:bob\n");
    CHECK(result.state == State::complete);
    CHECK(result.taken == header.size());
    CHECK(result.client.empty());
  }
}

TEST_CASE("version 2 is read strictly", "[proxy_header]") {
  CHECK(is_invalid("\r\n\r\n\1"));
  CHECK(is_invalid("\r\n\r\n\0\r\nQUIT\r"s));
  for (auto const command : {'\x22', '\x2f', '\x11', '\x31', '\x01'}) CHECK(is_invalid(v2(command, '\x11', ipv4)));
  for (auto const family : {'\x41', '\x13', '\xf0', '\x03'}) CHECK(is_invalid(v2('\x21', family, ipv4)));
  CHECK(is_invalid(v2('\x21', '\x11', ipv4.substr(1))));
  CHECK(is_invalid(v2('\x21', '\x12', "")));
  CHECK(is_invalid(v2('\x21', '\x21', ipv6.substr(1))));
  CHECK(is_invalid(v2('\x21', '\x31', std::string(215, 'x'))));
}

TEST_CASE("a header that has not come whole is incomplete", "[proxy_header]") {
  for (auto const& header : {"PROXY TCP4 203.0.113.7 10.0.0.1 50312 47374\r\n"s, "PROXY UNKNOWN\r\n"s,
                             v2('\x21', '\x11', ipv4 + "more"), v2('\x20', '\x00', "more")})
    for (std::size_t size = 0; size < header.size(); ++size) {
      auto const result = read_at_once(std::string_view(header).substr(0, size));
      CHECK(result.state == State::incomplete);
      CHECK(result.taken == size);
    }
}

TEST_CASE("the longest header is skipped to its end", "[proxy_header]") {
  auto const header = v2('\x21', '\x11', ipv4 + std::string(65535 - 12, '\n'));
  auto const result = read_at_once(header + "slogin:bob\n");
  CHECK(result.state == State::complete);
  CHECK(result.taken == header.size());
  CHECK(result.client == "203.0.113.7 50312");
}
