// SPDX-License-Identifier: BSL-1.0
/// @file
/// The handle to a client.
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

/// A client as a session sees it: something that takes lines and can be closed.
///
/// No function of it calls your code, so you may use it under a lock of yours. (But a task that cannot be posted is
/// destroyed in `post`.)
///
/// A cheap copyable handle, which can be compared and hashed (`std::hash`). It may outlive the connection and the
/// server: it then sends to nobody.
///
/// Thread safety: distinct objects: safe, also when they are the same client. Shared objects: const members are safe.
class Peer {
 public:
  /// A client that is reached through `queue`, which is not null.
  explicit Peer(std::shared_ptr<MessageQueue> queue) noexcept : queue_(std::move(queue)) {}

  /// Queues whole encoded lines and returns before they are written. Tells whether the queue took them; a client that
  /// is gone is no error. Precondition: `lines` is not null, and its last character is a newline.
  PushResult send(SharedBlock lines) const {
    assert(lines && lines->ends_with('\n'));
    return queue_->push(std::move(lines));
  }
  /// The same, of a string. Throws only `std::bad_alloc`.
  PushResult send(std::string lines) const { return send(std::make_shared<std::string const>(std::move(lines))); }
  /// Queues `text` as one line: appends the newline. Precondition: `text` has none. Throws only `std::bad_alloc`.
  PushResult send_line(std::string_view text) const {
    assert(text.find('\n') == std::string_view::npos);
    std::string line;
    line.reserve(text.size() + 1);
    line.append(text).append(1, '\n');
    return send(std::move(line));
  }

  /// Ends the connection when all that was sent before is written, or the write deadline has passed.
  void close() const { queue_->close(); }
  /// Ends the connection now and drops what was not yet written.
  void abort() const { queue_->abort(); }

  /// The session gets no more lines until `resume()`. Only this session may call it, in `open`, `on_line`,
  /// `on_bad_line`, `on_resume` or `flush`. Meanwhile what the client sends waits in the network, which slows the
  /// client down; at most 64 KiB that were already read are kept. A client that resets its connection meanwhile is
  /// ended at once on Linux, and when the pause ends elsewhere. That a client sends no more is noticed when the pause
  /// ends.
  void pause() const { queue_->pause_input(); }
  /// Ends the pause. Does nothing if the client is not paused when its executor gets to it. From any thread.
  void resume() const { queue_->resume_input(); }

  /// Has `task()` called on the client's executor, where the session needs no lock: for what another thread or a timer
  /// has found out. It is never called at once, also not when `post` is called on that executor. Tasks that one thread
  /// posts for a client are called in that order.
  ///
  /// The task is dropped uncalled if its turn comes when the session has been destroyed, its client closed, or the
  /// server drains. So it may use the session. It may do what `on_line` may, and `flush` is called after it. What it
  /// throws costs the client. A pause does not hold it up. There is no limit to how many wait: that is yours to set.
  ///
  /// From any thread: also from another client's session, and while the server stops. False: the client is gone, has no
  /// server, or memory is short. In the last case the client is cut, for it might wait for this task. (Not with
  /// `StrandPool`, see docs/reliability.md, "not promised".) A task that is dropped is destroyed by the thread that
  /// posts it, or on the client's executor.
  template <std::invocable F>
  bool post(F task) const noexcept {
    struct Once final : MessageQueue::Task {
      explicit Once(F&& f) : call(std::move(f)) {}
      void run() override {
        auto mine = std::move(call);  // whose captures die here, and not with whoever posted it
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

  /// Whether both are the same client.
  bool operator==(Peer const&) const = default;
  /// The number that the server has given the client, which its `Observer` is told too. No two clients of a server
  /// have the same one. 0: the client has no server.
  std::uint64_t id() const noexcept { return queue_->id(); }

  /// Whether it still takes lines. Another thread may close it at any time.
  bool is_open() const noexcept { return queue_->is_open(); }
  /// The client's queue, for those who reach clients in another way than `send`, as a `Room` does.
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
