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
/// `Service` lists the optional members of a session.
template <class S>
concept LineSession = std::destructible<S> && requires(S& session, std::string_view line) {
  session.on_line(line);
};

/// What a server knows of a client when it makes its session.
struct ClientInfo {
  std::string address = {};      ///< "127.0.0.1:50312" or "[::1]:50312"; empty if the client is gone already
  bool is_loopback = false;      ///< whether the client's address is a loopback address
  bool is_encrypted = false;     ///< whether the layer of its listener encrypts
  std::string certificate = {};  ///< the name in its certificate, if its listener's layer has verified one
};

/// Satisfied if `S` has an `open` that accepts these arguments and returns an `S::Session`.
template <class S, class... Args>
concept Opens = requires(S& service, Args... args) {
  { service.open(std::move(args)...) } -> std::same_as<typename S::Session>;
};

/// A service: makes a session for each client (see `LineSession`) and holds what the sessions share.
///
/// Its optional members, and those of its sessions. *client*: called on the client's executor; *run*: by the thread in
/// `Server::run`; *any*: by any thread, several at once.
///
/// | member | called | where | without it |
/// | :----- | :----- | :---- | :--------- |
/// | **of a session** ||||
/// | `void on_bad_line(std::error_code)` | for a line above `line_limit`, which is dropped | client | nothing |
/// | `void flush()` | after the lines of a read or turn, a pause, or a posted task | client | nothing |
/// | `void on_resume()` | first when a pause (`Peer::pause`) has ended | client | lines follow at once |
/// | `void on_input_end()` | when the client has closed its side, or the server drains | client | nothing |
/// | `bool logged_in() const` | after `flush`, until it is true; at the login deadline | client | there is no login |
/// | `std::string_view name() const` | once, when `logged_in` has become true | client | the name is empty |
/// | **of a service** ||||
/// | `Session open(Peer, ClientInfo)` | for a new client | client | the next one is called |
/// | `Session open(Peer, std::string)` | for a new client, with its address | client | `open(Peer)` is called |
/// | `bool wants_client_info() const` | before an `open` that gets a `ClientInfo` | any | it does |
/// | `void on_start(asio::io_context&)` | when `run` begins, before any client | run | nothing |
/// | `void on_stop(StopMode)` | once, when told to stop, before clients are closed | run | nothing |
/// | `void on_end()` | when the clients and the policy's threads have ended | run | nothing |
/// | `void ban(Names const&)` | by `Server::ban` | any | names are banned only from staying |
/// | `std::size_t queued_bytes() const` | by `Server::stats`, for `ServerStats::queued` | any | only queues count |
///
/// - `on_bad_line` gets `Errc::line_too_long`. Without it the client is not told.
/// - `flush`: a session that collects its replies to send them together sends them here.
/// - `on_resume`: here the session acts on what it waited for.
/// - `on_input_end`: a session that pauses its client here has something to finish: the client is closed only after the
///   pause. A server that drains waits for that within `ServerOptions::drain`. (It may be called once for each reason.)
/// - `logged_in`, also called if there is no `flush`: a client for which it is still false at
///   `ServerOptions::login_deadline` is closed. Without it there is no such deadline, and `Observer::logged_in`, which
///   gets the `name`, is not called.
/// - `open`: see `ClientInfo`. The address alone is `ClientInfo::address`.
/// - `wants_client_info`: while it returns false, `open(Peer)` is called instead, and the address is not looked up.
/// - `on_start`: the context is the server's own, run by `run()`. The service may keep timers and signal sets on it as
///   members; they need not be cancelled for `run()` to return. An exception leaves `run()`.
/// - `on_stop` is called on that context, only once even if `StopMode::now` follows `StopMode::drain`. An exception is
///   ignored.
/// - `on_end` is not called if an exception leaves `run()`.
/// - `ban` gets the names that are banned from now on, of type `decltype(Bans::names)`; the service refuses their
///   logins.
/// - `queued_bytes`: the bytes that wait for clients outside their queues.
///
/// `Server` rejects a member that is nearly right, such as a `logged_in` that is not const or an `on_badline`, at
/// compile time, with a message that says what to write. (Not a `queued_bytes`, nor a misspelt member of a service.)
///
/// Several threads may call `open` at once. A session need not be movable. The service outlives its sessions.
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
concept Service = LineSession<typename S::Session> &&
    (Opens<S, Peer> || Opens<S, Peer, std::string> || Opens<S, Peer, ClientInfo>);

namespace detail {

/// Makes the session of a client by the `open` that tells the service most. `info` returns the `ClientInfo`.
template <class S>
typename S::Session open_session(S& service, Peer peer, auto const& info) {
  if constexpr (requires { service.wants_client_info(); })
    if (!service.wants_client_info()) return service.open(std::move(peer));
  if constexpr (Opens<S, Peer, ClientInfo>)
    return service.open(std::move(peer), info());
  else if constexpr (Opens<S, Peer, std::string>)
    return service.open(std::move(peer), info().address);
  else
    return service.open(std::move(peer));
}

}  // namespace detail

}  // namespace chatproto
