// SPDX-License-Identifier: BSL-1.0
#include <chatproto/room_table.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "support.hpp"

using chatproto::Peer;
using chatproto::Room;
using chatproto::RoomTable;
using test::RecordingQueue;
using Membership = RoomTable::Membership;

static_assert(!std::is_copy_constructible_v<Membership> && std::is_nothrow_move_constructible_v<Membership>);

namespace {

struct Player : chatproto::Participant {
  using Participant::Participant;
  ~Player() override { leave(); }
  int points = 0;
};

}  // namespace

TEST_CASE("an empty membership is in no room", "[room_table]") {
  Membership const membership;
  CHECK_FALSE(membership);
}

TEST_CASE("a room exists until the last member has left it", "[room_table]") {
  RoomTable table;
  CHECK(table.size() == 0);
  {
    auto first = table.enter("cafe");
    REQUIRE(first);
    CHECK(first.name() == "cafe");
    {
      auto const second = table.enter("cafe");
      CHECK(&second.room() == &first.room());
      CHECK(table.size() == 1);
      auto const other = table.enter("Cafe");
      CHECK(&other.room() != &first.room());
      CHECK(table.size() == 2);
      first = {};
      CHECK(table.size() == 2);
    }
    CHECK(table.size() == 0);
    first = table.enter("cafe");
    CHECK(table.size() == 1);
  }
  CHECK(table.size() == 0);
}

TEST_CASE("a table has at most so many rooms, and a room at most so many clients", "[room_table]") {
  RoomTable table(2, 2);
  auto first = table.enter("a");
  auto const second = table.enter("a");
  CHECK((first && second));
  CHECK_FALSE(table.enter("a"));
  auto const other = table.enter("b");
  CHECK(other);
  CHECK_FALSE(table.enter("c"));
  CHECK(table.size() == 2);
  first = {};
  CHECK(table.enter("a"));
}

TEST_CASE("a participant that cannot enter a room stays where it is", "[room_table]") {
  RoomTable table(2, 1);
  auto const taken = table.enter("taken");
  chatproto::Participant bob(Peer(std::make_shared<RecordingQueue>()));
  CHECK_FALSE(bob.enter(table, "taken"));
  CHECK_FALSE(bob.is_in_room());
  CHECK(bob.enter(table, "free"));
  CHECK_FALSE(bob.enter(table, "taken"));
  CHECK(bob.room_name() == "free");
}

TEST_CASE("a membership can be moved and then holds its room alone", "[room_table]") {
  RoomTable table;
  auto first = table.enter("cafe");
  auto* const room = &first.room();
  {
    auto const second = std::move(first);
    CHECK_FALSE(first);  // NOLINT(bugprone-use-after-move): it must be empty
    CHECK(second);
    CHECK(&second.room() == room);
    CHECK(table.size() == 1);
  }
  CHECK(table.size() == 0);
}

TEST_CASE("a membership that is assigned to leaves its old room", "[room_table]") {
  RoomTable table;
  auto membership = table.enter("cafe");
  membership = table.enter("bar");
  CHECK(membership.name() == "bar");
  CHECK(table.size() == 1);
  membership = table.enter("bar");  // the same room again
  CHECK(table.size() == 1);
  auto& same = membership;
  membership = std::move(same);
  CHECK(membership);
  CHECK(table.size() == 1);
}

TEST_CASE("a room keeps its address while other rooms come and go", "[room_table]") {
  RoomTable table;
  auto const membership = table.enter("cafe");
  auto* const room = &membership.room();
  std::vector<Membership> others;
  for (auto i = 0; i < 1000; ++i) others.push_back(table.enter("room" + std::to_string(i)));
  CHECK(table.size() == 1001);
  others.clear();
  CHECK(table.size() == 1);
  CHECK(&membership.room() == room);
  CHECK(membership.name() == "cafe");
}

