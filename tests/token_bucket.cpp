// SPDX-License-Identifier: BSL-1.0
#include <chatproto/token_bucket.hpp>

#include <chrono>

#include "catch.hpp"

using namespace std::chrono_literals;
using chatproto::TokenBucket;

TEST_CASE("a bucket gives its burst at once, and then as much as its rate", "[token_bucket]") {
  TokenBucket::Clock::time_point now{};
  TokenBucket bucket(10, 3);
  for (auto i = 0; i < 3; ++i) CHECK(bucket.take(now));
  CHECK_FALSE(bucket.take(now));
  CHECK(bucket.wait(now) == 100ms);
  CHECK_FALSE(bucket.take(now + 99ms));
  CHECK(bucket.wait(now + 99ms) == 1ms);
  now += 100ms;
  CHECK(bucket.wait(now) == 0ms);
  CHECK(bucket.take(now));
  CHECK_FALSE(bucket.take(now));
}

TEST_CASE("a bucket never holds more than its burst, and a clock that goes back adds nothing", "[token_bucket]") {
  TokenBucket::Clock::time_point now{};
  TokenBucket bucket(1000, 2);
  now += 1h;
  CHECK(bucket.take(now));
  CHECK(bucket.take(now));
  CHECK_FALSE(bucket.take(now));
  CHECK_FALSE(bucket.take(now - 1h));
  CHECK_FALSE(bucket.take(now));
}

TEST_CASE("over a long time a bucket gives its rate", "[token_bucket]") {
  TokenBucket::Clock::time_point now{};
  TokenBucket bucket(3, 1);
  auto taken = 0;
  for (auto i = 0; i < 10'000; ++i, now += 7ms)
    if (bucket.take(now)) ++taken;
  CHECK(taken >= 209);  // 70 s
  CHECK(taken <= 211);
}

TEST_CASE("a bucket is full when no token is missing", "[token_bucket]") {
  TokenBucket::Clock::time_point const now{};
  TokenBucket bucket(10, 3);
  CHECK(bucket.is_full(now));
  CHECK(bucket.take(now));
  CHECK(bucket.take(now));
  CHECK_FALSE(bucket.is_full(now + 199ms));
  CHECK(bucket.is_full(now + 200ms));
}
