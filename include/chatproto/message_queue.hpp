// SPDX-License-Identifier: BSL-1.0
/// @file
/// `MessageQueue`, the encoded lines that wait for one client.
#pragma once

#include <algorithm>
#include <atomic>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include <chatproto/detail/held_memory.hpp>

namespace chatproto {

class LogReader;
struct ExecutorSlot;

/// Whole encoded lines, immutable. A service may send one block to several clients.
using SharedBlock = std::shared_ptr<std::string const>;

/// The result of `MessageQueue::push`.
enum class PushResult : std::uint8_t {
  queued,    ///< The block is in the queue.
  overflow,  ///< Above the hard limit, or memory is short: everything was dropped, and the client will be disconnected.
  closed,    ///< The queue no longer takes blocks.
};

/// What happens when a client does not read what is sent to it.
enum class Overflow : std::uint8_t {
  disconnect,    ///< The client is disconnected.
  block_sender,  ///< The clients that send to its room wait; see `Room::must_wait` and `ServerOptions::overflow`.
};

/// The pending output of one client: replies, and what else a service sends. The texts of its room are in the room's
/// log instead, which the consumer reads too (`follow`). Any number of producers, one consumer.
///
/// The limit counts bytes, plus `entry_cost` for each block, so that many tiny blocks cannot use more memory than it
/// says. A push above the limit wakes even a stalled consumer, which then tries a write and disconnects a client whose
/// socket takes nothing. So a client whose thread was merely busy is not disconnected.
///
/// The hard limit is `hard_limit_factor` times the limit: a push above it disconnects the client.
///
/// `wake()` tells the consumer that there is something to do, at most once between two calls of `drain`. An empty queue
/// allocates no storage.
///
/// Thread safety: distinct objects: safe. Shared objects: safe, except `drain`, `put_back`, `finish`, `follow`,
/// `push_unread` and `pause_input`, which may only be called on the consumer's executor.
class MessageQueue {
 public:
  static constexpr std::size_t default_limit = 256 * 1024;  ///< bytes
  static constexpr std::size_t entry_cost = 64;             ///< bytes counted for each block besides its own
  static constexpr std::size_t hard_limit_factor = 64;      ///< hard limit, as a multiple of the limit

  /// The states of a queue.
  enum class State : std::uint8_t {
    open,         ///< takes blocks
    closing,      ///< takes no more; its blocks are still to be written
    aborted,      ///< takes no more and holds nothing
    overflowed,   ///< as `aborted`, because too much waited for the client
    failed,       ///< as `aborted`, because memory or another resource was short
    over_memory,  ///< as `aborted`, because all clients together held too much
    room_lost,    ///< as `aborted`, because texts of the client's room may be missing; see `Backplane`
  };

  /// The blocks that the consumer took out to write.
  struct Batch {
    std::vector<SharedBlock> blocks;  ///< in order
    std::size_t offset = 0;           ///< bytes of the first block that are already written

    /// Drops the blocks.
    void clear() noexcept {
      blocks.clear();
      offset = 0;
    }
  };

  /// Constructs an empty queue. `limit` is in bytes.
  explicit MessageQueue(std::size_t limit = default_limit, Overflow overflow = Overflow::disconnect) noexcept
      : limit_(limit), overflow_(overflow) {}
  MessageQueue(MessageQueue const&) = delete;
  MessageQueue& operator=(MessageQueue const&) = delete;
  virtual ~MessageQueue() = default;

  std::size_t limit() const noexcept { return limit_; }     ///< Returns the limit in bytes.
  Overflow overflow() const noexcept { return overflow_; }  ///< Returns what happens above the limit.

  /// Appends a block. Never blocks on the client.
  PushResult push(SharedBlock block) noexcept { return push(std::move(block), State::open); }
  /// As above, but also while the queue is closing: for texts that were in a log before. Only the consumer's session
  /// may call it.
  PushResult push_unread(SharedBlock block) noexcept { return push(std::move(block), State::closing); }

  /// Wakes the consumer: the log that it follows has something to read. `even_if_stalled`: wakes a stalled consumer
  /// too, which then tries a write.
  void notify(bool even_if_stalled = false) noexcept {
    Dropped dropped;
    std::lock_guard const lock(mutex_);
    if (!stalled_ || even_if_stalled) wake_locked(dropped);
  }

