// SPDX-License-Identifier: BSL-1.0
// echo_client [HOST] [PORT]: sends each line of its input and shows the reply, until "end" or the end of input.
#include <string>
#include <system_error>

#include <chatproto/connection.hpp>
#include <chatproto/message.hpp>

#include "client.hpp"

int main(int argc, char** argv) {
  std::string host = "127.0.0.1", port = "8080";
  CLI::App app("Sends each line of its input to an echo server and shows the reply. The line 'end' ends it.",
               "echo_client");
  app.add_option("HOST", host, "Name or address of the server")->capture_default_str();
  app.add_option("PORT", port, "TCP port of the server")->check(program::decimal(1, 65535))->capture_default_str();
  return program::run(app, argc, argv, [&] {
    chatproto::Connection connection;
    program::connect(connection, host, port);
    program::Keyboard keyboard;
    for (std::string line; line != "end" && keyboard.next(line);) {
      if (line.ends_with('\r')) line.pop_back();
      std::error_code ec;
      chatproto::encode_line(line, ec);
      if (program::complain_unsendable(line, ec)) continue;
      connection.send_line(line);
      program::print_or_fail(connection.receive_line());
    }
    return 0;
  });
}