TEST_CASE("rooms are entered and left by many threads", "[room_table]") {
  RoomTable table;
  std::vector<std::thread> threads;
  for (auto t = 0; t < 4; ++t)
    threads.emplace_back([&table, t] {
      Room::Member member("user" + std::to_string(t), Peer(std::make_shared<RecordingQueue>()));
      for (auto i = 0; i < 2000; ++i) {
        auto const membership = table.enter(std::to_string(i % 3));
        membership.room().add(member);
        membership.room().broadcast("", "x");
        membership.room().remove(member);
      }
    });
  for (auto& thread : threads) thread.join();
  CHECK(table.size() == 0);
}

TEST_CASE("members can be counted and visited, with the data that a service keeps for them", "[room_table]") {
  RoomTable rooms;
  auto const membership = rooms.enter("hall");
  auto& room = membership.room();
  auto const seen = [&] {
    return room.guarded([](Room::Locked& locked) {
      std::multimap<std::string, int> all;
      locked.for_each([&](Room::Member& each) { all.emplace(each.name(), static_cast<Player&>(each).points); });
      CHECK(locked.size() == all.size());
      return all;
    });
  };
  CHECK(room.size() == 0);
  auto const a = std::make_shared<RecordingQueue>(), b = std::make_shared<RecordingQueue>();
  Player ann("ann", Peer(a));
  {
    Player bob("bob", Peer(b));
    for (auto* player : {&ann, &bob}) player->enter(rooms, "hall");
    CHECK(room.size() == 0);  // a sender is not a member
    for (auto* player : {&ann, &bob, &bob}) player->listen();
    CHECK(room.size() == 2);
    CHECK(room.guarded([&](auto&) { return ++bob.points; }) == 1);
    CHECK_THROWS_AS(room.guarded([](auto&) { throw std::bad_alloc(); }), std::bad_alloc);  // and the lock is released
    CHECK(seen() == std::multimap<std::string, int>{{"ann", 0}, {"bob", 1}});
  }
  CHECK(room.size() == 1);
  CHECK(seen() == std::multimap<std::string, int>{{"ann", 0}});
}

TEST_CASE("when many clients want one name in a room, one gets it, and all see this in the same order",
          "[room_table]") {
  constexpr auto threads = 4, times = 500;
  RoomTable rooms;
  auto const membership = rooms.enter("hall");
  auto const queue = std::make_shared<RecordingQueue>();
  chatproto::Participant judge("judge", Peer(queue));
  judge.enter(rooms, "hall");
  judge.listen();
  auto const say = [](Room::Locked& room, char what) { room.broadcast({}, std::string(1, what) + '\n'); };
  std::vector<std::thread> players;
  for (auto t = 0; t < threads; ++t)
    players.emplace_back([&] {
      for (auto i = 0; i < times; ++i) {
        Player me("ann", Peer(std::make_shared<RecordingQueue>()));
        me.enter(rooms, "hall");
        auto const has_come = me.room().guarded([&](Room::Locked& room) {
          if (room.has("ann")) return false;
          me.listen(room);
          me.listen(room);  // no effect
          say(room, '+');
          return true;
        });
        if (has_come) me.room().guarded([&](Room::Locked& room) { say(room, '-'); });
      }
    });
  for (auto& each : players) each.join();
  auto const heard = queue->take();
  auto wrong = 0u;
  for (std::size_t i = 0; i < heard.size(); ++i) wrong += heard[i] != "+\n-\n"[i % 4];
  CHECK(heard.size() >= 4u);
  CHECK(heard.size() % 4 == 0);
  CHECK(wrong == 0);
}

