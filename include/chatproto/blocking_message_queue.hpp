// SPDX-License-Identifier: BSL-1.0
/// @file
/// A message queue for a thread that waits.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <utility>

#include <chatproto/message_queue.hpp>

namespace chatproto {

/// A queue for a consumer that has no event loop: a thread that waits for it.
///
/// Thread safety: as `MessageQueue`; `pop_for` from one thread.
class BlockingMessageQueue final : public MessageQueue {
 public:
  using MessageQueue::MessageQueue;

  /// The next block; waits for it up to `time`. Null: the time is over, or the queue is closed and empty.
  template <class Rep, class Period>
  SharedBlock pop_for(std::chrono::duration<Rep, Period> time) {
    using Clock = std::chrono::steady_clock;
    auto const deadline = Clock::now() + time;
    while (next_ == batch_.blocks.size()) {
      std::unique_lock lock(mutex_);
      if (!ready_.wait_until(lock, is_open() ? deadline : Clock::now(), [this] { return woken_; })) return nullptr;
      woken_ = false;
      lock.unlock();
      next_ = 0;
      if (drain(batch_) != State::open && batch_.blocks.empty()) return nullptr;
    }
    return std::move(batch_.blocks[next_++]);
  }

 private:
  void wake() override {
    std::lock_guard const lock(mutex_);
    woken_ = true;
    ready_.notify_one();  // under the lock: MinGW's condition variables may hang otherwise
  }

  std::mutex mutex_;  // taken within the queue's own
  std::condition_variable ready_;
  bool woken_ = false;
  Batch batch_;
  std::size_t next_ = 0;
};

}  // namespace chatproto
