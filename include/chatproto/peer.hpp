// SPDX-License-Identifier: BSL-1.0
/// @file
/// `Peer`, the handle to a client.
#pragma once

#include <cassert>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include <chatproto/message_queue.hpp>

namespace chatproto {

/// A handle to a client, which a session uses to send lines to the client and to close it.
///
/// Its functions never call your code, so you may use it under a lock of yours. (But `post` destroys a task that it
/// cannot post.)
///
/// Cheap to copy; can be compared and hashed (`std::hash`). It may outlive the connection and the server; what it sends
/// is then dropped.
///
/// Thread safety: distinct objects: safe, even for the same client. Shared objects: const members are safe.
class Peer {
 public:
  /// Constructs a handle to the client that `queue` belongs to. Precondition: `queue` is not null.
  explicit Peer(std::shared_ptr<MessageQueue> queue) noexcept : queue_(std::move(queue)) {}

  /// Queues whole encoded lines and returns before they are written. Returns whether the queue took them; it is no
  /// error if the client is gone. Precondition: `lines` is not null, and its last character is a newline.
  PushResult send(SharedBlock lines) const {
    assert(lines && lines->ends_with('\n'));
    return queue_->push(std::move(lines));
  }
  /// As above, for a string. Throws only `std::bad_alloc`.
  PushResult send(std::string lines) const { return send(std::make_shared<std::string const>(std::move(lines))); }
  /// Queues `text` as one line, with a newline appended. Precondition: `text` contains no newline. Throws only
  /// `std::bad_alloc`.
  PushResult send_line(std::string_view text) const {
    assert(text.find('\n') == std::string_view::npos);
    std::string line;
    line.reserve(text.size() + 1);
    line.append(text).append(1, '\n');
    return send(std::move(line));
  }

  /// Closes the connection once all that was sent before is written, or the write deadline has passed.
  void close() const { queue_->close(); }
  /// Closes the connection at once and drops all pending output.
  void abort() const { queue_->abort(); }

  /// Passes no more lines to the session until `resume()`. Only this session may call it, in `open`, `on_line`,
  /// `on_bad_line`, `on_resume`, `on_input_end` or `flush`. Meanwhile the client's input waits in the network, which
  /// slows the client down; at most 64 KiB that were already read are kept. A client that resets its connection
  /// meanwhile is ended at once on Linux, and when the pause ends elsewhere. The end of its input is noticed when the
  /// pause ends.
  void pause() const { queue_->pause_input(); }
  /// Ends the pause, if the client is paused when its executor gets to the call. Any thread may call it.
  void resume() const { queue_->resume_input(); }

  /// Calls `task()` on the client's executor, where the session needs no lock: for results from another thread or a
  /// timer. Never calls it from within `post`, even on that executor. Tasks that one thread posts for a client are
  /// called in that order.
  ///
  /// The task is dropped without being called if, when its turn comes, the session has been destroyed, the client was
  /// closed, or a server that stops reads no more. So the task may use the session. It may do whatever `on_line` may
  /// do, and `flush` is called after it. If it throws, the client is disconnected. A pause does not delay it. The
  /// number of pending tasks is not limited: set a limit of your own.
  ///
  /// Any thread may call it, also from another client's session and while the server stops. Returns false if the client
  /// is gone or has no server, or if memory is short. In the last case the client is disconnected, because it might
  /// wait for this task. (Not with `StrandPool`, see docs/reliability.md, "not promised".) A dropped task is destroyed
  /// by the thread that posts it, or on the client's executor.
  template <std::invocable F>
  bool post(F task) const noexcept {
    struct Once final : MessageQueue::Task {
      explicit Once(F&& f) : call(std::move(f)) {}
      void run() override {
        // Destroys the captures here, not in the thread that posted the task.
        auto mine = std::move(call);
        std::move(mine)();
      }
      F call;
    };
    try {
      return queue_->post(std::make_shared<Once>(std::move(task)));
    } catch (...) {
      queue_->cut(MessageQueue::State::failed);
      return false;
    }
  }

  /// Returns whether both refer to the same client.
  bool operator==(Peer const&) const = default;
  /// Returns the client's number, which the server also passes to its `Observer`. No two clients of a server have the
  /// same number. 0: the client has no server.
  std::uint64_t id() const noexcept { return queue_->id(); }

  /// Returns whether the client's queue still takes lines. Another thread may close it at any time.
  bool is_open() const noexcept { return queue_->is_open(); }
  /// Returns the client's queue, for code that does not use `send`, such as `Room`.
  MessageQueue& queue() const noexcept { return *queue_; }

 private:
  std::shared_ptr<MessageQueue> queue_;
};

}  // namespace chatproto

/// @cond
// The hash of a client, for a table of clients.
template <>
struct std::hash<chatproto::Peer> {
  std::size_t operator()(chatproto::Peer const& peer) const noexcept {
    return std::hash<chatproto::MessageQueue*>()(&peer.queue());
  }
};
/// @endcond
