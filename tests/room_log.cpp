// SPDX-License-Identifier: BSL-1.0
#include <chatproto/room_log.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "support.hpp"

using chatproto::HistoryLimits;
using chatproto::HistoryMemory;
using chatproto::RoomLog;
using Place = RoomLog::Place;
using test::text_of;

static_assert(!std::is_copy_constructible_v<RoomLog>);
static_assert(std::is_trivially_copyable_v<Place>);

namespace {

constexpr auto to_the_end = ~std::uint64_t();
constexpr auto all_of_it = ~std::size_t();
constexpr std::size_t idle_memory = 1024;  // at most

/// A reader that behaves like a room's member: it has no place when it has read everything.
struct Reader {
  RoomLog& log;
  std::string name;
  Place place = {};

  Reader(RoomLog& its_log, std::string its_name) : log(its_log), name(std::move(its_name)) {}
  Reader(Reader const&) = delete;
  Reader& operator=(Reader const&) = delete;
  ~Reader() { sleep(); }

  void wake(Place const& at) {
    if (!place) log.pin(place, at);
  }
  void sleep() {
    if (place) log.unpin(place);
  }
  void go_to(Place const& to) {
    log.move(place, to);
    if (log.is_at_end(place)) sleep();
  }
  RoomLog::Pieces look(std::size_t most = all_of_it) const {
    RoomLog::Pieces pieces;
    log.read(place, name, to_the_end, most, pieces);
    return pieces;
  }
  /// Reads everything, in parts of about `most` bytes.
  std::string read(std::size_t most = all_of_it) {
    std::string text;
    while (place) {
      auto const pieces = look(most);
      text += text_of(pieces);
      go_to(pieces.end);
    }
    return text;
  }
};

/// Appends to the log, and wakes the readers in the audience.
Place say(RoomLog& log, std::string_view lines, RoomLog::Audience audience, std::vector<Reader*> const& readers = {}) {
  auto const place = log.append(lines, audience);
  for (auto* reader : readers)
    if (audience.includes(reader->name)) reader->wake(place);
  return place;
}

RoomLog::Audience others_than(std::string_view name) { return {name, false}; }
RoomLog::Audience only(std::string_view name) { return {name, true}; }

std::string line(std::size_t number, std::size_t size) {
  return std::to_string(number) + std::string(size, 'x') + '\n';
}

}  // namespace

TEST_CASE("a log is empty and holds nothing at first", "[room_log]") {
  RoomLog const log;
  CHECK(log.end() == 0);
  CHECK(log.memory() == 0);
}

TEST_CASE("an audience is all but one user, or this user", "[room_log]") {
  CHECK(others_than("ann").includes("bob"));
  CHECK(!others_than("ann").includes("ann"));
  CHECK(!only("ann").includes("bob"));
  CHECK(only("ann").includes("ann"));
  CHECK(others_than("").includes("ann"));
}

TEST_CASE("each reader of a log reads what is for it, in order", "[room_log]") {
  RoomLog log;
  Reader ann(log, "ann"), bob(log, "bob"), eve(log, "eve");
  std::vector<Reader*> const all = {&ann, &bob, &eve};
  say(log, "1\n", others_than("ann"), all);
  say(log, "2\n3\n", others_than("bob"), all);
  say(log, "4\n", only("eve"), all);
  say(log, "5\n", only("ann"), all);
  say(log, "6\n", others_than("eve"), all);
  CHECK(log.end() == 12);
  CHECK(ann.read() == "2\n3\n5\n6\n");
  CHECK(bob.read() == "1\n6\n");
  CHECK(eve.read() == "1\n2\n3\n4\n");
  CHECK(log.end() == 12);
}

TEST_CASE("a line without a sender is for all", "[room_log]") {
  RoomLog log;
  Reader ann(log, "ann");
  say(log, "1\n", others_than({}), {&ann});  // a null pointer must not get to memcpy: UBSan
  CHECK(ann.read() == "1\n");
}

TEST_CASE("neighbouring lines for the same readers are one piece", "[room_log]") {
  RoomLog log;
  Reader bob(log, "bob");
  for (auto const* text : {"1\n", "2\n", "3\n"}) say(log, text, others_than("ann"), {&bob});
  CHECK(bob.look().count == 1);
  say(log, "4\n", only("bob"), {&bob});  // also for bob, so the bytes are adjacent
  CHECK(bob.look().count == 1);
  say(log, "5\n", only("eve"), {&bob});
  say(log, "6\n", only("bob"), {&bob});
  auto const pieces = bob.look();
  CHECK(pieces.count == 2);
  CHECK(pieces.size == 10);
  CHECK(bob.read() == "1\n2\n3\n4\n6\n");
}

