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
    auto const followed = followed_.try_emplace(request.room).first;
    try {
      ask(std::move(request), wake);
    } catch (...) {
      if (followed->second.count == 0 && !followed->second.is_left) followed_.erase(followed);
      throw;
    }
    ++followed->second.count;
  }
  /// Needs no memory and does not wake: those who sweep find the room.
  void unfollow(std::string_view room) noexcept {
    std::lock_guard const lock(mutex_);
    auto const at = followed_.find(room);
    if (at == followed_.end() || --at->second.count > 0 || std::exchange(at->second.is_left, true)) return;
    at->second.next_left = std::exchange(left_, &*at);
  }

  /// Passes the requests to `rules_of(room)`, in their order. `sweeps`: then also tells it of each room that nobody
  /// follows any more. If memory is short, it throws, and those who wait hear that the outcome is unknown.
  void pass_on(bool sweeps, auto const& rules_of) {
    struct Taken {
      std::vector<Request> requests;
      std::vector<std::string> unfollowed;
      ~Taken() {
        for (auto& request : requests)
          if (request.waiter) request.waiter->tell(Backplane::Outcome::unknown);
      }
    } taken;
    {
      std::lock_guard const lock(mutex_);
      if (sweeps) take_unfollowed(taken.unfollowed);
      taken.requests.swap(requests_);
    }
    for (auto& [what, room, entry, waiter] : taken.requests) {
      auto& rules = rules_of(room);
      switch (what) {
        case Request::append: rules.append(room, std::move(entry), std::move(waiter)); break;
        case Request::follow: rules.follow(room, std::move(waiter)); break;
        case Request::at_end: rules.at_end(room, std::move(waiter)); break;
      }
    }
    for (auto const& room : taken.unfollowed) rules_of(room).unfollow(room);
  }

 private:
  /// A room that is followed, or was until the last sweep.
  struct Followed {
    std::size_t count = 0;  // how often
    bool is_left = false;   // it is in the list `left_`
    std::pair<std::string const, Followed>* next_left = nullptr;
  };
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

  void take_unfollowed(std::vector<std::string>& rooms) {
    while (left_ != nullptr) {
      auto& [room, followed] = *left_;
      if (followed.count == 0) rooms.push_back(room);
      left_ = followed.next_left;
      followed.is_left = false;
      if (followed.count == 0) followed_.erase(room);
    }
  }

  std::mutex mutex_;
  std::vector<Request> requests_;
  std::map<std::string, Followed, std::less<>> followed_;
  std::pair<std::string const, Followed>* left_ = nullptr;  // rooms that lost their last follower
};

}  // namespace chatproto::detail
