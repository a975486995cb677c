// SPDX-License-Identifier: BSL-1.0
#include <chatproto/message_queue.hpp>

#include <chatproto/blocking_message_queue.hpp>
#include <chatproto/peer.hpp>

#include <chrono>
#include <cstddef>
#include <initializer_list>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "sanitized.hpp"
#include "support.hpp"

using namespace std::chrono_literals;
using chatproto::BlockingMessageQueue;
using chatproto::MessageQueue;
using chatproto::PushResult;
using test::block;
using test::Lines;
using test::RecordingQueue;
using State = MessageQueue::State;

static_assert(!std::is_copy_constructible_v<MessageQueue>);

namespace {

constexpr auto no_limit = std::size_t(1) << 40;

/// How many blocks of `size` bytes the queue takes before it is cut, up to `most`.
std::size_t capacity(MessageQueue& queue, std::size_t size, std::size_t most = 1'000'000) {
  auto const one = block(std::string(size, 'x'));
  for (std::size_t n = 0; n < most; ++n)
    if (queue.push(one) != PushResult::queued) return n;
  return most;
}

/// What a consumer would write of `batch`.
std::string bytes_of(MessageQueue::Batch const& batch) {
  std::string bytes;
  for (auto const& each : batch.blocks) bytes += *each;
  return bytes.erase(0, batch.offset);
}

}  // namespace

TEST_CASE("a queue gives its blocks in the order of the pushes", "[message_queue]") {
  RecordingQueue queue;
  CHECK(queue.take_blocks().empty());
  for (auto const* bytes : {"a", "b", "", "c"}) CHECK(queue.push(block(bytes)) == PushResult::queued);
  CHECK(queue.take_blocks() == Lines{"a", "b", "", "c"});
  CHECK(queue.take_blocks().empty());
  CHECK(queue.push(block("d")) == PushResult::queued);
  CHECK(queue.take_blocks() == Lines{"d"});
  CHECK(queue.state == State::open);
}

TEST_CASE("a block is shared, not copied, and freed with its last queue", "[message_queue]") {
  RecordingQueue one, two;
  auto shared = block("hi");
  std::weak_ptr const watch = shared;
  one.push(shared);
  two.push(std::move(shared));
  CHECK(watch.use_count() == 2);

  MessageQueue::Batch batch;
  one.drain(batch);
  CHECK(batch.blocks.front() == watch.lock());
  one.drain(batch);  // drops the batch's old content
  CHECK(watch.use_count() == 1);
  two.abort();
  CHECK(watch.expired());
}

TEST_CASE("an empty queue holds no storage", "[message_queue]") {
  MessageQueue::Batch batch;
  auto const one = block("hi");
  RecordingQueue queue;
  auto& counted = test::allocations();
  counted = {};
  for (auto again = 0; again < 3; ++again) {  // also when the batch has had storage before
    for (auto i = 0; i < 100; ++i) queue.push(one);
    queue.drain(batch);
  }
  batch = {};
  auto const after = counted;
  CHECK((after.made > 0 || CHATPROTO_SANITIZED));
  CHECK(after.live == 0);
}

TEST_CASE("the consumer is woken once until it drains", "[message_queue]") {
  RecordingQueue queue;
  queue.push(block("a"));
  queue.push(block("b"));
  CHECK(queue.wakes == 1);
  queue.take();
  CHECK(queue.wakes == 1);
  queue.push(block("c"));
  CHECK(queue.wakes == 2);

  SECTION("the end wakes it too, unless it is awake") {
    auto const awake = GENERATE(false, true);
    auto const end = GENERATE(&MessageQueue::close, &MessageQueue::abort);
    if (!awake) queue.take();
    (queue.*end)();
    CHECK(queue.wakes == (awake ? 2 : 3));
    (queue.*end)();
    CHECK(queue.wakes == (awake ? 2 : 3));
    CHECK(queue.push(block("d")) == PushResult::closed);
    CHECK(queue.wakes == (awake ? 2 : 3));
  }
}

TEST_CASE("a stalled consumer is woken by no block, only by the abort", "[message_queue]") {
  RecordingQueue queue;
  queue.stall();
  CHECK(queue.wakes == 1);
  queue.push(block("a"));
  queue.close();
  CHECK(queue.wakes == 1);

  SECTION("abort") {
    queue.abort();
    CHECK(queue.wakes == 2);
  }
  SECTION("until it drains") {
    queue.take();
    CHECK(queue.wakes == 1);
    CHECK(queue.state == State::closing);
  }
}

TEST_CASE("after a drain a block wakes a consumer that was stalled", "[message_queue]") {
  RecordingQueue queue;
  queue.stall();
  queue.take();
  queue.push(block("a"));
  CHECK(queue.wakes == 2);
}

