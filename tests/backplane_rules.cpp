// SPDX-License-Identifier: BSL-1.0
// The rules of a backplane, one event at a time. simulated_cluster.hpp plays them in any order.
#include <chatproto/detail/backplane/backplane_rules.hpp>

#include <chatproto/backplane.hpp>
#include <chatproto/detail/backplane/block.hpp>
#include <chatproto/detail/backplane/inbox.hpp>

#include <chrono>
#include <cstdint>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "catch.hpp"

namespace {

using namespace std::literals;
using chatproto::Backplane;
using chatproto::detail::AppendResult;
using chatproto::detail::BackplaneInbox;
using chatproto::detail::decode_said;
using chatproto::detail::encode_said;
using chatproto::detail::LogPosition;
using chatproto::detail::LogView;
using Calls = std::vector<std::string>;
using Outcome = Backplane::Outcome;

/// What the rules ask for, in words.
struct Owner {
  Calls calls;

  void note(auto const&... parts) {
    auto& call = calls.emplace_back();
    ((call += parts), ...);
  }
  Calls take() { return std::exchange(calls, {}); }

  void deliver(std::string_view room, Backplane::Said const& said) { note("deliver ", room, " ", said.lines); }
  void lost(std::string_view room) { note("lost ", room); }
  void past(std::string_view room, Backplane::Said const& said) { note("past ", room, " ", said.lines); }
  void left(std::string_view room) { note("left ", room); }
  void append(std::string_view room, std::uint64_t sequence, std::uint64_t incarnation, bool is_retry,
              std::string_view block) {
    note(is_retry ? "retry " : "append ", room, " ", std::to_string(sequence), " to ", std::to_string(incarnation));
    appended = block;
  }
  void look(std::string_view room, LogPosition const& from, bool wants_past) {
    note(wants_past ? "look back " : "look ", room, " from ", std::to_string(from.incarnation), "/",
         std::to_string(from.number));
  }
  void subscribe(std::string_view room) { note("subscribe ", room); }
  void unsubscribe(std::string_view room) { note("unsubscribe ", room); }
  void renew(std::string_view room) { note("renew ", room); }
  void beat(std::uint64_t number) { beats.push_back(number); }
  void reconnect() { note("reconnect"); }

  std::string appended;
  std::vector<std::uint64_t> beats;
};

using Rules = chatproto::detail::BackplaneRules<Owner>;

struct Waiter : Backplane::Waiter {
  std::optional<Outcome> outcome;
  void tell(Outcome what) noexcept override { outcome = what; }
};

std::string entry(std::string const& from, std::string const& text) {
  return encode_said({from, {}, "delivery:a:" + from + ':' + text + '\n', 1});
}

/// Rules that are connected to an engine, and their first beat has come back.
struct Scene {
  Owner owner;
  Rules rules{owner, {}, 30s};

  Scene() {
    rules.connected("first life");
    beat();
  }
  void beat() { rules.beat_came(owner.beats.back()); }
  std::shared_ptr<Waiter> append(std::string const& text, std::string const& room = "a") {
    auto waiter = std::make_shared<Waiter>();
    rules.append(room, entry("ann", text), waiter);
    return waiter;
  }
  std::shared_ptr<Waiter> follow(std::string const& room = "a") {
    auto waiter = std::make_shared<Waiter>();
    rules.follow(room, waiter);
    return waiter;
  }
  /// Follows the room from this position on.
  void follow_from(LogPosition const& at) {
    auto const waiter = follow();
    rules.subscribed("a");
    LogView const view{at, {}, 0};
    rules.looked("a", &view);
    REQUIRE(waiter->outcome == Outcome::done);
    owner.take();
  }
  void come(std::uint64_t incarnation, std::uint64_t number, std::string const& text) {
    rules.came("a", {incarnation, number}, entry("ann", text));
  }
  void looked(LogPosition const& end, std::uint64_t first, std::vector<std::string> const& texts) {
    std::vector<std::string> blocks;
    for (auto const& text : texts) blocks.push_back(entry("ann", text));
    LogView view{end, {}, first};
    for (auto const& block : blocks) view.blocks.push_back(block);
    rules.looked("a", &view);
  }
  void pass(std::chrono::milliseconds time) {
    for (; time > 0ms; time -= Rules::tick_period) rules.tick(Rules::tick_period);
  }
};

/// What an inbox passes on.
struct Noted {
  Calls calls;
  void append(std::string const& room, std::string const& block, auto const&) { calls.push_back(room + ' ' + block); }
  void follow(std::string const& room, auto const&) { calls.push_back("follow " + room); }
  void at_end(std::string const& room, auto const&) { calls.push_back("at_end " + room); }
  void unfollow(std::string const& room) { calls.push_back("unfollow " + room); }
};

std::string delivery(std::string const& text) { return "deliver a delivery:a:ann:" + text + '\n'; }
std::string past(std::string const& text) { return "past a delivery:a:ann:" + text + '\n'; }

}  // namespace

