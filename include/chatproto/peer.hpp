// SPDX-License-Identifier: BSL-1.0
/// @file
/// The handle to a client.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include <chatproto/message_queue.hpp>

namespace chatproto {

/// A client as a session sees it: something that takes lines and can be closed.
///
/// A cheap copyable handle. It may outlive the connection and the server: it then sends to nobody.
///
/// Thread safety: distinct objects: safe, also when they are the same client. Shared objects: const members are safe.
class Peer {
 public:
  /// A client that is reached through `queue`, which is not null.
  explicit Peer(std::shared_ptr<MessageQueue> queue) noexcept : queue_(std::move(queue)) {}

  /// Queues whole encoded lines and returns before they are written. Tells whether the queue took them; a client that
  /// is gone is no error. `lines` is not null.
  PushResult send(SharedBlock lines) const { return queue_->push(std::move(lines)); }
  /// The same, of a string. Throws only `std::bad_alloc`.
  PushResult send(std::string lines) const { return send(std::make_shared<std::string const>(std::move(lines))); }

  /// Ends the connection when all that was sent before is written, or the write deadline has passed.
  void close() const { queue_->close(); }
  /// Ends the connection now and drops what was not yet written.
  void abort() const { queue_->abort(); }

  /// The session gets no more lines until `resume()`. Only this session may call it, in `open`, `on_line`,
  /// `on_bad_line`, `on_resume` or `flush`. Meanwhile what the client sends waits in the network, which slows the
  /// client down; at most 64 KiB that were already read are kept. On Linux a client that resets its connection is ended
  /// at once; elsewhere when the pause ends, as is noticed the end of a client's input.
  void pause() const { queue_->pause_input(); }
  /// Ends the pause. Does nothing if the client is not paused when its executor gets to it. From any thread.
  void resume() const { queue_->resume_input(); }

  /// Whether it still takes lines. Another thread may close it at any time.
  bool is_open() const noexcept { return queue_->is_open(); }
  /// The client's queue, for those who reach clients in another way than `send`, as a `Room` does.
  MessageQueue& queue() const noexcept { return *queue_; }

 private:
  std::shared_ptr<MessageQueue> queue_;
};

}  // namespace chatproto
