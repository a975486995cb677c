// SPDX-License-Identifier: BSL-1.0
/// @file
/// The concepts `LineSession` and `Service`, through which a line protocol plugs into `Server`.
#pragma once

#include <concepts>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <chatproto/peer.hpp>

namespace chatproto {

/// A session: handles the lines of one client.
///
/// `Service::open` makes the session when a client has connected. It is destroyed when the client is gone or was
/// closed. All its members are called on the client's executor, never two at once, so the session needs no lock for its
/// own data. `on_line` gets each line without its terminator. If a member throws, the server disconnects only this
/// client, at once: it drops the client's pending output and notifies the `Observer`. So treat bad input as data:
/// `parse(line, ec)`. The destructor must not throw: catch `std::bad_alloc` there.
///
/// Optional members:
/// - `on_bad_line(std::error_code)`: called when a line was longer than `ServerOptions::line_limit` and has been
///   dropped (`Errc::line_too_long`);
/// - `flush()`: called after the lines of one read (a pause or the end of a turn splits them), and after each posted
///   task (`Peer::post`). A session that collects its replies to send them together sends them here;
/// - `on_resume()`: called when a pause (`Peer::pause`) ends, before anything else, so that the session can act on what
///   it waited for;
/// - `bool logged_in() const`: the server closes a client for which it still returns false at the login deadline;
/// - `name() const`, convertible to `std::string_view`: the user's name, which the server passes to its `Observer`
///   after the login.
///
/// `Server` rejects a member that is nearly right, such as a `logged_in` that is not const or an `on_badline`, at
/// compile time, with a message that says what to write.
template <class S>
concept LineSession = std::destructible<S> && requires(S& session, std::string_view line) {
  session.on_line(line);
};

/// Satisfied if `S` has an `open` that accepts these arguments and returns an `S::Session`.
template <class S, class... Args>
concept Opens = requires(S& service, Args... args) {
  { service.open(std::move(args)...) } -> std::same_as<typename S::Session>;
};

/// A service: makes a session for each client (see `LineSession`) and holds what the sessions share.
///
/// Optional members:
/// - `on_start(asio::io_context&)`: called when `Server::run` begins. The context is the server's own, run by `run()`.
///   The service may keep timers and signal sets on it as members; they need not be cancelled for `run()` to return. An
///   exception leaves `run()`.
/// - `on_stop(StopMode)`: called when the server was told to stop, with the mode; on that context, after `on_start`,
///   before any client is closed. Called once, even if `StopMode::now` follows `StopMode::drain`. An exception is
///   ignored.
/// - `on_end()`: called when the last client and all threads of the policy have ended and `run()` is about to return.
///   Not called if an exception leaves `run()`.
///
/// Several threads may call `open` at once. A session need not be movable. The service outlives its sessions. An `open`
/// with a second parameter, a `std::string`, gets the client's address: `127.0.0.1:50312`, `[::1]:50312`, or an empty
/// string if the client is gone already. An optional `queued_bytes() const` returns the bytes that wait for clients
/// outside their queues, which `ServerStats::queued` includes. Any thread may call it.
///
/// @code
/// struct Echo {
///   struct Session {
///     chatproto::Peer peer;
///     void on_line(std::string_view line) { peer.send_line(line); }
///   };
///   Session open(chatproto::Peer peer) { return {std::move(peer)}; }
/// };
/// chatproto::Server<chatproto::ThreadPool, Echo> server({.port = 17375});
/// @endcode
template <class S>
concept Service = LineSession<typename S::Session> &&(Opens<S, Peer> || Opens<S, Peer, std::string>);

}  // namespace chatproto
