// SPDX-License-Identifier: BSL-1.0
#include <chatproto/room.hpp>

#include <chrono>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "support.hpp"

using chatproto::Peer;
using chatproto::PushResult;
using chatproto::Room;
using chatproto::RoomTable;
using test::block;
using test::Lines;
using test::RecordingQueue;
using Stay = RoomTable::Stay;

static_assert(!std::is_copy_constructible_v<Room> && !std::is_copy_constructible_v<Room::Member>);
static_assert(!std::is_copy_constructible_v<Stay> && std::is_nothrow_move_constructible_v<Stay>);

namespace {

struct Listener {
  explicit Listener(std::string name, std::size_t limit = RecordingQueue::default_limit)
      : queue(std::make_shared<RecordingQueue>(limit)), member(std::move(name), Peer(queue)) {}

  std::string take() { return queue->take(); }

  std::shared_ptr<RecordingQueue> queue;
  Room::Member member;
};

}  // namespace

TEST_CASE("a member has a name and a peer", "[room]") {
  Listener alice("alice");
  CHECK(alice.member.name() == "alice");
  alice.member.peer().send("x");
  CHECK(alice.take() == "x");
}

TEST_CASE("a broadcast goes to all whose name is another", "[room]") {
  Room room;
  Listener alice("alice"), alice_too("alice"), bob("bob"), capital("Alice"), longer("alice1");
  CHECK(room.broadcast("nobody", block("lost")) == 0);  // to an empty room
  for (auto* each : {&alice, &alice_too, &bob, &capital, &longer}) room.add(each->member);
  CHECK(room.broadcast("alice", block("a")) == 3);
  CHECK(room.broadcast("bob", block("b")) == 4);
  CHECK(alice.take() == "b");
  CHECK(alice_too.take() == "b");
  CHECK(bob.take() == "a");
  CHECK(capital.take() == "ab");
  CHECK(longer.take() == "ab");
}

TEST_CASE("send_to goes to all of one name", "[room]") {
  Room room;
  Listener alice("alice"), alice_too("alice"), bob("bob"), capital("Alice");
  for (auto* each : {&alice, &alice_too, &bob, &capital}) room.add(each->member);
  CHECK(room.send_to("alice", block("a")) == 2);
  CHECK(room.send_to("nobody", block("n")) == 0);
  CHECK(alice.take() == "a");
  CHECK(alice_too.take() == "a");
  CHECK(bob.take().empty());
  CHECK(capital.take().empty());
}

TEST_CASE("all members share one block", "[room]") {
  Room room;
  Listener alice("alice"), bob("bob");
  room.add(alice.member);
  room.add(bob.member);
  auto const shared = block("x");
  room.broadcast("", shared);
  CHECK(shared.use_count() == 3);
}

TEST_CASE("who was removed gets nothing more, whoever it is", "[room]") {
  for (auto const gone : {0u, 1u, 2u, 3u}) {
    CAPTURE(gone);
    Room room;
    Listener listeners[] = {Listener("a"), Listener("b"), Listener("c"), Listener("d")};
    for (auto& each : listeners) room.add(each.member);
    room.broadcast("", block("1"));
    room.remove(listeners[gone].member);
    room.broadcast("", block("2"));
    for (auto const other : {3u, 0u, 2u, 1u})  // those who moved in the list can still be removed
      if (other != gone) room.remove(listeners[other].member);
    room.broadcast("", block("3"));
    room.add(listeners[gone].member);
    room.broadcast("", block("4"));
    for (auto i = 0u; i < 4; ++i) CHECK(listeners[i].take() == (i == gone ? "14" : "12"));
    room.remove(listeners[gone].member);
  }
}

TEST_CASE("one who is cut or closed takes nothing from the others", "[room]") {
  Room room;
  Listener stuck("stuck", 100), closed("closed"), fast("fast");
  for (auto* each : {&stuck, &closed, &fast}) room.add(each->member);
  stuck.queue->stall();
  closed.queue->close();
  std::string const big(100, 'x');
  room.broadcast("", block(big));
  room.broadcast("", block("y"));
  CHECK(fast.take() == big + "y");
  CHECK(closed.take().empty());
  CHECK(stuck.take().empty());
  CHECK_FALSE(stuck.queue->is_open());
}