TEST_CASE("a block's entries are read as they were written", "[backplane]") {
  auto block = encode_said({"ann", {}, "delivery:a:ann:x\ndelivery:a:ann:y\n", 2}) +
               encode_said({"bob", "eve", "delivery:a:bob: 1 2\n", 1});
  std::string_view rest = block;
  Backplane::Said said;
  REQUIRE(decode_said(rest, said));
  CHECK(said.from == "ann");
  CHECK(said.to.empty());
  CHECK(said.texts == 2);
  CHECK(said.lines == "delivery:a:ann:x\ndelivery:a:ann:y\n");
  REQUIRE(decode_said(rest, said));
  CHECK(said.from == "bob");
  CHECK(said.to == "eve");
  CHECK(said.lines == "delivery:a:bob: 1 2\n");
  CHECK(rest.empty());
}

TEST_CASE("what is no entry is not taken for one", "[backplane]") {
  for (std::string const& wrong :
       {""s, "\n"s, "ann"s, "ann *\nx\n"s, "ann * 1 2"s, "ann * 1 3\nx\n"s, "ann * 1 0\n"s, "ann * 2 2\nx\n"s,
        "ann * 1 -2\nx\n"s, "ann * 1 2\nxy"s, "a:b * 1 2\nx\n"s, "ann e:e 1 2\nx\n"s, " * 1 2\nx\n"s,
        "ann * 99999999999 2\nx\n"s, "ann * 1 99999999999999999999\nx\n"s,
        "ann * 1 300\n" + std::string(299, 'x') + '\n'}) {
    CAPTURE(wrong);
    std::string_view rest = wrong;
    Backplane::Said said;
    CHECK(!decode_said(rest, said));
  }
}

TEST_CASE("what is said while a block is under way is joined into the next", "[backplane]") {
  Scene s;
  auto const first = s.append("1");
  CHECK(s.owner.take() == Calls{"look a from 0/0"});  // for the incarnation
  s.looked({7, 40}, 0, {});
  CHECK(s.owner.take() == Calls{"append a 1 to 7"});
  auto const second = s.append("2"), third = s.append("3");
  CHECK(s.owner.take() == Calls{});
  s.rules.appended("a", 1, AppendResult::stored, 7);
  CHECK(first->outcome == Outcome::done);
  CHECK(!second->outcome);
  CHECK(s.owner.take() == Calls{"append a 2 to 7"});
  CHECK(s.owner.appended == entry("ann", "2") + entry("ann", "3"));
  s.rules.appended("a", 2, AppendResult::stored, 7);
  CHECK(second->outcome == Outcome::done);
  CHECK(third->outcome == Outcome::done);
}

