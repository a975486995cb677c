// SPDX-License-Identifier: BSL-1.0
// The parts of bench_load: load.cpp is the clients and rooms, websocket.hpp their WebSocket, handshakes.cpp clients
// that only shake hands, tls.cpp the TLS of both, report.cpp the JSON, main.cpp the options.
#pragma once

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <chatproto/message.hpp>

#include "../../tests/crowd.hpp"

namespace load {

using std::uint32_t, std::uint64_t, std::size_t;

// Where the parts of delivery:c00042:s00042:TEXT begin.
constexpr size_t name_size = 6, sender_at = 9 + name_size + 1, text_at = sender_at + name_size + 1;
constexpr size_t longest_text = chatproto::max_line - text_at - 1;

struct Options {
  std::string host, port;
  std::vector<std::string> also = {};  // further ports
  uint32_t senders = 1, receivers = 1, rooms = 1, slow = 0;
  uint32_t text = 64, window = 1, lag = 512;
  std::chrono::milliseconds seconds{2000}, warmup{500}, interval{0};
  uint64_t count = 0;
  bool idle = false, spin = false, tls = false, websocket = false;
  uint32_t handshakes = 0, at_once = 100, storm = 0;
  std::vector<int> pids = {}, engine_pids = {};

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

/// A server's address that answers.
struct Address {
  sockaddr_storage bytes{};
  socklen_t size = 0;

  sockaddr const* get() const { return reinterpret_cast<sockaddr const*>(&bytes); }
};

/// How many clients shook hands, how many could not, and why the first of these could not.
struct Handshakes {
  uint64_t done = 0, failed = 0;
  std::string why = {};
};

/// What was measured, and what went wrong.
struct Result {
  uint64_t lost = 0, misordered = 0, corrupt = 0, errors = 0, unacknowledged = 0;
  uint64_t slow_joined = 0, slow_cut = 0;
  std::optional<crowd::Usage> at_first, joined, last;  // of the server, if its processes are known
  Handshakes handshakes;

  // During the measurement:
  uint64_t deliveries = 0, messages = 0;
  double seconds = 0;
  std::chrono::nanoseconds server_cpu{}, engine_cpu{}, own_cpu{};
  Histogram latency, ack;

  bool is_good() const {
    return lost + misordered + corrupt + errors + unacknowledged == 0;
  }  // a server may refuse a storm
};

/// Throws if there is no such host, or if nobody listens.
Address find_server(std::string const& host, std::string const& port);

/// Returns what these processes use together, or nothing if there are none or one is not there.
std::optional<crowd::Usage> usage_of(std::vector<int> const& pids);

/// Lets `count` clients connect over TLS, shake hands and close, `at_once` of them at a time. Any thread may call it.
Handshakes shake_hands(Address const& address, uint32_t count, uint32_t at_once);

/// Measures nothing but `options.handshakes` of them.
Result measure_handshakes(Options const& options);

/// Connects all clients, lets them talk as long as the options say, and checks what they get. Throws if they cannot
/// connect, log in or join.
Result run(Options const& options);

/// Returns the result as one line.
std::string to_json(Options const& options, Result const& result);

}  // namespace load
