// SPDX-License-Identifier: BSL-1.0
#include "../examples/logfmt.hpp"

#include <string>
#include <string_view>

#include "catch.hpp"

namespace {

std::string field(std::string_view value) {
  std::string line;
  program::append_field(line, "key", value);
  return line;
}

}  // namespace

TEST_CASE("A plain field is written unchanged") {
  CHECK(field("127.0.0.1:50312") == " key=127.0.0.1:50312");
  CHECK(field("[fe80::1%eth0]:1") == " key=[fe80::1%eth0]:1");
  std::string line = "event=x";
  program::append_field(line, "count", 18446744073709551615u);
  CHECK(line == "event=x count=18446744073709551615");
}

TEST_CASE("No value can pass for another field or another line") {
  CHECK(field("") == " key=\"\"");
  CHECK(field("bob level=error") == " key=\"bob level=error\"");
  CHECK(field("a=b") == " key=\"a=b\"");
  CHECK(field("say \"hi\\") == " key=\"say \\\"hi\\\\\"");
  CHECK(field("bob\r\ntime=1") == " key=\"bob\\x0d\\x0atime=1\"");
  CHECK(field("\x1b[2J\x7f\x9b\xc2\x9b") == " key=\"\\x1b[2J\\x7f\\x9b\\xc2\\x9b\"");
  CHECK(field(std::string_view("a\0b", 3)) == " key=\"a\\x00b\"");
}

TEST_CASE("Any byte leaves one printable field that can be read back") {
  for (auto byte = 0; byte < 256; ++byte) {
    auto const line = field(std::string(2, static_cast<char>(byte)));
    INFO(byte << line);
    auto const text = line.substr(5);
    for (auto const character : line) CHECK((character >= ' ' && character <= '~'));
    if (text.front() != '"') {
      CHECK(text == std::string(2, static_cast<char>(byte)));
      CHECK(text.find_first_of(" \"=\\") == text.npos);
    } else {
      CHECK(text.back() == '"');
    }
  }
}
