// SPDX-License-Identifier: BSL-1.0
/// @file
/// `RedisBackplane`, through which several servers share their rooms. Needs the target `chatproto::redis` (hiredis).
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>
#include <asio/post.hpp>

#include <chatproto/backplane.hpp>
#include <chatproto/detail/backplane/inbox.hpp>
#include <chatproto/detail/redis/redis_shard.hpp>
#include <chatproto/redis_options.hpp>

namespace chatproto {

/// A backplane that keeps the rooms' logs in Redis 7.0 or newer, or Valkey. It connects by itself, again and again, and
/// has a thread of its own.
///
/// @code
/// chatproto::ChatOptions chat;
/// chat.backplane = std::make_shared<chatproto::RedisBackplane>(
///     chatproto::RedisOptions{.servers = {{"redis.example.org", 6379}}});
/// chatproto::Server<chatproto::ThreadPool> server({.port = 47374}, chat);
/// @endcode
///
/// Thread safety: distinct objects: safe. Shared objects: safe, except `start` and `stop`.
class RedisBackplane final : public Backplane {
 public:
  /// Does not connect yet. Throws `std::invalid_argument` if no Redis is named, or one twice, or if no room may begin.
  explicit RedisBackplane(RedisOptions options) : options_(std::move(options)) {
    auto const& servers = options_.servers;
    if (servers.empty()) throw std::invalid_argument("a RedisBackplane needs a Redis");
    if (options_.new_rooms == 0) throw std::invalid_argument("a RedisBackplane needs new rooms");
    for (auto at = servers.begin(); at != servers.end(); ++at)
      if (std::any_of(servers.begin(), at, [&](auto const& other) { return other.name() == at->name(); }))
        throw std::invalid_argument("Redis " + at->name() + " is named twice");
  }
  ~RedisBackplane() override { stop(); }

  /// Connects to each Redis and returns what is wrong with it; nothing if all can be used. Waits for little
  /// more than `times.refuse`, unless the look-up of a host's name takes longer. Throws `std::system_error` or
  /// `std::bad_alloc`.
  static std::vector<std::string> errors(RedisOptions options) {
    std::map<std::string, std::string> found;
    asio::io_context context;
    struct Nowhere final : Sink {
      void deliver(std::string_view, Said const&) noexcept override {}
      void lost(std::string_view) noexcept override {}
    } nowhere;
    for (auto const& server : options.servers) found[server.name()] = "does not answer";
    options.on_event = [&](RedisEvent const& event) {
      auto const is_good = event.kind == RedisEvent::Kind::connected;
      found[event.server.name()] = is_good ? std::string() : std::string(event.what);
    };
    Shards shards;
    for (auto const& server : options.servers)
      shards.push_back(std::make_unique<detail::RedisShard>(context, server, options, "check", nowhere));
    auto const end = Clock::now() + options.times.refuse + std::chrono::milliseconds(100);
    auto const work = asio::make_work_guard(context);
    auto const are_known = [&] {
      for (auto const& shard : shards)
        if (shard->is_usable()) found[shard->stats().server].clear();
      return std::none_of(found.begin(), found.end(), [](auto const& one) { return one.second == "does not answer"; });
    };
    while (!are_known() && Clock::now() < end) run_one(context, shards, end);
    std::vector<std::string> all;
    for (auto const& [server, fault] : found)
      if (!fault.empty()) all.push_back("Redis " + server + ": " + fault);
    return all;
  }

  /// Also throws `std::logic_error` if it was started before, even if it was stopped since.
  void start(Sink& sink) override {
    if (thread_.joinable() || context_.stopped())
      throw std::logic_error("a RedisBackplane is used by one service only");
    shards_.clear();  // of an attempt that failed
    auto const node = make_node_name();
    for (auto const& server : options_.servers)
      shards_.push_back(std::make_unique<detail::RedisShard>(context_, server, options_, node, sink));
    note_stats();
    ticked_ = Clock::now();
    thread_ = std::thread([this] {
      while (!context_.stopped()) {
        try {
          run();
        } catch (std::exception const& error) {  // memory is short; the rooms catch up when they are connected again
          fail(error.what());
        }
      }
    });
  }
  void stop() noexcept override {
    if (!thread_.joinable()) return;
    context_.stop();
    thread_.join();
    shards_.clear();
  }

  void append(std::string_view room, Said const& said, std::shared_ptr<Waiter> waiter) override {
    inbox_.append(room, said, std::move(waiter), [this] { wake(); });
  }
  void follow(std::string_view room, std::shared_ptr<Waiter> waiter) override {
    inbox_.follow(room, std::move(waiter), [this] { wake(); });
  }
  void unfollow(std::string_view room) noexcept override { inbox_.unfollow(room); }
  void at_end(std::string_view room, std::shared_ptr<Waiter> waiter) override {
    inbox_.at_end(room, std::move(waiter), [this] { wake(); });
  }

