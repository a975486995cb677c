// SPDX-License-Identifier: BSL-1.0
/// @file
/// A chat with two more commands, and a counter shared by all clients and protected in three ways.
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

// The shared resource. `add` increments and returns the new count, which no other call of `add` returns; `get` only
// reads. Any thread may call both. If reading and adding were two steps, two clients could read the same number, and
// one poke would be lost.

/// Protected by the processor: reading, adding and writing are one atomic instruction. The best choice for a single
/// number.
class AtomicCounter {
 public:
  std::uint64_t add() { return ++count_; }
  std::uint64_t get() const { return count_; }

 private:
  std::atomic<std::uint64_t> count_ = 0;
};

/// Protected by a lock: everything between lock and unlock is one step for all threads that use the lock. This also
/// works for data that no single instruction can change.
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

/// The textbook's semaphore: a number that `acquire` decrements, waiting while it is zero. (C++20 has
/// `std::counting_semaphore`, but that of GCC 12 for Windows can sleep for ever.)
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

/// Protected by a single owner: only the owner's thread touches the number, and the others send it requests through a
/// channel. The semaphore counts the requests, so that the owner sleeps while there are none; a lock protects the
/// channel itself; a promise carries the answer back.
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
    std::optional<std::uint64_t> number;  // to be added; empty: the owner must end
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

  std::mutex mutex_;  // guards channel_
  std::deque<Request> channel_;
  Semaphore requests_;
  std::thread owner_;
};

/// The chat, plus two commands for senders: `poke:` counts, tells the room and replies `ok:N`; `pokes:` replies `ok:N`.
/// This is how to add commands to the chat: a session contains the chat's session and passes on every line that it does
/// not handle itself.
///
/// Counting and announcing are two steps, so a room may hear of poke 8 before poke 7. No two pokes get the same number.
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
    void on_input_end() { chat_.on_input_end(); }
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
