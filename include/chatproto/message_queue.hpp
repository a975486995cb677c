// SPDX-License-Identifier: BSL-1.0
/// @file
/// Encoded lines that wait for one peer.
#pragma once

#include <atomic>
#include <cassert>
#include <cstddef>
#include <cstdint>
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
  overflow,  ///< The limit was broken, or there is no memory: everything was dropped, and the peer will be cut.
  closed,    ///< The queue takes nothing any more.
};

/// What happens when more waits for a peer than its queue's limit.
enum class Overflow : std::uint8_t {
  disconnect,    ///< The peer is cut.
  block_sender,  ///< Nothing is lost: who sends waits, see `Backpressure`.
};

class Backpressure;
class Peer;

/// A bounded queue of encoded bytes for one peer: any number of producers, one consumer.
///
/// The limit counts bytes, and `entry_cost` more for each block, or many tiny blocks would cost more memory than
/// the limit says. A queue over its limit whose consumer has stalled (`put_back`) is cut: its blocks are dropped, and
/// what was written before is a gap-free prefix. A consumer that has not stalled was merely not scheduled yet, so a burst
/// may go beyond the limit, up to `burst` times it.
///
/// With `Overflow::block_sender` a block that is pushed with a `Backpressure` is taken in any case, and if that breaks the limit, its
/// sender is held until half of the limit is free. So what waits is bounded by the limit and what each sender pushes before it
/// looks at that (a chat's session: one block or two).
///
/// The consumer is told by `wake()`, once until it drains. It holds no storage while it is empty.
///
/// A server's links and `BlockingMessageQueue` are such queues.
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
    open,        ///< takes blocks
    closing,     ///< takes no more; what it holds is still to be written
    aborted,     ///< takes no more and holds nothing
    overflowed,  ///< the same, for its limit was broken
    failed,      ///< the same, for memory or another resource was short
  };

  /// Keeps a sender waiting: it goes on when the last copy is gone.
  using Hold = std::shared_ptr<void const>;

  /// What the consumer took out and writes.
  struct Batch {
    std::vector<SharedBlock> blocks;  ///< in order
    std::size_t offset = 0;           ///< so many bytes of the first block were written before
    std::vector<Hold> holds;          ///< of the senders who wait until this is written

    /// All is written, or nothing more will be. Not under a lock: it lets senders go on.
    void clear() noexcept {
      blocks.clear();
      holds.clear();
    }
  };

  /// `limit`: in bytes.
  explicit MessageQueue(std::size_t limit = default_limit, Overflow overflow = Overflow::disconnect) noexcept
      : limit_(limit), overflow_(overflow) {}
  MessageQueue(MessageQueue const&) = delete;
  MessageQueue& operator=(MessageQueue const&) = delete;
  virtual ~MessageQueue() = default;

  /// Appends a block, in the name of a sender who can wait or of nobody. Never blocks on the peer.
  PushResult push(SharedBlock block, Backpressure* pressure = nullptr) noexcept;

  /// Takes no more blocks; those that it holds are still written.
  void close() noexcept {
    Dropped dropped;
    std::lock_guard const lock(mutex_);
    if (state_.load(std::memory_order_relaxed) != State::open) return;
    state_.store(State::closing, std::memory_order_relaxed);
    if (!stalled_) wake_locked(dropped);
  }

  /// Takes no more blocks and drops those that it holds.
  void abort() noexcept { cut(State::aborted); }

  /// Asks the consumer, if it reads lines from the peer too, to hand over no more of them until `resume_input()`: see `Peer`.
  virtual void pause_input() {}
  /// Ends a pause: any thread. `then`, which may be null, is resumed after what has come in until now was handed
  /// over, see `Peer::resume_before`.
  virtual void resume_input(std::shared_ptr<MessageQueue> then) {
    if (then) then->resume_input(nullptr);
  }

  /// Whether it still takes blocks. Another thread may close it at any time.
  bool is_open() const noexcept { return state_.load(std::memory_order_relaxed) == State::open; }

  /// What counts against the limit: bytes, for the moment. Any thread.
  std::size_t queued_bytes() const {
    std::lock_guard const lock(mutex_);
    return bytes_;
  }

  /// Consumer: moves all blocks into `batch`, whose old content is dropped. Whoever was held stays so until `batch.clear()`.
  State drain(Batch& batch) {
    // Whoever pushes waits for the lock, so all memory is taken and given back outside of it.
    batch.clear();
    if (batch.blocks.capacity() > 64) std::vector<SharedBlock>().swap(batch.blocks);  // of a burst
    if (batch.blocks.capacity() == 0) batch.blocks.reserve(1);
    std::vector<SharedBlock> old;
    std::unique_ptr<std::vector<Hold>> holds;
    std::lock_guard const lock(mutex_);
    awake_ = stalled_ = false;
    if (first_) {
      batch.blocks.push_back(std::move(first_));
    } else if (!blocks_.empty()) {
      old.swap(batch.blocks);
      batch.blocks.swap(blocks_);
    }
    batch.offset = std::exchange(offset_, 0);
    if (holds_) {
      batch.holds.swap(*holds_);
      holds = std::move(holds_);
    }
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
      std::unique_ptr<std::vector<Hold>> released;
      std::lock_guard const lock(mutex_);
      if (state_.load(std::memory_order_relaxed) <= State::closing) {
        stalled_ = true;
        offset_ = batch.offset;
        bytes_ -= batch.offset;
        for (auto const& block : batch.blocks) bytes_ += block->size() + entry_cost;
        if (first_) batch.blocks.push_back(std::move(first_));
        for (auto& block : blocks_) batch.blocks.push_back(std::move(block));
        blocks_.swap(batch.blocks);
        if (bytes_ <= limit_ / 2)
          released = std::move(holds_);
        else
          for (; !batch.holds.empty(); batch.holds.pop_back()) hold_locked(batch.holds.back());
      }
    }
    batch.clear();
  }

  /// Consumer: it is gone. As `abort`, but wakes nobody.
  void finish() noexcept {
    Dropped dropped;
    std::lock_guard const lock(mutex_);
    state_.store(State::aborted, std::memory_order_relaxed);
    finished_ = true;
    drop_locked(dropped);
  }

 protected:
  /// Tells the consumer that there is something to drain, or that the queue was closed or aborted. Called under the
  /// queue's lock: it may only post or notify. If it throws, the queue is cut (`State::failed`).
  virtual void wake() = 0;
  /// `wake()` has thrown, and the consumer must learn in another way that the queue was cut. Under the queue's lock.
  virtual void wake_failed() noexcept {}

  /// Ends it, for this reason, unless it was cut before.
  void cut(State why) noexcept {
    Dropped dropped;
    std::lock_guard const lock(mutex_);
    if (state_.load(std::memory_order_relaxed) <= State::closing) cut_locked(why, dropped);
  }
  /// Whether it was cut because something failed: any thread.
  bool has_failed() const noexcept { return state_.load(std::memory_order_relaxed) == State::failed; }

  /// Calls `action` under the queue's lock, if the consumer has not finished: as with `wake()`, it may only post.
  void unless_finished(auto const& action) {
    std::lock_guard const lock(mutex_);
    if (!finished_) action();
  }

 private:
  /// What is given back when the lock is no longer held: a hold lets its sender go on, which takes that one's lock.
  struct Dropped {
    SharedBlock first;
    std::vector<SharedBlock> blocks;
    std::unique_ptr<std::vector<Hold>> holds;
  };

  void hold_locked(Hold const& hold) {
    if (!holds_) holds_ = std::make_unique<std::vector<Hold>>();
    if (holds_->empty() || holds_->back() != hold) holds_->push_back(hold);  // often the same one several times
  }
  void append_locked(SharedBlock block) {
    if (!first_ && blocks_.empty()) {
      first_ = std::move(block);
      return;
    }
    if (first_) {
      blocks_.reserve(16);
      blocks_.push_back(std::move(first_));
    }
    blocks_.push_back(std::move(block));
  }
  void wake_locked(Dropped& dropped) noexcept {
    if (std::exchange(awake_, true)) return;
    try {
      wake();
    } catch (...) {
      state_.store(State::failed, std::memory_order_relaxed);
      drop_locked(dropped);
      wake_failed();
    }
  }
  void cut_locked(State why, Dropped& dropped) noexcept {
    state_.store(why, std::memory_order_relaxed);
    drop_locked(dropped);
    wake_locked(dropped);
  }
  void drop_locked(Dropped& dropped) noexcept {
    if (!first_ && blocks_.empty() && !holds_) return;  // it may be called twice
    dropped.first.swap(first_);
    dropped.blocks.swap(blocks_);
    dropped.holds.swap(holds_);
    bytes_ = 0;
  }

  mutable std::mutex mutex_;
  SharedBlock first_;                         // the only block: most queues never hold more, and need no storage for it
  std::vector<SharedBlock> blocks_;           // or all of them
  std::size_t bytes_ = 0;                     // what counts against the limit
  std::size_t offset_ = 0;                    // bytes of the first block that are written already
  std::unique_ptr<std::vector<Hold>> holds_;  // of the senders who wait until there is room, if any
  std::size_t limit_;
  Overflow overflow_;
  std::atomic<State> state_ = State::open;
  bool awake_ = false;     // woken, and not drained since
  bool stalled_ = false;   // the peer takes no more for the moment
  bool finished_ = false;  // the consumer is gone
};