TEST_CASE("an append is tried again under its number, in the same life only", "[backplane]") {
  Scene s;
  auto const waiter = s.append("1");
  s.looked({7, 0}, 0, {});
  s.owner.take();
  s.rules.disconnected();
  SECTION("the same life") {
    s.rules.connected("first life");
    CHECK(s.owner.take() == Calls{"retry a 1 to 7"});
    CHECK(!waiter->outcome);
    SECTION("stored, by one of the attempts") {
      s.rules.appended("a", 1, AppendResult::stored, 7);
      CHECK(waiter->outcome == Outcome::done);
    }
    SECTION("refused: the first attempt may have been stored") {
      s.rules.appended("a", 1, AppendResult::refused, 0);
      CHECK(waiter->outcome == Outcome::unknown);
    }
  }
  SECTION("another life") {
    s.rules.connected("second life");
    CHECK(s.owner.take() == Calls{});
    CHECK(waiter->outcome == Outcome::unknown);
  }
}

TEST_CASE("a refused append is not done, and the engine that lacks the script gets it again", "[backplane]") {
  Scene s;
  auto const waiter = s.append("1");
  s.looked({7, 0}, 0, {});
  s.owner.take();
  s.rules.appended("a", 1, AppendResult::again, 0);
  CHECK(s.owner.take() == Calls{"append a 1 to 7"});
  s.rules.appended("a", 1, AppendResult::refused, 0);
  CHECK(waiter->outcome == Outcome::not_done);
}

TEST_CASE("blocks are delivered in the order of their numbers, each once", "[backplane]") {
  Scene s;
  s.follow_from({7, 2});
  s.come(7, 2, "before");
  s.come(7, 3, "three");
  s.come(7, 3, "three");
  CHECK(s.owner.take() == Calls{delivery("three")});

  s.come(7, 6, "six");  // a gap
  CHECK(s.owner.take() == Calls{"look a from 7/3"});
  s.come(7, 7, "seven");
  SECTION("that the log closes, in two steps") {
    s.looked({7, 6}, 4, {"four"});
    CHECK(s.owner.take() == Calls{delivery("four"), "look a from 7/4"});
    s.looked({7, 6}, 5, {"five", "six"});
    CHECK(s.owner.take() == Calls{delivery("five"), delivery("six"), delivery("seven")});
  }
  SECTION("that the log cannot close") {
    s.looked({7, 6}, 4, {});
    CHECK(s.owner.take() == Calls{"lost a", "look back a from 0/0"});
    s.come(7, 8, "eight");
    s.looked({7, 7}, 0, {"six", "seven"});
    CHECK(s.owner.take() == Calls{past("six"), past("seven"), delivery("eight")});
  }
  SECTION("while the log was forgotten") {
    s.looked({8, 1}, 4, {});
    CHECK(s.owner.take() == Calls{"lost a", "look back a from 0/0"});
  }
}

TEST_CASE("what was said before comes before what is said, and before anybody hears that the room is followed",
          "[backplane]") {
  Scene s;
  auto const waiter = s.follow();
  s.rules.subscribed("a");
  CHECK(s.owner.take() == Calls{"subscribe a", "look back a from 0/0"});
  s.come(7, 2, "two");  // in the log already when it was looked at
  s.come(7, 3, "three");
  SECTION("as the log has it") {
    s.looked({7, 2}, 0, {"one", "two"});
    CHECK(s.owner.take() == Calls{past("one"), past("two"), delivery("three")});
    CHECK(waiter->outcome == Outcome::done);
    s.rules.unfollow("a");
    CHECK(s.owner.take() == Calls{"unsubscribe a", "left a"});
  }
  SECTION("without what comes before something that somebody else wrote") {
    auto const one = entry("ann", "one"), two = entry("ann", "two");
    LogView const view{{7, 3}, {one, "nonsense", two}, 0};
    s.rules.looked("a", &view);
    CHECK(s.owner.take() == Calls{past("one"), "left a", past("two")});
    CHECK(waiter->outcome == Outcome::done);
  }
  SECTION("not while nobody follows it") {
    s.rules.unfollow("a");
    CHECK(s.owner.take() == Calls{"unsubscribe a", "left a"});
    s.looked({7, 2}, 0, {"one", "two"});
    CHECK(s.owner.take() == Calls{});
    CHECK(waiter->outcome == Outcome::not_done);
  }
}