TEST_CASE("close: takes no more, keeps what it has", "[message_queue]") {
  RecordingQueue queue;
  queue.push(block("a"));
  CHECK(queue.is_open());
  queue.close();
  CHECK_FALSE(queue.is_open());
  CHECK(queue.push(block("b")) == PushResult::closed);
  CHECK(queue.take() == "a");
  CHECK(queue.state == State::closing);
}

TEST_CASE("abort: takes no more and drops what it has, also after close", "[message_queue]") {
  auto const closed_before = GENERATE(false, true);
  RecordingQueue queue;
  auto one = block("a");
  std::weak_ptr const watch = one;
  queue.push(std::move(one));
  if (closed_before) queue.close();
  queue.abort();
  CHECK(watch.expired());
  CHECK_FALSE(queue.is_open());
  CHECK(queue.push(block("b")) == PushResult::closed);
  queue.close();  // does not bring it back
  CHECK(queue.take().empty());
  CHECK(queue.state == State::aborted);
}

TEST_CASE("finish: as abort, but nobody is woken any more", "[message_queue]") {
  auto const drained = GENERATE(false, true);
  RecordingQueue queue;
  auto one = block("a");
  std::weak_ptr const watch = one;
  queue.push(std::move(one));
  if (drained) queue.take();
  queue.finish();
  CHECK(watch.expired());
  CHECK_FALSE(queue.is_open());
  CHECK(queue.push(block("b")) == PushResult::closed);
  queue.close();
  queue.abort();
  CHECK(queue.wakes == 1);  // by the first push
  CHECK(queue.take().empty());
  CHECK(queue.state == State::aborted);
}

TEST_CASE("put_back: what was not written is first again, at every split", "[message_queue]") {
  std::string const all = "abcdefghi";
  for (std::size_t first = 0; first < all.size(); ++first) {
    for (auto second = first; second < all.size(); ++second) {
      CAPTURE(first, second);
      RecordingQueue queue;
      MessageQueue::Batch batch;
      for (auto const* bytes : {"ab", "c", "", "defg", "hi"}) queue.push(block(bytes));
      queue.drain(batch);
      queue.push(block("+"));  // while the consumer writes
      queue.put_back(batch, first);
      CHECK(batch.blocks.empty());
      queue.push(block("-"));

      queue.drain(batch);
      CHECK(bytes_of(batch) == all.substr(first) + "+-");
      queue.put_back(batch, second - first);
      queue.drain(batch);
      CHECK(bytes_of(batch) == all.substr(second) + "+-");
      queue.drain(batch);
      CHECK(bytes_of(batch).empty());
      CHECK(batch.offset == 0);
    }
  }
}

TEST_CASE("put_back into a queue that was ended meanwhile", "[message_queue]") {
  RecordingQueue queue;
  MessageQueue::Batch batch;
  auto one = block("abc");
  std::weak_ptr const watch = one;
  queue.push(std::move(one));
  queue.drain(batch);

  SECTION("close keeps it") {
    queue.close();
    queue.put_back(batch, 1);
    CHECK(queue.take() == "bc");
    CHECK(queue.state == State::closing);
  }
  SECTION("abort drops it") {
    queue.abort();
    queue.put_back(batch, 1);
    CHECK(watch.expired());
    CHECK(queue.take().empty());
    CHECK(queue.state == State::aborted);
  }
}

TEST_CASE("a stalled queue takes its limit, each block with its own cost", "[message_queue]") {
  constexpr auto cost = MessageQueue::entry_cost;
  RecordingQueue queue(1000 * (1 + cost));
  queue.stall();

  SECTION("bytes and blocks count, those put back too") {
    CHECK(capacity(queue, 1) == 999);
  }
  SECTION("to the byte") {
    auto const left = 999 * (1 + cost) - cost;
    auto const size = left + GENERATE(0u, 1u);
    CHECK(queue.push(block(std::string(size, 'x'))) == (size == left ? PushResult::queued : PushResult::overflow));
  }
  SECTION("what was written does not count") {
    MessageQueue::Batch batch;
    queue.push(block(std::string(10 * (1 + cost), 'x')));
    queue.drain(batch);
    queue.put_back(batch, 1 + 10 * (1 + cost) - 1);  // one byte of the second block is left
    CHECK(capacity(queue, 1) == 999);
  }
}

TEST_CASE("the limit has a default", "[message_queue]") {
  RecordingQueue queue;
  queue.stall(MessageQueue::default_limit - MessageQueue::entry_cost);
  CHECK(queue.push(block("")) == PushResult::overflow);
}

