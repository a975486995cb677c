// SPDX-License-Identifier: BSL-1.0
#include <chatproto/peer.hpp>

#include <chatproto/executor.hpp>

#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <unordered_set>

#include "catch.hpp"
#include "support.hpp"

using chatproto::MessageQueue;
using chatproto::Peer;
using chatproto::PushResult;
using test::block;
using test::Lines;
using test::RecordingQueue;

static_assert(std::is_nothrow_copy_constructible_v<Peer> && std::is_nothrow_move_constructible_v<Peer>);
static_assert(std::is_copy_assignable_v<Peer> && std::is_move_assignable_v<Peer>);
static_assert(!std::is_default_constructible_v<Peer>);

TEST_CASE("a peer puts what it sends into its queue", "[peer]") {
  auto const queue = std::make_shared<RecordingQueue>();
  Peer const peer(queue);
  auto const shared = block("ok:\nok:\n");
  CHECK(peer.send(shared) == PushResult::queued);
  CHECK(shared.use_count() == 2);
  CHECK(peer.send(std::string("err:\n")) == PushResult::queued);
  CHECK(queue->take_blocks() == Lines{"ok:\nok:\n", "err:\n"});
}

TEST_CASE("send_line appends the newline", "[peer]") {
  auto const queue = std::make_shared<RecordingQueue>();
  Peer const peer(queue);
  CHECK(peer.send_line("ok:") == PushResult::queued);
  CHECK(peer.send_line("") == PushResult::queued);
  CHECK(queue->take() == "ok:\n\n");
}

TEST_CASE("peers are equal if they refer to the same client", "[peer]") {
  auto const queue = std::make_shared<RecordingQueue>();
  Peer const peer(queue), same(queue), other(std::make_shared<RecordingQueue>());
  CHECK(peer == same);
  CHECK(peer != other);
  CHECK(std::hash<Peer>()(peer) == std::hash<Peer>()(same));
  CHECK(std::unordered_set<Peer>{peer, same, other}.size() == 2);
}

TEST_CASE("a client without a server has no number and no executor, and runs no task", "[peer]") {
  Peer const peer(std::make_shared<RecordingQueue>());
  CHECK(peer.id() == 0);
  CHECK_FALSE(peer.post([] { FAIL("was run"); }));
  CHECK_FALSE(chatproto::executor_of(peer));
}

TEST_CASE("copies of a peer are the same peer", "[peer]") {
  auto const queue = std::make_shared<RecordingQueue>(), other = std::make_shared<RecordingQueue>();
  Peer const peer(queue);
  auto copy = peer;
  copy.send("a:\n");
  peer.send("b:\n");
  copy = Peer(other);
  copy.send("c:\n");
  CHECK(queue->take() == "a:\nb:\n");
  CHECK(other->take() == "c:\n");
}

TEST_CASE("a peer can be paused and resumed, if its queue knows how", "[peer]") {
  auto const queue = std::make_shared<RecordingQueue>();
  Peer const peer(queue);
  peer.pause();
  CHECK(queue->paused);
  peer.resume();
  CHECK_FALSE(queue->paused);
  struct Deaf : MessageQueue {
    void wake() override {}
  };
  auto const deaf = std::make_shared<Deaf>();
  Peer(deaf).pause();
  Peer(deaf).resume();
  CHECK(deaf->is_open());
}

TEST_CASE("close lets what was sent be written, abort drops it", "[peer]") {
  auto const queue = std::make_shared<RecordingQueue>();
  Peer const peer(queue);
  peer.send("a:\n");

  SECTION("close") {
    peer.close();
    CHECK(peer.send("b:\n") == PushResult::closed);
    CHECK(queue->take() == "a:\n");
    CHECK(queue->state == MessageQueue::State::closing);
  }
  SECTION("abort") {
    peer.abort();
    CHECK(peer.send("b:\n") == PushResult::closed);
    CHECK(queue->take().empty());
    CHECK(queue->state == MessageQueue::State::aborted);
  }
}

TEST_CASE("a peer reports an overflow of its queue", "[peer]") {
  auto const queue = std::make_shared<RecordingQueue>(100);
  Peer const peer(queue);
  CHECK(peer.send_line(std::string(100 * MessageQueue::hard_limit_factor, 'x')) == PushResult::overflow);
  CHECK_FALSE(peer.is_open());
  CHECK(peer.send("a:\n") == PushResult::closed);
}

TEST_CASE("a peer may outlive its connection", "[peer]") {
  auto queue = std::make_shared<RecordingQueue>();
  Peer const peer(queue);
  queue->finish();
  queue.reset();
  CHECK(peer.send("a:\n") == PushResult::closed);
  peer.close();
  peer.abort();
}