/// A sender who can wait, made by `Peer::pressure`: what it pushes to queues that block senders (`Overflow::block_sender`) is taken also
/// beyond their limits, and `hold()` then tells for how long it is to wait.
///
/// Waiting means: no more lines are taken from the sender (`Peer::pause`, to be called while this object lives), and it is told
/// nothing of what it has said. It is resumed (`MessageQueue::resume_input`) when each full queue has room again, or is gone.
///
/// Thread safety: distinct objects: safe; shared objects: unsafe.
class Backpressure {
 public:
  Backpressure(Backpressure const&) = delete;
  Backpressure& operator=(Backpressure const&) = delete;

  /// What the sender has to wait for, or null.
  MessageQueue::Hold const& hold() const noexcept { return hold_; }

 private:
  friend class MessageQueue;
  friend class Peer;
  Backpressure(std::shared_ptr<MessageQueue> const& sender, MessageQueue::Hold before) noexcept
      : sender_(sender), hold_(std::move(before)) {}

  struct Resuming {
    std::shared_ptr<MessageQueue> sender;
    explicit Resuming(std::shared_ptr<MessageQueue> const& queue) : sender(queue) {}
    Resuming(Resuming const&) = delete;
    Resuming& operator=(Resuming const&) = delete;
    ~Resuming() { sender->resume_input(nullptr); }
  };
  MessageQueue::Hold const& make_hold() {
    if (!hold_) hold_ = std::make_shared<Resuming const>(sender_);
    return hold_;
  }

  std::shared_ptr<MessageQueue> const& sender_;
  MessageQueue::Hold hold_;
};

inline PushResult MessageQueue::push(SharedBlock block, Backpressure* pressure) noexcept {
  assert(block);
  Dropped dropped;
  std::lock_guard const lock(mutex_);
  if (state_.load(std::memory_order_relaxed) != State::open) return PushResult::closed;
  auto const bytes = bytes_ + block->size() + entry_cost;
  auto const can_wait = pressure != nullptr && overflow_ == Overflow::block_sender;
  if (!can_wait && (stalled_ ? bytes : (bytes + burst - 1) / burst) > limit_) {
    cut_locked(State::overflowed, dropped);
    return PushResult::overflow;
  }
  try {
    if (can_wait && bytes > limit_) hold_locked(pressure->make_hold());
    append_locked(std::move(block));
  } catch (...) {
    cut_locked(State::failed, dropped);
    return PushResult::overflow;
  }
  bytes_ = bytes;
  if (!stalled_) wake_locked(dropped);
  return state_.load(std::memory_order_relaxed) == State::open ? PushResult::queued : PushResult::overflow;
}

}  // namespace chatproto
