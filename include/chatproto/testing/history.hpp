// SPDX-License-Identifier: BSL-1.0
/// @file
/// A simulated history: its steps, and what clients have seen.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace chatproto::testing {

/// Something that a client has seen.
struct Event {
  /// The kinds of events.
  enum class Kind : std::uint8_t {
    connected,     ///< the client has connected
    sent,          ///< it has sent a line, which the server may not have read yet
    received,      ///< it has received a line
    disconnected,  ///< its connection has ended; `line` is why: "reset" by itself, or as `to_string(DisconnectReason)`
  };
  Kind kind;          ///< what happened
  std::string line;   ///< without its terminator
  std::size_t step;   ///< during which step of the history, from 0; the number of steps: at its end
  std::size_t order;  ///< the number of the event among all clients' events
};

/// A client, and what it has seen so far.
struct Client {
  std::string name = {};           ///< as in its plan
  std::vector<Event> events = {};  ///< of all its connections, in order
  bool connected = false;          ///< whether it is connected now
  bool paused = false;             ///< whether its session has paused it, and it waits

  /// Returns the lines of all events of that kind.
  std::vector<std::string> lines(Event::Kind kind) const {
    std::vector<std::string> result;
    for (auto const& event : events)
      if (event.kind == kind) result.push_back(event.line);
    return result;
  }
  /// Returns the lines that it has received.
  std::vector<std::string> received() const { return lines(Event::Kind::received); }
  /// Returns the lines that it has sent.
  std::vector<std::string> sent() const { return lines(Event::Kind::sent); }
};

/// A step of a history: something that a client or the server does.
struct Step {
  /// What is done.
  enum class Kind : std::uint8_t {
    connect,             ///< the client connects
    send,                ///< it sends lines
    end_input,           ///< it shuts down its sending side
    reset,               ///< it resets its connection
    stop_reading,        ///< it stops reading
    read,                ///< it reads `amount` bytes, or 0: everything from now on
    pass_time,           ///< `amount` milliseconds pass
    server_reads,        ///< the server reads at most `amount` bytes from the client, or 0: as many as it likes
    server_writes,       ///< the server writes to the client
    server_continues,    ///< the server continues with lines that it has read before
    server_runs_posted,  ///< the server runs what was posted for the client: a task, a resume, a deadline
    server_sees_end,     ///< the server notices that the client has reset its connection or ended its input
  };
  static constexpr auto nobody = static_cast<std::size_t>(-1);  ///< the `client` of `pass_time`

  Kind kind;                            ///< what is done
  std::size_t client = nobody;          ///< by or for which client, from 0
  std::vector<std::string> lines = {};  ///< of `send`
  std::size_t amount = 0;               ///< bytes or milliseconds
  bool settles = true;                  ///< whether the server then does all that is due, before the next step
  /// 0: after the step before. Otherwise the step happens during an earlier one, the last whose `within` is 0: at its
  /// interruption with this number, which is after a line that the session got, or before the server writes.
  std::size_t within = 0;

  /// Compares all members.
  bool operator==(Step const&) const = default;
  /// Makes the step simpler, if it can be. Returns whether it has.
  bool simplify() {
    auto const before = *this;
    settles = true;
    within = 0;
    if (kind == Kind::read || kind == Kind::server_reads) amount = 0;
    return *this != before;
  }
  /// Adds the lines of the next step to this one, if both send lines of one client. Returns whether it has.
  bool join(Step const& next) {
    if (kind != Kind::send || next.kind != kind || next.client != client || next.within != within) return false;
    lines.insert(lines.end(), next.lines.begin(), next.lines.end());
    settles = next.settles;
    return true;
  }
};

}  // namespace chatproto::testing

namespace chatproto::detail {

/// Quotes a text, so that every byte of it can be seen.
inline std::string quoted(std::string_view text) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string result = "\"";
  for (auto const character : text) {
    auto const byte = static_cast<unsigned char>(character);
    if (byte >= ' ' && byte <= '~') {
      if (byte == '"' || byte == '\\') result += '\\';
      result += character;
    } else {
      result.append("\\x").append(1, digits[byte / 16u]).append(1, digits[byte % 16u]);
    }
  }
  return result += '"';
}