TEST_CASE("a broadcast is over before another one begins", "[room]") {
  Room room;
  Listener first("first"), between("between"), last("last");
  for (auto* each : {&first, &between, &last}) room.add(each->member);
  std::future<void> other;
  between.queue->on_wake = [&] {  // the first broadcast is half done
    other = std::async(std::launch::async, [&] { room.broadcast("between", block("2")); });
    other.wait_for(std::chrono::milliseconds(100));
  };
  room.broadcast("", block("1"));
  other.wait();
  CHECK(first.take() == "12");
  CHECK(between.take() == "1");
  CHECK(last.take() == "12");
}

TEST_CASE("a room has one order, whoever broadcasts", "[room]") {
  Room room;
  Listener listeners[] = {Listener("a"), Listener("b"), Listener("c")};
  for (auto& each : listeners) room.add(each.member);
  std::vector<std::thread> threads;
  for (auto const* text : {"0", "1", "2"})
    threads.emplace_back([&room, text] {
      for (auto i = 0; i < 1000; ++i) room.broadcast("", block(text));
    });
  Listener passer("passer");
  threads.emplace_back([&room, &passer] {
    for (auto i = 0; i < 1000; ++i) {
      room.add(passer.member);
      room.remove(passer.member);
    }
  });
  for (auto& thread : threads) thread.join();
  auto const order = listeners[0].take();
  CHECK(order.size() == 3000);
  CHECK(listeners[1].take() == order);
  CHECK(listeners[2].take() == order);
}

TEST_CASE("an empty stay is nowhere", "[room]") {
  Stay const stay;
  CHECK_FALSE(stay);
}

TEST_CASE("a room is there from the first who enters to the last who leaves", "[room]") {
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

TEST_CASE("a stay can be moved and then holds its room alone", "[room]") {
  RoomTable table;
  auto first = table.enter("cafe");
  auto* const room = &first.room();
  {
    auto const second = std::move(first);
    CHECK_FALSE(first);  // NOLINT(bugprone-use-after-move): empty is what it must be
    CHECK(second);
    CHECK(&second.room() == room);
    CHECK(table.size() == 1);
  }
  CHECK(table.size() == 0);
}

TEST_CASE("a stay that is assigned to leaves its old room", "[room]") {
  RoomTable table;
  auto stay = table.enter("cafe");
  stay = table.enter("bar");
  CHECK(stay.name() == "bar");
  CHECK(table.size() == 1);
  stay = table.enter("bar");  // the same again
  CHECK(table.size() == 1);
  auto& same = stay;
  stay = std::move(same);
  CHECK(stay);
  CHECK(table.size() == 1);
}

TEST_CASE("rooms keep their place while others come and go", "[room]") {
  RoomTable table;
  auto const stay = table.enter("cafe");
  auto* const room = &stay.room();
  std::vector<Stay> others;
  for (auto i = 0; i < 1000; ++i) others.push_back(table.enter("room" + std::to_string(i)));
  CHECK(table.size() == 1001);
  others.clear();
  CHECK(table.size() == 1);
  CHECK(&stay.room() == room);
  CHECK(stay.name() == "cafe");
}

TEST_CASE("rooms are entered and left by many threads", "[room]") {
  RoomTable table;
  std::vector<std::thread> threads;
  for (auto t = 0; t < 4; ++t)
    threads.emplace_back([&table, t] {
      Listener listener("user" + std::to_string(t));
      for (auto i = 0; i < 2000; ++i) {
        auto const stay = table.enter(std::to_string(i % 3));
        stay.room().add(listener.member);
        stay.room().broadcast("", block("x"));
        stay.room().remove(listener.member);
      }
    });
  for (auto& thread : threads) thread.join();
  CHECK(table.size() == 0);
}
