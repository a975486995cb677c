// SPDX-License-Identifier: BSL-1.0
#include <chatproto/message_queue.hpp>

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
using chatproto::MessageQueue;
using chatproto::PushResult;
using test::block;
using test::Lines;
using test::RecordingQueue;
using State = MessageQueue::State;

static_assert(!std::is_copy_constructible_v<MessageQueue>);

namespace {

constexpr auto no_limit = ~std::size_t(0) / 4;

/// Returns how many blocks of `size` bytes the queue accepts before it is cut, at most `most`.
std::size_t capacity(MessageQueue& queue, std::size_t size, std::size_t most = 1'000'000) {
  auto const one = block(std::string(size, 'x'));
  for (std::size_t n = 0; n < most; ++n)
    if (queue.push(one) != PushResult::queued) return n;
  return most;
}

/// Returns the bytes that a consumer would write.
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
  one.drain(batch);  // drops the batch's old contents
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
  for (auto again = 0; again < 3; ++again) {  // also when the batch already has storage
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

TEST_CASE("a stalled consumer is woken only by an abort, or to try a write", "[message_queue]") {
  RecordingQueue queue(1000);
  queue.stall();
  CHECK(queue.wakes == 1);
  queue.push(block("a"));
  queue.notify();
  queue.close();
  CHECK(queue.wakes == 1);

  SECTION("abort") {
    queue.abort();
    CHECK(queue.wakes == 2);
  }
  SECTION("its log asks for a try") {
    queue.notify(true);
    CHECK(queue.wakes == 2);
  }
  SECTION("until it drains") {
    queue.take();
    CHECK(queue.wakes == 1);
    CHECK(queue.state == State::closing);
  }
}

TEST_CASE("a stalled consumer whose queue exceeds its limit is woken to try a write", "[message_queue]") {
  constexpr auto cost = MessageQueue::entry_cost;
  RecordingQueue queue(1000);
  queue.stall();
  CHECK(queue.push(block(std::string(1000 - cost - 1 - cost, 'x'))) == PushResult::queued);  // just fits
  CHECK(queue.queued_bytes() == 1000);
  CHECK(queue.wakes == 1);
  CHECK(queue.push(block("")) == PushResult::queued);
  CHECK(queue.wakes == 2);
  CHECK(queue.push(block("")) == PushResult::queued);  // the consumer has been woken already
  CHECK(queue.wakes == 2);
  CHECK(queue.is_open());
}

TEST_CASE("a queue that is notified wakes its consumer as a block does", "[message_queue]") {
  RecordingQueue queue;
  queue.notify();
  queue.notify();
  CHECK(queue.wakes == 1);
  queue.take();
  queue.notify();
  CHECK(queue.wakes == 2);
  queue.finish();
  queue.notify(true);
  CHECK(queue.wakes == 2);
}

TEST_CASE("after a drain a block wakes a consumer that was stalled", "[message_queue]") {
  RecordingQueue queue;
  queue.stall();
  queue.take();
  queue.push(block("a"));
  CHECK(queue.wakes == 2);
}

TEST_CASE("close: the queue takes no more blocks and keeps those that it has", "[message_queue]") {
  RecordingQueue queue;
  queue.push(block("a"));
  CHECK(queue.is_open());
  queue.close();
  CHECK_FALSE(queue.is_open());
  CHECK(queue.push(block("b")) == PushResult::closed);
  CHECK(queue.take() == "a");
  CHECK(queue.state == State::closing);
}

TEST_CASE("abort: the queue takes no more blocks and drops those that it has, also after close", "[message_queue]") {
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
  queue.close();  // does not reopen it
  CHECK(queue.take().empty());
  CHECK(queue.state == State::aborted);
}

TEST_CASE("finish: like abort, but the consumer is not woken any more", "[message_queue]") {
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
  CHECK(queue.wakes == 1);  // by the first push only
  CHECK(queue.take().empty());
  CHECK(queue.state == State::aborted);
}

TEST_CASE("put_back: unwritten bytes come first again, at every split", "[message_queue]") {
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

TEST_CASE("a queue accepts blocks up to its hard limit, each with a cost of its own", "[message_queue]") {
  constexpr auto cost = MessageQueue::entry_cost, burst = MessageQueue::hard_limit_factor;
  RecordingQueue queue(1 + cost);
  if (GENERATE(false, true)) {  // whether it is stalled
    queue.stall();
    queue.take();
    queue.stall();
    queue.take();
  }

  SECTION("bytes and blocks count") {
    CHECK(capacity(queue, 1) == burst);
  }
  SECTION("to the byte") {
    auto const most = burst * (1 + cost) - cost;
    auto const size = most + GENERATE(0u, 1u);
    CHECK(queue.push(block(std::string(size, 'x'))) == (size == most ? PushResult::queued : PushResult::overflow));
  }
  SECTION("what was put back counts, what was written does not") {
    MessageQueue::Batch batch;
    queue.push(block(std::string(10 * (1 + cost), 'x')));
    queue.drain(batch);
    queue.put_back(batch, 10 * (1 + cost) - 1);  // one byte is left
    CHECK(capacity(queue, 1) == burst - 1);
  }
}

TEST_CASE("the limit has a default", "[message_queue]") {
  RecordingQueue queue;
  CHECK(queue.limit() == MessageQueue::default_limit);
  CHECK(queue.overflow() == chatproto::Overflow::disconnect);
  std::string const most(MessageQueue::hard_limit_factor * MessageQueue::default_limit - MessageQueue::entry_cost, 'x');
  CHECK(queue.push(block(most)) == PushResult::queued);
  CHECK(queue.push(block("")) == PushResult::overflow);
}

TEST_CASE("a limit may be too large to be reached", "[message_queue]") {
  constexpr auto most = std::numeric_limits<std::size_t>::max();
  for (auto const limit : {most, most / MessageQueue::hard_limit_factor, most / MessageQueue::hard_limit_factor + 1}) {
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
  CHECK(queue.push(block(std::string(MessageQueue::hard_limit_factor * 1000, 'x'))) == PushResult::overflow);
  CHECK(watch.expired());
  CHECK(queue.wakes == 2);  // the consumer must end the connection now
  CHECK_FALSE(queue.is_open());
  CHECK(queue.push(block("b")) == PushResult::closed);
  CHECK(queue.take().empty());
  CHECK(queue.state == State::overflowed);
}

TEST_CASE("a queue may be cut for a reason, and keeps the first one", "[message_queue]") {
  RecordingQueue queue;
  queue.push(block("a"));
  queue.cut(State::over_memory);
  queue.cut(State::overflowed);
  queue.abort();
  CHECK(queue.take().empty());
  CHECK(queue.state == State::over_memory);
}

TEST_CASE("the process counts what queues hold, in steps", "[message_queue]") {
  auto const before = chatproto::detail::HeldMemory::total();
  auto const held = [before] { return chatproto::detail::HeldMemory::total() - before; };
  {
    RecordingQueue queue;
    queue.push(block("small"));
    CHECK(held() == 0);
    queue.push(block(std::string(10'000, 'x')));
    CHECK((held() > 6'000 && held() <= 10'000 + 3 * MessageQueue::entry_cost));
    queue.take();
    CHECK(held() == 0);
    queue.push(block(std::string(10'000, 'x')));
  }
  CHECK(held() == 0);
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
  RecordingQueue queue(no_limit);
  std::vector<std::thread> threads;
  for (auto p = 0; p < producers; ++p)
    threads.emplace_back([&queue, p] {
      for (auto i = 0; i < each; ++i) queue.push(block(std::to_string(p) + ' ' + std::to_string(i)));
    });
  std::vector<int> next(producers);
  auto misplaced = 0, taken = 0;
  CHECK(test::eventually([&] {
    for (auto const& got : queue.take_blocks()) {
      auto const p = static_cast<std::size_t>(got[0] - '0');
      if (got != std::to_string(p) + ' ' + std::to_string(next[p]++)) ++misplaced;
      ++taken;
    }
    return taken == producers * each;
  }));
  for (auto& thread : threads) thread.join();
  CHECK(misplaced == 0);
  CHECK(next == std::vector<int>(producers, each));
  CHECK(queue.take_blocks().empty());
}

TEST_CASE("producers, a consumer that stalls at times, and an end from outside", "[message_queue]") {
  RecordingQueue queue(no_limit);
  std::vector<std::thread> producers;
  for (auto const c : {'a', 'b', 'c'})
    producers.emplace_back([&queue, c] {
      auto const one = block(std::string(3, c));
      for (auto i = 0; i < 3000; ++i) queue.push(one);
      if (c == 'a') queue.close();  // possibly before the others are done
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
