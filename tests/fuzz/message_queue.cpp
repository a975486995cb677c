// SPDX-License-Identifier: BSL-1.0
// A queue must do what a plain list of blocks and a sum do: nothing is lost, duplicated or reordered, whatever is
// written in parts, and its limit is exact to the byte. Each byte of the input is an event, some with an argument.
#include "fuzz.hpp"

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <chatproto/message_queue.hpp>

namespace {

using namespace chatproto;
using State = MessageQueue::State;

struct Queue final : MessageQueue {
  using MessageQueue::MessageQueue;
  void wake() override { ++wakes; }
  int wakes = 0;
};

/// The expected state of the queue.
struct Plain {
  std::size_t limit;
  std::vector<std::string> blocks = {};
  std::size_t offset = 0;
  State state = State::open;
  bool stalled = false, awake = false, finished = false;
  int wakes = 0;

  std::size_t bytes() const {
    auto sum = std::size_t() - offset;
    for (auto const& block : blocks) sum += block.size() + MessageQueue::entry_cost;
    return sum;
  }
  void wake() {
    if (!finished && !std::exchange(awake, true)) ++wakes;
  }
  PushResult push(std::string const& block, State last = State::open) {
    if (state > last) return PushResult::closed;
    blocks.push_back(block);
    if (bytes() > limit * MessageQueue::hard_limit_factor) {
      cut(State::overflowed);
      return PushResult::overflow;
    }
    if (!stalled || bytes() > limit) wake();
    return PushResult::queued;
  }
  void close() {
    if (state == State::open && !stalled) wake();
    state = std::max(state, State::closing);
  }
  bool was_cut() const { return state > State::closing; }
  void cut(State why) {
    if (was_cut()) return;
    state = why;
    drop();
    wake();
  }
  void finish() {
    finished = true;
    state = State::aborted;
    drop();
  }
  void drop() {
    blocks.clear();
    offset = 0;
  }
};

}  // namespace

int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  if (size == 0) return 0;
  auto const* const end = data + size;
  auto const limit = *data++ * 8u;
  Queue queue(limit);
  Plain plain{limit};
  MessageQueue::Batch batch;
  char letter = 'a';
  auto const next_block = [&](std::size_t bytes) {
    auto const used = letter;
    letter = letter == 'z' ? 'a' : static_cast<char>(letter + 1);
    return std::make_shared<std::string const>(bytes, used);
  };

  while (data != end) {
    auto const what = *data++;
    auto const argument = [&] { return data != end ? *data++ : 0u; };
    switch (what % 8) {
      case 0:
      case 1: {
        auto const block = next_block(argument() % 200);
        auto const unread = what % 16 == 1;  // this may also come while the queue is closing
        assert((unread ? queue.push_unread(block) : queue.push(block)) ==
               plain.push(*block, unread ? State::closing : State::open));
        break;
      }
      case 2:
      case 3: {  // written in part, or in full; what is pushed meanwhile comes later
        assert(queue.drain(batch) == plain.state && (batch.offset == plain.offset || plain.was_cut()));
        assert(std::equal(batch.blocks.begin(), batch.blocks.end(), plain.blocks.begin(), plain.blocks.end(),
                          [](auto const& a, auto const& b) { return *a == b; }));
        auto taken = std::exchange(plain.blocks, {});
        auto const offset = std::exchange(plain.offset, 0);
        plain.stalled = plain.awake = false;
        if (what % 8 == 3) break;
        std::string rest;
        for (auto const& block : taken) rest += block;
        auto written = std::min<std::size_t>(argument(), rest.size() - offset);
        auto const meanwhile = argument();
        for (auto more = meanwhile % 3; more > 0; --more) {
          auto const block = next_block(10);
          assert(queue.push(block) == plain.push(*block));
        }
        if (meanwhile % 5 > 2) {
          queue.abort();
          plain.cut(State::aborted);
        }
        if (meanwhile % 7 == 6) {  // another batch had to be written first, and stalled
          batch.clear();
          batch.blocks.push_back(next_block(5));
          queue.put_back(batch, 0);
          taken.assign(1, std::string(5, letter == 'a' ? 'z' : static_cast<char>(letter - 1)));
          written = 0;
        } else {
          queue.put_back(batch, written);
          written += offset;
        }
        assert(batch.blocks.empty());
        if (plain.was_cut()) break;
        plain.stalled = true;
        auto first = taken.begin();
        for (; first != taken.end() && written >= first->size(); ++first) written -= first->size();
        plain.blocks.insert(plain.blocks.begin(), first, taken.end());
        plain.offset = written;
        break;
      }
      case 4:
        queue.close();
        plain.close();
        break;
      case 5:
        switch (argument() % 8) {  // mostly nothing, else most runs would be short
          case 0:
            queue.abort();
            plain.cut(State::aborted);
            break;
          case 1:
            queue.notify();
            if (!plain.stalled) plain.wake();
            break;
          case 2:
            queue.notify(true);
            plain.wake();
            break;
          case 3:
            queue.cut(State::over_memory);
            plain.cut(State::over_memory);
            break;
          default: break;
        }
        break;
      case 6:
        if (argument() % 4 != 0) break;
        queue.finish();
        plain.finish();
        break;
      default: break;
    }
    assert(queue.is_open() == (plain.state == State::open) && queue.is_cut() == plain.was_cut());
    assert(queue.queued_bytes() == plain.bytes() && queue.wakes == plain.wakes);
  }
  return 0;
}
