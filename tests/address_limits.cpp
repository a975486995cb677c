// SPDX-License-Identifier: BSL-1.0
#include <chatproto/address_limits.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <list>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <asio/ip/address.hpp>

#include "catch.hpp"

using namespace std::chrono_literals;
using chatproto::AddressLimits;
using Refusal = chatproto::RefusalReason;
using Place = AddressLimits::Place;

namespace {

/// Limits with a clock of their own, and the places of all clients.
struct Door {
  explicit Door(AddressLimits::Options options) : limits(options) {}

  /// Returns "" for a client that is let in, otherwise the reason.
  std::string comes(std::string const& address) {
    Place place;
    auto const refusal = limits.admit(asio::ip::make_address(address), now, place);
    if (refusal) return std::string(to_string(*refusal));
    inside.emplace_back(address, std::move(place));
    return "";
  }
  void leaves(std::string const& address) {
    for (auto at = inside.begin(); at != inside.end(); ++at)
      if (at->first == address) return static_cast<void>(inside.erase(at));
    FAIL("is not there");
  }
  std::string comes_and_goes(std::string const& address) {
    auto const result = comes(address);
    if (result.empty()) leaves(address);
    return result;
  }

  AddressLimits limits;
  AddressLimits::Clock::time_point now{1h};
  std::list<std::pair<std::string, Place>> inside;
};

std::string numbered(unsigned i) { return asio::ip::address_v4(0x0a000000 + i).to_string(); }

}  // namespace

TEST_CASE("without limits everybody is let in and nobody is known", "[address_limits]") {
  Door door({});
  CHECK_FALSE(door.limits.is_on());
  for (auto i = 0; i < 1000; ++i) CHECK(door.comes("192.0.2.7").empty());
  CHECK(door.limits.size() == 0);
}

TEST_CASE("an address has so many places, and has them again when clients leave", "[address_limits]") {
  Door door({.most = 2});
  CHECK(door.limits.is_on());
  CHECK(door.comes("192.0.2.7").empty());
  CHECK(door.comes("::ffff:192.0.2.7").empty());
  CHECK(door.comes("192.0.2.7") == "too_many");
  CHECK(door.comes("192.0.2.8").empty());
  door.leaves("192.0.2.7");
  CHECK(door.comes("192.0.2.7").empty());
  CHECK(door.comes("192.0.2.7") == "too_many");
  CHECK(door.limits.size() == 2);
  door.inside.clear();
  CHECK(door.limits.size() == 0);
}

TEST_CASE("an IPv6 network of 64 bits counts as one address", "[address_limits]") {
  Door door({.most = 2});
  CHECK(door.comes("2001:db8::1").empty());
  CHECK(door.comes("2001:db8::ffff:ffff:ffff:ffff").empty());
  CHECK(door.comes("2001:db8::") == "too_many");
  CHECK(door.comes("2001:db8:0:1::").empty());
  CHECK(door.comes("32.1.13.184").empty());  // the same first bits
}

TEST_CASE("an address may send so many new clients at once, and then so many each second", "[address_limits]") {
  Door door({.rate = 1, .burst = 3});
  for (auto i = 0; i < 3; ++i) CHECK(door.comes_and_goes("192.0.2.7").empty());
  for (auto i = 0; i < 3; ++i) CHECK(door.comes("192.0.2.7") == "too_fast");
  CHECK(door.comes("192.0.2.8").empty());
  door.now += 999ms;
  CHECK(door.comes("192.0.2.7") == "too_fast");
  door.now += 1ms;
  CHECK(door.comes("192.0.2.7").empty());  // those who were refused do not count
  CHECK(door.comes("192.0.2.7") == "too_fast");
}

TEST_CASE("a client above the number does not count for the rate", "[address_limits]") {
  Door door({.most = 1, .rate = 1, .burst = 2});
  CHECK(door.comes("192.0.2.7").empty());
  for (auto i = 0; i < 5; ++i) CHECK(door.comes("192.0.2.7") == "too_many");
  door.leaves("192.0.2.7");
  CHECK(door.comes_and_goes("192.0.2.7").empty());
  CHECK(door.comes("192.0.2.7") == "too_fast");
}

TEST_CASE("an address is forgotten when its bucket is full", "[address_limits]") {
  Door door({.rate = 1, .burst = 2});
  for (auto i = 0u; i < 100; ++i) CHECK(door.comes_and_goes(numbered(i)).empty());
  CHECK(door.limits.size() == 100);
  door.now += 1s;
  for (auto i = 0u; i < 100; ++i) CHECK(door.comes_and_goes("192.0.2." + std::to_string(i)).empty());
  CHECK(door.limits.size() == 100);
  door.now += 1s;
  for (auto i = 0; i < 100; ++i) door.comes("192.0.2.200");
  CHECK(door.limits.size() == 1);
}

