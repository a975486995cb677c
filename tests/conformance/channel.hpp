// SPDX-License-Identifier: BSL-1.0
// A channel: one end of a connection, or of a pipe to a program. Everything a play sends and gets goes through one.
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

/// Where a server may be reached.
using Endpoints = std::vector<asio::ip::tcp::endpoint>;

class Channel {
 public:
  using Done = std::function<void(std::error_code const&, std::size_t)>;

  virtual ~Channel() = default;

  /// At least one byte, or an error; asio::error::eof at the end in order.
  virtual void read(char* data, std::size_t size, Done done) = 0;

  /// All bytes, or an error. They must live until then.
  virtual void write(std::string_view bytes, Done done) = 0;

  /// Ends the direction that is written.
  virtual void finish() = 0;

  virtual void close() = 0;

  /// Closes such that the other end sees a reset, where there is such a thing.
  virtual void reset() { close(); }
};

/// Gets the channel over a new connection, its bytes sent without delay, or an error.
using ConnectDone = std::function<void(std::error_code const&, std::unique_ptr<Channel>)>;

/// Connects to the first endpoint that answers; `narrow`: with small buffers, so that what is not read waits at the
/// other end.
void connect(asio::any_io_executor const& executor, Endpoints const& endpoints, bool narrow, ConnectDone done);

/// Whether a connection failed because every port that the system gives to clients is in use just now.
bool no_port_left(std::error_code const& error);

/// The ports that a play may name: made when first asked for, held until the play ends.
class Ports {
 public:
  explicit Ports(asio::any_io_executor executor) : executor_(std::move(executor)) {}

  /// `{port}`: the scripted server listens on it.
  std::uint16_t scripted();
  /// `{deadport}`: taken, but nobody listens.
  std::uint16_t dead();
  /// `{busyport}`: somebody else listens, on IPv4 and IPv6.
  std::uint16_t busy();
  /// `{freeport}`: free a moment ago.
  std::uint16_t free();

  /// The next connection to the scripted server.
  void accept(ConnectDone done);

  void close();

 private:
  asio::any_io_executor executor_;
  std::unique_ptr<asio::ip::tcp::acceptor> scripted_;
  std::unique_ptr<asio::ip::tcp::acceptor> dead_;
  std::vector<asio::ip::tcp::acceptor> busy_;
  std::uint16_t free_ = 0;
};

/// A port on which nobody listened a moment ago, outside the range that the system gives to clients.
std::uint16_t free_port(asio::any_io_executor const& executor);

/// Whether this machine has the IPv6 loopback.
bool has_ipv6(asio::any_io_executor const& executor);

}  // namespace conformance
