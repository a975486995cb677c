// SPDX-License-Identifier: BSL-1.0
/// @file
/// `executor_of`, which returns a client's executor for a session's own asynchronous operations.
#pragma once

#include <exception>

#include <asio/any_io_executor.hpp>

#include <chatproto/message_queue.hpp>
#include <chatproto/peer.hpp>

namespace chatproto {

/// Receives the executor of a `MessageQueue`, whose header does not include Asio.
struct ExecutorSlot {
  asio::any_io_executor executor = {};  ///< empty: there is none
};

/// Returns the executor on which a client's session is called, for a timer or a socket that is a member of the session.
/// The executor is empty if the client has ended or has no server: a test without a server cannot construct a timer
/// from it.
///
/// Only the client's own session may call it, also in `Service::open`. All uses of the executor must end with the
/// session; with `ThreadPerClient` each copy of the executor keeps the client's thread alive.
///
/// Destroying or cancelling a timer does not recall a handler that is already queued: the handler still runs, with no
/// error, though the session may be gone. So a handler must use `Peer::post` to reach the session:
/// @code
/// struct Session {
///   chatproto::Peer peer;
///   asio::steady_timer timer{chatproto::executor_of(peer)};
///   void on_line(std::string_view) {
///     timer.expires_after(std::chrono::seconds(5));
///     timer.async_wait([client = peer, this](std::error_code ec) {
///       if (!ec) client.post([this] { peer.send_line("time is over"); });
///     });
///   }
/// };
/// @endcode
inline asio::any_io_executor executor_of(Peer const& peer) {
  ExecutorSlot slot;
  peer.queue().get_executor(slot);
  return slot.executor;
}

}  // namespace chatproto