TEST_CASE("a participant's replies come after the texts that were sent to it before", "[room_table]") {
  RoomTable rooms;
  auto const queue = std::make_shared<RecordingQueue>();
  chatproto::Participant me("ann", Peer(queue));
  CHECK_FALSE(me.is_in_room());
  me.leave();  // no effect
  me.send("hello\n");
  me.enter(rooms, "a");
  CHECK((me.is_in_room() && !me.listens() && me.room_name() == "a"));
  me.room().broadcast("bob", "not heard\n");
  me.listen();
  me.room().broadcast("bob", "one\n");
  me.send("reply\n");
  me.room().broadcast("bob", "two\n");
  SECTION("also when it leaves") {
    me.leave();
    CHECK(rooms.size() == 0);
  }
  SECTION("or moves") {
    me.enter(rooms, "b");
    CHECK((!me.listens() && me.room_name() == "b" && rooms.size() == 1));
  }
  me.send("bye\n");
  CHECK(queue->take() == "hello\none\nreply\ntwo\nbye\n");
}

TEST_CASE("members enter, leave and get points while others look at them", "[room_table]") {
  constexpr auto threads = 4, times = 2'000;
  RoomTable rooms;
  auto const membership = rooms.enter("hall");
  std::vector<std::thread> players;
  std::atomic<int> running = threads;
  for (auto t = 0; t < threads; ++t)
    players.emplace_back([&] {
      for (auto i = 0; i < times; ++i) {
        Player me("ann", Peer(std::make_shared<RecordingQueue>()));
        me.enter(rooms, "hall");
        me.listen();
        membership.room().guarded([&](auto&) { ++me.points; });
        membership.room().broadcast("", "here\n");
      }
      --running;
    });
  auto wrong = 0;
  while (running > 0) {
    wrong += membership.room().guarded([](Room::Locked& room) {
      auto bad = room.size() > threads ? 1 : 0;
      room.for_each([&](Room::Member& each) {
        auto const points = static_cast<Player&>(each).points;
        bad += points < 0 || points > 1;
      });
      return bad;
    });
  }
  for (auto& each : players) each.join();
  CHECK(wrong == 0);
  CHECK(membership.room().size() == 0);
  CHECK(rooms.size() == 1);
}

TEST_CASE("a room that nobody is in keeps its history, and goes when its place is needed", "[room_table]") {
  RoomTable table(2, 0, {.lines = 10});
  Room::Member zoe("zoe", Peer(std::make_shared<RecordingQueue>()));
  auto const say_in = [&table](std::string_view name) { table.enter(name).room().broadcast("ann", "1\n"); };
  auto const kept_in = [&](std::string_view name) {
    auto const stay = table.enter(name);
    stay.room().add(zoe);
    auto const texts = stay.room().history(zoe, 10).count;
    stay.room().remove(zoe);
    return texts;
  };
  say_in("a");
  CHECK(table.size() == 0);
  say_in("b");
  CHECK(kept_in("a") == 1);  // it is now the one that was left last
  CHECK(table.enter_existing("b"));
  {
    auto const first = table.enter("a"), second = table.enter("c");  // b was left last, but a is in use
    CHECK(table.size() == 2);
    CHECK_FALSE(table.enter_existing("b"));
    CHECK_FALSE(table.enter("b"));
  }
  CHECK_FALSE(table.enter_existing("c"));  // nothing was said there
  CHECK(kept_in("a") == 1);
  CHECK(table.history_memory() > 0);
  say_in("d");
  say_in("e");
  CHECK_FALSE(table.enter_existing("a"));
  CHECK(kept_in("d") == 1);
  CHECK(kept_in("e") == 1);
}