TEST_CASE("a reader at the end of a log goes on with what is appended to the last run", "[room_log]") {
  RoomLog log;
  Reader bob(log, "bob"), eve(log, "eve");
  say(log, "1\n", others_than("ann"), {&bob, &eve});
  log.move(bob.place, bob.look().end);  // it stays awake although it is at the end
  CHECK(log.is_at_end(bob.place));
  CHECK(bob.place.position() == 2);
  say(log, "2\n", others_than("ann"), {&bob, &eve});
  CHECK(!log.is_at_end(bob.place));
  CHECK(text_of(bob.look()) == "2\n");
  log.move(bob.place, bob.look().end);
  say(log, "3\n", only("bob"), {&bob, &eve});
  CHECK(bob.read() == "3\n");
  CHECK(eve.read() == "1\n2\n");
}

TEST_CASE("a reader at the end of a segment goes on in the next one", "[room_log]") {
  RoomLog log;
  Reader bob(log, "bob");
  say(log, "1\n", others_than("ann"), {&bob});
  log.move(bob.place, bob.look().end);
  auto const large = line(2, 5000);  // does not fit in the first segment
  say(log, large, others_than("ann"), {&bob});
  CHECK(bob.place.position() == 2);
  CHECK(bob.read() == large);
}

TEST_CASE("a reader gets nothing from before its place", "[room_log]") {
  RoomLog log;
  Reader bob(log, "bob"), eve(log, "eve");
  say(log, "1\n", others_than("ann"), {&bob});
  say(log, "2\n", others_than("ann"), {&bob, &eve});  // in the same run
  CHECK(eve.place.position() == 2);
  CHECK(eve.read() == "2\n");
  CHECK(bob.read() == "1\n2\n");
}

TEST_CASE("a write may end at any byte: the log returns the rest of that line and the place after it", "[room_log]") {
  RoomLog log;
  Reader ann(log, "ann"), bob(log, "bob");
  std::vector<Reader*> const all = {&ann, &bob};
  say(log, "one\ntwo\n", others_than("ann"), all);
  say(log, "for ann\n", only("ann"), all);
  say(log, "three\n", only("bob"), all);
  say(log, line(4, 3000), others_than("eve"), all);  // in a segment of its own
  say(log, "for ann\n", others_than("bob"), all);
  say(log, "five\n\n", others_than("ann"), all);
  auto const text = "one\ntwo\nthree\n" + line(4, 3000) + "five\n\n";
  auto const pieces = bob.look();
  REQUIRE(text_of(pieces) == text);
  for (std::size_t bytes = 0; bytes <= text.size(); ++bytes) {
    std::string rest;
    auto place = log.after(bob.place, "bob", bytes, rest);
    auto const end = bytes == 0 ? 0 : text.find('\n', bytes - 1) + 1;  // of the line that was last written
    if (rest != text.substr(bytes, end - bytes) || log.read_all(place, "bob", to_the_end) != text.substr(end))
      FAIL("wrong after " << bytes << " bytes");
  }
}

TEST_CASE("the rest of a line is appended to a text", "[room_log]") {
  RoomLog log;
  Reader bob(log, "bob");
  say(log, "hello\n", others_than("ann"), {&bob});
  std::string rest = "before:";
  log.after(bob.place, "bob", 2, rest);
  CHECK(rest == "before:llo\n");
}

TEST_CASE("a reader reads no further than it is told", "[room_log]") {
  RoomLog log;
  Reader bob(log, "bob");
  say(log, "1\n", others_than("ann"), {&bob});
  auto const until = log.end();
  say(log, "2\n", others_than("ann"), {&bob});  // in the same run
  say(log, line(3, 5000), others_than("ann"), {&bob});
  RoomLog::Pieces pieces;
  log.read(bob.place, "bob", until, all_of_it, pieces);
  CHECK(text_of(pieces) == "1\n");
  CHECK(pieces.end.position() == until);
  auto place = bob.place;
  CHECK(log.read_all(place, "bob", until) == "1\n");
  CHECK(place.position() == until);
  CHECK(bob.read() == "1\n2\n" + line(3, 5000));
}

