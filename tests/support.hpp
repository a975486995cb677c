// SPDX-License-Identifier: BSL-1.0
// Helpers for all tests; those that need a socket are in socket_support.hpp.
#pragma once

#include <chatproto/detail/testing/simulated_link.hpp>
#include <chatproto/message.hpp>
#include <chatproto/message_queue.hpp>
#include <chatproto/peer.hpp>
#include <chatproto/room_log.hpp>

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace test {

using Lines = std::vector<std::string>;

/// How long a test waits for something that must happen. The result never depends on the time.
constexpr auto patience = std::chrono::seconds(60);

/// Waits until `condition` holds. Returns false if it never does.
inline bool eventually(auto const& condition) {
  auto const deadline = std::chrono::steady_clock::now() + patience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

/// Reduces a line to what a test compares: "ok" and "err" without their free text, any other line whole. Throws if no
/// peer may send the line.
inline std::string gist(std::string_view line) {
  if (line.size() + 1 > chatproto::max_line) throw std::runtime_error("a line is too long: " + std::string(line));
  auto const message = chatproto::parse(line);
  return std::string(message.tag == "ok" || message.tag == "err" ? message.tag : line);
}

/// Returns the gist of each line of `bytes`, which must consist of whole lines.
inline Lines gists(std::string_view bytes) {
  Lines result;
  while (!bytes.empty()) {
    auto const end = bytes.find('\n');
    if (end == std::string_view::npos) throw std::runtime_error("no whole line: " + std::string(bytes));
    result.push_back(gist(bytes.substr(0, end)));
    bytes.remove_prefix(end + 1);
  }
  return result;
}

inline chatproto::SharedBlock block(std::string bytes) { return std::make_shared<std::string const>(std::move(bytes)); }

using chatproto::detail::text_of;

/// A queue that the test itself drains.
class RecordingQueue final : public chatproto::MessageQueue {
 public:
  using MessageQueue::MessageQueue;

  int wakes = 0, failures = 0;  ///< how often it was woken, and how often waking failed
  std::function<void()> on_wake = [] {}, on_resume = [] {};
  State state = State::open;  ///< found by the last drain
  bool paused = false;        ///< input is paused

  /// Takes all blocks, of the first one only the unwritten part, then all bytes of the log that it follows.
  Lines take_blocks() {
    state = drain(batch_);
    Lines result;
    for (auto const& each : batch_.blocks) result.push_back(*each);
    if (!result.empty()) result.front().erase(0, batch_.offset);
    batch_.clear();
    chatproto::RoomLog::Pieces pieces;
    std::string rest;
    while (reader_ != nullptr && reader_->read(pieces)) {
      for (std::size_t i = 0; i < pieces.count; ++i) result.emplace_back(pieces.pieces[i].data, pieces.pieces[i].size);
      reader_->advance(pieces, pieces.size, rest);
    }
    return result;
  }

  std::string take() {
    std::string result;
    for (auto const& each : take_blocks()) result += each;
    return result;
  }

  /// Stalls the queue: its peer has not taken a block of `size` bytes.
  void stall(std::size_t size = 1) {
    push(block(std::string(size, '.')));
    drain(batch_);
    put_back(batch_, 0);
  }

 private:
  void pause_input() override { paused = true; }
  void resume_input() noexcept override {
    on_resume();
    paused = false;
  }
  void follow(chatproto::LogReader* reader) noexcept override { reader_ = reader; }
  void wake() override {
    ++wakes;
    on_wake();
  }
  void wake_failed() noexcept override { ++failures; }

  Batch batch_;
  chatproto::LogReader* reader_ = nullptr;
};

/// This thread's use of operator new, which allocations.cpp replaces.
struct Allocations {
  std::size_t made = 0;
  std::size_t largest = 0;  ///< bytes
  std::ptrdiff_t live = 0;  ///< made and not freed; another thread may free them
};
Allocations& allocations() noexcept;

/// Allocations of all threads together, except those that have set counts_as_spent() to false. See costs.cpp.
struct Spent {
  std::size_t allocations = 0;
  std::ptrdiff_t live_bytes = 0;  ///< with the allocator's overhead, where it is known
};
Spent spent() noexcept;
bool& counts_as_spent() noexcept;  ///< of this thread
void count_allocation(void* memory) noexcept;
void count_free(void* memory) noexcept;

/// Excludes the current thread, which plays the clients, from counting and from injected failures.
class Uncounted {
 public:
  Uncounted() { test::counts_as_spent() = false; }
  ~Uncounted() { test::counts_as_spent() = true; }
  Uncounted(Uncounted const&) = delete;
  Uncounted& operator=(Uncounted const&) = delete;
};

}  // namespace test
