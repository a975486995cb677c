// SPDX-License-Identifier: BSL-1.0
/// @file
/// `ReliableTimer`, a timer that also works when memory is short.
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

/// A timer for the server's own use, only on the server's context.
class ReliableTimer {
 public:
  /// Constructs a timer that calls `handler`. While it is set, `memory` must not be used otherwise. `memory` must
  /// outlive the context, which may still hold the wait.
  ReliableTimer(asio::io_context& context, HandlerMemory& memory, Callback handler)
      : timer_(context), memory_(memory), handler_(handler) {}

  /// Makes the timer expire after `time`. Precondition: it is not set.
  void set(std::chrono::milliseconds time) {
    set_ = true;
    time_ = time;
    arm();
  }
  bool is_set() const noexcept { return set_; }
  /// Cancels the timer for good: it must not be set again.
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
    } catch (std::bad_alloc const&) {  // Asio keeps all timers of a context in one array, which could not grow
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
