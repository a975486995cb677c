// SPDX-License-Identifier: BSL-1.0
// A program that runs beside the runner. The only part that needs POSIX: elsewhere start_program() throws.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <asio/any_io_executor.hpp>
#include <asio/ip/tcp.hpp>

#include "channel.hpp"
#include "scene.hpp"

namespace conformance {

bool can_start_programs();

/// Keeps programs that start later from inheriting the socket.
void keep_from_programs(asio::ip::tcp::socket::native_handle_type handle);

class Process {
 public:
  /// How a program ended: its exit code, or the signal that ended it.
  struct End {
    int code = 0;
    int signal = 0;
  };

  virtual ~Process() = default;  ///< kills it if it is still running

  /// The ends of its stdin, stdout and stderr; null where they are not pipes.
  std::unique_ptr<Channel> in, out, err;

  /// Returns how it ended, or nothing while it runs.
  virtual std::optional<End> poll() = 0;

  virtual void signal(int number) = 0;
};

/// Starts a program with pipes, or a terminal where asked for, as stdin and stdout, and a pipe as stderr. Throws
/// std::system_error.
std::unique_ptr<Process> start_program(asio::any_io_executor const& executor, std::vector<std::string> const& arguments,
                                       Terminal terminal);

/// Starts a program without stdin, and with the runner's stderr as stdout and stderr. Throws std::system_error.
std::unique_ptr<Process> start_server(std::vector<std::string> const& arguments);

}  // namespace conformance
