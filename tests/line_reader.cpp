// SPDX-License-Identifier: BSL-1.0
#include <chatproto/line_reader.hpp>

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "sanitized.hpp"
#include "support.hpp"

using namespace std::string_literals;
using namespace std::string_view_literals;
using chatproto::LineReader;

namespace {

using test::Lines;

/// Stands for a line that the reader found too long. No line in these tests has this text.
std::string const too_long = "(too long)";

Lines feed(LineReader& reader, std::string_view bytes) {
  Lines lines;
  reader.feed(bytes);
  while (auto const line = reader.next()) lines.push_back(line->too_long ? too_long : std::string(line->text));
  return lines;
}

Lines feed_each(std::vector<std::string_view> const& chunks) {
  LineReader reader;
  Lines lines;
  for (auto const chunk : chunks)
    for (auto& line : feed(reader, chunk)) lines.push_back(std::move(line));
  return lines;
}

std::string x(std::size_t n) { return std::string(n, 'x'); }

/// Every kind of line, and at the end an unfinished one.
struct Corpus {
  std::string bytes;
  Lines lines;

  Corpus() {
    add("a\r\r\n", "a\r");
    add("\r\r\r\n", "\r\r");
    for (auto const& ending : {"\n"s, "\r\n"s}) {
      for (auto const& text : {"slogin:bob"s, ""s, "a"s, "\ra\r\rb"s, "\0\x80\xff\xfe"s, x(30), x(254 - ending.size()),
                               x(255 - ending.size())})
        add(text + ending, text);
      for (auto const size : {256u, 257u, 300u, 600u}) add(x(size - ending.size()) + ending, too_long);
      add("join:cafe" + ending, "join:cafe");
    }
    bytes += "quit:unfinished";
  }

  void add(std::string const& wire, std::string line) {
    bytes += wire;
    lines.push_back(std::move(line));
  }
};

}  // namespace

TEST_CASE("lines end in LF or CR LF", "[line_reader]") {
  CHECK(feed_each({"a\nbc\r\n\n\r\n"}) == Lines{"a", "bc", "", ""});
}

TEST_CASE("one CR before the LF belongs to the terminator, any other CR is data", "[line_reader]") {
  CHECK(feed_each({"\ra\rb\r\r\n"}) == Lines{"\ra\rb\r"});
  CHECK(feed_each({"a\r", "\n"}) == Lines{"a"});
  CHECK(feed_each({"a\r", "b\n"}) == Lines{"a\rb"});
}

TEST_CASE("a line of 255 bytes is read, one of 256 is too long", "[line_reader]") {
  for (auto const& ending : {"\n"s, "\r\n"s}) {
    for (auto const size : {254u, 255u}) {
      auto const text = x(size - ending.size());
      CHECK(feed_each({text + ending}) == Lines{text});
    }
    CHECK(feed_each({x(256 - ending.size()) + ending}) == Lines{too_long});
  }
}

TEST_CASE("a reader may have another limit", "[line_reader]") {
  LineReader reader(4);
  CHECK(feed(reader, "abc\nabcd\nab\r\nabc\r\n") == Lines{"abc", too_long, "ab", too_long});
}

TEST_CASE("a limit of 0 fits no line, a limit of 1 only empty lines, and no limit is too large", "[line_reader]") {
  LineReader none(0), empty(1), large(std::string::npos / 2), all(std::string::npos);
  CHECK(feed(none, "\na\n") == Lines{too_long, too_long});
  CHECK(feed(empty, "\na\n\r\n") == Lines{"", too_long, too_long});
  CHECK(feed(large, x(70'000) + "\n") == Lines{x(70'000)});
  CHECK(feed(all, x(70'000) + "\n") == Lines{x(70'000)});
}

TEST_CASE("a changed limit applies to an unfinished line too", "[line_reader]") {
  LineReader reader(4);
  CHECK(reader.limit() == 4);
  CHECK(feed(reader, "abc").empty());
  reader.limit(6);
  CHECK(reader.limit() == 6);
  CHECK(feed(reader, "de\nabcde\nabcdef\n") == Lines{"abcde", "abcde", too_long});
  CHECK(feed(reader, "abcdefg") == Lines{too_long});
  reader.limit(100);
  CHECK(feed(reader, "h\nabc") == Lines{});  // a line reported as too long stays dropped
  reader.limit(3);
  CHECK(feed(reader, "\nab\n") == Lines{too_long, "ab"});
}

