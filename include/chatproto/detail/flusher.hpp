// SPDX-License-Identifier: BSL-1.0
/// @file
/// When the links with something to write are flushed.
#pragma once

#include <concepts>
#include <memory>
#include <mutex>
#include <type_traits>
#include <utility>
#include <vector>

#include <asio/execution_context.hpp>
#include <asio/io_context.hpp>
#include <asio/post.hpp>

namespace chatproto::detail {

/// Posts one flush for all links of a thread that have something to write. Blocks of several senders then share
/// a write, and a broadcast wakes each thread once.
template <class Link>
class FlushList : public asio::execution_context::service {
 public:
  using key_type = FlushList;
  static inline asio::execution_context::id id;

  explicit FlushList(asio::io_context& context) : service(context), context_(context) {}

  static FlushList& of(auto const& executor) { return asio::use_service<FlushList>(executor.context()); }

  void add(auto const&, std::shared_ptr<Link> link) {
    std::lock_guard const lock(mutex_);
    links_.push_back(std::move(link));
    if (!std::exchange(posted_, true)) asio::post(context_, [this] { run(); });
  }

 private:
  void run() {
    {
      std::lock_guard const lock(mutex_);
      posted_ = false;
      running_.swap(links_);
    }
    for (auto& link : running_) link->flush();
    running_.clear();
  }
  void shutdown() noexcept override { links_.clear(); }

  asio::io_context& context_;
  std::mutex mutex_;  // taken within a queue's lock
  std::vector<std::shared_ptr<Link>> links_;
  std::vector<std::shared_ptr<Link>> running_;
  bool posted_ = false;
};

/// The same where several threads share a context: a post for each link.
template <class Link>
struct FlushPost {
  static FlushPost& of(auto const&) {
    static FlushPost stateless;
    return stateless;
  }
  void add(auto const& executor, std::shared_ptr<Link> link) {
    asio::post(executor, [link = std::move(link)] { link->flush(); });
  }
};

template <class Executor>
concept OfIoContext = requires(Executor const& executor) {
  { executor.context() } -> std::same_as<asio::io_context&>;
};

/// The one that fits an executor: an executor of a context itself says that one thread runs it, see `ThreadingPolicy`.
template <class Executor, class Link>
using Flusher = std::conditional_t<OfIoContext<Executor>, FlushList<Link>, FlushPost<Link>>;

}  // namespace chatproto::detail
