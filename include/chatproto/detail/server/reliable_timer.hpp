// SPDX-License-Identifier: BSL-1.0
/// @file
/// A timer that goes off even if memory is short.
#pragma once

#include <chrono>
#include <new>
#include <system_error>
#include <thread>
#include <utility>

#include <asio/io_context.hpp>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>

#include <chatproto/detail/server/handler_memory.hpp>

namespace chatproto::detail {

using ContextTimer = asio::steady_timer::rebind_executor<asio::io_context::executor_type>::other;

/// A timer of a server's own. Used on its context only.
class ReliableTimer {
 public:
  /// What it calls. `memory` is not used otherwise while it is set, and outlives the context, which may still hold the
  /// wait.
  ReliableTimer(asio::io_context& context, HandlerMemory& memory, Callback handler)
      : timer_(context), memory_(memory), handler_(handler) {}

  /// Goes off after this time, unless it is cancelled before. Only when it is not set.
  void set(std::chrono::milliseconds time) {
    set_ = true;
    time_ = time;
    arm();
  }
  bool is_set() const noexcept { return set_; }
  /// For good: it is not set again.
  void cancel() {
    set_ = false;
    timer_.cancel();
  }

 private:
  void arm() {
    if (!set_) return;
    timer_.expires_after(time_);
    try {
      timer_.async_wait(memory_([this](std::error_code const&) {
        if (std::exchange(set_, false)) handler_();
      }));
    } catch (std::bad_alloc const&) {  // Asio has one array for all timers of a context, which could not grow
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      asio::post(timer_.get_executor(), memory_(callback<&ReliableTimer::arm>(this)));
    }
  }

  ContextTimer timer_;
  HandlerMemory& memory_;
  Callback const handler_;
  std::chrono::milliseconds time_{0};
  bool set_ = false;
};

}  // namespace chatproto::detail
