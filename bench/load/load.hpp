// SPDX-License-Identifier: BSL-1.0
// The parts of bench_load: load.cpp is the clients and rooms, report.cpp the JSON, main.cpp the options.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include <chatproto/message.hpp>

#include "../../tests/crowd.hpp"

namespace load {

using std::uint32_t, std::uint64_t, std::size_t;

// Where the parts of delivery:c00042:s00042:TEXT begin.
constexpr size_t name_size = 6, sender_at = 9 + name_size + 1, text_at = sender_at + name_size + 1;
constexpr size_t longest_text = chatproto::max_line - text_at - 1;

struct Options {
  std::string host, port;
  uint32_t senders = 1, receivers = 1, rooms = 1, slow = 0;
  uint32_t text = 64, window = 1, lag = 512;
  std::chrono::milliseconds seconds{2000}, warmup{500};
  uint64_t count = 0;
  bool idle = false, spin = false;
  int pid = 0;

  uint64_t clients() const { return uint64_t{rooms} * (uint64_t{senders} + receivers) + slow; }
};

/// A histogram of times, with 0.8 % precision in constant memory: 64 buckets for each power of two.
class Histogram {
 public:
  void add(std::chrono::nanoseconds time) {
    auto const value = static_cast<uint64_t>(std::max<std::int64_t>(time.count(), 0));
    auto const width = static_cast<size_t>(std::bit_width(value));
    auto const shift = width > 7 ? width - 7 : 0;
    ++buckets_[shift * 64 + (value >> shift)];
    ++total_;
    most_ = std::max(most_, value);
  }
  bool empty() const { return total_ == 0; }

  /// In microseconds.
  double percentile(double percent) const {
    if (percent >= 100) return static_cast<double>(most_) / 1e3;
    auto rank = static_cast<uint64_t>(percent / 100 * static_cast<double>(total_));
    size_t i = 0;
    while (i + 1 < buckets_.size() && rank >= buckets_[i]) rank -= buckets_[i++];
    auto const shift = i < 128 ? 0 : i / 64 - 1;
    auto const middle = (i - shift * 64) << shift | uint64_t{1} << shift >> 1;
    return static_cast<double>(std::min(middle, most_)) / 1e3;
  }

 private:
  std::array<uint64_t, size_t{59} * 64> buckets_{};
  uint64_t total_ = 0, most_ = 0;
};

/// What was measured, and what went wrong.
struct Result {
  uint64_t lost = 0, misordered = 0, corrupt = 0, errors = 0, unacknowledged = 0;
  uint64_t slow_joined = 0, slow_cut = 0;
  std::optional<crowd::Usage> at_first, joined, last;  // of the server, if its process is known

  // During the measurement:
  uint64_t deliveries = 0, messages = 0;
  double seconds = 0;
  std::chrono::nanoseconds server_cpu{}, own_cpu{};
  Histogram latency, ack;

  bool is_good() const { return lost + misordered + corrupt + errors + unacknowledged == 0; }
};

/// Connects all clients, lets them talk as long as the options say, and checks what they get. Throws if they cannot
/// connect, log in or join.
Result run(Options const& options);

/// Returns the result as one line.
std::string to_json(Options const& options, Result const& result);

}  // namespace load
