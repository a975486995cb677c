// SPDX-License-Identifier: BSL-1.0
#include <chatproto/message.hpp>

#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>

#include "catch.hpp"
#include "support.hpp"

using namespace std::string_literals;
using namespace std::string_view_literals;
using chatproto::Errc;
using chatproto::Message;
using chatproto::MessageView;

namespace {

/// A message whose line has `size` bytes, including the terminator.
Message message_of(std::size_t size) { return {"sendall", std::string(size - 9, 'x')}; }

std::error_code error_of_encode(MessageView message) {
  std::error_code ec;
  auto const line = chatproto::encode(message, ec);
  CHECK(line.empty() == static_cast<bool>(ec));
  return ec;
}

}  // namespace

static_assert(std::is_trivially_copyable_v<MessageView>);
static_assert(noexcept(chatproto::parse({}, std::declval<std::error_code&>())));

TEST_CASE("parse: the tag ends at the first colon, and the payload is everything after it", "[message]") {
  struct {
    std::string_view line, tag, payload;
  } const rows[] = {
      {"join:cafe", "join", "cafe"},
      {"a:", "a", ""},
      {"leave::", "leave", ":"},
      {"senduser:bob:a:b", "senduser", "bob:a:b"},
      {"sendall: \t both ends \t ", "sendall", " \t both ends \t "},
      {"sendall:\r", "sendall", "\r"},
      {"sendall:a\rb", "sendall", "a\rb"},
      {"sendall:\0\x7f\x80\xfe\xff"sv, "sendall", "\0\x7f\x80\xfe\xff"sv},
      {"abcdefghijklmnopqrstuvwxyz:x", "abcdefghijklmnopqrstuvwxyz", "x"},
  };
  for (auto const& row : rows) {
    CAPTURE(row.line);
    std::error_code ec = Errc::unexpected;  // must be cleared
    CHECK(chatproto::parse(row.line, ec) == MessageView{row.tag, row.payload});
    CHECK_FALSE(ec);
    CHECK(chatproto::parse(row.line) == MessageView{row.tag, row.payload});
  }
}

TEST_CASE("parse: the view points into the line", "[message]") {
  auto const line = "join:cafe"sv;
  auto const message = chatproto::parse(line);
  CHECK(message.tag.data() == line.data());
  CHECK(message.payload.data() == line.data() + 5);
}

TEST_CASE("parse: nothing is allocated", "[message]") {
  auto& counted = test::allocations();
  auto const line = "sendall:" + std::string(240, 'x');  // longer than any small-string buffer
  std::error_code ec;
  counted = {};
  auto const message = chatproto::parse(line, ec);
  auto const delivery = chatproto::parse_delivery(chatproto::parse("delivery:cafe:bob:hey", ec), ec);
  auto const after = counted;
  CHECK(after.made == 0);
  CHECK(message.payload.size() == 240);
  CHECK(delivery.text == "hey");
}

TEST_CASE("parse: anything else is malformed", "[message]") {
  for (auto const line : {""sv, ":"sv, ":x"sv, "join"sv, "Join:x"sv, "joiN:x"sv, " join:x"sv, "join :x"sv, "jo in:x"sv,
                          "j1:x"sv, "jo-in:x"sv, "join\t:x"sv, "\rjoin:x"sv, "\0join:x"sv, "join\0:x"sv, "\xffjoin:x"sv,
                          "\xc3\xa4:x"sv, "`:x"sv, "{:x"sv}) {
    CAPTURE(line);
    std::error_code ec;
    CHECK(chatproto::parse(line, ec) == MessageView{});
    CHECK(ec == Errc::malformed);
    CHECK_THROWS_AS(chatproto::parse(line), std::system_error);
  }
}

TEST_CASE("encode and parse: a round trip preserves every byte", "[message]") {
  for (int byte = 0; byte < 256; ++byte) {
    CAPTURE(byte);
    auto const c = static_cast<char>(byte);
    for (auto const& payload : {"a"s + c + 'b', c + "ab"s, "ab"s + c}) {
      Message const message("sendall", payload);
      if (c == '\n' || payload.ends_with('\r')) {
        CHECK(error_of_encode(message) == Errc::invalid_payload);
        continue;
      }
      auto const line = chatproto::encode(message);
      CHECK(line == "sendall:" + payload + '\n');
      CHECK(Message(chatproto::parse(std::string_view(line).substr(0, line.size() - 1))) == message);
    }
  }
}

TEST_CASE("encode_line: accepts any text that a line can carry", "[message]") {
  auto const error_of = [](std::string const& text) {
    std::error_code ec = Errc::unexpected;
    auto const line = chatproto::encode_line(text, ec);
    CHECK(line == (ec ? "" : text + "\n"));
    return ec;
  };
  for (auto const* text : {"", ":", "X: Alice", "a\rb", "\xff"}) CHECK_FALSE(error_of(text));
  CHECK_FALSE(error_of(std::string(254, 'x')));
  CHECK(error_of(std::string(255, 'x')) == Errc::line_too_long);
  CHECK(error_of("a\nb") == Errc::invalid_payload);
  CHECK(error_of("a\r") == Errc::invalid_payload);
}

