// SPDX-License-Identifier: BSL-1.0
/// @file
/// The handle to the other end.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include <chatproto/message_queue.hpp>

namespace chatproto {

/// The other end of a connection, as a session sees it: something that takes lines and can be closed.
///
/// A cheap copyable handle. It may outlive the connection and the server: it then sends to nobody.
///
/// Thread safety: distinct objects: safe, also when they are the same peer. Shared objects: const members are safe.
class Peer {
 public:
  /// A peer that is reached through `queue`, which is not null.
  explicit Peer(std::shared_ptr<MessageQueue> queue) noexcept : queue_(std::move(queue)) {}

  /// Queues whole encoded lines; returns before they are written, and whether they stand in the queue. A peer that is gone is
  /// no error. `lines` is not null. `pressure`: of a sender who can wait, see `Backpressure`.
  PushResult send(SharedBlock lines, Backpressure* pressure = nullptr) const {
    return queue_->push(std::move(lines), pressure);
  }
  /// As above, of a string. Throws only `std::bad_alloc`.
  PushResult send(std::string lines) const { return send(std::make_shared<std::string const>(std::move(lines))); }

  /// Ends the connection when all that was sent before is written, or the write deadline has passed.
  void close() const { queue_->close(); }
  /// Ends the connection now and drops what was not yet written.
  void abort() const { queue_->abort(); }

  /// The session gets no more lines until `resume()`. To be called by this session itself only, in `open`, `on_line`,
  /// `on_bad_line` or `flush`. What the client sends meanwhile waits in the network, so that the client is slowed down;
  /// lines of the same read are kept, at most 64 KiB. That the client has gone is noticed only after the pause.
  void pause() const { queue_->pause_input(); }
  /// This one as a sender who can wait; it outlives what this returns. `before`: what it waits for already, or null.
  Backpressure pressure(MessageQueue::Hold before = nullptr) const& { return Backpressure(queue_, std::move(before)); }
  Backpressure pressure(MessageQueue::Hold = nullptr) const&& = delete;
  /// Ends the pause, if there is one when the client's executor gets to it. From any thread.
  void resume() const { queue_->resume_input(nullptr); }
  /// The same; and resumes `then` when what the client has sent until now was handed over: at most 256 KiB of it, and no more than
  /// another pause or the rate limit allows.
  void resume_before(Peer const& then) const { queue_->resume_input(then.queue_); }

 private:
  std::shared_ptr<MessageQueue> queue_;
};

}  // namespace chatproto
