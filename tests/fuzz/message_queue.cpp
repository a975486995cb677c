// SPDX-License-Identifier: BSL-1.0
// A queue does what a plain list of blocks and a sum do: nothing is lost, doubled or out of order, whatever is written in
// parts, and its limit is kept to the byte. Each byte of the input is something that happens, some with an argument.
#include "fuzz.hpp"

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <chatproto/blocking_message_queue.hpp>
#include <chatproto/message_queue.hpp>

namespace {

using namespace chatproto;
using State = MessageQueue::State;

struct Queue final : MessageQueue {
  using MessageQueue::MessageQueue;
  void wake() override { ++wakes; }
  int wakes = 0;
};

/// What the queue must be.
struct Plain {
  std::size_t limit;
  std::vector<std::string> blocks = {};
  std::size_t offset = 0;
  State state = State::open;
  bool stalled = false, awake = false, finished = false;

  std::size_t bytes(std::size_t more) const {
    auto sum = more + MessageQueue::entry_cost - offset;
    for (auto const& block : blocks) sum += block.size() + MessageQueue::entry_cost;
    return sum;
  }
  PushResult push(std::string const& block) {
    if (state != State::open) return PushResult::closed;
    if (bytes(block.size()) > limit * (stalled ? 1 : MessageQueue::burst)) {
      abort(State::overflowed);
      return PushResult::overflow;
    }
    blocks.push_back(block);
    awake = awake || !stalled;
    return PushResult::queued;
  }
  bool was_cut() const { return state > State::closing; }
  void abort(State why = State::aborted) {
    if (was_cut()) return;
    awake = true;
    state = why;
    blocks.clear();
  }
};

}  // namespace

int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  if (size == 0) return 0;
  auto const* const end = data + size;
  auto const limit = *data++ * 8u;
  Queue queue(limit);
  BlockingMessageQueue blocking(limit);  // is only ever drained, so it never stalls
  Plain plain{limit}, plain_blocking{limit};
  MessageQueue::Batch batch;
  char letter = 'a';
  std::size_t popped = 0;  // of what the blocking queue drained at once
  std::vector<std::string> drained;

  while (data != end) {
    auto const what = *data++;
    auto const argument = [&] { return data != end ? *data++ : 0u; };
    auto const wakes = queue.wakes;
    auto const was_awake = plain.awake;
    switch (what % 8) {
      case 0:
      case 1: {
        std::string const block(argument() % 200, letter);
        letter = letter == 'z' ? 'a' : static_cast<char>(letter + 1);
        auto const shared = std::make_shared<std::string const>(block);
        assert(queue.push(shared) == plain.push(block));
        assert(blocking.push(shared) == plain_blocking.push(block));
        break;
      }
      case 2:
      case 3: {  // written in part, or in full; what is pushed meanwhile comes later
        assert(queue.drain(batch) == plain.state && (batch.offset == plain.offset || plain.was_cut()));
        assert(std::equal(batch.blocks.begin(), batch.blocks.end(), plain.blocks.begin(), plain.blocks.end(),
                          [](auto const& a, auto const& b) { return *a == b; }));
        auto const taken = std::exchange(plain.blocks, {});
        auto const offset = std::exchange(plain.offset, 0);
        plain.stalled = plain.awake = false;
        if (what % 8 == 3) break;
        std::string rest;
        for (auto const& block : taken) rest += block;
        auto written = std::min<std::size_t>(argument(), rest.size() - offset);
        auto const meanwhile = argument() % 5;
        for (auto more = meanwhile % 3; more > 0; --more) {
          std::string const block(10, letter);
          assert(queue.push(std::make_shared<std::string const>(block)) == plain.push(block));
        }
        if (meanwhile > 2) {
          queue.abort();
          plain.abort();
        }
        queue.put_back(batch, written);
        assert(batch.blocks.empty());
        if (plain.was_cut()) break;
        plain.stalled = true;
        written += offset;
        auto first = taken.begin();
        for (; first != taken.end() && written >= first->size(); ++first) written -= first->size();
        plain.blocks.insert(plain.blocks.begin(), first, taken.end());
        plain.offset = written;
        break;
      }
      case 4:
        queue.close();
        blocking.close();
        if (plain.state == State::open) plain.awake = plain.awake || !plain.stalled;
        if (plain.state == State::open) plain.state = State::closing;
        if (plain_blocking.state == State::open) plain_blocking.state = State::closing;
        break;
      case 5:
        if (argument() % 4 != 0) break;  // or most runs would be short
        queue.abort();
        plain.abort();
        break;
      case 6:
        if (argument() % 4 != 0) break;
        queue.finish();
        plain.abort();
        plain.awake = was_awake;
        break;
      case 7: {
        // What it has drained is not counted any more, nor dropped by an overflow.
        if (popped == drained.size()) {
          drained = std::exchange(plain_blocking.blocks, {});
          popped = 0;
        }
        auto const block = blocking.pop_for(std::chrono::seconds(0));
        assert(!block == (popped == drained.size()));
        if (block) assert(*block == drained[popped++]);
        break;
      }
      default: break;
    }
    assert(queue.is_open() == (plain.state == State::open));
    assert(queue.wakes >= wakes);
    if (what % 8 != 2) assert((queue.wakes > wakes) == (plain.awake && !was_awake));
  }
  return 0;
}
