// SPDX-License-Identifier: BSL-1.0
// Benchmarks of the parts without I/O: encoding and parsing a message, splitting a stream into lines, blocks through a
// queue, a text for a room. That parsing allocates nothing is a test (message.cpp), not a figure.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>

#include <chatproto/line_reader.hpp>
#include <chatproto/message.hpp>
#include <chatproto/message_queue.hpp>
#include <chatproto/room.hpp>

namespace {

using namespace chatproto;

constexpr std::string_view line = "sendall:hey everybody, this is a text of usual length";

void count(benchmark::State& state, std::int64_t items, std::size_t bytes) {
  state.SetItemsProcessed(state.iterations() * items);
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(bytes));
}

void parse_line(benchmark::State& state) {
  std::error_code ec;
  auto input = line;
  for (auto _ : state) {
    benchmark::DoNotOptimize(input);  // else the compiler parses it only once
    benchmark::DoNotOptimize(parse(input, ec));
  }
  count(state, 1, line.size());
}
BENCHMARK(parse_line);

void encode_message(benchmark::State& state) {
  auto message = parse(line);
  for (auto _ : state) {
    benchmark::DoNotOptimize(message);
    benchmark::DoNotOptimize(encode(message));
  }
  count(state, 1, line.size());
}
BENCHMARK(encode_message);

/// Reads of `size` bytes. A line that spans two reads has to be kept.
void read_lines(benchmark::State& state) {
  auto const size = static_cast<std::size_t>(state.range(0));
  std::string stream;
  while (stream.size() < 64 * size) stream.append(line).append(1, '\n');
  LineReader reader;
  std::int64_t lines = 0;
  for (auto _ : state) {
    for (std::string_view rest = stream; !rest.empty(); rest.remove_prefix(std::min(size, rest.size()))) {
      reader.feed(rest.substr(0, size));
      while (reader.next()) ++lines;
    }
  }
  state.SetItemsProcessed(lines);
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(stream.size()));
}
BENCHMARK(read_lines)->Arg(64)->Arg(1024)->Arg(16 * 1024);

struct Queue final : MessageQueue {
  void wake() override {}
};

SharedBlock delivery() { return std::make_shared<std::string const>("delivery:cafe:bob:hey everybody!\n"); }

void queue_blocks(benchmark::State& state) {
  Queue queue;
  MessageQueue::Batch batch;
  auto const block = delivery();
  for (auto _ : state) {
    for (std::int64_t i = 0; i < state.range(0); ++i) queue.push(block);
    queue.drain(batch);
  }
  count(state, state.range(0), static_cast<std::size_t>(state.range(0)) * block->size());
}
BENCHMARK(queue_blocks)->Arg(1)->Arg(10)->Arg(100);

/// Sends one text to a room of a number of members, each of which then reads it.
void broadcast(benchmark::State& state) {
  Room room;
  std::deque<std::shared_ptr<Queue>> queues;
  std::deque<Room::Member> members;
  for (std::int64_t i = 0; i < state.range(0); ++i) {
    queues.push_back(std::make_shared<Queue>());
    room.add(members.emplace_back("receiver", Peer(queues.back())));
  }
  std::string const text = *delivery();
  MessageQueue::Batch batch;
  RoomLog::Pieces pieces;
  std::string rest;
  for (auto _ : state) {
    room.broadcast("bob", text);
    for (auto const& queue : queues) queue->drain(batch);
    for (auto& member : members)
      if (member.read(pieces)) member.advance(pieces, pieces.size, rest);
  }
  count(state, state.range(0), static_cast<std::size_t>(state.range(0)) * text.size());
  for (auto& member : members) room.remove(member);
}
BENCHMARK(broadcast)->Arg(10)->Arg(100)->Arg(1000);

}  // namespace