  /// Takes no more blocks; those that it holds are still written.
  void close() noexcept {
    Dropped dropped;
    std::lock_guard const lock(mutex_);
    if (!is_open()) return;
    state_.store(State::closing, std::memory_order_relaxed);
    if (!stalled_) wake_locked(dropped);
  }

  /// Takes no more blocks and drops those that it holds.
  void abort() noexcept { cut(State::aborted); }
  /// As above, for the reason `why`, which is neither `open` nor `closing`. A queue keeps its first reason.
  void cut(State why) noexcept {
    Dropped dropped;
    std::lock_guard const lock(mutex_);
    if (state_.load(std::memory_order_relaxed) <= State::closing) cut_locked(why, dropped);
  }

  /// Asks the consumer, if it also reads lines from the client, to pass on no more of them until `resume_input()`; see
  /// `Peer::pause`.
  virtual void pause_input() {}
  /// Ends a pause. Any thread may call it.
  virtual void resume_input() noexcept {}
  /// Sets the log that the consumer writes once this queue is empty; null: none. Only the consumer's session may call
  /// it.
  virtual void follow(LogReader* /*reader*/) noexcept {}

  /// A task to run on the consumer's executor.
  struct Task {
    virtual ~Task() = default;
    virtual void run() = 0;  ///< executes the task
  };
  /// Asks the consumer to run `task` for its session; see `Peer::post`. Returns false if the consumer is gone or runs
  /// no tasks. Throws `std::bad_alloc`.
  virtual bool post(std::shared_ptr<Task> /*task*/) { return false; }
  /// Returns the client's number; see `Peer::id`.
  virtual std::uint64_t id() const noexcept { return 0; }
  /// Stores the consumer's executor, if it has one, in `slot`; see `executor_of`. Only the consumer's session may call
  /// it.
  virtual void get_executor(ExecutorSlot& /*slot*/) {}

  /// Returns whether the queue still takes blocks. Another thread may close it at any time.
  bool is_open() const noexcept { return state_.load(std::memory_order_relaxed) == State::open; }
  /// Returns whether its blocks were dropped. Another thread may do that at any time.
  bool is_cut() const noexcept { return state_.load(std::memory_order_relaxed) > State::closing; }

  /// Returns what counts towards the limit now: bytes, and `entry_cost` for each block.
  std::size_t queued_bytes() const noexcept { return bytes_.load(std::memory_order_relaxed); }

  /// Consumer only: moves all blocks into `batch`, replacing its content. Returns the queue's state.
  State drain(Batch& batch) {
    // Producers wait for the lock, so memory is allocated and freed outside it.
    batch.clear();
    if (batch.blocks.capacity() > 64) std::vector<SharedBlock>().swap(batch.blocks);  // left over from a burst
    if (batch.blocks.capacity() == 0) batch.blocks.reserve(1);
    std::vector<SharedBlock> old;
    std::unique_ptr<std::vector<SharedBlock>> unused;
    std::lock_guard const lock(mutex_);
    woken_ = stalled_ = false;
    if (first_) {
      batch.blocks.push_back(std::move(first_));
    } else if (blocks_) {
      old.swap(batch.blocks);
      batch.blocks.swap(*blocks_);
      unused = std::move(blocks_);
    }
    batch.offset = std::exchange(offset_, 0);
    set_bytes(0);
    return state_.load(std::memory_order_relaxed);
  }

  /// Consumer only: puts back the batch just drained, except the first `written` bytes from its offset on. The consumer
  /// is then stalled, waiting for its client: until the next `drain`, only a push above the limit wakes it.
  void put_back(Batch& batch, std::size_t written) {
    std::size_t first = 0;
    batch.offset += written;
    while (first < batch.blocks.size() && batch.offset >= batch.blocks[first]->size())
      batch.offset -= batch.blocks[first++]->size();
    batch.blocks.erase(batch.blocks.begin(), batch.blocks.begin() + static_cast<std::ptrdiff_t>(first));
    {
      auto all = batch.blocks.empty() ? nullptr : std::make_unique<std::vector<SharedBlock>>();
      std::lock_guard const lock(mutex_);
      if (state_.load(std::memory_order_relaxed) <= State::closing) {
        stalled_ = true;
        offset_ = batch.offset;
        auto bytes = bytes_ - batch.offset;
        for (auto const& block : batch.blocks) bytes += block->size() + entry_cost;
        if (all) {
          if (first_) batch.blocks.push_back(std::move(first_));
          if (blocks_) std::move(blocks_->begin(), blocks_->end(), std::back_inserter(batch.blocks));
          all->swap(batch.blocks);
          blocks_.swap(all);
        }
        set_bytes(bytes);
      }
    }
    batch.clear();
  }