TEST_CASE("a store gets what is said, and has it again", "[room_table]") {
  struct Store : chatproto::HistoryStore {
    std::vector<std::pair<std::string, std::string>> kept;  // a room, and for whom what is
    void load(std::function<void(std::string_view, Said const&)> const& take) override {
      auto const before = kept;
      for (auto const& [room, said] : before) take(room, {said.substr(1), "ann", said[0] == '='});
    }
    void append(std::string_view room, Said const& said) noexcept override {
      CHECK(said.user == "ann");
      kept.emplace_back(room, (said.only ? '=' : '!') + std::string(said.lines));
    }
  } store;
  using Kept = decltype(store.kept);
  {
    RoomTable table(3, 0, {.lines = 10});
    table.use(store);
    for (auto const* const room : {"a", "b", "c"}) table.enter(room).room().broadcast("ann", "1\n2\n");
    table.enter("b").room().send_to("ann", "3\n");
  }
  Kept const all = {{"a", "!1\n2\n"}, {"b", "!1\n2\n"}, {"c", "!1\n2\n"}, {"b", "=3\n"}};
  CHECK(store.kept == all);
  store.kept = {all[0], all[2], all[1], all[3]};  // in the order in which the rooms were used
  RoomTable table(3, 0, {.lines = 10});
  table.use(store);
  CHECK(store.kept.size() == 4);  // nothing came twice
  CHECK(table.size() == 0);
  auto const history = [&](std::string const& room, std::string const& user) {
    Room::Member member(user, Peer(std::make_shared<RecordingQueue>()));
    auto const stay = table.enter(room);
    stay.room().add(member);
    auto const lines = stay.room().history(member, 10).lines;
    stay.room().remove(member);
    return lines;
  };
  CHECK(history("b", "ann") == "3\n");
  CHECK(history("b", "zoe") == "1\n2\n");
  table.enter("d").room().broadcast("ann", "4\n");  // in the place of a, which was left first
  CHECK(store.kept.size() == 5);                    // the store forgets by limits of its own
  CHECK(history("a", "zoe").empty());
  CHECK(history("d", "zoe") == "4\n");
}

TEST_CASE("a store may have more rooms than the table may", "[room_table]") {
  struct Store : chatproto::HistoryStore {
    void load(std::function<void(std::string_view, Said const&)> const& take) override {
      for (auto const* const room : {"a", "b", "c"}) take(room, {"1\n", "ann", false});
    }
    void append(std::string_view, Said const&) noexcept override {}
  } store;
  RoomTable table(1, 0, {.lines = 10});
  table.use(store);
  CHECK_FALSE(table.enter_existing("b"));
  CHECK(table.enter_existing("c"));
}

TEST_CASE("a slow reader of a room costs others nothing of their histories", "[room_table]") {
  RoomTable table(0, 0, {.lines = 1000, .memory = 1024 * 1024});
  Room::Member slow("slow", Peer(std::make_shared<RecordingQueue>())), zoe("zoe", slow.peer());
  auto const loud = table.enter("loud"), quiet = table.enter("quiet");
  quiet.room().broadcast("ann", "1\n");
  loud.room().add(slow);
  for (auto i = 0; i < 10'000; ++i) loud.room().broadcast("ann", std::string(200, 'x') + '\n');
  CHECK(loud.room().memory() > table.history_limits().memory);
  CHECK(table.history_memory() < table.history_limits().memory / 2);
  for (auto i = 0; i < 100; ++i) quiet.room().broadcast("ann", "1\n");
  quiet.room().add(zoe);
  CHECK(quiet.room().history(zoe, 1000).count == 101);
  quiet.room().remove(zoe);
  loud.room().remove(slow);
}

TEST_CASE("histories of rooms that nobody is in take half of the memory at most", "[room_table]") {
  constexpr std::size_t most = 1024 * 1024;
  RoomTable table(0, 0, {.lines = 1000, .memory = most});
  auto const here = table.enter("here");
  for (auto i = 0; i < 100; ++i) here.room().broadcast("ann", "1\n");
  for (auto i = 0; i < 3000; ++i) {
    table.enter("room" + std::to_string(i)).room().broadcast("ann", "1\n");
    CHECK(table.history_memory() <= most / 2 + here.room().history_memory());
  }
  CHECK_FALSE(table.enter_existing("room0"));
  CHECK(table.enter_existing("room2999"));
  Room::Member zoe("zoe", Peer(std::make_shared<RecordingQueue>()));
  here.room().add(zoe);
  CHECK(here.room().history(zoe, 1000).count == 100);
  here.room().remove(zoe);
}
