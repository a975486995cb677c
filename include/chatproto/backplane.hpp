// SPDX-License-Identifier: BSL-1.0
/// @file
/// `Backplane`, through which the rooms of several servers are the same rooms.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string_view>

#include <chatproto/history_limits.hpp>

namespace chatproto {

/// The time limits of a backplane.
struct BackplaneTimes {
  std::chrono::milliseconds beat{250};        ///< between two beats
  std::chrono::milliseconds refuse{1000};     ///< of silence, after which new texts are refused
  std::chrono::milliseconds reconnect{2500};  ///< of silence, after which the connections are made anew
  std::chrono::milliseconds give_up{
      5000};  ///< of silence, after which receivers are cut; also how long a request waits
};

/// What a backplane has done so far.
struct BackplaneCounts {
  std::uint64_t appended = 0;     ///< blocks stored
  std::uint64_t refused = 0;      ///< requests to append that were not carried out
  std::uint64_t unknown = 0;      ///< requests to append whose outcome nobody knows
  std::uint64_t delivered = 0;    ///< blocks delivered
  std::uint64_t gaps_closed = 0;  ///< how often a room's missing blocks were read from its log
  std::uint64_t rooms_lost = 0;   ///< how often a room's next text did not follow
};

/// Holds the logs of a chat's rooms at a place that several servers share; see `ChatOptions::backplane`.
///
/// A server appends what its senders say, and delivers only what comes back: its own receivers too get each text from
/// the shared log, in the log's order. So a room has one order, however many servers it spans.
///
/// `RedisBackplane` implements it. Each function but `start` and `stop` may be called by any thread, and returns before
/// its waiter is told. They throw only `std::bad_alloc`, and have then done nothing.
///
/// Thread safety: distinct objects: safe. Shared objects: safe, except `start` and `stop`.
class Backplane {
 public:
  /// Texts of one sender in one room, for the same receivers.
  struct Said {
    std::string_view from;    ///< the sender's name
    std::string_view to;      ///< the user whom they are for; empty: everybody except `from`
    std::string_view lines;   ///< the encoded deliveries, whole lines
    std::uint32_t texts = 0;  ///< how many
  };

  /// The outcome of a request.
  enum class Outcome : std::uint8_t {
    done,      ///< What was asked for has happened.
    not_done,  ///< It has not happened and never will.
    unknown,   ///< It may have happened, or may happen later.
  };

  /// Waits for the outcome of a request.
  class Waiter {
   public:
    virtual ~Waiter() = default;
    /// Called once, by any thread.
    virtual void tell(Outcome outcome) noexcept = 0;
  };

  /// Gets what was said in the rooms that are followed. Called by one thread at a time for each room.
  class Sink {
   public:
    /// Texts have come. Those of one room come in its order, each once.
    virtual void deliver(std::string_view room, Said const& said) noexcept = 0;
    /// The room's next texts do not follow those delivered before: some may be missing.
    virtual void lost(std::string_view room) noexcept = 0;

    // A sink that keeps histories implements these too:

    /// Returns how much of what was said in a room before it is followed the sink wants to know.
    virtual HistoryLimits wanted_past() const noexcept { return {}; }
    /// Texts that were said before the room is followed. They come in the room's order, before those to be delivered,
    /// and before anybody hears that the room is followed; there may be more than wanted. After `lost`, they come anew.
    virtual void past(std::string_view /*room*/, Said const& /*said*/) noexcept {}
    /// The room is not followed any more: what is said now does not come.
    virtual void left(std::string_view /*room*/) noexcept {}

   protected:
    ~Sink() = default;
  };

  Backplane() = default;
  Backplane(Backplane const&) = delete;
  Backplane& operator=(Backplane const&) = delete;
  virtual ~Backplane() = default;

  /// Begins. `sink` must live until `stop`. Throws `std::system_error` if no thread can be made.
  virtual void start(Sink& sink) = 0;
  /// Ends: the sink and the waiters are not told anything any more when it returns.
  virtual void stop() noexcept = 0;

  /// Appends to the log of `room`, creating it if necessary. `Outcome::done`: the texts stand in the log. Texts that
  /// one client says must be appended one after the other; a client waits for the outcome of each. If `waiter` is
  /// null, nobody waits.
  virtual void append(std::string_view room, Said const& said, std::shared_ptr<Waiter> waiter) = 0;
  /// Follows `room`: its texts are delivered to the sink. `Outcome::done`: all that is appended from now on is
  /// delivered, and all that was appended before the call has been delivered to those who followed it already. Counts:
  /// each call needs one of `unfollow`, whatever its outcome.
  virtual void follow(std::string_view room, std::shared_ptr<Waiter> waiter) = 0;
  /// Ends what one `follow` began.
  virtual void unfollow(std::string_view room) noexcept = 0;
  /// `Outcome::done`: all that was appended to `room` before the call has been delivered. Precondition: the room is
  /// followed.
  virtual void at_end(std::string_view room, std::shared_ptr<Waiter> waiter) = 0;
};

}  // namespace chatproto