TEST_CASE("a limit may be as good as none", "[message_queue]") {
  constexpr auto most = std::numeric_limits<std::size_t>::max();
  for (auto const limit : {most, most / MessageQueue::burst, most / MessageQueue::burst + 1}) {
    CAPTURE(limit);
    RecordingQueue queue(limit);
    CHECK(queue.push(block("a")) == PushResult::queued);
    queue.stall();
    CHECK(queue.push(block("b")) == PushResult::queued);
  }
}

TEST_CASE("a queue that overflows is cut", "[message_queue]") {
  RecordingQueue queue(1000);
  auto one = block("a");
  std::weak_ptr const watch = one;
  queue.stall();
  queue.push(std::move(one));
  CHECK(queue.push(block(std::string(1000, 'x'))) == PushResult::overflow);
  CHECK(watch.expired());
  CHECK(queue.wakes == 2);  // the consumer must end it now
  CHECK_FALSE(queue.is_open());
  CHECK(queue.push(block("b")) == PushResult::closed);
  CHECK(queue.take().empty());
  CHECK(queue.state == State::overflowed);
}

TEST_CASE("before its consumer has stalled, a queue takes a burst beyond its limit", "[message_queue]") {
  constexpr auto cost = 1 + MessageQueue::entry_cost;
  RecordingQueue queue(10 * cost);
  CHECK(capacity(queue, 1) == 10 * MessageQueue::burst);

  SECTION("and again once it has drained, though it was stalled before") {
    RecordingQueue other(10 * cost);
    other.stall();
    other.take();
    CHECK(capacity(other, 1) == 10 * MessageQueue::burst);
  }
  SECTION("a burst that is put back is cut by the next block") {
    RecordingQueue other(10 * cost);
    MessageQueue::Batch batch;
    CHECK(capacity(other, 1, 20) == 20);
    other.drain(batch);
    other.put_back(batch, 0);
    CHECK(other.is_open());
    CHECK(other.push(block("a")) == PushResult::overflow);
  }
}

// --- Blocking senders -------------------------------------------------------------------------------------------------

namespace {

/// One who can wait.
struct Speaker {
  std::shared_ptr<RecordingQueue> queue = std::make_shared<RecordingQueue>();
  int resumed = 0;
  Speaker() {
    queue->on_resume = [this] { ++resumed; };
  }

  /// Pushes a block of `size` bytes to all of these; whether it must wait.
  bool says(std::size_t size, std::initializer_list<MessageQueue*> listeners) {
    auto pressure = peer.pressure(hold.lock());
    for (auto* const each : listeners)
      CHECK(each->push(block(std::string(size, 'x')), &pressure) == PushResult::queued);
    hold = pressure.hold();
    return pressure.hold() != nullptr;
  }
  chatproto::Peer peer{queue};
  std::weak_ptr<void const> hold;
};

RecordingQueue blocking(std::size_t limit) { return RecordingQueue(limit, chatproto::Overflow::block_sender); }

}  // namespace