TEST_CASE("encode: 255 bytes fit a line, 256 do not", "[message]") {
  CHECK(chatproto::max_line == 255);
  CHECK(chatproto::encode(message_of(254)).size() == 254);
  CHECK(chatproto::encode(message_of(255)).size() == 255);
  CHECK(error_of_encode(message_of(256)) == Errc::line_too_long);
  CHECK(error_of_encode({std::string(253, 't'), ""}) == std::error_code());
  CHECK(error_of_encode({std::string(254, 't'), ""}) == Errc::line_too_long);
}

TEST_CASE("encode: the limit can be changed", "[message]") {
  std::error_code ec = Errc::unexpected;
  CHECK(chatproto::encode({"ok", "abc"}, ec, 7) == "ok:abc\n");
  CHECK_FALSE(ec);
  CHECK(chatproto::encode({"ok", "abcd"}, ec, 7).empty());
  CHECK(ec == Errc::line_too_long);
  CHECK(chatproto::encode(message_of(70'000), 70'000).size() == 70'000);
  CHECK_THROWS_AS(chatproto::encode(message_of(70'000), 69'999), std::system_error);
  CHECK(chatproto::encode_line("abc", ec, 4) == "abc\n");
  CHECK_FALSE(ec);
  CHECK(chatproto::encode_line("abcd", ec, 4).empty());
  CHECK(ec == Errc::line_too_long);
  CHECK(chatproto::encode_line("", ec, 1) == "\n");
  CHECK(chatproto::encode_line("", ec, 0).empty());
  CHECK(ec == Errc::line_too_long);
}

TEST_CASE("encode: rejects what no line can carry", "[message]") {
  CHECK(error_of_encode({"", "x"}) == Errc::malformed);
  CHECK(error_of_encode({"Ok", "x"}) == Errc::malformed);
  CHECK(error_of_encode({"ok:", "x"}) == Errc::malformed);
  CHECK(error_of_encode({"ok\n", "x"}) == Errc::malformed);
  CHECK(error_of_encode({"ok", "a\nb"}) == Errc::invalid_payload);
  CHECK(error_of_encode({"ok", "\r\n"}) == Errc::invalid_payload);
  CHECK_THROWS_AS(chatproto::encode({"", "x"}), std::system_error);
  CHECK_THROWS_AS(chatproto::encode({"ok", "\n"}), std::system_error);
  CHECK_THROWS_AS(chatproto::encode(message_of(256)), std::system_error);

  std::error_code ec = Errc::unexpected;
  CHECK(chatproto::encode({"ok", ""}, ec) == "ok:\n");
  CHECK_FALSE(ec);
}

TEST_CASE("a Message owns its bytes and shows them as a view", "[message]") {
  CHECK(Message() == Message("", ""));
  std::string line = "join:cafe";
  Message const message(chatproto::parse(line));
  line.assign(line.size(), '?');
  CHECK(message == Message("join", "cafe"));
  CHECK(MessageView(message) == MessageView{"join", "cafe"});
  CHECK(message != Message("join", "Cafe"));
  CHECK(message != Message("leave", "cafe"));
}

TEST_CASE("tags are lower-case letters, names are letters and digits", "[message]") {
  for (int byte = 0; byte < 256; ++byte) {
    CAPTURE(byte);
    auto const c = static_cast<char>(byte);
    auto const lower = "abcdefghijklmnopqrstuvwxyz"sv.find(c) != std::string_view::npos;
    auto const other = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"sv.find(c) != std::string_view::npos;
    for (auto const& text : {std::string(1, c), "a"s + c, c + "a"s}) {
      CHECK(chatproto::is_valid_tag(text) == lower);
      CHECK(chatproto::is_valid_name(text) == (lower || other));
    }
  }
  CHECK_FALSE(chatproto::is_valid_tag(""));
  CHECK_FALSE(chatproto::is_valid_name(""));
  CHECK(chatproto::is_valid_name(std::string(1000, 'x')));
}

TEST_CASE("parse_delivery: room, sender, text", "[message]") {
  struct {
    std::string_view payload, room, sender, text;
  } const rows[] = {
      {"cafe:bob:hi", "cafe", "bob", "hi"},
      {"cafe:bob:", "cafe", "bob", ""},
      {"cafe:bob::a:b:", "cafe", "bob", ":a:b:"},
      {"1:2: x ", "1", "2", " x "},
  };
  for (auto const& row : rows) {
    CAPTURE(row.payload);
    std::error_code ec = Errc::malformed;  // must be cleared
    auto const delivery = chatproto::parse_delivery({"delivery", row.payload}, ec);
    CHECK_FALSE(ec);
    CHECK(delivery.room == row.room);
    CHECK(delivery.sender == row.sender);
    CHECK(delivery.text == row.text);
    CHECK(chatproto::parse_delivery({"delivery", row.payload}).text == row.text);
  }
}

TEST_CASE("parse_delivery: anything else is unexpected", "[message]") {
  for (auto const message : {MessageView{"ok", "cafe:bob:hi"}, MessageView{"delivery", ""},
                             MessageView{"delivery", "cafe"}, MessageView{"delivery", "cafe:bob"}}) {
    CAPTURE(message.tag, message.payload);
    std::error_code ec;
    auto const delivery = chatproto::parse_delivery(message, ec);
    CHECK(ec == Errc::unexpected);
    CHECK((delivery.room.empty() && delivery.sender.empty() && delivery.text.empty()));
    CHECK_THROWS_AS(chatproto::parse_delivery(message), std::system_error);
  }
}
