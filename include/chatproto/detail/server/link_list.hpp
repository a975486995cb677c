// SPDX-License-Identifier: BSL-1.0
/// @file
/// `LinkList`, the clients of a server.
#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace chatproto::detail {

/// The links of a server. Those whose handshake is under way come first, so that they are found without a look at the
/// others. Each link keeps its place in its `slot()`, which nobody else uses.
///
/// Thread safety: any thread may use it. A callback runs under the list's lock; it may take a queue's lock.
template <class Link>
class LinkList {
 public:
  using Links = std::vector<std::shared_ptr<Link>>;

  std::size_t size() const {
    std::lock_guard const lock(mutex_);
    return links_.size();
  }
  /// Returns how many handshakes are under way.
  std::size_t handshakes() const {
    std::lock_guard const lock(mutex_);
    return handshakes_;
  }
  /// Adds a link, or throws `std::bad_alloc`.
  void add(std::shared_ptr<Link> link, bool is_in_handshake) {
    std::lock_guard const lock(mutex_);
    link->slot() = static_cast<std::uint32_t>(links_.size());
    links_.push_back(std::move(link));
    if (is_in_handshake) exchange(links_.size() - 1, handshakes_++);
  }
  /// The handshake of a link is no longer under way.
  void handshake_ended(Link& link) noexcept {
    std::lock_guard const lock(mutex_);
    exchange(link.slot(), --handshakes_);
  }
  /// Removes a link whose handshake is not under way, and may destroy it. Returns whether the list is empty now.
  bool remove(Link& link) noexcept {
    std::shared_ptr<Link> removed;  // released after the lock
    std::lock_guard const lock(mutex_);
    assert(link.slot() >= handshakes_);
    exchange(link.slot(), links_.size() - 1);
    removed = std::move(links_.back());
    links_.pop_back();
    return links_.empty();
  }

  /// Calls `call` with each link.
  void for_each(auto const& call) const {
    std::lock_guard const lock(mutex_);
    for (auto const& link : links_) call(*link);
  }
  /// Calls `call` with each link whose handshake is under way.
  void for_each_handshake(auto const& call) const {
    std::lock_guard const lock(mutex_);
    for (std::size_t i = 0; i < handshakes_; ++i) call(*links_[i]);
  }
  /// Calls `call` with all links.
  void use(auto const& call) const {
    std::lock_guard const lock(mutex_);
    call(links_);
  }

 private:
  void exchange(std::size_t one, std::size_t other) noexcept {
    std::swap(links_[one], links_[other]);
    links_[one]->slot() = static_cast<std::uint32_t>(one);
    links_[other]->slot() = static_cast<std::uint32_t>(other);
  }

  mutable std::mutex mutex_;  // guards the following members
  Links links_;
  std::size_t handshakes_ = 0;  // the first links
};

}  // namespace chatproto::detail
