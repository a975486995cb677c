// SPDX-License-Identifier: BSL-1.0
/// @file
/// The options of a server.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <chatproto/layer.hpp>
#include <chatproto/message.hpp>
#include <chatproto/message_queue.hpp>

namespace chatproto {

class Observer;

/// How a server stops.
enum class StopMode : std::uint8_t {
  /// Stop accepting. Wait for clients that have still to log in and for handshakes of layers, but at most for a tenth
  /// of `ServerOptions::drain`. Then stop reading, write all pending output, and close. Clients that have not taken it
  /// after `ServerOptions::drain` are disconnected.
  drain,
  now,  ///< Disconnect all clients at once.
};

/// The options of one listener of a server: where it listens, and how the bytes of its clients travel.
struct ListenerOptions {
  std::uint16_t port = 0;    ///< The TCP port. 0 selects a free one; see `Server::port`.
  std::string address = {};  ///< The address, as text. Empty: all addresses, IPv6 and IPv4.
  /// Makes a layer for each client, such as TLS. Null: the clients' lines travel as they are.
  std::shared_ptr<LayerFactory> layer = {};
  /// A TCP socket that listens already, such as one that the system has opened for the server; `port` and `address` are
  /// then ignored. The server closes it. -1: the server opens one. Not on Windows.
  int descriptor = -1;
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
  /// The listeners, whose clients all meet in the same service. Empty: one, at `port` and `address`. Otherwise those
  /// two must have their defaults.
  std::vector<ListenerOptions> listeners = {};
  /// The maximum number of handshakes of layers, and of headers of proxies, that are under way at once. Further clients
  /// of listeners with a layer wait in the network; meanwhile, a handshake that has taken half of `login_deadline` is
  /// ended. At least 1.
  std::size_t max_handshakes = 4096;
  /// The number of threads, for a policy with a fixed number of them. 0: one for each core of the machine.
  unsigned threads = 0;
  /// The maximum length in bytes of a client's line, including its LF or CR LF. A longer one goes to `on_bad_line`. For
  /// the chat, the default is a rule of the protocol; other services and their clients may use another limit
  /// (`Connection::line_limit`).
  std::size_t line_limit = max_line;
  /// Bytes that may wait for a client that does not read, in its queue and in its room, each counted alone. The default
  /// is half a second of a fast chat. A client above the limit is disconnected only after a write was tried and its
  /// socket took nothing, or, without a try, above 64 times the limit. See `MessageQueue` and `Room`.
  std::size_t queue_limit = MessageQueue::default_limit;
  /// What happens above `queue_limit`: the client is disconnected, or the clients that send to its room wait, so that
  /// it loses no text by being slow. In both cases the write deadline and `memory_limit` apply, and a client whose
  /// queue exceeds 64 times the limit is disconnected.
  Overflow overflow = Overflow::disconnect;
  /// The system's send buffer for a client, in bytes. 0: the system's default, which may be megabytes for a client that
  /// does not read. Smaller buffers cost more system calls when much is sent.
  int send_buffer = 64 * 1024;
  /// The maximum number of clients; further ones get `err:server full` (but not on a listener with a layer) and are
  /// closed. 0: as many as the process has descriptors for, less 32 for the program itself and 3 for each of the
  /// policy's threads.
  std::size_t max_clients = 0;
  /// The maximum number of clients from one address; further ones get `err:` (but not on a listener with a layer) and
  /// are closed. All IPv6 addresses with the same first 64 bits count as one. 0: no limit.
  std::size_t max_clients_per_address = 0;
  /// New clients per second from one address in the long run; further ones get `err:` (but not on a listener with a
  /// layer) and are closed. 0: no limit.
  double new_clients_per_address = 0;
  /// New clients from one address at once before `new_clients_per_address` applies.
  double new_clients_burst = 32;
  /// Whether these limits also apply to clients from this machine (127.0.0.0/8 and ::1).
  bool limit_loopback = false;
  /// Addresses and networks (10.0.0.0/8) of proxies. A client from one of them must begin with a header of the PROXY
  /// protocol, version 1 or 2, within `login_deadline`. The address in it then counts as the client's, for limits,
  /// bans, the observer and the service; the limits do not apply to the proxy itself. Clients from other addresses must
  /// not send one.
  std::vector<std::string> proxies = {};
  /// Bytes that all servers of the process together may hold for clients: logs of rooms, pending output and input.
  /// Above the limit, new connections wait in the network, and no client is read; if that does not help, the client
  /// that holds most is disconnected (`DisconnectReason::memory`). 0: half of the memory available to the process.
  std::size_t memory_limit = 0;
  /// Lines per second that a client may send in the long run; 0: no limit. A faster client is read more slowly; nothing
  /// is dropped.
  double rate = 0;
  /// Lines that a client may send at once before `rate` applies.
  double rate_burst = 20;
  /// Time after which a client that has not logged in is closed, if the service has logins. The handshake of a layer
  /// may take as long, before.
  std::chrono::milliseconds login_deadline = std::chrono::seconds(10);
  /// Time after which a client that takes none of its pending output is disconnected.
  std::chrono::milliseconds write_deadline = std::chrono::seconds(10);
  /// How long a client that is being closed may take to close its side, so that it can read what was sent last.
  std::chrono::milliseconds linger = std::chrono::seconds(2);
  /// How long `stop()` waits for clients to take their pending output. Before, it waits up to a tenth of that for
  /// clients to log in (if the service has logins) and for the handshakes of layers.
  std::chrono::milliseconds drain = std::chrono::seconds(10);
  /// Time of silence after which TCP probes whether the client's machine is still there: up to four probes, a quarter
  /// of this time apart. If none is answered, the connection is lost. At least 4 s; 0: no probes.
  std::chrono::seconds keepalive = std::chrono::seconds(60);
  /// Time after which accepting is tried again when descriptors or memory are short, at least 1 ms. Doubles with each
  /// failure, up to `accept_retry_most`.
  std::chrono::milliseconds accept_retry = std::chrono::milliseconds(10);
  std::chrono::milliseconds accept_retry_most = std::chrono::seconds(1);  ///< the maximum of that time
  /// The observer of the server's events; it must outlive the server. Null: none.
  Observer* observer = nullptr;
};

}  // namespace chatproto
