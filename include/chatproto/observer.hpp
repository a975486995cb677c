// SPDX-License-Identifier: BSL-1.0
/// @file
/// What a server tells about itself: events and counters.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <system_error>

namespace chatproto {

/// Why a client is connected no more.
enum class DisconnectReason : std::uint8_t {
  closed,          ///< In order: it has left, or its session has closed it, or the server drains.
  lost,            ///< The connection broke: a reset, a failed write, a dead peer.
  login_deadline,  ///< It had not logged in in time.
  write_deadline,  ///< Something waited for it, and it took nothing for too long.
  overflow,        ///< More waited for it than its queue's limit, and its socket took nothing; or far more.
  failed,          ///< Its session or the observer has thrown, or memory or another resource was short.
  aborted,         ///< Its session has cut it (`Peer::abort`), or the server was stopped (`StopMode::now`).
  memory,          ///< It held most when all clients together held more than `ServerOptions::memory_limit`.
};

/// How many reasons there are.
inline constexpr std::size_t disconnect_reasons = 8;

/// A reason in one word, for a log or a metric: "closed", "lost", "login_deadline" and so on.
inline std::string_view to_string(DisconnectReason reason) noexcept {
  constexpr std::array<std::string_view, disconnect_reasons> words = {
      "closed", "lost", "login_deadline", "write_deadline", "overflow", "failed", "aborted", "memory"};
  return words[static_cast<std::size_t>(reason)];
}

/// What a server has counted since it was made, see `Server::stats`.
struct ServerStats {
  std::uint64_t clients = 0;                              ///< connected now
  std::uint64_t accepted = 0;                             ///< clients ever
  std::array<std::uint64_t, disconnect_reasons> ended{};  ///< of these, by reason (`DisconnectReason`)
  std::uint64_t refused = 0;                              ///< told that the server is full; not among `accepted`
  std::uint64_t accept_errors = 0;      ///< not those of a connection that was gone before it was accepted
  std::uint64_t lines_in = 0;           ///< also those that were too long or refused
  std::uint64_t bytes_in = 0;           ///< read
  std::uint64_t bytes_out = 0;          ///< given to the system to be sent
  std::uint64_t queued = 0;             ///< bytes that wait for clients now, in queues and rooms
  std::uint64_t held = 0;               ///< see `ServerOptions::memory_limit`
  std::uint64_t throttled = 0;          ///< how often a client had to wait for the rate limit
  std::uint64_t observer_failures = 0;  ///< how often the observer has thrown
};

/// Is told what happens at a server: derive from it and override what is of interest.
///
/// The calls come from the server's threads, several at once, those about one client in order; and never under a lock,
/// so an observer may call whatever it likes. But while it is busy the clients of that thread wait. If a call throws,
/// that is counted; if it was about a client who is still connected, this one is cut.
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

  /// A client is there: the `number`th of this server, at this address ("127.0.0.1:50312", "[::1]:50312", empty if it
  /// is gone again).
  virtual void connected([[maybe_unused]] std::uint64_t number, [[maybe_unused]] std::string_view address) {}
  /// It has logged in; `name` is its session's `name()`, if that has one. Only where the service has logins.
  virtual void logged_in([[maybe_unused]] std::uint64_t number, [[maybe_unused]] std::string_view name) {}
  /// An exception has left its session, or what serves it; `ended` follows, with `DisconnectReason::failed`. `what`:
  /// the exception's `what()`. (Not each client that `failed` has one: a queue may have failed without.)
  virtual void threw([[maybe_unused]] std::uint64_t number, [[maybe_unused]] std::string_view what) {}
  /// It is gone. `error`: what the system said, if it did. A client may end without having been `connected`: there was
  /// no memory, it was gone already, or the server was being stopped.
  virtual void ended([[maybe_unused]] std::uint64_t number, [[maybe_unused]] DisconnectReason reason,
                     [[maybe_unused]] std::error_code const& error) {}
  /// A client was told that the server is full.
  virtual void refused() {}
  /// Accepting has failed, not for a connection that was gone again, and is tried again.
  virtual void accept_failed([[maybe_unused]] std::error_code const& error) {}
};

}  // namespace chatproto