/// Returns what a step does. `again`: the client has been connected before.
inline std::string text_of(testing::Step const& step, std::string const& who, bool again) {
  using Step = testing::Step;
  auto const amount = std::to_string(step.amount);
  switch (step.kind) {
    case Step::Kind::connect: return who + (again ? " connects again" : " connects");
    case Step::Kind::send: {
      std::string lines;
      for (auto const& line : step.lines) lines += (lines.empty() ? " sends " : ", ") + quoted(line);
      return who + lines;
    }
    case Step::Kind::end_input: return who + " shuts down the sending side";
    case Step::Kind::reset: return who + " resets the connection";
    case Step::Kind::stop_reading: return who + " stops reading";
    case Step::Kind::read: return who + (step.amount == 0 ? " reads again" : " reads " + amount + " bytes");
    case Step::Kind::pass_time: return amount + " ms pass";
    case Step::Kind::server_reads:
      return "the server reads " + (step.amount == 0 ? "" : "up to " + amount + " bytes ") + "from " + who;
    case Step::Kind::server_writes: return "the server writes to " + who;
    case Step::Kind::server_continues: return "the server continues with what " + who + " sent";
    case Step::Kind::server_runs_posted: return "the server runs what was posted for " + who;
    case Step::Kind::server_sees_end: return "the server sees the end of what " + who + " sends";
  }
  return {};
}

/// Returns the line for the step with this index.
inline std::string numbered(std::size_t index, testing::Step const& step, std::string const& who, bool again) {
  auto const number = std::to_string(index + 1);
  std::string line(number.size() < 3 ? 3 - number.size() : 0, ' ');
  line.append(number).append(step.within > 0 ? " meanwhile " : " ").append(text_of(step, who, again));
  return step.settles ? line : line + "; all else waits";
}

}  // namespace chatproto::detail

namespace chatproto::testing {

/// A history that was played: its steps and their results.
struct History {
  std::vector<Step> steps = {};      ///< those that were possible and carried out
  std::vector<Client> clients = {};  ///< with all events
  std::string broken = {};           ///< what a check returned, or what a session has thrown; empty: nothing
  std::size_t partial_reads = 0;     ///< how often the server read a part of what was sent
  std::size_t stalls = 0;            ///< how often a client took a part of what was written
};

/// Returns the history as text: a line for each step, below it what clients then received, and at the end what is
/// broken. "all else waits": the server does nothing but this before the next step. "meanwhile": during an earlier
/// step.
inline std::string to_string(History const& history) {
  struct Seen {
    Event const* event;
    std::string const* name;
  };
  std::vector<Seen> seen;
  for (auto const& client : history.clients)
    for (auto const& event : client.events) seen.push_back({&event, &client.name});
  std::sort(seen.begin(), seen.end(), [](auto& a, auto& b) { return a.event->order < b.event->order; });

  std::string text;
  std::vector<bool> came(history.clients.size());
  for (std::size_t i = 0; i <= history.steps.size(); ++i) {
    if (i < history.steps.size()) {
      auto const& step = history.steps[i];
      auto const known = step.client < history.clients.size();
      auto const again = known && came[step.client];
      if (known) came[step.client] = true;
      text += detail::numbered(i, step, known ? history.clients[step.client].name : "", again) + '\n';
    }
    auto first = i == history.steps.size();
    for (auto const& [event, name] : seen) {
      auto const receives = event->kind == Event::Kind::received;
      if (event->step != i || (!receives && event->kind != Event::Kind::disconnected) || event->line == "reset")
        continue;
      if (std::exchange(first, false)) text += "    at the end\n";
      text += "      " + *name +
              (receives ? " receives " + detail::quoted(event->line) : " is disconnected: " + event->line);
      text += '\n';
    }
  }
  return history.broken.empty() ? text : text + "    broken: " + history.broken + '\n';
}

}  // namespace chatproto::testing
