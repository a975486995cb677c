// SPDX-License-Identifier: BSL-1.0
/// @file
/// How to plug a line protocol into `Server`.
#pragma once

#include <concepts>
#include <string_view>
#include <system_error>
#include <utility>

#include <chatproto/peer.hpp>

namespace chatproto {

/// A session: what one client's lines mean.
///
/// It is made by `Service::open` when a client has connected and destroyed when the client is gone or was closed. All its
/// members are called on the executor of its client, never two at once, so it needs no lock for what is its own.
/// `on_line` gets each line without its terminator. If a member throws, only this client is cut.
///
/// Optional members:
/// - `on_bad_line(std::error_code)`: a line was too long (`Errc::line_too_long`) and has been dropped;
/// - `flush()`: the lines that one read brought are over. What was kept back to be sent at once is sent here;
/// - `bool logged_in() const`: a client for which it is still false at the login deadline is closed.
template <class S>
concept LineSession = std::destructible<S> && requires(S& session, std::string_view line) {
  session.on_line(line);
};

/// A service: gives each client its session, and holds what they share.
///
/// `open` may be called by several threads at once. A session need not be movable. The service outlives its sessions.
template <class S>
concept Service = requires(S& service, Peer peer) {
  typename S::Session;
  requires LineSession<typename S::Session>;
  { service.open(std::move(peer)) } -> std::same_as<typename S::Session>;
};

}  // namespace chatproto