TEST_CASE("a reader gets a long log in parts, and no line twice", "[room_log]") {
  RoomLog log;
  Reader bob(log, "bob");
  std::string text;
  for (std::size_t i = 0; i < 1000; ++i) {
    say(log, line(i, i % 200), i % 3 == 0 ? only("bob") : others_than("ann"), {&bob});
    say(log, "not for bob\n", others_than("bob"), {&bob});
    text += line(i, i % 200);
  }
  auto const pieces = bob.look();
  CHECK(pieces.count == pieces.pieces.size());  // no more fit
  CHECK(pieces.size == text_of(pieces).size());
  CHECK(bob.look(1).count == 1);
  CHECK(bob.read(500) == text);
}

TEST_CASE("a reader skips what is only for others", "[room_log]") {
  RoomLog log;
  Reader ann(log, "ann"), bob(log, "bob");
  say(log, "1\n", others_than(""), {&ann, &bob});
  for (std::size_t i = 0; i < 1000; ++i) say(log, line(i, 100), only("ann"), {&ann, &bob});
  CHECK(bob.read(1) == "1\n");
  CHECK(!bob.place);
}

TEST_CASE("a log keeps what its slowest reader has still to read, and no more", "[room_log]") {
  RoomLog log;
  Reader bob(log, "bob"), eve(log, "eve");
  std::string text;
  for (std::size_t i = 0; i < 4000; ++i) {
    say(log, line(i, 200), others_than("ann"), {&bob, &eve});
    text += line(i, 200);
    bob.read();
  }
  CHECK(log.memory() >= text.size());
  CHECK(log.memory() <= text.size() + 256 * 1024);
  auto const before = log.memory();
  std::string read;
  while (read.size() < text.size() / 2) {
    auto const pieces = eve.look(10'000);
    read += text_of(pieces);
    eve.go_to(pieces.end);
  }
  CHECK(log.memory() < before * 6 / 10);
  CHECK(read + eve.read() == text);
  CHECK(log.memory() < idle_memory);
}

TEST_CASE("a reader without a place keeps nothing in memory", "[room_log]") {
  RoomLog log;
  Reader ann(log, "ann"), bob(log, "bob");
  for (std::size_t i = 0; i < 4000; ++i) {
    say(log, line(i, 200), only("ann"), {&ann, &bob});
    ann.read();
    if (log.memory() > idle_memory) FAIL(log.memory() << " bytes after line " << i);
  }
  CHECK(!bob.place);
}

TEST_CASE("a log that nobody reads any more holds next to nothing", "[room_log]") {
  RoomLog log;
  {
    Reader bob(log, "bob"), eve(log, "eve");
    for (std::size_t i = 0; i < 4000; ++i) say(log, line(i, 200), others_than("ann"), {&bob, &eve});
    CHECK(log.memory() > 4000 * 200);
    bob.sleep();  // it leaves the room
    CHECK(log.memory() > 4000 * 200);
  }
  CHECK(log.memory() < idle_memory);
  Reader bob(log, "bob");
  auto const end = log.end();
  CHECK(say(log, "again\n", others_than("ann"), {&bob}).position() == end);
  CHECK(bob.read() == "again\n");
  CHECK(say(log, "and again\n", others_than("ann"), {&bob}).position() == end + 6);
  CHECK(bob.read() == "and again\n");
  CHECK(log.memory() < idle_memory);
}

TEST_CASE("a burst as large as the previous one takes one segment", "[room_log]") {
  RoomLog log;
  Reader bob(log, "bob");
  auto const burst = [&] {
    for (std::size_t i = 0; i < 100; ++i) say(log, line(i, 100), others_than("ann"), {&bob});
    auto const pieces = bob.look().count;
    bob.read();
    return pieces;
  };
  CHECK(burst() > 1);
  CHECK(burst() == 1);
}

TEST_CASE("text does not move while a reader has its place", "[room_log]") {
  RoomLog log;
  Reader bob(log, "bob"), eve(log, "eve");
  say(log, "1\n", others_than("ann"), {&bob, &eve});
  auto const held = bob.look();
  for (std::size_t i = 0; i < 1000; ++i) {
    say(log, line(i, 200), others_than("ann"), {&bob, &eve});
    eve.read();
  }
  CHECK(text_of(held) == "1\n");
  bob.sleep();
}

TEST_CASE("users' names may be as long as a line allows", "[room_log]") {
  RoomLog log;
  std::vector<std::string> names;
  for (std::size_t size = 0; size <= 240; ++size) names.emplace_back(size, 'n');
  Reader bob(log, "bob"), last(log, names.back());
  std::string for_bob, for_last;
  for (auto const& name : names) {
    say(log, "all but " + name + '\n', others_than(name), {&bob, &last});
    say(log, "for " + name + '\n', only(name), {&bob, &last});
    for_bob += "all but " + name + '\n';
    for_last += (name == last.name ? "for " : "all but ") + name + '\n';
  }
  CHECK(bob.read() == for_bob);
  CHECK(last.read() == for_last);
}

TEST_CASE("a block may be larger than a segment", "[room_log]") {
  RoomLog log;
  Reader bob(log, "bob"), eve(log, "eve");
  std::string block;
  for (std::size_t i = 0; i < 2000; ++i) block += line(i, 100);
  REQUIRE(block.size() > 3 * 64 * 1024);
  say(log, "before\n", others_than("ann"), {&bob, &eve});
  say(log, block, others_than("ann"), {&bob, &eve});
  say(log, "after\n", others_than("ann"), {&bob, &eve});
  auto read = text_of(eve.look()).substr(0, block.size());
  eve.go_to(log.after(eve.place, "eve", block.size(), read));
  CHECK(bob.read(1000) == "before\n" + block + "after\n");
  read += eve.read();
  CHECK(read == "before\n" + block + "after\n");
  CHECK(log.memory() < idle_memory);
}

TEST_CASE("what all logs hold is counted together", "[room_log]") {
  auto const before = chatproto::detail::HeldMemory::total();
  {
    RoomLog one, other;
    Reader bob(one, "bob"), eve(other, "eve");
    for (std::size_t i = 0; i < 100; ++i) {
      say(one, line(i, 200), others_than("ann"), {&bob});
      say(other, line(i, 100), others_than("ann"), {&eve});
    }
    CHECK(chatproto::detail::HeldMemory::total() == before + one.memory() + other.memory());
  }
  CHECK(chatproto::detail::HeldMemory::total() == before);
}

TEST_CASE("a log keeps no history unless it is told to", "[room_log]") {
  RoomLog log;
  say(log, "1\n", others_than("ann"));
  CHECK_FALSE(log.keeps_history());
  CHECK(log.history("bob", log.end(), 10).count == 0);
}

TEST_CASE("the history of a log is its last lines, as the reader could have got them", "[room_log]") {
  HistoryMemory memory({.lines = 5});
  RoomLog log;
  log.keep_history(memory);
  Reader bob(log, "bob");
  auto const history = [&log](std::string_view name, std::size_t most) { return log.history(name, log.end(), most); };
  CHECK(history("ann", 10).count == 0);
  say(log, "1\n2\n", others_than("ann"), {&bob});
  say(log, "3\n", only("eve"));
  say(log, "4\n", others_than("bob"), {&bob});
  CHECK(history("bob", 10).lines == "1\n2\n");
  CHECK(history("ann", 10).lines == "4\n");
  CHECK(history("eve", 10).lines == "1\n2\n3\n4\n");
  CHECK(history("eve", 10).count == 4);
  CHECK(history("eve", 2).lines == "3\n4\n");
  CHECK(history("eve", 0).lines.empty());
  CHECK(log.history("eve", 0, 10).count == 0);
  CHECK(log.history("eve", 4, 10).lines == "1\n2\n");
  CHECK(bob.read() == "1\n2\n");  // as without a history
  say(log, "5\n6\n", others_than("ann"));
  CHECK(history("eve", 10).lines == "2\n3\n4\n5\n6\n");  // the last five of all
  CHECK(history("ann", 10).lines == "4\n");
}

TEST_CASE("a history that is forgotten begins anew, and readers lose nothing", "[room_log]") {
  HistoryMemory memory({.lines = 5});
  RoomLog log;
  log.keep_history(memory);
  auto const history = [&log] { return log.history("eve", log.end(), 10).lines; };
  log.forget_history();  // there is none
  {
    Reader bob(log, "bob");
    say(log, "1\n2\n", others_than("ann"), {&bob});
    log.forget_history();
    CHECK(memory.held() == 0);
    CHECK(history().empty());
    say(log, "3\n", others_than("ann"));
    CHECK(history() == "3\n");
    log.forget_history();
    say(log, "4\n", others_than("ann"));
    CHECK(history() == "4\n");
    CHECK(bob.read() == "1\n2\n3\n4\n");
  }
  CHECK(history() == "4\n");
  CHECK(memory.held() == log.memory());
  log.forget_history();
  CHECK(log.memory() == 0);
  say(log, "5\n", others_than("ann"));
  CHECK(history() == "5\n");
}

TEST_CASE("a history has no more bytes than its limit, and is in little more memory", "[room_log]") {
  constexpr std::size_t most = 4096;
  auto const lines = GENERATE(std::size_t(1), 7u, 50u, 1000u);
  HistoryMemory memory({.lines = lines, .bytes = most});
  RoomLog log;
  log.keep_history(memory);
  Reader bob(log, "bob");
  std::string all;
  auto number = std::size_t();
  for (auto i = 0; i < 2000; ++i) {
    std::string said;
    for (auto left = i % 3; left >= 0; --left) said += line(++number, static_cast<std::size_t>(i * 7 % 50));
    all += said;
    say(log, said, others_than(i % 5 == 0 ? "ann" : "eve"), {&bob});
    if (i % 11 == 0) CHECK(bob.read().size() > 0);
    if (i % 100 == 99) {
      // Counted from the end: the lines that fit both limits.
      auto begin = all.size();
      for (auto left = lines; left > 0 && begin > 0; --left) {
        auto const next = begin < 2 ? 0 : all.rfind('\n', begin - 2) + 1;
        if (all.size() - next > most) break;
        begin = next;
      }
      auto const found = log.history("zoe", log.end(), ~std::size_t());
      CHECK(found.lines == all.substr(begin));
      CHECK(found.count == static_cast<std::size_t>(std::count(found.lines.begin(), found.lines.end(), '\n')));
      bob.read();
      CHECK(log.memory() <= log.most_history());
      CHECK(log.history_memory() == log.memory());
      CHECK(memory.held() == log.memory());
    }
  }
}

TEST_CASE("the memory of a history is not what readers have still to read", "[room_log]") {
  HistoryMemory memory({.lines = 1000, .bytes = 8192});
  RoomLog log;
  log.keep_history(memory);
  Reader bob(log, "bob");
  for (auto i = std::size_t(1); i <= 10'000; ++i) say(log, line(i, 40), others_than("ann"), {&bob});
  CHECK(log.memory() > 10'000 * 40);
  CHECK(log.history_memory() <= log.most_history());
  CHECK(memory.held() == log.history_memory());
  auto const kept = log.history("eve", log.end(), 1000).lines;
  CHECK(kept.size() > 8192 - 60);
  CHECK(bob.read().ends_with(kept));
  CHECK(log.memory() == log.history_memory());
}

TEST_CASE("texts for different users take no more memory than others", "[room_log]") {
  HistoryMemory memory({.lines = 100'000});
  std::string const names[] = {std::string(240, 'a'), std::string(240, 'b')};
  {
    RoomLog log;
    log.keep_history(memory);
    for (auto i = std::size_t(0); i < 20'000; ++i) say(log, "1\n", only(names[i % 2]));
    CHECK(log.memory() <= log.most_history());
    CHECK(memory.held() <= log.most_history());
    CHECK(log.history(names[0], log.end(), 10).count == 10);
  }
  CHECK(memory.held() == 0);
}

TEST_CASE("histories stay within their memory, and every room that is in use keeps its last texts", "[room_log]") {
  constexpr std::size_t limit = 8 * 1024 * 1024, last_texts = 1100;
  HistoryMemory memory({.lines = 1000, .memory = limit});
  // The first rooms keep all they may, before others come.
  auto const count = GENERATE(std::size_t(50), 200u, 1100u);
  auto const most = limit + count * last_texts;
  std::vector<std::unique_ptr<RoomLog>> logs;
  auto talk = [](RoomLog& log, std::size_t lines) {
    for (auto i = std::size_t(1); i <= lines; ++i) say(log, line(i, 40), others_than("ann"));
  };
  for (auto i = std::size_t(0); i < count; ++i) {
    logs.push_back(std::make_unique<RoomLog>());
    logs.back()->keep_history(memory);
    talk(*logs.back(), 2000);
    CHECK(memory.held() <= most);
  }
  for (auto const& log : logs) {
    talk(*log, 1000);
    CHECK(memory.held() <= most);
  }
  for (auto i = std::size_t(1); i <= 1000; ++i)
    for (auto const& log : logs) say(*log, line(i, 40), others_than("ann"));
  CHECK(memory.held() <= limit);
  for (auto const& log : logs) {
    auto const kept = log->history("eve", log->end(), 1000);
    CHECK(kept.lines.size() >= limit / 2 / (64 + count) / 2);  // about the same for each
    CHECK(kept.lines.ends_with(line(1000, 40)));
  }
}
