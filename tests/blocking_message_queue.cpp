// SPDX-License-Identifier: BSL-1.0
#include <chatproto/blocking_message_queue.hpp>

#include <chrono>
#include <thread>
#include <utility>

#include "catch.hpp"
#include "support.hpp"

using chatproto::BlockingMessageQueue;
using test::block;
using namespace std::chrono_literals;

TEST_CASE("pop_for gives a block at a time", "[blocking_message_queue]") {
  BlockingMessageQueue queue;
  CHECK(queue.pop_for(0s) == nullptr);
  queue.push(block("a"));
  queue.push(block("b"));
  CHECK(*queue.pop_for(0s) == "a");
  queue.push(block("c"));
  CHECK(*queue.pop_for(0s) == "b");
  CHECK(*queue.pop_for(0s) == "c");
  CHECK(queue.pop_for(1ms) == nullptr);
}

TEST_CASE("pop_for is woken by a block of another thread", "[blocking_message_queue]") {
  constexpr auto rounds = 20;
  constexpr auto long_time = 10s;
  BlockingMessageQueue there, back;
  auto const start = std::chrono::steady_clock::now();
  std::thread echo([&] {
    for (auto i = 0; i < rounds; ++i)
      if (auto got = there.pop_for(long_time)) back.push(std::move(got));
  });
  auto came_back = 0;
  for (auto i = 0; i < rounds; ++i) {
    there.push(block("a"));
    if (back.pop_for(long_time)) ++came_back;
  }
  echo.join();
  CHECK(came_back == rounds);
  CHECK(std::chrono::steady_clock::now() - start < long_time);  // no time was waited to its end
}

TEST_CASE("pop_for returns at once from a queue that is closed and empty", "[blocking_message_queue]") {
  BlockingMessageQueue queue;
  auto const aborted = GENERATE(false, true);
  auto const before = GENERATE(0, 2);  // blocks
  for (auto i = 0; i < before; ++i) queue.push(block("a"));
  aborted ? queue.abort() : queue.close();
  for (auto i = 0; i < before && !aborted; ++i) CHECK(queue.pop_for(0s) != nullptr);

  for (auto again = 0; again < 2; ++again) {
    auto const start = std::chrono::steady_clock::now();
    CHECK(queue.pop_for(5s) == nullptr);
    CHECK(std::chrono::steady_clock::now() - start < 5s);
  }
}
