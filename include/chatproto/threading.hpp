// SPDX-License-Identifier: BSL-1.0
/// @file
/// Threading policies: on which executor does a client live?
#pragma once

#include <concepts>
#include <condition_variable>
#include <cstddef>
#include <list>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include <asio/execution/outstanding_work.hpp>
#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>
#include <asio/post.hpp>
#include <asio/require.hpp>
#include <asio/strand.hpp>

namespace chatproto {

/// What `Server` asks of a threading policy.
///
/// - `executor_type`: the executor of one client. Handlers that run on it never overlap. If it is an executor of an
///   `io_context` itself, then one thread at most runs that context.
/// - `next_executor()`: the executor for one more client. Called by one thread at a time. Throws `std::system_error`:
///   if descriptors, buffers or memory are short, the client waits until it is tried again; if it is anything else, as
///   when no thread can be made, it is told that the server is full.
/// - `join()`: called when all clients have ended, or (if `run()` was left by an exception) those who are left need
///   nothing but the policy's threads to end: waits for them, and ends all threads. No `next_executor()` comes after
///   it. Idempotent.
///
/// A policy whose clients need more than one descriptor each says so by a constant `descriptors_per_client`. A policy
/// is made from the number of threads wanted (`unsigned`, never 0) if it can be, otherwise by default.
///
/// @code
/// struct OneThread {  // for all clients; with <asio/thread_pool.hpp>
///   using executor_type = asio::thread_pool::executor_type;
///   executor_type next_executor() { return thread_.get_executor(); }
///   void join() { thread_.join(); }
///   asio::thread_pool thread_{1};
/// };
/// chatproto::Server<OneThread> server;
/// server.run();
/// @endcode
template <class P>
concept ThreadingPolicy = requires(P& policy) {
  typename P::executor_type;
  { policy.next_executor() } -> std::same_as<typename P::executor_type>;
  policy.join();
};

/// A thread of its own, with an `io_context` of its own, for each client.
///
/// Simple to reason about, and a client that computes delays nobody; each costs a thread, and on Linux three more
/// descriptors. The thread ends with its client.
class ThreadPerClient {
 public:
  /// Counts as work of its context: the thread runs until the last copy is gone, which is when the client ends.
  using executor_type = decltype(asio::require(std::declval<asio::io_context::executor_type>(),
                                               asio::execution::outstanding_work.tracked));

  static constexpr std::size_t descriptors_per_client = 4;  ///< its socket, and those of its context on Linux

  ThreadPerClient() = default;
  ~ThreadPerClient() { join(); }

  /// Starts a thread. Throws `std::system_error`.
  executor_type next_executor() {
    reap();
    auto context = std::make_shared<asio::io_context>(1);
    auto executor = asio::require(context->get_executor(), asio::execution::outstanding_work.tracked);
    asio::post(*context, [] {});  // or a context whose client is gone at once could end while it is told so
    std::list<std::thread> one(1);
    auto const self = one.begin();
    std::lock_guard const lock(mutex_);  // the thread cannot move itself before it stands in the list
    *self = std::thread([this, self, context]() mutable {
      context->run();
      context.reset();  // its descriptors, before somebody comes to join
      std::lock_guard const done(mutex_);
      finished_.splice(finished_.end(), running_, self);
      changed_.notify_all();
    });
    running_.splice(running_.end(), one);
    return executor;
  }

  /// Waits for all threads.
  void join() {
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return running_.empty(); });
    }
    reap();
  }

 private:
  void reap() {
    std::list<std::thread> finished;
    {
      std::lock_guard const lock(mutex_);
      finished.swap(finished_);
    }
    for (auto& thread : finished) thread.join();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::list<std::thread> running_, finished_;
};

namespace detail {

/// Threads that run one `io_context`, from construction to `join()`.
class Workers {
 public:
  explicit Workers(unsigned threads) : context_(static_cast<int>(threads)), work_(context_.get_executor()) {
    try {
      while (threads_.size() < threads) threads_.emplace_back([this] { context_.run(); });
    } catch (...) {
      join();
      throw;
    }
  }
  ~Workers() { join(); }

  asio::io_context::executor_type executor() noexcept { return context_.get_executor(); }

  void join() {
    work_.reset();
    for (auto& thread : threads_) thread.join();
    threads_.clear();
  }

 private:
  asio::io_context context_;
  asio::executor_work_guard<asio::io_context::executor_type> work_;
  std::vector<std::thread> threads_;
};

}  // namespace detail

/// A fixed number of threads, each with an `io_context` of its own; a client stays with one of them.
///
/// The fastest for a chat: no lock and no hand-over within a client, and one system call per client and batch.
/// A session that blocks or computes delays the other clients of its thread.
class ThreadPool {
 public:
  using executor_type = asio::io_context::executor_type;  ///< that of a thread's own context

  /// Starts `threads` threads, not 0. Throws `std::system_error`.
  explicit ThreadPool(unsigned threads = 1) {
    while (workers_.size() < threads) workers_.push_back(std::make_unique<detail::Workers>(1));
  }

  /// The threads take turns.
  executor_type next_executor() noexcept { return workers_[next_++ % workers_.size()]->executor(); }

  /// Waits for all threads.
  void join() {
    for (auto const& worker : workers_) worker->join();
  }

 private:
  std::vector<std::unique_ptr<detail::Workers>> workers_;
  std::size_t next_ = 0;
};

/// A fixed number of threads that run one `io_context`; a strand for each client.
///
/// Any free thread serves any client, so that a session that computes delays only itself as long as a thread is
/// free; each event costs a little more than with `ThreadPool`.
class StrandPool {
 public:
  using executor_type = asio::strand<asio::io_context::executor_type>;  ///< a strand of a client's own

  /// Starts `threads` threads, not 0. Throws `std::system_error`.
  explicit StrandPool(unsigned threads = 1) : workers_(threads) {}

  /// A new strand.
  executor_type next_executor() { return executor_type(workers_.executor()); }

  /// Waits for all threads.
  void join() { workers_.join(); }

 private:
  detail::Workers workers_;
};

}  // namespace chatproto
