// SPDX-License-Identifier: BSL-1.0
#include <chatproto/room.hpp>

#include <chrono>
#include <cstddef>
#include <future>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "sanitized.hpp"
#include "support.hpp"

using chatproto::Overflow;
using chatproto::Peer;
using chatproto::Room;
using test::RecordingQueue;

static_assert(!std::is_copy_constructible_v<Room> && !std::is_copy_constructible_v<Room::Member>);

namespace {

struct Listener {
  explicit Listener(std::string name, std::size_t limit = RecordingQueue::default_limit,
                    Overflow overflow = Overflow::disconnect)
      : queue(std::make_shared<RecordingQueue>(limit, overflow)), member(std::move(name), Peer(queue)) {}

  std::string take() { return queue->take(); }
  /// Takes `bytes` bytes of what comes next, as a socket that then is full. Returns them.
  std::string take_some(std::size_t bytes) {
    chatproto::RoomLog::Pieces pieces;
    if (!member.read(pieces)) return {};
    auto const taken = test::text_of(pieces).substr(0, bytes);
    std::string rest;
    member.advance(pieces, bytes, rest);
    return taken + rest;
  }

  std::shared_ptr<RecordingQueue> queue;
  Room::Member member;
};

}  // namespace

TEST_CASE("a member has a name and a peer", "[room]") {
  Listener alice("alice");
  CHECK(alice.member.name() == "alice");
  alice.member.peer().queue().push(test::block("x"));
  CHECK(alice.take() == "x");
}

TEST_CASE("a broadcast goes to all members with other names", "[room]") {
  Room room;
  Listener alice("alice"), alice_too("alice"), bob("bob"), capital("Alice"), longer("alice1");
  CHECK(room.broadcast("nobody", "lost") == 0);  // the room is empty
  for (auto* each : {&alice, &alice_too, &bob, &capital, &longer}) room.add(each->member);
  CHECK(room.broadcast("alice", "a") == 3);
  CHECK(room.broadcast("bob", "b") == 4);
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
  CHECK(room.send_to("alice", "a") == 2);
  CHECK(room.send_to("nobody", "n") == 0);
  CHECK(alice.take() == "a");
  CHECK(alice_too.take() == "a");
  CHECK(bob.take().empty());
  CHECK(capital.take().empty());
}