TEST_CASE("the memory for addresses without a client is bounded", "[address_limits]") {
  Door door({.most = 5, .rate = 1, .burst = 2, .memory = 10});
  CHECK(door.comes("192.0.2.7").empty());
  CHECK(door.comes("192.0.2.7").empty());
  for (auto i = 0u; i < 100'000; ++i) REQUIRE(door.comes_and_goes(numbered(i)).empty());
  CHECK(door.limits.size() == 11);
  CHECK(door.comes("192.0.2.7") == "too_fast");  // who is connected is not forgotten
  CHECK(door.comes_and_goes(numbered(99'990)).empty());
  CHECK(door.comes(numbered(99'990)) == "too_fast");
  // Nor is who comes again and again.
  for (auto i = 0u; i < 100; ++i) {
    REQUIRE(door.comes_and_goes(numbered(200'000 + i)).empty());
    REQUIRE(door.comes(numbered(99'990)) == "too_fast");
  }
  CHECK(door.limits.size() == 11);
}

TEST_CASE("what is no client counts for the rate, above it too", "[address_limits]") {
  AddressLimits limits({.rate = 0.1, .burst = 5, .memory = 3});
  auto const bob = asio::ip::make_address("192.0.2.7");
  AddressLimits::Clock::time_point const start{1h};
  for (auto i = 0; i < 5; ++i) {
    CHECK(limits.wait(bob, start) == 0s);
    limits.owe(bob, start);
  }
  CHECK(limits.wait(bob, start) == 10s);
  CHECK(limits.wait(bob, start + 4s) == 6s);
  CHECK(limits.wait(asio::ip::make_address("::ffff:192.0.2.7"), start) == 10s);
  CHECK(limits.wait(asio::ip::make_address("192.0.2.8"), start) == 0s);
  CHECK(limits.size() == 1);
  limits.owe(bob, start);
  CHECK(limits.wait(bob, start) == 20s);
  Place place;
  CHECK(limits.admit(bob, start, place) == Refusal::too_fast);

  SECTION("it forgets the one that came longest ago") {
    for (auto i = 0u; i < 100; ++i) {
      limits.owe(asio::ip::make_address(numbered(i)), start);
      CHECK(limits.size() == std::min(i + 2, 3u));
      REQUIRE(limits.wait(bob, start) == 20s);  // he comes again and again
    }
    for (auto i = 0u; i < 3; ++i) limits.owe(asio::ip::make_address(numbered(i)), start);
    CHECK(limits.wait(bob, start) == 0s);
  }
  SECTION("it forgets those whose bucket is full") {
    limits.owe(asio::ip::make_address("192.0.2.8"), start + 60s);
    CHECK(limits.size() == 1);
  }
}

TEST_CASE("a place can be moved, and is freed once", "[address_limits]") {
  AddressLimits limits({.most = 1});
  auto const address = asio::ip::make_address("192.0.2.7");
  AddressLimits::Clock::time_point const now;
  Place first, other;
  CHECK_FALSE(limits.admit(address, now, first));
  Place second(std::move(first));
  first = Place();
  CHECK(limits.admit(address, now, other) == Refusal::too_many);
  first = std::move(second);
  CHECK(limits.admit(address, now, other) == Refusal::too_many);
  first = Place();
  CHECK_FALSE(limits.admit(address, now, other));
  CHECK(limits.size() == 1);
}

TEST_CASE("several threads may use the same limits", "[address_limits]") {
  AddressLimits limits({.most = 2, .rate = 1e9, .burst = 1e9, .memory = 3});
  std::vector<std::thread> threads;
  std::atomic<std::size_t> admitted = 0;
  for (auto t = 0u; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (auto i = 0u; i < 5000; ++i) {
        Place one, two;
        auto const address = asio::ip::address_v4(0x0a000000 + (i * (t + 1)) % 7);
        if (!limits.admit(address, AddressLimits::Clock::now(), one)) ++admitted;
        if (!limits.admit(address, AddressLimits::Clock::now(), two)) ++admitted;
      }
    });
  for (auto& thread : threads) thread.join();
  CHECK(admitted >= 20'000);  // at least one of each two
  CHECK(limits.size() <= 3);
}
