// SPDX-License-Identifier: BSL-1.0
// echo_client [HOST] [PORT]: sends each line of its input and prints the reply, until "end" or the end of input.
#include <string>

#include <chatproto/connection.hpp>

#include "client.hpp"

int main(int argc, char** argv) {
  program::Place place{"127.0.0.1", "8080"};
  CLI::App app("Sends each line of its input to an echo server and shows the reply. The line 'end' ends the program.");
  place.add_to(app);
  return program::run(app, argc, argv, [&] {
    chatproto::Connection connection;
    program::connect(connection, place);
    program::Keyboard keyboard;
    for (std::string line; line != "end" && keyboard.next(line);) {
      if (line.ends_with('\r')) line.pop_back();
      if (!program::is_sendable(line)) continue;
      connection.send_line(line);
      program::print_or_fail(connection.receive_line());
    }
    return 0;
  });
}