TEST_CASE("a text is kept once, until everybody has read it", "[room]") {
  Room room;
  Listener listeners[] = {Listener("a"), Listener("b"), Listener("c")}, sleeper("d");
  for (auto& each : listeners) room.add(each.member);
  room.add(sleeper.member);
  std::string const text(100'000, 'x');
  room.broadcast("d", text);
  CHECK((room.memory() >= text.size() && room.memory() < text.size() + 1000));
  for (auto& each : listeners) CHECK((each.take() == text));
  CHECK(room.memory() == 0);
  room.send_to("d", text);
  CHECK((sleeper.take() == text));
  CHECK(room.memory() == 0);
}

TEST_CASE("a removed member gets nothing more, whichever member it is", "[room]") {
  for (auto const gone : {0u, 1u, 2u, 3u}) {
    CAPTURE(gone);
    Room room;
    Listener listeners[] = {Listener("a"), Listener("b"), Listener("c"), Listener("d")};
    for (auto& each : listeners) room.add(each.member);
    std::string heard[4];
    room.broadcast("", "1");
    heard[gone] = room.remove(listeners[gone].member);
    room.broadcast("", "2");
    for (auto const other : {3u, 0u, 2u, 1u})  // members that moved in the list can still be removed
      if (other != gone) heard[other] = room.remove(listeners[other].member);
    room.broadcast("", "3");
    room.add(listeners[gone].member);
    room.broadcast("", "4");
    heard[gone] += listeners[gone].take();
    for (auto i = 0u; i < 4; ++i) CHECK(heard[i] == (i == gone ? "14" : "12"));
    room.remove(listeners[gone].member);
  }
}

TEST_CASE("a member that is aborted or closed takes nothing from the others", "[room]") {
  Room room;
  Listener stuck("stuck", 100), closed("closed"), fast("fast");
  for (auto* each : {&stuck, &closed, &fast}) room.add(each->member);
  closed.queue->close();
  stuck.queue->abort();
  std::string const big(100, 'x');
  room.broadcast("", big);
  room.broadcast("", "y");
  CHECK(fast.take() == big + "y");
  CHECK(stuck.queue->state == RecordingQueue::State::open);
}

TEST_CASE("what a member that moves has not read is handed to it", "[room]") {
  Room room;
  Listener alice("alice"), bob("bob");
  room.add(alice.member);
  room.add(bob.member);
  CHECK(room.remove(alice.member).empty());
  room.add(alice.member);
  room.broadcast("bob", "1\n");
  room.send_to("bob", "private\n");
  room.broadcast("bob", "2\n");
  SECTION("all of it") {
    CHECK(room.remove(alice.member) == "1\n2\n");
  }
  SECTION("from the end of a line") {
    CHECK(alice.take_some(1) == "1\n");
    CHECK(room.remove(alice.member) == "2\n");
  }
  SECTION("but not if it is gone") {
    alice.queue->abort();
    CHECK(room.remove(alice.member).empty());
  }
  CHECK(bob.take() == "private\n");
  CHECK(room.memory() <= 1024);
}

TEST_CASE("a member that finishes reads what stands in the log, and nothing that comes later", "[room]") {
  Room room;
  Listener alice("alice"), bob("bob");
  room.add(alice.member);
  room.add(bob.member);
  SECTION("which may be nothing") {
    alice.member.finish();
    CHECK(room.broadcast("", "1\n") == 1);
    CHECK(alice.take().empty());
  }
  SECTION("or something") {
    room.broadcast("", "1\n2\n");
    CHECK(alice.take_some(2) == "1\n");
    alice.member.finish();
    room.broadcast("", "3\n");
    alice.member.finish();  // a second call has no effect
    CHECK(alice.take() == "2\n");
    room.broadcast("", "4\n");
    CHECK(alice.take().empty());
  }
  room.remove(alice.member);
  bob.take();
}

// --- Members that do not read ----------------------------------------------------------------------------------------

std::string const hundred_bytes = std::string(99, 'x') + '\n';

namespace {

/// A member of a room, whose session pauses the client if the room tells it to.
struct PausingListener : Listener {
  explicit PausingListener(Room& its_room) : Listener("alice", 160), room(its_room) { room.add(member); }

  std::optional<std::string> try_take_unread() {
    auto unread = room.try_take_unread(member);
    pause(!unread);
    return unread;
  }
  bool try_finish() {
    auto const may_be_removed = room.try_finish(member);
    pause(!may_be_removed);
    return may_be_removed;
  }
  bool waits() const {
    CHECK(member.waits() == queue->paused);
    return queue->paused;
  }

  Room& room;

 private:
  void pause(bool must) {
    CHECK(member.waits() == must);
    queue->paused = must;
  }
};

}  // namespace

TEST_CASE("what a member that is not far behind has not read is copied", "[room]") {
  Room room;
  PausingListener alice(room);
  CHECK(alice.try_take_unread() == "");
  room.broadcast("bob", "ten bytes\n");
  SECTION("when its session sends something") {
    CHECK(alice.try_take_unread() == "ten bytes\n");
    room.broadcast("bob", "eleven bytes\n");
    CHECK(alice.take() == "eleven bytes\n");
  }
  SECTION("when it leaves; what is said meanwhile is not") {
    CHECK(alice.try_finish());
    CHECK(room.broadcast("bob", "eleven bytes\n") == 0);
    CHECK(room.remove(alice.member) == "ten bytes\n");
  }
  SECTION("when it leaves, if it has read less") {
    CHECK(alice.take() == "ten bytes\n");
    CHECK(alice.try_finish());
    CHECK(room.broadcast("bob", "eleven bytes\n") == 0);
    CHECK(room.remove(alice.member).empty());
  }
  CHECK(room.memory() == 0);
}

TEST_CASE("a member that is far behind reads on before its session sends something", "[room]") {
  Room room;
  PausingListener alice(room);
  room.broadcast("bob", "ten bytes\n");
  room.broadcast("bob", "2\n");

  SECTION("and gets what is said meanwhile after that") {
    REQUIRE_FALSE(alice.try_take_unread());
    room.broadcast("bob", "3\n");
    CHECK(alice.take_some(4) == "ten bytes\n");
    CHECK(alice.waits());
    CHECK(alice.take() == "2\n");
    CHECK_FALSE(alice.waits());
    CHECK(alice.take().empty());
    auto const wakes = alice.queue->wakes;
    CHECK(alice.try_take_unread() == "");
    CHECK(alice.queue->wakes > wakes);
    CHECK(alice.take() == "3\n");
  }
  SECTION("however much that is, and however early its session tries again") {
    std::string twenty_lines;
    REQUIRE_FALSE(alice.try_take_unread());
    for (auto i = 0; i < 20; ++i) room.broadcast("bob", "3\n"), twenty_lines += "3\n";
    CHECK_FALSE(alice.try_take_unread());
    CHECK(alice.take_some(4) == "ten bytes\n");
    CHECK(alice.try_take_unread() == "2\n");
    CHECK_FALSE(alice.member.waits());
    CHECK(alice.take() == twenty_lines);
  }
  SECTION("and sleeps if nothing was said meanwhile") {
    REQUIRE_FALSE(alice.try_take_unread());
    CHECK(alice.take() == "ten bytes\n2\n");
    CHECK_FALSE(alice.waits());
    CHECK(alice.try_take_unread() == "");
    auto const wakes = alice.queue->wakes;
    room.broadcast("bob", "3\n");
    CHECK(alice.queue->wakes > wakes);
    CHECK(alice.take() == "3\n");
  }
  SECTION("also if all that is said meanwhile is for others") {
    REQUIRE_FALSE(alice.try_take_unread());
    room.broadcast("alice", "3\n");
    CHECK(alice.take() == "ten bytes\n2\n");
    CHECK_FALSE(alice.waits());
    CHECK(alice.try_take_unread() == "");
    CHECK(alice.take().empty());
    CHECK(room.memory() == 0);
  }
  SECTION("and gets nothing that is said meanwhile if it leaves") {
    Listener carol("carol");
    room.add(carol.member);
    REQUIRE_FALSE(alice.try_finish());
    CHECK(room.roster(100).names == std::vector<std::string>{"carol"});
    CHECK(room.broadcast("bob", "3\n") == 1);
    CHECK(alice.take() == "ten bytes\n2\n");
    CHECK_FALSE(alice.waits());
    CHECK(alice.try_finish());
    CHECK(room.remove(alice.member).empty());
    CHECK(room.size() == 1);
    CHECK(carol.take() == "3\n");
  }
  SECTION("unless its session sends something all the same") {
    REQUIRE_FALSE(alice.try_take_unread());
    room.broadcast("bob", "3\n");
    CHECK(room.take_unread(alice.member) == "ten bytes\n2\n");
    CHECK_FALSE(alice.waits());
    CHECK(alice.take() == "3\n");
  }
  SECTION("or leaves all the same") {
    REQUIRE_FALSE(alice.try_take_unread());
    CHECK(room.remove(alice.member) == "ten bytes\n2\n");
    CHECK_FALSE(alice.waits());
    room.add(alice.member);
    room.broadcast("bob", "3\n");
    CHECK(alice.take() == "3\n");
  }
  SECTION("or its client is closed") {
    REQUIRE_FALSE(alice.try_take_unread());
    room.broadcast("bob", "3\n");
    alice.member.finish();
    CHECK(alice.take() == "ten bytes\n2\n3\n");
    CHECK_FALSE(alice.waits());
  }
  SECTION("or it is disconnected, because it is slow") {
    auto const leaves = GENERATE(false, true);
    REQUIRE_FALSE((leaves ? alice.try_finish() : alice.try_take_unread().has_value()));
    Listener carol("carol");
    room.add(carol.member);
    for (auto i = 0; i < 10'000 && alice.waits(); ++i) room.broadcast("bob", "ten bytes\n");
    CHECK_FALSE(alice.waits());
    CHECK(alice.queue->is_cut());
    CHECK_FALSE(carol.queue->is_cut());
    CHECK(room.size() == 1);
  }
  SECTION("or was disconnected before") {
    alice.queue->abort();
    CHECK(alice.try_take_unread() == "");
    CHECK(alice.try_finish());
    CHECK(room.memory() == 0);
  }
}

TEST_CASE("a member that waits for its own client can wait for slow members, too", "[room]") {
  Room room;
  PausingListener alice(room);
  Listener slow("slow", 160, Overflow::block_sender);
  room.add(slow.member);
  while (!room.makes_senders_wait()) room.broadcast("alice", "ten bytes\n");
  room.broadcast("bob", "eleven bytes\n");
  REQUIRE_FALSE(alice.try_take_unread());
  REQUIRE(room.must_wait(alice.member));
  alice.take();
  CHECK(alice.member.waits());
  slow.take();
  CHECK_FALSE(alice.member.waits());
  CHECK_FALSE(alice.queue->paused);
}

TEST_CASE("a member whose thread is busy is not disconnected within the hard limit, however far behind", "[room]") {
  Room room;
  Listener busy("busy", 1000);
  room.add(busy.member);
  for (auto i = 0; i < 600; ++i) room.broadcast("", hundred_bytes);
  CHECK(busy.queue->wakes == 1);
  CHECK(busy.queue->is_open());
  CHECK(busy.take().size() == 60'000);
}

TEST_CASE("senders wait while a link writes from a log that has reached the hard limit", "[room]") {
  Room room;
  Listener busy("busy", 1000), sender("sender");
  room.add(busy.member);
  room.broadcast("", hundred_bytes);
  chatproto::RoomLog::Pieces pieces;
  REQUIRE(busy.member.read(pieces));  // its thread is late now
  auto texts = 1;
  for (; texts < 10'000 && !room.makes_senders_wait(); ++texts) room.broadcast("", hundred_bytes);
  CHECK(texts == 640);  // 64 times its limit
  sender.queue->paused = room.must_wait(sender.member);
  REQUIRE(sender.queue->paused);
  CHECK(busy.queue->is_open());
  SECTION("it has not read on by the next text and is disconnected") {
    std::string rest;
    busy.member.advance(pieces, pieces.size, rest);
    CHECK_FALSE(sender.queue->paused);
    CHECK(busy.queue->is_open());
    room.broadcast("", hundred_bytes);
    CHECK(busy.take().empty());
    CHECK(busy.queue->state == RecordingQueue::State::overflowed);
    CHECK(room.memory() == 0);
  }
  SECTION("it reads on") {
    std::string rest;
    busy.member.advance(pieces, pieces.size, rest);
    CHECK_FALSE(sender.queue->paused);
    CHECK(busy.take().size() == 63'900);
    room.broadcast("", hundred_bytes);
    CHECK(busy.take() == hundred_bytes);
  }
  SECTION("it leaves") {
    busy.queue->abort();
    room.remove(busy.member);
    CHECK_FALSE(sender.queue->paused);
  }
  CHECK_FALSE(room.makes_senders_wait());
  CHECK_FALSE(sender.member.waits());
}

TEST_CASE("a member that does not read is disconnected late, and the others lose nothing", "[room]") {
  Room room;
  Listener slow("slow", 1000), fast("fast", 1000);
  room.add(slow.member);
  room.add(fast.member);
  SECTION("one that is slow is asked to try again, and only then cut by its link") {
    room.broadcast("", hundred_bytes);
    CHECK(slow.take_some(50) == hundred_bytes);
    slow.queue->stall();  // its socket accepted half a line; the rest waits in the queue
    auto const wakes = slow.queue->wakes;
    for (auto i = 0; i < 10; ++i) room.broadcast("", hundred_bytes);
    CHECK(slow.queue->wakes == wakes);  // still within its limit
    for (auto i = 0; i < 10; ++i) room.broadcast("", hundred_bytes);
    CHECK(slow.queue->wakes == wakes + 1);
    CHECK(slow.queue->is_open());
    CHECK(slow.member.backlog() == 2000);
    CHECK(fast.take().size() == 2100);
  }
  SECTION("one beyond the hard limit is cut by the room") {
    std::size_t heard = 0;
    for (auto i = 0; i < 1000; ++i) {
      room.broadcast("", hundred_bytes);
      heard += fast.take().size();
    }
    CHECK(heard == 100'000);
    CHECK_FALSE(slow.queue->is_open());
    CHECK(slow.take().empty());
    CHECK(slow.queue->state == RecordingQueue::State::overflowed);
    CHECK(room.memory() < 1000);
    CHECK(room.remove(slow.member).empty());
    CHECK(fast.queue->is_open());
  }
}

TEST_CASE("senders wait for members whose queues block senders", "[room]") {
  Room room;
  Listener slow("slow", 1000, Overflow::block_sender), second("second", 1000, Overflow::block_sender), bob("bob"),
      carol("carol");
  room.add(slow.member);
  room.add(second.member);
  auto resumed = 0;
  bob.queue->on_resume = carol.queue->on_resume = [&] { ++resumed; };
  for (auto i = 0; i < 10; ++i) room.broadcast("bob", hundred_bytes);
  CHECK_FALSE(room.must_wait(bob.member));
  room.broadcast("bob", hundred_bytes);
  REQUIRE(room.must_wait(bob.member));
  CHECK(room.must_wait(bob.member));  // continues the same wait
  CHECK(room.must_wait(carol.member));
  CHECK(bob.member.waits());
  second.take();
  CHECK(resumed == 0);
  SECTION("until half of the limit is free") {
    slow.take_some(500);  // 600 remain
    CHECK(resumed == 0);
    slow.take_some(100);
  }
  SECTION("until they are gone") {
    room.remove(slow.member);
  }
  SECTION("until they have read all") {
    slow.take();
  }
  SECTION("unless the senders leave") {
    room.stop_waiting(bob.member);
    room.stop_waiting(bob.member);  // a second call has no effect
    slow.take();
    CHECK(resumed == 1);
    resumed = 2;
  }
  CHECK(resumed == 2);
  CHECK_FALSE(bob.member.waits());
  CHECK_FALSE(carol.member.waits());
  CHECK_FALSE(room.must_wait(bob.member));
  slow.take();
}

#if !CHATPROTO_SANITIZED  // sanitizers end the program when it asks for this much
TEST_CASE("a text for which there is no memory is not sent to anybody", "[room]") {
  Room room;
  Listener alice("alice");
  room.add(alice.member);
  CHECK_THROWS_AS(room.broadcast("", std::string_view(alice.member.name().data(), ~std::size_t() / 2)), std::bad_alloc);
  CHECK(alice.queue->wakes == 0);
  room.broadcast("", "1\n");
  CHECK(alice.take() == "1\n");
}
#endif

TEST_CASE("a broadcast is over before another one begins", "[room]") {
  Room room;
  Listener first("first"), between("between"), last("last");
  for (auto* each : {&first, &between, &last}) room.add(each->member);
  std::future<void> other;
  between.queue->on_wake = [&] {  // while the first broadcast is half done
    other = std::async(std::launch::async, [&] { room.broadcast("between", "2"); });
    other.wait_for(std::chrono::milliseconds(100));
  };
  room.broadcast("", "1");
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
      for (auto i = 0; i < 1000; ++i) room.broadcast("", text);
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
