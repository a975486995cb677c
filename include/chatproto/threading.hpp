// SPDX-License-Identifier: BSL-1.0
/// @file
/// The threading policies, which choose the executor of each client.
#pragma once

#include <concepts>
#include <condition_variable>
#include <cstddef>
#include <exception>
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

#ifdef ASIO_DISABLE_THREADS
#error "chatproto's policies run threads: compile without ASIO_DISABLE_THREADS"
#endif

namespace chatproto {

/// The requirements of `Server` on a threading policy.
///
/// - `executor_type`: the executor of one client. Handlers on it never run concurrently. If it is the executor of an
///   `io_context` itself, then at most one thread runs that context.
/// - `next_executor()`: returns the executor for a new client. Called by one thread at a time. May throw
///   `std::system_error`: if descriptors, buffers or memory are short, the client waits until the server tries again;
///   for any other error, such as no thread, the client is told that the server is full.
/// - `join()`: waits for all clients to end, then ends all threads. Called when all clients have ended, or, if an
///   exception left `run()`, when the remaining ones need only the policy's threads to end. No `next_executor()`
///   follows it. Idempotent.
///
/// A policy that needs more than one descriptor for each client has a constant `descriptors_per_client`. A policy is
/// constructed from the number of threads wanted (`unsigned`, never 0) if possible, otherwise by default.
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

/// A thread with an `io_context` of its own for each client.
///
/// Simple to reason about, and a client that computes delays no other. Each client costs a thread and, on Linux, three
/// more descriptors. The thread ends with its client.
class ThreadPerClient {
 public:
  /// Counts as work of its context: the thread runs until the last copy is destroyed, which is when the client ends.
  using executor_type = decltype(asio::require(std::declval<asio::io_context::executor_type>(),
                                               asio::execution::outstanding_work.tracked));

  static constexpr std::size_t descriptors_per_client = 4;  ///< its socket, and its context's on Linux

  ThreadPerClient() = default;
  ~ThreadPerClient() { join(); }

  /// Starts a thread and returns the executor of its context. Throws `std::system_error`.
  executor_type next_executor() {
    reap();
    auto context = std::make_shared<asio::io_context>(1);
    auto executor = asio::require(context->get_executor(), asio::execution::outstanding_work.tracked);
    // Keeps the context from ending early if its client is gone at once.
    asio::post(*context, [] {});
    std::list<std::thread> one(1);
    auto const self = one.begin();
    std::lock_guard const lock(mutex_);  // the thread must not move itself before it is in the list
    *self = std::thread([this, self, context]() mutable {
      context->run();
      context.reset();  // frees its descriptors before anybody joins
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

/// A fixed number of threads, each with an `io_context` of its own. A client stays on one of them.
///
/// The fastest policy for a chat: a client needs no lock and never changes threads, and each batch costs one system
/// call for each client. A session that blocks or computes delays the other clients of its thread.
class ThreadPool {
 public:
  using executor_type = asio::io_context::executor_type;  ///< the executor of a thread's own context

  /// Starts `threads` threads, not 0. Throws `std::system_error`.
  explicit ThreadPool(unsigned threads = 1) {
    while (workers_.size() < threads) workers_.push_back(std::make_unique<detail::Workers>(1));
  }

  /// Returns the executor of the next thread, in rotation.
  executor_type next_executor() noexcept { return workers_[next_++ % workers_.size()]->executor(); }

  /// Waits for all threads.
  void join() {
    for (auto const& worker : workers_) worker->join();
  }

 private:
  std::vector<std::unique_ptr<detail::Workers>> workers_;
  std::size_t next_ = 0;
};

/// A fixed number of threads that run one `io_context`, with a strand for each client.
///
/// Any free thread serves any client, so a session that computes delays only itself as long as a thread is free. Each
/// event costs a little more than with `ThreadPool`.
class StrandPool {
 public:
  using executor_type = asio::strand<asio::io_context::executor_type>;  ///< a strand of the client's own

  /// Starts `threads` threads, not 0. Throws `std::system_error`.
  explicit StrandPool(unsigned threads = 1) : workers_(threads) {}

  /// Returns a new strand.
  executor_type next_executor() { return executor_type(workers_.executor()); }

  /// Waits for all threads.
  void join() { workers_.join(); }

 private:
  detail::Workers workers_;
};

}  // namespace chatproto
