// SPDX-License-Identifier: BSL-1.0
/// @file
/// A chat with two more commands, and a counter that all clients share, protected in three ways.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <mutex>
#include <semaphore>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

#include <chatproto/chat_service.hpp>
#include <chatproto/message.hpp>
#include <chatproto/peer.hpp>

namespace examples {

// The shared resource. `add` counts and returns the new count, which nobody else gets; `get` only looks. All of them may be
// used by any thread. If reading and adding were two steps, two clients could read the same number and one poke be lost.

/// Protected by the machine: reading, adding and writing are one instruction. The best for one number.
class AtomicCounter {
 public:
  std::uint64_t add() { return ++count_; }
  std::uint64_t get() const { return count_; }

 private:
  std::atomic<std::uint64_t> count_ = 0;
};

/// Protected by a lock: whatever is done between lock and unlock is one step for all who use the lock. It works as well for
/// data that no single instruction can change.
class MutexCounter {
 public:
  std::uint64_t add() {
    std::lock_guard const lock(mutex_);
    return ++count_;
  }
  std::uint64_t get() const {
    std::lock_guard const lock(mutex_);
    return count_;
  }

 private:
  mutable std::mutex mutex_;
  std::uint64_t count_ = 0;
};

/// Protected by having one owner: only its thread touches the number, the others send it requests through a channel. The
/// semaphore counts the requests, so that the owner sleeps while there is none; a lock keeps the channel itself in order.
class OwnedCounter {
 public:
  OwnedCounter() : owner_([this] { serve(); }) {}
  ~OwnedCounter() {
    send(nullptr);
    owner_.join();
  }
  std::uint64_t add() { return ask(1); }
  std::uint64_t get() { return ask(0); }

 private:
  struct Request {
    std::uint64_t number;  // to be added; then the count
    std::binary_semaphore answered{0};
  };
  std::uint64_t ask(std::uint64_t number) {
    Request request{number};
    send(&request);
    request.answered.acquire();
    return request.number;
  }
  void send(Request* request) {
    {
      std::lock_guard const lock(mutex_);
      channel_.push_back(request);
    }
    waiting_.release();
  }
  Request* receive() {
    waiting_.acquire();
    std::lock_guard const lock(mutex_);
    auto* const request = channel_.front();
    channel_.pop_front();
    return request;
  }
  void serve() {
    std::uint64_t count = 0;
    while (auto* const request = receive()) {
      request->number = count += request->number;
      request->answered.release();
    }
  }

  std::mutex mutex_;
  std::deque<Request*> channel_;
  std::counting_semaphore<> waiting_{0};
  std::thread owner_;
};

/// The chat, and for senders `poke:` (counts, says so to the room, replies `ok:N`) and `pokes:` (replies `ok:N`).
/// This is how commands are added to the chat: a session that has the chat's, and hands on what is not its own.
template <class Counter = AtomicCounter>
class PokeService {
 public:
  class Session {
   public:
    Session(PokeService& service, chatproto::Peer peer)
        : counter_(service.counter_), chat_(service.chat_.open(std::move(peer))) {}

    void on_line(std::string_view line) {
      std::error_code ec;
      auto const message = chatproto::parse(line, ec);
      auto const is_ours = message.tag == "poke" || message.tag == "pokes";
      if (!is_ours || chat_.role() != chatproto::ChatService::Session::sender) return chat_.on_line(line);
      auto const count = std::to_string(message.tag == "poke" ? counter_.add() : counter_.get());
      if (message.tag == "poke") chat_.say("poke " + count);
      chat_.ok(count);
    }
    void on_bad_line(std::error_code ec) { chat_.on_bad_line(ec); }
    void flush() { chat_.flush(); }
    bool logged_in() const { return chat_.logged_in(); }

   private:
    Counter& counter_;
    chatproto::ChatService::Session chat_;
  };
  Session open(chatproto::Peer peer) { return {*this, std::move(peer)}; }

 private:
  chatproto::ChatService chat_;
  Counter counter_;
};

}  // namespace examples
