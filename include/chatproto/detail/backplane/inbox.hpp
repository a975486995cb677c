// SPDX-License-Identifier: BSL-1.0
/// @file
/// `BackplaneInbox`: what sessions ask of a backplane, until its thread comes to it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <chatproto/backplane.hpp>
#include <chatproto/detail/backplane/block.hpp>

namespace chatproto::detail {

/// Requests of all threads, and how many follow each room.
///
/// `wake` is called for the first request after `take`, under a lock, so it may only post. If it throws, nothing was
/// asked.
///
/// Thread safety: distinct objects: safe. Shared objects: safe.
class BackplaneInbox {
 public:
  using Waiter = std::shared_ptr<Backplane::Waiter>;

  void append(std::string_view room, Backplane::Said const& said, Waiter waiter, auto const& wake) {
    Request request{Request::append, std::string(room), encode_said(said), std::move(waiter)};
    std::lock_guard const lock(mutex_);
    ask(std::move(request), wake);
  }
  void at_end(std::string_view room, Waiter waiter, auto const& wake) {
    Request request{Request::at_end, std::string(room), {}, std::move(waiter)};
    std::lock_guard const lock(mutex_);
    ask(std::move(request), wake);
  }
  void follow(std::string_view room, Waiter waiter, auto const& wake) {
    Request request{Request::follow, std::string(room), {}, std::move(waiter)};
    std::lock_guard const lock(mutex_);
    auto const followers = followers_.try_emplace(request.room, 0).first;  // if that is all, it does no harm
    ask(std::move(request), wake);
    ++followers->second;
  }
  /// Needs no memory and does not wake: the rooms that nobody follows any more are found when time passes.
  void unfollow(std::string_view room) noexcept {
    std::lock_guard const lock(mutex_);
    if (auto const at = followers_.find(room); at != followers_.end()) --at->second;
  }

  /// Passes the requests to `rules_of(room)`, in their order. `sweeps`: then also tells it of each room that nobody
  /// follows any more.
  void pass_on(bool sweeps, auto const& rules_of) {
    std::vector<Request> requests;
    std::vector<std::string> unfollowed;
    {
      std::lock_guard const lock(mutex_);
      if (sweeps) unfollowed = take_unfollowed();
      requests.swap(requests_);
    }
    for (auto& [what, room, entry, waiter] : requests) {
      auto& rules = rules_of(room);
      switch (what) {
        case Request::append: rules.append(room, std::move(entry), std::move(waiter)); break;
        case Request::follow: rules.follow(room, std::move(waiter)); break;
        case Request::at_end: rules.at_end(room, std::move(waiter)); break;
      }
    }
    for (auto const& room : unfollowed) rules_of(room).unfollow(room);
  }

 private:
  struct Request {
    enum What : std::uint8_t { append, follow, at_end } what;
    std::string room;
    std::string entry;
    Waiter waiter;
  };

  void ask(Request request, auto const& wake) {
    requests_.push_back(std::move(request));
    if (requests_.size() > 1) return;
    try {
      wake();
    } catch (...) {
      requests_.pop_back();
      throw;
    }
  }

  std::vector<std::string> take_unfollowed() {
    std::vector<std::string> rooms;
    for (auto at = followers_.begin(); at != followers_.end();) {
      if (at->second > 0) {
        ++at;
        continue;
      }
      rooms.push_back(at->first);
      at = followers_.erase(at);
    }
    return rooms;
  }

  std::mutex mutex_;
  std::vector<Request> requests_;
  std::map<std::string, std::size_t, std::less<>> followers_;  // by room
};

}  // namespace chatproto::detail
