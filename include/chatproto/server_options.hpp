// SPDX-License-Identifier: BSL-1.0
/// @file
/// What a server can be told.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>

#include <chatproto/message.hpp>
#include <chatproto/message_queue.hpp>

namespace chatproto {

class Observer;

/// How to stop a server.
enum class StopMode : std::uint8_t {
  drain,  ///< Accept and read no more, write what waits, then close; cut whoever has not taken it in `drain` time.
  now,    ///< Cut everybody.
};

/// What a server can be told; each has a default that suits a public chat. docs/reliability.md says what happens at
/// each limit.
///
/// @code
/// chatproto::Server<chatproto::StrandPool> server({.port = 47374, .threads = 4, .max_clients = 1000, .rate = 10});
/// @endcode
struct ServerOptions {
  /// The TCP port to listen on; 0 takes a free one, see `Server::port`.
  std::uint16_t port = 0;
  /// The one address to listen on, as text; empty: all addresses, IPv6 and IPv4.
  std::string address = {};
  /// Threads of a policy that has a fixed number of them; 0: as many as the machine has cores.
  unsigned threads = 0;
  /// The longest line of a client, in bytes, its LF or CR LF included. A longer one goes to `on_bad_line`. For the chat
  /// it is a rule of the protocol; a service of your own may have another, and its clients too
  /// (`Connection::line_limit`).
  std::size_t line_limit = max_line;
  /// Bytes that may wait for one client that does not read, in its queue and in its room. The default is what half a
  /// second of a fast chat brings. A client is cut for it only when a write was tried and its socket took nothing;
  /// or, without a try, for 64 times as much. See `MessageQueue` and `Room`.
  std::size_t queue_limit = MessageQueue::default_limit;
  /// What happens beyond that: the client is cut, or those who send to its room wait, and nothing is lost.
  Overflow overflow = Overflow::disconnect;
  /// The system's send buffer for one client, in bytes; 0: what the system likes, which may be megabytes for a client
  /// that does not read. Smaller ones cost more system calls when much is sent.
  int send_buffer = 64 * 1024;
  /// Clients at once; more are told `err:server full` and closed. 0: what the process has descriptors for, less 32 for
  /// the program itself and 3 for each of the policy's threads.
  std::size_t max_clients = 0;
  /// Bytes that the process may hold for clients, of all its servers: logs of rooms, output and input that waits.
  /// Beyond that new clients wait in the network, and no client is read; if that does not help, the one that holds most
  /// is cut (`DisconnectReason::memory`). 0: half of the memory that the process may have.
  std::size_t memory_limit = 0;
  /// Lines per second that a client may send for long; 0: any. Who is faster is read more slowly; nothing is dropped.
  double rate = 0;
  /// Lines that it may send at once before that counts.
  double rate_burst = 20;
  /// A client that has not logged in after this time is closed, where the service has logins.
  std::chrono::milliseconds login_deadline = std::chrono::seconds(10);
  /// A client for which something waits and that takes nothing for this time is cut.
  std::chrono::milliseconds write_deadline = std::chrono::seconds(10);
  /// How long a closed client may take to close its side, so that it can read our last words.
  std::chrono::milliseconds linger = std::chrono::seconds(2);
  /// How long `stop()` waits for clients to take what waits for them.
  std::chrono::milliseconds drain = std::chrono::seconds(10);
  /// A silent client is asked by TCP after this time whether its machine is still there, up to four times, each a
  /// quarter of this later; then it is lost. Not below 4 s; 0: never.
  std::chrono::seconds keepalive = std::chrono::seconds(60);
  /// When accepting fails for want of descriptors or memory, it is tried again after this time, at least 1 ms,
  /// doubling up to the next.
  std::chrono::milliseconds accept_retry = std::chrono::milliseconds(10);
  std::chrono::milliseconds accept_retry_most = std::chrono::seconds(1);  ///< the longest such wait
  /// Is told what happens; it outlives the server. Null: nobody is.
  Observer* observer = nullptr;
};

}  // namespace chatproto
