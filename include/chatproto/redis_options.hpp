// SPDX-License-Identifier: BSL-1.0
/// @file
/// The options of a `RedisBackplane`, and what it reports.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <chatproto/backplane.hpp>
#include <chatproto/layer.hpp>

namespace chatproto {

/// Where a Redis listens.
struct RedisServer {
  std::string host = "127.0.0.1";  ///< name or address
  std::uint16_t port = 6379;       ///< TCP port

  /// Returns "HOST:PORT", or "[HOST]:PORT" if the host contains a colon.
  std::string name() const {
    auto const is_ipv6 = host.find(':') != std::string::npos;
    return (is_ipv6 ? '[' + host + ']' : host) + ':' + std::to_string(port);
  }
};

/// What has happened between a `RedisBackplane` and one Redis.
struct RedisEvent {
  /// The kinds of events.
  enum class Kind : std::uint8_t {
    connected,     ///< both connections are made, and rooms begin to catch up
    disconnected,  ///< they are lost or could not be made; `what` is the reason
    refused,       ///< Redis has refused a command; `what` is its error
    room_lost,     ///< texts of the room `what` may be missing, so its receivers here are disconnected
  };
  Kind kind;                  ///< what has happened
  RedisServer const& server;  ///< where
  std::string_view what;      ///< see `Kind`
};

/// The options of a `RedisBackplane`.
struct RedisOptions {
  /// Each room has its log in one of these, which a hash of its name and theirs chooses. All servers of a cluster must
  /// name the same ones in the same way; their order does not matter. (A server that does not is not connected.)
  std::vector<RedisServer> servers = {};
  std::string user = {};                     ///< Redis' user; empty: its default user.
  std::string password = {};                 ///< The user's password; empty: no AUTH is sent.
  std::shared_ptr<LayerFactory> layer = {};  ///< For example a `TlsClient`; null: the connections are not encrypted.
  BackplaneTimes times = {};                 ///< When a silent Redis is given up. See docs/cluster.md.
  std::chrono::milliseconds retry{250};      ///< Between two attempts to connect.
  /// How many bytes of texts Redis keeps for each room, for servers whose connection was interrupted.
  std::size_t stream_bytes = 8 * 1024 * 1024;
  /// How long Redis keeps them after the last one. If the service keeps histories (`ChatOptions::history`), this is how
  /// long somebody who joins at another server can get them.
  std::chrono::seconds stream_time{60};
  /// How long Redis remembers a room that no server uses; at least twice `stream_time` has an effect.
  std::chrono::seconds room_time{600};
  /// How many rooms per second may be new to Redis, with 40 times as many at once. What is said in more of them, and
  /// who joins them, is refused. So clients that make up names of rooms do not fill Redis. At least 1.
  unsigned new_rooms = 500;
  /// How many of Redis' replicas must have a text before its sender gets `ok` (WAIT). If they are too slow, the sender
  /// is disconnected, because the text may be delivered. A Redis with fewer replicas, or slow ones, is not connected.
  unsigned replicas = 0;
  /// Called by the backplane's thread. It must not throw, and returns soon.
  std::function<void(RedisEvent const&)> on_event = {};
};

/// The figures of one Redis; see `RedisBackplane::stats`.
struct RedisStats {
  std::string server;                   ///< its name, as `RedisServer::name`
  bool is_connected = false;            ///< whether both connections are made
  std::chrono::milliseconds silence{};  ///< since it was last heard of; `max()`: never
  std::size_t under_way = 0;            ///< rooms with a block whose outcome is not known yet
  BackplaneCounts counts;               ///< what was done so far
};

}  // namespace chatproto
