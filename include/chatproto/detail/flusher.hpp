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

#include <chatproto/detail/reserved.hpp>

namespace chatproto::detail {

/// Posts one flush for all links of a thread that have something to write. Blocks of several senders then share
/// a write, and a broadcast wakes each thread once.
template <class Link>
class FlushList : public asio::execution_context::service {
 public:
  using key_type = FlushList;
  static inline asio::execution_context::id id;

  explicit FlushList(asio::io_context& context) : service(context), context_(context) {}

  void add(std::shared_ptr<Link> link) {
    std::lock_guard const lock(mutex_);
    links_.push_back(std::move(link));
    if (!std::exchange(posted_, true)) asio::post(context_, memory_([this] { run(); }));
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
  Reserved memory_;
  std::mutex mutex_;  // taken within a queue's lock
  std::vector<std::shared_ptr<Link>> links_;
  std::vector<std::shared_ptr<Link>> running_;
  bool posted_ = false;
};

/// A link's way to the list of its context.
template <class Link>
struct FlushListed {
  explicit FlushListed(auto const& executor) : list(asio::use_service<FlushList<Link>>(executor.context())) {}
  void add(auto const&, std::shared_ptr<Link> link) { list.add(std::move(link)); }
  FlushList<Link>& list;
};

/// The same where several threads share a context: a post for each link.
template <class Link>
struct FlushPost {
  explicit FlushPost(auto const&) {}
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
using Flusher = std::conditional_t<OfIoContext<Executor>, FlushListed<Link>, FlushPost<Link>>;

}  // namespace chatproto::detail
