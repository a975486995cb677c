// SPDX-License-Identifier: BSL-1.0
/// @file
/// How to plug a line protocol into `Server`.
#pragma once

#include <concepts>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <chatproto/peer.hpp>

namespace chatproto {

/// A session: what one client's lines mean.
///
/// It is made by `Service::open` when a client has connected and destroyed when the client is gone or was closed. All
/// its members are called on the executor of its client, never two at once, so it needs no lock for what is its own.
/// `on_line` gets each line without its terminator. If a member throws, only this client is cut, at once: what waits
/// for it is dropped, and the `Observer` is told. So take bad input as data: `parse(line, ec)`. The destructor must not
/// throw: catch `std::bad_alloc` there.
///
/// Optional members:
/// - `on_bad_line(std::error_code)`: a line had more bytes than the limit (`ServerOptions::line_limit`;
///   `Errc::line_too_long`) and has been dropped;
/// - `flush()`: called after the lines that one read has brought (a pause or the end of a turn divides them), and after
///   each posted task (`Peer::post`). A session that collects its replies, to send them together, sends them here;
/// - `on_resume()`: a pause (`Peer::pause`) is over; called before anything else, so that what was waited for can be
///   acted on;
/// - `bool logged_in() const`: a client for which it is still false at the login deadline is closed;
/// - `name() const`, convertible to `std::string_view`: the user's name, which the server's `Observer` is told after
///   the login.
///
/// One that is nearly right, such as a `logged_in` that is not const or an `on_badline`, is refused by `Server` at
/// compile time, with a sentence that says what to write.
template <class S>
concept LineSession = std::destructible<S> && requires(S& session, std::string_view line) {
  session.on_line(line);
};

/// Whether `S` has an `open` that takes these arguments and returns a session.
template <class S, class... Args>
concept Opens = requires(S& service, Args... args) {
  { service.open(std::move(args)...) } -> std::same_as<typename S::Session>;
};

/// A service: gives each client its session (`LineSession` tells what that may have), and holds what they share.
///
/// Optional members:
/// - `on_start(asio::io_context&)`: `Server::run` begins. The context is the server's own, run by `run()`. The service
///   may keep timers and signal sets on it as members; they need not be cancelled for `run()` to return. What it throws
///   comes out of `run()`.
/// - `on_stop(StopMode)`: the server was told to stop, and how; on that context, after `on_start`, before any client is
///   closed. Called once, also if `StopMode::now` follows `StopMode::drain`. What it throws is dropped.
/// - `on_end()`: the last client has ended, all threads too, and `run()` is about to return. Not called if `run()` is
///   left by an exception.
///
/// `open` may be called by several threads at once. A session need not be movable. The service outlives its sessions.
/// An `open` with a second parameter, a `std::string`, is told from where the client comes: `127.0.0.1:50312`,
/// `[::1]:50312`, or nothing if it has gone already. A service may have `queued_bytes() const`, the bytes that wait for
/// its clients beside their queues: `ServerStats::queued` counts them. It is called by any thread.
///
/// @code
/// struct Echo {
///   struct Session {
///     chatproto::Peer peer;
///     void on_line(std::string_view line) { peer.send_line(line); }
///   };
///   Session open(chatproto::Peer peer) { return {std::move(peer)}; }
/// };
/// chatproto::Server<chatproto::ThreadPool, Echo> server({.port = 47375});
/// @endcode
template <class S>
concept Service = LineSession<typename S::Session> &&(Opens<S, Peer> || Opens<S, Peer, std::string>);

}  // namespace chatproto
