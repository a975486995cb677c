// SPDX-License-Identifier: BSL-1.0
/// @file
/// The options of a server.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>

#include <chatproto/message.hpp>
#include <chatproto/message_queue.hpp>

namespace chatproto {

class Observer;

/// How a server stops.
enum class StopMode : std::uint8_t {
  /// Stop accepting and reading, write all pending output, then close. Clients that have not taken it after
  /// `ServerOptions::drain` are disconnected.
  drain,
  now,  ///< Disconnect all clients at once.
};

/// The options of a server. The defaults suit a public chat. docs/reliability.md says what happens at each limit.
///
/// @code
/// chatproto::Server<chatproto::StrandPool> server({.port = 47374, .threads = 4, .max_clients = 1000, .rate = 10});
/// @endcode
struct ServerOptions {
  /// The TCP port to listen on. 0 selects a free port; see `Server::port`.
  std::uint16_t port = 0;
  /// The address to listen on, as text. Empty: all addresses, IPv6 and IPv4.
  std::string address = {};
  /// The number of threads, for a policy with a fixed number of them. 0: one for each core of the machine.
  unsigned threads = 0;
  /// The maximum length in bytes of a line from a client, including its LF or CR LF. A longer line goes to
  /// `on_bad_line`. For the chat, the default is a rule of the protocol; another service may set another limit, and so
  /// must its clients (`Connection::line_limit`).
  std::size_t line_limit = max_line;
  /// How many bytes may wait for one client that does not read, in its queue and in its room, each counted alone. The
  /// default is what a fast chat produces in half a second. The server disconnects a client above the limit only after
  /// it has tried a write and the socket took nothing, or, without a try, above 64 times the limit. See `MessageQueue`
  /// and `Room`.
  std::size_t queue_limit = MessageQueue::default_limit;
  /// What happens above `queue_limit`: the server disconnects the client, or makes the clients that send to its room
  /// wait, so that nothing is lost.
  Overflow overflow = Overflow::disconnect;
  /// The size in bytes of the system's send buffer for each client. 0: the system's default, which may grow to
  /// megabytes for a client that does not read. A smaller buffer costs more system calls when much is sent.
  int send_buffer = 64 * 1024;
  /// The maximum number of clients at a time; further clients get `err:server full` and are closed. 0: as many as the
  /// process has descriptors for, less 32 for the program itself and 3 for each of the policy's threads.
  std::size_t max_clients = 0;
  /// How many bytes all servers of the process may together hold for clients: logs of rooms, pending output and pending
  /// input. Above the limit, new connections wait in the network, and the server reads from no client; if that does not
  /// help, it disconnects the client that holds most (`DisconnectReason::memory`). 0: half of the memory available to
  /// the process.
  std::size_t memory_limit = 0;
  /// The sustained number of lines per second that a client may send. 0: no limit. The server reads more slowly from a
  /// client that exceeds it, and drops nothing.
  double rate = 0;
  /// How many lines a client may send at once before `rate` applies.
  double rate_burst = 20;
  /// The server closes a client that has not logged in within this time, if the service has logins.
  std::chrono::milliseconds login_deadline = std::chrono::seconds(10);
  /// The server disconnects a client that takes none of its pending output for this time.
  std::chrono::milliseconds write_deadline = std::chrono::seconds(10);
  /// How long the server waits for a client that it closes to close its side too, so that the client can read what was
  /// sent last.
  std::chrono::milliseconds linger = std::chrono::seconds(2);
  /// How long `stop()` waits for clients to take their pending output.
  std::chrono::milliseconds drain = std::chrono::seconds(10);
  /// After this time of silence, TCP probes whether the client's machine is still there: up to four probes, a quarter
  /// of this time apart. If none is answered, the connection is lost. At least 4 s; 0: no probes.
  std::chrono::seconds keepalive = std::chrono::seconds(60);
  /// When accepting fails because descriptors or memory are short, the server tries again after this time, at least 1
  /// ms. The time doubles with each failure, up to `accept_retry_most`.
  std::chrono::milliseconds accept_retry = std::chrono::milliseconds(10);
  std::chrono::milliseconds accept_retry_most = std::chrono::seconds(1);  ///< the maximum of that time
  /// The observer that is notified of events; it must outlive the server. Null: no observer.
  Observer* observer = nullptr;
};

}  // namespace chatproto