TEST_CASE("a queue that blocks senders takes what breaks its limit, and its sender waits", "[message_queue]") {
  auto queue = blocking(1000);
  Speaker bob;
  CHECK_FALSE(bob.says(1000 - MessageQueue::entry_cost, {&queue}));  // it just fits
  CHECK(bob.says(10'000, {&queue}));
  CHECK(bob.says(10'000, {&queue}));
  CHECK(queue.queued_bytes() == 21'000 + MessageQueue::entry_cost * 2);
  CHECK(bob.resumed == 0);
  MessageQueue::Batch batch;
  SECTION("until all is written") {
    CHECK(queue.drain(batch) == State::open);
    CHECK(bytes_of(batch).size() == 21'000 - MessageQueue::entry_cost);
    CHECK(bob.resumed == 0);
    batch.clear();
    CHECK(bob.resumed == 1);
    CHECK_FALSE(bob.says(10, {&queue}));
  }
  SECTION("until half of the limit is free") {
    queue.drain(batch);
    queue.put_back(batch, 0);
    CHECK(bob.resumed == 0);
    queue.drain(batch);
    queue.put_back(batch, 20'000);  // 936 are left
    CHECK(bob.resumed == 0);
    CHECK(bob.says(100, {&queue}));
    queue.drain(batch);
    queue.put_back(batch, 700);
    CHECK(bob.resumed == 1);
    CHECK(queue.take() == std::string(336, 'x'));
  }
  SECTION("until it is cut, closed by its consumer, or gone") {
    SECTION("") {
      queue.abort();
    }
    SECTION("") {
      queue.finish();
    }
    SECTION("") {
      queue.drain(batch);
      queue.abort();
      queue.put_back(batch, 1);
    }
    SECTION("") {
      queue.close();
      queue.take();
    }
    CHECK(bob.resumed == 1);
  }
  SECTION("and others wait with it") {
    Speaker carol;
    CHECK(carol.says(1, {&queue}));
    queue.take();
    CHECK(bob.resumed == 1);
    CHECK(carol.resumed == 1);
  }
}

TEST_CASE("a sender waits for all full queues, and is resumed once", "[message_queue]") {
  auto one = blocking(100), two = blocking(100), wide = blocking(10'000);
  Speaker bob;
  CHECK(bob.says(200, {&one, &wide, &two}));
  CHECK(bob.says(200, {&two}));  // the same wait goes on
  one.take();
  wide.take();
  CHECK(bob.resumed == 0);
  two.take();
  CHECK(bob.resumed == 1);
}

TEST_CASE("a queue that blocks senders still cuts for who cannot wait", "[message_queue]") {
  auto queue = blocking(1000);
  queue.stall();
  CHECK(queue.push(block(std::string(1000, 'x'))) == PushResult::overflow);
  queue.take();
  CHECK(queue.state == State::overflowed);
}

TEST_CASE("a queue that disconnects makes nobody wait", "[message_queue]") {
  RecordingQueue queue(1000);
  Speaker bob;
  CHECK_FALSE(bob.says(10'000, {&queue}));
  queue.take();
  queue.stall();
  auto pressure = bob.peer.pressure();
  CHECK(queue.push(block(std::string(1000, 'x')), &pressure) == PushResult::overflow);
  CHECK_FALSE(pressure.hold());
}

TEST_CASE("a queue whose consumer cannot be woken is cut", "[message_queue]") {
  RecordingQueue queue;
  queue.on_wake = [] { throw std::bad_alloc(); };
  SECTION("by a block") {
    CHECK(queue.push(block("a\n")) == PushResult::overflow);
  }
  SECTION("by its end") {
    queue.close();
  }
  SECTION("by a cut") {
    queue.abort();
  }
  SECTION("by a cut of what is put back") {
    queue.on_wake = [] {};
    queue.stall(100);
    queue.on_wake = [] { throw std::bad_alloc(); };
    queue.abort();
    CHECK(queue.queued_bytes() == 0);
  }
  CHECK_FALSE(queue.is_open());
  CHECK(queue.failures == 1);
  CHECK(queue.push(block("b\n")) == PushResult::closed);
  CHECK(queue.take().empty());
  CHECK(queue.state == State::failed);
}

TEST_CASE("many producers: nothing is lost or doubled, and each keeps its order", "[message_queue]") {
  constexpr auto producers = 4, each = 5000;
  BlockingMessageQueue queue(no_limit);
  std::vector<std::thread> threads;
  for (auto p = 0; p < producers; ++p)
    threads.emplace_back([&queue, p] {
      for (auto i = 0; i < each; ++i) queue.push(block(std::to_string(p) + ' ' + std::to_string(i)));
    });
  std::vector<int> next(producers);
  auto misplaced = 0;
  for (auto i = 0; i < producers * each; ++i) {
    auto const got = queue.pop_for(60s);
    if (!got) break;
    auto const p = static_cast<std::size_t>((*got)[0] - '0');
    if (*got != std::to_string(p) + ' ' + std::to_string(next[p]++)) ++misplaced;
  }
  for (auto& thread : threads) thread.join();
  CHECK(misplaced == 0);
  CHECK(next == std::vector<int>(producers, each));
  CHECK(queue.pop_for(0s) == nullptr);
}

TEST_CASE("producers, a consumer that stalls at times, and an end from outside", "[message_queue]") {
  RecordingQueue queue(no_limit);
  std::vector<std::thread> producers;
  for (auto const c : {'a', 'b', 'c'})
    producers.emplace_back([&queue, c] {
      auto const one = block(std::string(3, c));
      for (auto i = 0; i < 3000; ++i) queue.push(one);
      if (c == 'a') queue.close();  // perhaps before the others are done
    });
  MessageQueue::Batch batch;
  std::string written;
  for (auto round = 0; queue.drain(batch) == State::open || !batch.blocks.empty(); ++round) {
    auto const bytes = bytes_of(batch);
    auto const size = round % 2 == 0 ? bytes.size() / 2 : bytes.size();
    written.append(bytes, 0, size);
    if (size < bytes.size()) queue.put_back(batch, size);
  }
  for (auto& thread : producers) thread.join();
  REQUIRE(written.size() % 3 == 0);
  auto of_closer = 0, torn = 0;
  for (std::size_t i = 0; i < written.size(); i += 3) {
    if (written.compare(i, 3, std::string(3, written[i])) != 0) ++torn;
    if (written[i] == 'a') ++of_closer;
  }
  CHECK(torn == 0);
  CHECK(of_closer == 3000);
}
