// SPDX-License-Identifier: BSL-1.0
// What the tests share; what needs a socket is in socket_support.hpp.
#pragma once

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

/// How long a test waits for what must come. What it sees then never depends on the time.
constexpr auto patience = std::chrono::seconds(60);

/// Waits until `condition` holds; false if it never does.
inline bool eventually(auto const& condition) {
  auto const deadline = std::chrono::steady_clock::now() + patience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

/// What matters of a line: "ok" and "err" without their free text, any other line whole. Throws if no peer may send it.
inline std::string gist(std::string_view line) {
  if (line.size() + 1 > chatproto::max_line) throw std::runtime_error("a line is too long: " + std::string(line));
  auto const message = chatproto::parse(line);
  return std::string(message.tag == "ok" || message.tag == "err" ? message.tag : line);
}

/// The gist of each line of `bytes`, which are whole lines.
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

/// What a link would write of these.
inline std::string text_of(chatproto::MessageQueue::Batch const& batch) {
  std::string text;
  for (auto const& block : batch.blocks) text += *block;
  return text.erase(0, batch.offset);
}
inline std::string text_of(chatproto::RoomLog::Pieces const& pieces) {
  std::string text;
  for (std::size_t i = 0; i < pieces.count; ++i) text.append(pieces.pieces[i].data, pieces.pieces[i].size);
  return text;
}

/// A queue whose consumer is the test itself.
class RecordingQueue final : public chatproto::MessageQueue {
 public:
  using MessageQueue::MessageQueue;

  int wakes = 0, failures = 0;  ///< how often it was woken, and could not be
  std::function<void()> on_wake = [] {}, on_resume = [] {};
  State state = State::open;  ///< as the last drain found it
  bool paused = false;        ///< no more lines are wanted

  /// Takes out all blocks, of the first one only what is still to be written; and what there is in the log that it
  /// follows.
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

  /// Takes out all bytes.
  std::string take() {
    std::string result;
    for (auto const& each : take_blocks()) result += each;
    return result;
  }

  /// Makes it stalled: its peer has not taken a block of `size` bytes.
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

/// What this thread has asked of operator new, which allocations.cpp replaces.
struct Allocations {
  std::size_t made = 0;
  std::size_t largest = 0;  ///< bytes
  std::ptrdiff_t live = 0;  ///< made and not freed; another thread may free them
};
Allocations& allocations() noexcept;

/// What all threads together have allocated, but for those of which this was said to be untrue. See costs.cpp.
struct Spent {
  std::size_t allocations = 0;
  std::ptrdiff_t live_bytes = 0;  ///< with what the allocator adds, where it tells
};
Spent spent() noexcept;
bool& counts_as_spent() noexcept;  ///< of this thread
void count_allocation(void* memory) noexcept;
void count_free(void* memory) noexcept;

/// A thread of the test's own plays the clients, which are not counted and do not fail.
class Uncounted {
 public:
  Uncounted() { test::counts_as_spent() = false; }
  ~Uncounted() { test::counts_as_spent() = true; }
  Uncounted(Uncounted const&) = delete;
  Uncounted& operator=(Uncounted const&) = delete;
};

}  // namespace test
