// SPDX-License-Identifier: BSL-1.0
// A channel: one end of a connection, or of a pipe to a program. Plays send and receive only through channels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include <asio/any_io_executor.hpp>
#include <asio/ip/tcp.hpp>

namespace conformance {

/// The addresses at which a server may be reached.
using Endpoints = std::vector<asio::ip::tcp::endpoint>;

class Channel {
 public:
  using Done = std::function<void(std::error_code const&, std::size_t)>;

  virtual ~Channel() = default;

  /// Reads at least one byte, or fails, with asio::error::eof after an orderly end.
  virtual void read(char* data, std::size_t size, Done done) = 0;

  /// Writes all bytes, or fails. The bytes must live until then.
  virtual void write(std::string_view bytes, Done done) = 0;

  /// Ends the writing direction.
  virtual void finish() = 0;

  virtual void close() = 0;

  /// Closes so that the other end sees a reset, if the kind of channel has one.
  virtual void reset() { close(); }
};

/// Called with a channel over a new connection, which sends without delay, or with an error.
using ConnectDone = std::function<void(std::error_code const&, std::unique_ptr<Channel>)>;

/// What the bytes of connections are wrapped in, such as TLS.
class Wrapping {
 public:
  virtual ~Wrapping() = default;

  /// Returns what it is called in messages.
  [[nodiscard]] virtual std::string name() const = 0;

  /// Does the handshake over a connected channel, and calls back with the channel that wraps it.
  virtual void start(std::unique_ptr<Channel> channel, ConnectDone done) const = 0;
};

/// Connects to the first endpoint that answers. `narrow`: with small buffers, so that unread bytes wait at the other
/// end.
void connect(asio::any_io_executor const& executor, Endpoints const& endpoints, bool narrow, ConnectDone done);

/// Whether a connection failed because all of the system's ephemeral ports are in use.
bool no_port_left(std::error_code const& error);

/// The ports that a play may name. Each is taken when first asked for, and held until the play ends.
class Ports {
 public:
  explicit Ports(asio::any_io_executor executor) : executor_(std::move(executor)) {}

  /// `{port}`: the scripted server listens on it.
  std::uint16_t scripted();
  /// `{deadport}`: bound, but nothing listens on it.
  std::uint16_t dead();
  /// `{busyport}`: another socket listens on it, on IPv4 and IPv6.
  std::uint16_t busy();
  /// `{freeport}`: was free a moment ago.
  std::uint16_t free();

  /// Accepts the next connection to the scripted server.
  void accept(ConnectDone done);

  void close();

 private:
  asio::any_io_executor executor_;
  std::unique_ptr<asio::ip::tcp::acceptor> scripted_;
  std::unique_ptr<asio::ip::tcp::acceptor> dead_;
  std::vector<asio::ip::tcp::acceptor> busy_;
  std::uint16_t free_ = 0;
};

/// Returns a port on which nothing listened a moment ago, outside the system's ephemeral range.
std::uint16_t free_port(asio::any_io_executor const& executor);

/// Whether this machine has an IPv6 loopback.
bool has_ipv6(asio::any_io_executor const& executor);

}  // namespace conformance