  /// Consumer only: ends the queue. Like `abort`, but wakes nobody, now or later.
  void finish() noexcept {
    Dropped dropped;
    std::lock_guard const lock(mutex_);
    state_.store(State::aborted, std::memory_order_relaxed);
    finished_ = true;
    drop_locked(dropped);
  }

 protected:
  /// Tells the consumer to drain the queue, read the log, or end. Called under the queue's lock, so it may only post or
  /// notify. If it throws, the queue fails (`State::failed`).
  virtual void wake() = 0;
  /// Called under the queue's lock when `wake()` has thrown: tells the consumer in another way that the queue has
  /// failed.
  virtual void wake_failed() noexcept {}

  /// Returns whether something failed. Any thread may call it.
  bool has_failed() const noexcept { return state_.load(std::memory_order_relaxed) == State::failed; }

  /// Calls `action` under the queue's lock, unless the consumer has finished. Like `wake()`, it may only post. Returns
  /// whether it was called.
  bool unless_finished(auto const& action) {
    std::lock_guard const lock(mutex_);
    if (!finished_) action();
    return !finished_;
  }

 private:
  /// Memory to be freed once the lock is released.
  struct Dropped {
    SharedBlock first;
    std::unique_ptr<std::vector<SharedBlock>> blocks;
  };

  /// Appends a block if the queue's state is not later than `last`.
  PushResult push(SharedBlock block, State last) noexcept {
    assert(block);
    Dropped dropped;
    std::lock_guard const lock(mutex_);
    if (state_.load(std::memory_order_relaxed) > last) return PushResult::closed;
    auto const bytes = bytes_ + block->size() + entry_cost;
    if ((bytes + hard_limit_factor - 1) / hard_limit_factor > limit_) {
      cut_locked(State::overflowed, dropped);
      return PushResult::overflow;
    }
    try {
      append_locked(std::move(block));
    } catch (...) {
      cut_locked(State::failed, dropped);
      return PushResult::overflow;
    }
    set_bytes(bytes);
    if (!stalled_ || bytes > limit_) wake_locked(dropped);
    return is_cut() ? PushResult::overflow : PushResult::queued;
  }

  void append_locked(SharedBlock block) {
    if (!first_ && !blocks_) {
      first_ = std::move(block);
      return;
    }
    if (first_) {
      auto blocks = std::make_unique<std::vector<SharedBlock>>();
      blocks->reserve(16);
      blocks->push_back(std::move(first_));
      blocks_ = std::move(blocks);
    }
    blocks_->push_back(std::move(block));
  }
  void wake_locked(Dropped& dropped) noexcept {
    if (finished_ || std::exchange(woken_, true)) return;
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
    if (!first_ && !blocks_) return;  // may be called twice
    dropped.first.swap(first_);
    dropped.blocks.swap(blocks_);
    set_bytes(0);
  }
  void set_bytes(std::size_t bytes) noexcept {
    bytes_.store(bytes, std::memory_order_relaxed);
    held_.set(bytes);
  }

  mutable std::mutex mutex_;
  SharedBlock first_;                                 // the only block: most queues never hold more, and need no vector
  std::unique_ptr<std::vector<SharedBlock>> blocks_;  // or all blocks
  std::atomic<std::size_t> bytes_ = 0;                // what counts towards the limit; read without the lock, too
  std::size_t offset_ = 0;                            // bytes of the first block that are already written
  std::size_t const limit_;
  detail::HeldShare held_;
  Overflow const overflow_;
  std::atomic<State> state_ = State::open;
  bool woken_ = false;     // woken and not drained since
  bool stalled_ = false;   // the client's socket is full
  bool finished_ = false;  // the consumer is gone
};

}  // namespace chatproto
