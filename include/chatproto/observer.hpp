// SPDX-License-Identifier: BSL-1.0
/// @file
/// The events and counters of a server: `Observer` and `ServerStats`.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <system_error>

namespace chatproto {

/// Why a client was disconnected.
enum class DisconnectReason : std::uint8_t {
  closed,          ///< In order: the client left, its session closed it, or the server drained.
  lost,            ///< The connection broke: a reset, a failed write, a dead peer.
  login_deadline,  ///< The client did not log in in time.
  write_deadline,  ///< The client took none of its pending output for too long.
  overflow,        ///< More waited for it than its queue's limit and its socket took nothing, or far more waited.
  failed,          ///< Its session or the observer threw, or memory or another resource was short.
  aborted,         ///< Its session aborted it (`Peer::abort`), or the server was stopped (`StopMode::now`).
  memory,          ///< All clients together exceeded `ServerOptions::memory_limit`, and this one held most.
  handshake,       ///< The handshake of its listener's layer, or a proxy's header, was wrong or too late.
  refused,         ///< It came through a proxy and was refused (`RefusalReason`).
  banned,          ///< It is banned (`Server::ban`).
  room_lost,       ///< Its room's backplane may have lost texts for it, or does not tell what became of its own.
};

/// The number of reasons.
inline constexpr std::size_t disconnect_reasons = 12;

/// Returns the reason as one word, for a log or a metric: "closed", "lost", "login_deadline" and so on.
inline std::string_view to_string(DisconnectReason reason) noexcept {
  constexpr std::array<std::string_view, disconnect_reasons> words = {
      "closed",  "lost",   "login_deadline", "write_deadline", "overflow", "failed",
      "aborted", "memory", "handshake",      "refused",        "banned",   "room_lost"};
  return words[static_cast<std::size_t>(reason)];
}

/// Why a client was refused.
enum class RefusalReason : std::uint8_t {
  full,      ///< The server has as many clients as it may have, or no thread could be made for this one.
  too_many,  ///< Its address has as many clients as it may have (`ServerOptions::max_clients_per_address`).
  too_fast,  ///< Too many new clients come from its address (`ServerOptions::new_clients_per_address`).
  banned,    ///< Its address is banned (`Server::ban`).
};

/// The number of reasons to refuse a client.
inline constexpr std::size_t refusal_reasons = 4;

/// Returns the reason as one word, for a log or a metric: "full", "too_many" and so on.
inline std::string_view to_string(RefusalReason reason) noexcept {
  constexpr std::array<std::string_view, refusal_reasons> words = {"full", "too_many", "too_fast", "banned"};
  return words[static_cast<std::size_t>(reason)];
}

/// The counters of a server since its construction; see `Server::stats`.
struct ServerStats {
  std::uint64_t clients = 0;                              ///< clients connected now
  std::uint64_t accepted = 0;                             ///< clients accepted so far
  std::array<std::uint64_t, disconnect_reasons> ended{};  ///< clients that have ended, by reason (`DisconnectReason`)
  std::array<std::uint64_t, refusal_reasons> refused{};   ///< clients that were refused, by reason (`RefusalReason`)
  std::uint64_t accept_errors = 0;      ///< failed accepts, except of connections that were already gone
  std::uint64_t lines_in = 0;           ///< lines read, including those that were too long or refused
  std::uint64_t bytes_in = 0;           ///< bytes read
  std::uint64_t bytes_out = 0;          ///< bytes given to the system to be sent
  std::uint64_t queued = 0;             ///< bytes pending for clients now, in queues and rooms
  std::uint64_t held = 0;               ///< bytes that count for `ServerOptions::memory_limit`
  std::uint64_t throttled = 0;          ///< how often the rate limit made a client wait
  std::uint64_t observer_failures = 0;  ///< how often the observer threw
};

/// Receives the events of a server. Derive from it and override the functions of interest.
///
/// The server's threads call it, several at once, but in order for each client, and never under a lock, so an observer
/// may call anything. While it is busy, the clients of that thread wait. An exception is counted; if the call was about
/// a client that is still connected, that client is disconnected.
///
/// @code
/// struct Log : chatproto::Observer {
///   void ended(std::uint64_t number, chatproto::DisconnectReason reason, std::error_code const&) override {
///     std::clog << std::to_string(number) + ' ' + std::string(to_string(reason)) + '\n';
///   }
/// } log;
/// chatproto::Server<chatproto::ThreadPool> server({.port = 47374, .observer = &log});
/// @endcode
class Observer {
 public:
  Observer() = default;
  Observer(Observer const&) = delete;
  Observer& operator=(Observer const&) = delete;
  virtual ~Observer() = default;

  /// A client has connected: the `number`th of this server, from this address ("127.0.0.1:50312", "[::1]:50312", or
  /// empty if the client is already gone).
  virtual void connected([[maybe_unused]] std::uint64_t number, [[maybe_unused]] std::string_view address) {}
  /// The client has logged in. `name` is its session's `name()`, if the session has one. Called only if the service has
  /// logins.
  virtual void logged_in([[maybe_unused]] std::uint64_t number, [[maybe_unused]] std::string_view name) {}
  /// The client's session, or the code that serves it, threw an exception. `what` is the exception's `what()`. `ended`
  /// follows, with `DisconnectReason::failed`. (That reason can also occur without an exception, when a queue fails.)
  virtual void threw([[maybe_unused]] std::uint64_t number, [[maybe_unused]] std::string_view what) {}
  /// The client has ended. `error` is the system's error, if there was one. A client may end without a call of
  /// `connected`: if memory was short, the client was already gone, or the server was stopping.
  virtual void ended([[maybe_unused]] std::uint64_t number, [[maybe_unused]] DisconnectReason reason,
                     [[maybe_unused]] std::error_code const& error) {}
  /// A client from this address (as in `connected`) was refused. It has no number. A client that came through a proxy
  /// (`ServerOptions::proxies`) has one, and `ended` follows, with `DisconnectReason::refused`.
  virtual void refused([[maybe_unused]] std::string_view address, [[maybe_unused]] RefusalReason reason) {}
  /// Accepting has failed and will be tried again. Not called for a connection that was already gone.
  virtual void accept_failed([[maybe_unused]] std::error_code const& error) {}
};

}  // namespace chatproto