TEST_CASE("whoever only speaks in a room is told nothing of its past", "[backplane]") {
  Scene s;
  s.append("1");
  CHECK(s.owner.take() == Calls{"look a from 0/0"});
  s.follow();
  s.rules.subscribed("a");
  CHECK(s.owner.take() == Calls{"subscribe a"});  // it still looks
  s.looked({7, 2}, 0, {});
  CHECK(s.owner.take() == Calls{"append a 1 to 7", "look back a from 0/0"});
}

TEST_CASE("a new incarnation follows if its first block comes", "[backplane]") {
  Scene s;
  s.follow_from({7, 2});
  s.come(8, 1, "new");
  CHECK(s.owner.take() == Calls{delivery("new")});
  s.come(9, 2, "newer");
  CHECK(s.owner.take() == Calls{"look a from 8/1"});
}

TEST_CASE("after a new connection a room is caught up, in a new life it is lost", "[backplane]") {
  Scene s;
  s.follow_from({7, 2});
  s.rules.disconnected();
  SECTION("the same life") {
    s.rules.connected("first life");
    CHECK(s.owner.take() == Calls{"subscribe a"});
    s.rules.subscribed("a");
    CHECK(s.owner.take() == Calls{"look a from 7/2"});
    s.come(7, 4, "four");
    s.looked({7, 3}, 3, {"three"});
    CHECK(s.owner.take() == Calls{delivery("three"), delivery("four")});
  }
  SECTION("a new life") {
    s.rules.connected("second life");
    CHECK(s.owner.take() == Calls{"lost a", "subscribe a"});
  }
}

TEST_CASE("the end of a log is reached when a beat comes back that was sent after the question", "[backplane]") {
  Scene s;
  s.follow_from({7, 2});
  s.pass(300ms);  // a beat is under way
  auto const waiter = std::make_shared<Waiter>();
  s.rules.at_end("a", waiter);
  s.beat();
  CHECK(!waiter->outcome);
  SECTION("and everything was delivered") {
    s.beat();
    CHECK(waiter->outcome == Outcome::done);
  }
  SECTION("and a gap is closed") {
    s.come(7, 4, "four");
    s.beat();
    CHECK(!waiter->outcome);
    s.looked({7, 4}, 3, {"three", "four"});
    CHECK(waiter->outcome == Outcome::done);
  }
  SECTION("also over another connection") {
    s.rules.disconnected();
    s.rules.connected("first life");
    s.rules.subscribed("a");
    s.beat();
    CHECK(!waiter->outcome);
    s.looked({7, 2}, 3, {});
    CHECK(waiter->outcome == Outcome::done);
  }
}

TEST_CASE("a silent engine is left, and in the end nobody waits for it", "[backplane]") {
  Scene s;
  s.follow_from({7, 2});
  auto const under_way = s.append("1");
  s.looked({7, 2}, 0, {});
  auto const waiting = s.append("2");
  s.owner.take();
  s.pass(1500ms);
  CHECK(s.append("3")->outcome == Outcome::not_done);
  CHECK(waiting->outcome == Outcome::not_done);
  CHECK(!under_way->outcome);
  CHECK(s.owner.take() == Calls{});
  s.pass(1100ms);
  CHECK(s.owner.take().at(0) == "reconnect");
  s.rules.disconnected();
  s.pass(3000ms);
  CHECK(under_way->outcome == Outcome::unknown);
  CHECK(s.owner.take() == Calls{"lost a"});
  CHECK(s.follow()->outcome == Outcome::not_done);
  s.rules.connected("first life");
  auto const again = s.follow();
  s.rules.subscribed("a");
  s.beat();
  s.beat();
  CHECK(!again->outcome);
  s.looked({7, 3}, 0, {});
  CHECK(again->outcome == Outcome::done);
}

TEST_CASE("an engine that cannot begin a log refuses who wants to follow it", "[backplane]") {
  Scene s;
  auto const waiter = s.follow();
  s.rules.subscribed("a");
  s.rules.looked("a", nullptr);
  CHECK(waiter->outcome == Outcome::not_done);
  CHECK(s.owner.take() == Calls{"subscribe a", "look back a from 0/0"});
  auto const later = s.follow();
  s.beat();
  s.pass(500ms);
  CHECK(s.owner.take() == Calls{"look back a from 0/0"});
  s.looked({7, 0}, 0, {});
  CHECK(later->outcome == Outcome::done);
}

