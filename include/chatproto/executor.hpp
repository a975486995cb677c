// SPDX-License-Identifier: BSL-1.0
/// @file
/// The executor of a client, for a session's own asynchronous operations.
#pragma once

#include <asio/any_io_executor.hpp>

#include <chatproto/message_queue.hpp>
#include <chatproto/peer.hpp>

namespace chatproto {

/// Where a `MessageQueue`, whose header knows no Asio, puts its executor.
struct ExecutorSlot {
  asio::any_io_executor executor = {};  ///< empty: there is none
};

/// The executor on which a client's session is called: for a timer or a socket that is a member of the session. Empty if
/// the client has ended or has no server.
///
/// Only the client's own session may call it, also in `Service::open`. What uses the executor ends with the session:
/// with `ThreadPerClient` the client's thread lives as long as a copy of it.
///
/// A completion handler may still be called after its session was destroyed: destroying a timer does not call back a
/// handler that is queued already. So a handler lets `Peer::post` call what uses the session:
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
