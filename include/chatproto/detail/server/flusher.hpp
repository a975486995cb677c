// SPDX-License-Identifier: BSL-1.0
/// @file
/// `FlushList` and `FlushQueue`, which decide when links write and when they continue with input that waits.
#pragma once

#include <algorithm>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <asio/execution/context.hpp>
#include <asio/execution_context.hpp>
#include <asio/io_context.hpp>
#include <asio/post.hpp>
#include <asio/query.hpp>

#include <chatproto/detail/server/handler_memory.hpp>

namespace chatproto::detail {

/// A first-in-first-out queue that reuses its memory. After `take_added`, one thread may pop while others push.
template <class T>
class FlushItems {
 public:
  bool empty() const noexcept { return !can_pop() && added_.empty(); }
  void push(T item) { added_.push_back(std::move(item)); }
  /// Makes the pushed items ready to be popped, unless some still are; and frees the popped ones.
  void take_added() noexcept {
    if (can_pop()) return;
    ready_.clear();
    next_ = 0;
    ready_.swap(added_);
  }
  bool can_pop() const noexcept { return next_ < ready_.size(); }
  T pop() noexcept { return std::move(ready_[next_++]); }

 private:
  std::vector<T> added_, ready_;
  std::size_t next_ = 0;  // next of the ready items
};

/// The links of one thread that have something to do: write output, or take a turn of input. One posted handler serves
/// all of them, so texts of several senders share a write, and a broadcast wakes each thread once.
///
/// The handler stops after a while and is posted again, so that the thread also polls for new events. A client that
/// sends a line now and then is served between two such handlers, however many others have input that waits.
template <class Link>
class FlushList : public asio::execution_context::service {
 public:
  using key_type = FlushList;
  static inline asio::execution_context::id id;

  explicit FlushList(asio::io_context& context) : service(context), context_(context) {}

  /// Lists `link` to write.
  void add_output(auto const& /*executor*/, std::shared_ptr<Link> link) { add(outputs_, std::move(link)); }
  /// Lists `link` to take a turn.
  void add_turn(auto const& /*executor*/, std::shared_ptr<Link> link) { add(turns_, std::move(link)); }

 private:
  using Clock = std::chrono::steady_clock;
  using Links = FlushItems<std::shared_ptr<Link>>;  // pushed by any thread under the lock; popped by one without it
  // Time for output, followed by one turn of input: writing finishes work, reading makes more.
  static constexpr auto output_time = std::chrono::milliseconds(1);
  static constexpr std::size_t clock_step = 4;  // links between two looks at the clock

  void add(Links& links, std::shared_ptr<Link> link) {
    std::lock_guard const lock(mutex_);
    links.push(std::move(link));
    post_once();
  }
  void post_once() {
    if (!posted_) asio::post(context_, memory_([this] { run(); }));
    posted_ = true;
  }
  void run() {
    {
      std::lock_guard const lock(mutex_);
      outputs_.take_added();
      turns_.take_added();
    }
    Clock::time_point end;
    for (std::size_t served = 1; outputs_.can_pop(); ++served) {
      outputs_.pop()->flush();
      if (served % clock_step != 0) continue;
      auto const now = Clock::now();
      if (served == clock_step) end = now + output_time;
      if (now > end) break;
    }
    if (turns_.can_pop()) turns_.pop()->take_turn();
    std::lock_guard const lock(mutex_);
    posted_ = false;
    if (!outputs_.empty() || !turns_.empty()) post_once();
    outputs_.take_added();  // frees the links that were served
    turns_.take_added();
  }
  void shutdown() noexcept override { outputs_ = turns_ = {}; }

  asio::io_context& context_;
  HandlerMemory memory_;
  std::mutex mutex_;  // taken within a queue's lock
  Links outputs_, turns_;
  bool posted_ = false;
};

/// As `FlushList`, for clients with an executor of their own, on which the link is served. Only some links are posted
/// at a time, and each one served posts the next, so that new events do not wait behind all of them.
template <class Link, class Executor>
class FlushQueue : public asio::execution_context::service {
 public:
  using key_type = FlushQueue;
  static inline asio::execution_context::id id;

  explicit FlushQueue(asio::execution_context& context) : service(context) {}

  void add_output(Executor const& executor, std::shared_ptr<Link> link) { add(outputs_, executor, std::move(link)); }
  void add_turn(Executor const& executor, std::shared_ptr<Link> link) { add(turns_, executor, std::move(link)); }

 private:
  struct Item {
    Executor executor;
    std::shared_ptr<Link> link;
  };
  static constexpr unsigned outputs_per_turn = 8;
  // A session that computes delays what is posted to its client, so post more links than there are threads.
  unsigned const most_posted_ = std::max(32u, 2 * std::thread::hardware_concurrency());

  using Items = FlushItems<Item>;  // used only under the lock

  void add(Items& items, Executor const& executor, std::shared_ptr<Link> link) {
    std::lock_guard const lock(mutex_);
    items.push({executor, std::move(link)});
    if (posted_ == most_posted_) return;
    ++posted_;
    post_next();
  }
  /// A posted link has been served.
  void go_on() noexcept {
    std::lock_guard const lock(mutex_);
    post_next();
  }
  void post_next() noexcept {
    while (!outputs_.empty() || !turns_.empty()) {
      auto const turn = outputs_.empty() || (!turns_.empty() && ++outputs_in_a_row_ > outputs_per_turn);
      if (turn) outputs_in_a_row_ = 0;
      auto& items = turn ? turns_ : outputs_;
      items.take_added();
      auto const item = items.pop();
      try {
        asio::post(item.executor, [this, turn, link = item.link] {
          turn ? link->take_turn() : link->flush();
          go_on();
        });
        return;
      } catch (...) {
        item.link->not_served();
      }
    }
    --posted_;
  }
  void shutdown() noexcept override { outputs_ = turns_ = {}; }

  std::mutex mutex_;  // taken within a queue's lock
  Items outputs_, turns_;
  unsigned posted_ = 0, outputs_in_a_row_ = 0;
};

template <class Executor>
concept OfIoContext = requires(Executor const& executor) {
  { executor.context() } -> std::same_as<asio::io_context&>;
};

/// The flusher for this executor. An executor of an `io_context` itself means that one thread runs the context; see
/// `ThreadingPolicy`.
template <class Executor, class Link>
using Flusher = std::conditional_t<OfIoContext<Executor>, FlushList<Link>, FlushQueue<Link, Executor>>;

/// Returns the flusher of the executor's context, which owns it.
template <class Executor, class Link>
Flusher<Executor, Link>& flusher_of(Executor const& executor) {
  return asio::use_service<Flusher<Executor, Link>>(asio::query(executor, asio::execution::context));
}

}  // namespace chatproto::detail
