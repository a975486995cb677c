// SPDX-License-Identifier: BSL-1.0
/// @file
/// Encoded lines that wait for one peer.
#pragma once

#include <atomic>
#include <cassert>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace chatproto {

/// Whole encoded lines, immutable, shared by all the queues that they stand in.
using SharedBlock = std::shared_ptr<std::string const>;

/// What `MessageQueue::push` did.
enum class PushResult : std::uint8_t {
  queued,    ///< It stands in the queue.
  overflow,  ///< The limit was broken: everything was dropped, and the peer will be cut.
  closed,    ///< The queue takes nothing any more.
};

/// A bounded queue of encoded bytes for one peer: any number of producers, one consumer.
///
/// The limit counts bytes, and `entry_cost` more for each block, or many tiny blocks would cost more memory than
/// the limit says. A queue over its limit whose consumer has stalled (`put_back`) is cut: its blocks are dropped, and
/// what was written before is a gap-free prefix. A consumer that has not stalled was merely not scheduled yet, so a burst
/// may go beyond the limit, up to `burst` times it.
///
/// The consumer is told by `wake()`, once until it drains. It holds no storage while it is empty.
///
/// Thread safety: distinct objects: safe. Shared objects: `push`, `close`, `abort` and `is_open` from any thread;
/// `drain`, `put_back` and `finish` from the consumer's only.
class MessageQueue {
 public:
  static constexpr std::size_t default_limit = 256 * 1024;  ///< bytes
  static constexpr std::size_t entry_cost = 64;             ///< bytes counted for each block beside its own
  static constexpr std::size_t burst = 64;                  ///< see above

  /// A queue's life.
  enum class State : std::uint8_t {
    open,     ///< takes blocks
    closing,  ///< takes no more; what it holds is still to be written
    aborted,  ///< takes no more and holds nothing
  };

  /// What the consumer took out and writes.
  struct Batch {
    std::vector<SharedBlock> blocks;  ///< in order
    std::size_t offset = 0;           ///< so many bytes of the first block were written before
  };

  /// `limit`: in bytes.
  explicit MessageQueue(std::size_t limit = default_limit) noexcept : limit_(limit) {}
  MessageQueue(MessageQueue const&) = delete;
  MessageQueue& operator=(MessageQueue const&) = delete;
  virtual ~MessageQueue() = default;

  /// Appends a block. Never blocks on the peer.
  PushResult push(SharedBlock block) {
    assert(block);
    std::lock_guard const lock(mutex_);
    if (state_.load(std::memory_order_relaxed) != State::open) return PushResult::closed;
    auto const bytes = bytes_ + block->size() + entry_cost;
    if ((stalled_ ? bytes : (bytes + burst - 1) / burst) > limit_) {
      abort_locked();
      return PushResult::overflow;
    }
    if (!first_ && blocks_.empty()) {
      first_ = std::move(block);
    } else {
      if (first_) {
        blocks_.reserve(16);
        blocks_.push_back(std::move(first_));
      }
      blocks_.push_back(std::move(block));
    }
    bytes_ = bytes;
    if (!stalled_) wake_locked();
    return PushResult::queued;
  }

  /// Takes no more blocks; those that it holds are still written.
  void close() {
    std::lock_guard const lock(mutex_);
    if (state_.load(std::memory_order_relaxed) != State::open) return;
    state_.store(State::closing, std::memory_order_relaxed);
    if (!stalled_) wake_locked();
  }

  /// Takes no more blocks and drops those that it holds.
  void abort() {
    std::lock_guard const lock(mutex_);
    if (state_.load(std::memory_order_relaxed) != State::aborted) abort_locked();
  }

  /// Asks the consumer, if it reads lines from the peer too, to hand over no more of them until `resume_input()`: see `Peer`.
  virtual void pause_input() {}
  /// Ends a pause: any thread. `then`, which may be null, is resumed after what has come in until now was handed over.
  virtual void resume_input(std::shared_ptr<MessageQueue> then) {
    if (then) then->resume_input(nullptr);
  }