TEST_CASE("a room that was refused and that nobody wants any more is not asked for again", "[backplane]") {
  Scene s;
  s.follow();
  SECTION("left after the refusal") {
    s.rules.subscribed("a");
    s.rules.looked("a", nullptr);
    s.rules.unfollow("a");
  }
  SECTION("left before the refusal") {
    s.rules.subscribed("a");
    s.rules.unfollow("a");
    s.rules.looked("a", nullptr);
  }
  SECTION("left before the subscription was confirmed") {
    s.rules.unfollow("a");
    s.rules.subscribed("a");
    s.rules.looked("a", nullptr);
  }
  s.pass(900ms);
  CHECK(s.owner.take() == Calls{"subscribe a", "look back a from 0/0", "unsubscribe a", "left a"});
}

TEST_CASE("a room that is entered again while it is still looked at is looked at again", "[backplane]") {
  Scene s;
  s.follow();
  s.rules.subscribed("a");
  s.rules.unfollow("a");
  auto const waiter = s.follow();
  s.rules.subscribed("a");
  s.owner.take();
  s.looked({7, 2}, 0, {});  // what was seen before the new subscription
  CHECK_FALSE(waiter->outcome);
  CHECK(s.owner.take() == Calls{"look back a from 0/0"});
  s.looked({7, 3}, 0, {});
  CHECK(waiter->outcome == Outcome::done);
}

TEST_CASE("time in which the process stood still is no silence", "[backplane]") {
  Scene s;
  s.follow_from({7, 2});
  s.rules.tick(60s);
  CHECK(s.rules.silence() == 2 * Rules::tick_period);
  CHECK(s.owner.take() == Calls{});
}

TEST_CASE("what somebody else writes to the engine loses the room", "[backplane]") {
  Scene s;
  s.follow_from({7, 2});
  s.rules.came("a", {7, 3}, "nonsense");
  CHECK(s.owner.take() == Calls{"lost a"});
  s.come(7, 4, "four");
  CHECK(s.owner.take() == Calls{delivery("four")});
}

TEST_CASE("a room that nobody follows is unsubscribed, and forgotten after some time", "[backplane]") {
  Scene s;
  s.follow_from({7, 2});
  s.rules.unfollow("a");
  CHECK(s.owner.take() == Calls{"unsubscribe a", "left a"});
  s.come(7, 3, "late");
  CHECK(s.owner.take() == Calls{});
  for (auto seconds = 0; seconds < 11; ++seconds) {
    s.pass(1s);
    s.beat();
  }
  s.append("1");
  CHECK(s.owner.take() == Calls{"look a from 0/0"});  // its incarnation is forgotten
}

TEST_CASE("a room is not subscribed again before its subscription was confirmed", "[backplane]") {
  Scene s;  // otherwise the first confirmation would be taken for the second, and texts in between would be missed
  s.append("1");
  s.follow();
  s.rules.unfollow("a");
  s.rules.looked("a", nullptr);  // for the sender; this comes on the other connection
  s.follow();
  CHECK(s.owner.take() == Calls{"look a from 0/0", "subscribe a"});
  s.rules.subscribed("a");
  CHECK(s.owner.take() == Calls{"look back a from 0/0"});
}

TEST_CASE("a room that is followed is renewed, if nothing else does that", "[backplane]") {
  Scene s;
  s.follow_from({7, 2});
  auto const pass_seconds = [&s](int seconds) {
    for (; seconds > 0; --seconds) {
      s.pass(1s);
      s.beat();
    }
  };
  pass_seconds(25);
  s.come(7, 3, "three");  // which has renewed it
  pass_seconds(25);
  CHECK(s.owner.take() == Calls{delivery("three")});
  pass_seconds(25);
  CHECK(s.owner.take() == Calls{"renew a"});
  s.rules.unfollow("a");
  pass_seconds(60);
  CHECK(s.owner.take() == Calls{"unsubscribe a", "left a"});
}

