// SPDX-License-Identifier: BSL-1.0
// receiver HOST PORT USER ROOM: prints the texts sent to a room, until the server disconnects.
#include <string>

#include <chatproto/connection.hpp>
#include <chatproto/message.hpp>

#include "client.hpp"

int main(int argc, char** argv) {
  program::Login login;
  std::string room;
  CLI::App app("Prints what is said in a room of the chat.");
  login.add_to(app);
  app.add_option("ROOM", room, "Room to join: letters and digits")->required();
  return program::run(app, argc, argv, [&]() -> int {
    chatproto::Connection connection;
    program::log_in(connection, login, {{chatproto::tag::rlogin, login.user}, {chatproto::tag::join, room}});
    for (;;) {
      auto const message = connection.receive();
      if (message.tag == chatproto::tag::err) {
        program::complain(message.payload);
        continue;
      }
      auto const delivery = chatproto::parse_delivery(message);
      auto const line = std::string(delivery.sender).append(": ").append(delivery.text);
      program::print_or_fail(line);
    }
  });
}