  /// Whether it still takes blocks. Another thread may close it at any time.
  bool is_open() const noexcept { return state_.load(std::memory_order_relaxed) == State::open; }

  /// Consumer: moves all blocks into `batch`, whose old content is dropped.
  State drain(Batch& batch) {
    // Whoever pushes waits for the lock, so all memory is taken and given back outside of it.
    batch.blocks.clear();
    if (batch.blocks.capacity() > 64) std::vector<SharedBlock>().swap(batch.blocks);  // of a burst
    if (batch.blocks.capacity() == 0) batch.blocks.reserve(1);
    std::vector<SharedBlock> old;
    std::lock_guard const lock(mutex_);
    awake_ = stalled_ = false;
    if (first_) {
      batch.blocks.push_back(std::move(first_));
    } else if (!blocks_.empty()) {
      old.swap(batch.blocks);
      batch.blocks.swap(blocks_);
    }
    batch.offset = std::exchange(offset_, 0);
    bytes_ = 0;
    return state_.load(std::memory_order_relaxed);
  }

  /// Consumer: of the batch just drained only `written` bytes could be written (counted from its offset). The rest is
  /// first again, and until the next drain no block wakes the consumer: it waits for the peer, not for us.
  void put_back(Batch& batch, std::size_t written) {
    std::size_t first = 0;
    batch.offset += written;
    while (first < batch.blocks.size() && batch.offset >= batch.blocks[first]->size())
      batch.offset -= batch.blocks[first++]->size();
    batch.blocks.erase(batch.blocks.begin(), batch.blocks.begin() + static_cast<std::ptrdiff_t>(first));
    {
      std::lock_guard const lock(mutex_);
      if (state_.load(std::memory_order_relaxed) != State::aborted) {
        stalled_ = true;
        offset_ = batch.offset;
        bytes_ -= batch.offset;
        for (auto const& block : batch.blocks) bytes_ += block->size() + entry_cost;
        if (first_) batch.blocks.push_back(std::move(first_));
        for (auto& block : blocks_) batch.blocks.push_back(std::move(block));
        blocks_.swap(batch.blocks);
      }
    }
    batch.blocks.clear();
  }

  /// Consumer: it is gone. As `abort`, but wakes nobody.
  void finish() noexcept {
    SharedBlock first;
    std::vector<SharedBlock> dropped;
    std::lock_guard const lock(mutex_);
    state_.store(State::aborted, std::memory_order_relaxed);
    finished_ = true;
    first.swap(first_);
    dropped.swap(blocks_);
    bytes_ = 0;
  }

 protected:
  /// Tells the consumer that there is something to drain, or that the queue was closed or aborted. Called under the
  /// queue's lock: it may only post or notify.
  virtual void wake() = 0;

  /// Calls `action` under the queue's lock, if the consumer has not finished: as with `wake()`, it may only post.
  void unless_finished(auto const& action) {
    std::lock_guard const lock(mutex_);
    if (!finished_) action();
  }

 private:
  void wake_locked() {
    if (!std::exchange(awake_, true)) wake();
  }
  void abort_locked() {
    state_.store(State::aborted, std::memory_order_relaxed);
    first_.reset();
    std::vector<SharedBlock>().swap(blocks_);
    bytes_ = 0;
    wake_locked();
  }

  std::mutex mutex_;
  SharedBlock first_;                // the only block: most queues never hold more, and need no storage for it
  std::vector<SharedBlock> blocks_;  // or all of them
  std::size_t bytes_ = 0;            // what counts against the limit
  std::size_t offset_ = 0;           // bytes of the first block that are written already
  std::size_t limit_;
  std::atomic<State> state_ = State::open;
  bool awake_ = false;     // woken, and not drained since
  bool stalled_ = false;   // the peer takes no more for the moment
  bool finished_ = false;  // the consumer is gone
};

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