  /// Returns the figures of each Redis, in the order of the options; at most a tenth of a second old. Empty before
  /// `start`.
  std::vector<RedisStats> stats() const {
    std::lock_guard const lock(mutex_);
    return stats_;
  }
  /// Returns whether every Redis was heard of within `times.refuse`, so that texts are taken.
  bool is_healthy() const {
    std::lock_guard const lock(mutex_);
    auto const is_heard = [this](RedisStats const& one) { return one.silence < options_.times.refuse; };
    return !stats_.empty() && std::all_of(stats_.begin(), stats_.end(), is_heard);
  }

 private:
  using Clock = std::chrono::steady_clock;
  using Shards = std::vector<std::unique_ptr<detail::RedisShard>>;
  using Agreement = detail::RedisShard::Agreement;

  /// Runs one handler, or waits for one until `end` or until something else has to be done.
  static void run_one(asio::io_context& context, Shards& shards, Clock::time_point end) {
    auto const now = Clock::now();
    for (auto& shard : shards) {
      shard->act(now);
      end = std::min(end, shard->due());
    }
    context.run_one_until(end);
    // A server that names other Redis servers looks for some rooms elsewhere, whichever Redis has told.
    auto const is = [](Agreement what) { return [what](auto const& shard) { return shard->agreement() == what; }; };
    auto const leaves = std::any_of(shards.begin(), shards.end(), is(Agreement::other));
    auto const enters = std::all_of(shards.begin(), shards.end(), is(Agreement::same));
    for (auto& shard : shards) {
      if (leaves) shard->leave();
      if (enters) shard->enter();
    }
  }
  void run() {
    while (!context_.stopped()) {
      if (auto const now = Clock::now(); now >= next_tick_) {
        next_tick_ = now + detail::RedisShard::Rules::tick_period;
        tick(now);
        next_tick_ = Clock::now() + detail::RedisShard::Rules::tick_period;  // handlers have their turn in between
      }
      run_one(context_, shards_, next_tick_);
    }
  }
  /// Closes the connections, which are then made anew.
  void fail(char const* why) noexcept {
    for (auto& shard : shards_) {
      try {
        shard->failed(why);
      } catch (std::exception const&) {  // memory is short; it is closed
      }
    }
  }

  /// Returns a name that no other server has, nor this one had before.
  static std::string make_node_name() {
    std::random_device random;
    std::string name;
    for (auto i = 0; i < 4; ++i) {
      constexpr std::string_view digits = "0123456789abcdef";
      auto bits = random();
      for (auto j = 0; j < 8; ++j, bits >>= 4) name += digits[bits & 15];
    }
    return name;
  }
  /// Returns the Redis that has the room's log: the one whose name gives the greatest hash with it (rendezvous
  /// hashing), so that another list of servers moves few rooms.
  detail::RedisShard::Rules& rules_of(std::string_view room) {
    std::size_t best = 0;
    std::uint64_t most = 0;
    for (std::size_t i = 0; i < shards_.size(); ++i) {
      std::uint64_t hash = 14'695'981'039'346'656'037u;  // FNV-1a, the same on all machines
      auto const add = [&hash](std::string_view text) {
        for (auto const byte : text) hash = (hash ^ static_cast<unsigned char>(byte)) * 1'099'511'628'211u;
      };
      add(options_.servers[i].name());
      add(" ");
      add(room);
      hash ^= hash >> 33;  // and the end of MurmurHash3, because FNV mixes the last bytes badly
      hash *= 0xff51afd7ed558ccdu;
      hash ^= hash >> 33;
      hash *= 0xc4ceb9fe1a85ec53u;
      hash ^= hash >> 33;
      if (hash >= most) {
        most = hash;
        best = i;
      }
    }
    return shards_[best]->rules();
  }

  void wake() {
    asio::post(context_, [this] { pass_on(false); });
  }
  void pass_on(bool sweeps) {
    inbox_.pass_on(
        sweeps, [this](auto const& room) -> auto& { return rules_of(room); });
  }
  void tick(Clock::time_point now) {
    auto const passed = std::chrono::duration_cast<std::chrono::milliseconds>(now - ticked_);
    ticked_ += passed;
    for (auto& shard : shards_) shard->rules().tick(passed);
    pass_on(true);
    note_stats();
  }
  void note_stats() {
    std::vector<RedisStats> all;
    for (auto const& shard : shards_) all.push_back(shard->stats());
    std::lock_guard const lock(mutex_);
    stats_.swap(all);
  }

  RedisOptions const options_;
  asio::io_context context_{1};
  asio::executor_work_guard<asio::io_context::executor_type> const work_{context_.get_executor()};
  Shards shards_;  // in the order of the options
  Clock::time_point ticked_, next_tick_;
  detail::BackplaneInbox inbox_;
  mutable std::mutex mutex_;  // guards stats_
  std::vector<RedisStats> stats_;
  std::thread thread_;
};

}  // namespace chatproto