TEST_CASE("a line that is too long is reported once, at once, and then the next line is read", "[line_reader]") {
  LineReader reader;
  CHECK(feed(reader, x(254)).empty());
  CHECK(feed(reader, "x") == Lines{too_long});
  CHECK(feed(reader, x(1000)).empty());
  CHECK(feed(reader, "quit:\rok\r").empty());
  CHECK(feed(reader, "\njoin:cafe\n") == Lines{"join:cafe"});
  CHECK(feed(reader, x(255) + x(255) + "\n" + x(255) + "\nok:\n") == Lines{too_long, too_long, "ok:"});
}

TEST_CASE("an unfinished line is kept, and never returned", "[line_reader]") {
  LineReader reader;
  CHECK(feed(reader, "qui").empty());
  CHECK(feed(reader, "").empty());
  CHECK_FALSE(reader.next());
  CHECK(feed(reader, "t:") == Lines{});
  CHECK(feed(reader, "\n") == Lines{"quit:"});
  CHECK(feed(reader, "") == Lines{});
}

TEST_CASE("unused input can be taken back and fed again", "[line_reader]") {
  LineReader reader;
  reader.feed("un");
  CHECK_FALSE(reader.next());
  reader.feed("finished\nb\nc");
  CHECK(reader.next()->text == "unfinished");
  auto const rest = std::string(reader.take_rest());
  CHECK(rest == "b\nc");
  CHECK(reader.take_rest().empty());
  CHECK(feed(reader, rest) == Lines{"b"});
  CHECK(feed(reader, "\n") == Lines{"c"});
}

TEST_CASE("a line that arrives whole is not copied", "[line_reader]") {
  auto const bytes = "join:cafe\n"sv;
  LineReader reader;
  reader.feed(bytes);
  CHECK(reader.next()->text.data() == bytes.data());
}

TEST_CASE("however the bytes are split, the lines are the same", "[line_reader]") {
  Corpus const corpus;
  std::string_view const bytes = corpus.bytes;
  CHECK(feed_each({bytes}) == corpus.lines);

  std::vector<std::string_view> single;
  for (std::size_t i = 0; i < bytes.size(); ++i) single.push_back(bytes.substr(i, 1));
  CHECK(feed_each(single) == corpus.lines);

  std::vector<std::size_t> wrong;
  for (std::size_t i = 0; i <= bytes.size(); ++i)
    if (feed_each({bytes.substr(0, i), bytes.substr(i)}) != corpus.lines) wrong.push_back(i);
  CHECK(wrong.empty());
}

TEST_CASE("a line of 100 MB costs no memory", "[line_reader]") {
  auto const chunk = x(64 * 1024);
  LineReader reader;
  auto& counted = test::allocations();
  counted = {};
  auto too_long_lines = 0, other_lines = 0;
  for (auto i = 0; i < 1600; ++i) {
    reader.feed(chunk);
    while (auto const line = reader.next()) ++(line->too_long ? too_long_lines : other_lines);
  }
  auto const after = counted;
  CHECK(after.made == 0);
  CHECK(too_long_lines == 1);
  CHECK(other_lines == 0);
  CHECK(feed(reader, "x\nok:\n") == Lines{"ok:"});
}

TEST_CASE("storage is bounded by the limit, and none is held at rest", "[line_reader]") {
  auto& counted = test::allocations();
  // Whole lines, an unfinished line that is completed later, and one that grows too long.
  auto const pieces = {x(200), x(54) + "\n", "ok:\nok:\n"s, x(100), x(100), x(100), "\n"s, x(254), x(20) + "\nok:\n"};
  auto read = [&](LineReader& reader, std::string_view piece) {
    reader.feed(piece);
    while (reader.next()) {
    }
  };
  LineReader reader;
  counted = {};
  for (auto const& piece : pieces) read(reader, piece);
  auto const after = counted;
  CHECK((after.made > 0 || CHATPROTO_SANITIZED));
  CHECK(after.largest < 2 * chatproto::max_line);
  CHECK(after.live == 0);
}
