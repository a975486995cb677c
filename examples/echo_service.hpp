// SPDX-License-Identifier: BSL-1.0
/// @file
/// An echo service: returns each line, until a line is "end".
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <chatproto/peer.hpp>

namespace examples {

/// Prints each line with its client's address, and sends it back. A client that sends "end" is closed after the reply.
class EchoService {
 public:
  /// Prints a line; several threads may call it at once.
  using Print = std::function<void(std::string const& line)>;
  explicit EchoService(Print print) : print_(std::move(print)) {}

  struct Session {
    Print const& print;
    chatproto::Peer peer;
    std::string address;

    void on_line(std::string_view text) const {
      std::string line(text);
      print(address + ": " + line);
      peer.send_line(line);
      if (line == "end") peer.close();
    }
    void on_bad_line(std::error_code ec) const { peer.send_line(ec.message()); }
  };
  Session open(chatproto::Peer peer, std::string address) { return {print_, std::move(peer), std::move(address)}; }

 private:
  Print print_;
};

}  // namespace examples
