// SPDX-License-Identifier: BSL-1.0
/// @file
/// A chat with two more commands, and a counter that all clients share, protected in three ways.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <future>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

#include <chatproto/chat_service.hpp>
#include <chatproto/message.hpp>
#include <chatproto/peer.hpp>

namespace examples {

// The shared resource. `add` counts and returns the new count, which nobody else gets; `get` only looks. All of them
// may be used by any thread. If reading and adding were two steps, two clients could read the same number and one poke
// be lost.

/// Protected by the machine: reading, adding and writing are one instruction. The best for one number.
class AtomicCounter {
 public:
  std::uint64_t add() { return ++count_; }
  std::uint64_t get() const { return count_; }

 private:
  std::atomic<std::uint64_t> count_ = 0;
};

/// Protected by a lock: whatever is done between lock and unlock is one step for all who use the lock. It works as well
/// for data that no single instruction can change.
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

/// The textbook's semaphore: a number that `acquire` takes one from, and waits while it is zero. (C++20 has
/// `std::counting_semaphore`; that of GCC 12 for Windows can sleep for ever.)
class Semaphore {
 public:
  void release() {
    std::lock_guard const lock(mutex_);
    ++count_;
    not_zero_.notify_one();
  }
  void acquire() {
    std::unique_lock lock(mutex_);
    not_zero_.wait(lock, [this] { return count_ > 0; });
    --count_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable not_zero_;
  std::size_t count_ = 0;
};

/// Protected by having one owner: only its thread touches the number, the others send it requests through a channel.
/// The semaphore counts the requests, so that the owner sleeps while there is none; a lock keeps the channel itself in
/// order; a promise carries the answer back.
class OwnedCounter {
 public:
  OwnedCounter() : owner_([this] { serve(); }) {}
  ~OwnedCounter() {
    send({});
    owner_.join();
  }
  std::uint64_t add() { return ask(1); }
  std::uint64_t get() { return ask(0); }

 private:
  struct Request {
    std::optional<std::uint64_t> number;  // to be added; nothing: the end
    std::promise<std::uint64_t> answer;
  };
  std::uint64_t ask(std::uint64_t number) {
    Request request{number, {}};
    auto answer = request.answer.get_future();
    send(std::move(request));
    return answer.get();
  }
  void send(Request request) {
    {
      std::lock_guard const lock(mutex_);
      channel_.push_back(std::move(request));
    }
    requests_.release();
  }
  Request receive() {
    requests_.acquire();
    std::lock_guard const lock(mutex_);
    auto request = std::move(channel_.front());
    channel_.pop_front();
    return request;
  }
  void serve() {
    std::uint64_t count = 0;
    for (auto request = receive(); request.number; request = receive())
      request.answer.set_value(count += *request.number);
  }

  std::mutex mutex_;  // of channel_
  std::deque<Request> channel_;
  Semaphore requests_;
  std::thread owner_;
};

/// The chat, and for senders `poke:` (counts, says so to the room, replies `ok:N`) and `pokes:` (replies `ok:N`).
/// This is how commands are added to the chat: a session that has the chat's, and hands on what is not its own.
///
/// Counting and announcing are two steps, so a room may hear of poke 8 before poke 7. Nobody gets a number twice.
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
      auto const is_poke = message.tag == "poke";
      if (!is_poke && message.tag != "pokes") return chat_.on_line(line);
      if (!chat_.admits(chatproto::ChatService::Session::sender)) return;
      auto const count = std::to_string(is_poke ? counter_.add() : counter_.get());
      if (is_poke) chat_.say("poke " + count);
      chat_.ok(count);
    }
    void on_bad_line(std::error_code ec) { chat_.on_bad_line(ec); }
    void on_resume() { chat_.on_resume(); }
    void flush() { chat_.flush(); }
    bool logged_in() const { return chat_.logged_in(); }

   private:
    Counter& counter_;
    chatproto::ChatService::Session chat_;
  };
  Session open(chatproto::Peer peer) { return {*this, std::move(peer)}; }
  std::size_t queued_bytes() const { return chat_.queued_bytes(); }

 private:
  chatproto::ChatService chat_;
  Counter counter_;
};

}  // namespace examples