TEST_CASE("time passes for each of many rooms", "[backplane]") {
  Scene s;
  std::vector<std::string> rooms;
  std::vector<std::shared_ptr<Waiter>> waiters;
  for (auto i = 0; i < 100; ++i) waiters.push_back(s.append("1", rooms.emplace_back("room" + std::to_string(i))));
  s.pass(2s);  // no beat comes back
  for (auto const& waiter : waiters) CHECK(waiter->outcome == Outcome::not_done);
}

TEST_CASE("a waiter that is dropped hears that the outcome is unknown", "[backplane]") {
  auto const waiter = std::make_shared<Waiter>();
  {
    Scene s;
    s.rules.append("a", entry("ann", "1"), waiter);
  }
  CHECK(waiter->outcome == Outcome::unknown);
}

TEST_CASE("requests are passed on in their order, and those of which nobody was told are not", "[backplane]") {
  Noted noted;
  BackplaneInbox inbox;
  auto wakes = 0;
  auto const wake = [&] { ++wakes; };
  auto const pass_on = [&](bool sweeps) {
    inbox.pass_on(
        sweeps, [&](auto const&) -> auto& { return noted; });
    return std::exchange(noted.calls, {});
  };
  CHECK_THROWS_AS(inbox.at_end("a", nullptr, [] { throw std::bad_alloc(); }), std::bad_alloc);
  CHECK(pass_on(true) == Calls{});
  inbox.follow("a", nullptr, wake);
  inbox.append("b", {"ann", {}, "x\n", 1}, nullptr, wake);
  inbox.at_end("a", nullptr, wake);
  CHECK(wakes == 1);
  CHECK(pass_on(false) == Calls{"follow a", "b ann * 1 2\nx\n", "at_end a"});
  inbox.follow("a", nullptr, wake);
  inbox.unfollow("a");
  CHECK(pass_on(true) == Calls{"follow a"});  // somebody else still follows it
  inbox.unfollow("a");
  CHECK(pass_on(false) == Calls{});
  CHECK(pass_on(true) == Calls{"unfollow a"});
  CHECK(pass_on(true) == Calls{});
}

TEST_CASE("a room that is followed again before the sweep stays followed", "[backplane]") {
  Noted noted;
  BackplaneInbox inbox;
  auto const pass_on = [&] {
    inbox.pass_on(
        true, [&](auto const&) -> auto& { return noted; });
    return std::exchange(noted.calls, {});
  };
  auto const follow = [&](std::string_view room) { inbox.follow(room, nullptr, [] {}); };
  for (auto const* const room : {"a", "b", "c"}) follow(room);
  for (auto const* const room : {"a", "b", "c"}) inbox.unfollow(room);
  follow("b");
  CHECK(pass_on() == Calls{"follow a", "follow b", "follow c", "follow b", "unfollow c", "unfollow a"});
  inbox.unfollow("b");
  follow("b");
  inbox.unfollow("b");
  CHECK(pass_on() == Calls{"follow b", "unfollow b"});
  CHECK_THROWS_AS(inbox.follow("d", nullptr, [] { throw std::bad_alloc(); }), std::bad_alloc);
  inbox.unfollow("d");  // of a follow that never was
  CHECK(pass_on() == Calls{});
}

TEST_CASE("if memory is short, those whose requests are not passed on hear that the outcome is unknown",
          "[backplane]") {
  BackplaneInbox inbox;
  auto const first = std::make_shared<Waiter>(), second = std::make_shared<Waiter>();
  inbox.at_end("a", first, [] {});
  inbox.at_end("b", second, [] {});
  CHECK_THROWS_AS(inbox.pass_on(false, [](auto const&) -> Noted& { throw std::bad_alloc(); }), std::bad_alloc);
  CHECK(first->outcome == Outcome::unknown);
  CHECK(second->outcome == Outcome::unknown);
}
