// SPDX-License-Identifier: BSL-1.0
// arrival_client HOST PORT NAME TEXT: sends "NAME: TEXT", then chats with the partner that the server has found, until
// one of them sends Bye. The end of input sends it too. There are two threads, because one that waits for the keyboard
// cannot receive.
#include <atomic>
#include <cstdlib>
#include <functional>
#include <string>
#include <system_error>
#include <thread>

#include <asio/io_context.hpp>
#include <asio/use_future.hpp>

#include <chatproto/connection.hpp>

#include "client.hpp"

int main(int argc, char** argv) {
  program::Place place;
  std::string name, text;
  CLI::App app("Sends 'NAME: TEXT', then chats with a partner until one of them sends Bye.");
  place.add_to(app);
  app.add_option("NAME", name, "Your name")->required();
  app.add_option("TEXT", text, "First text to send")->required();
  return program::run(app, argc, argv, [&] {
    asio::io_context context(1);
    chatproto::Connection connection(context);
    program::connect(connection, place);
    std::atomic<bool> bye = false;

    std::function<void()> const listen = [&] {
      connection.async_receive_line([&](std::error_code ec, std::string const& line) {
        if (ec && !bye) program::complain(app.get_name() + ": " + program::describe(ec));
        if (ec) std::_Exit(bye ? 0 : 1);  // nothing else ends a thread that waits for the keyboard
        program::print("received: " + line);
        if (line == "Bye") std::_Exit(0);
        listen();
      });
    };
    auto const say = [&](std::string const& line) {
      if (!program::is_sendable(line)) return;
      if (line == "Bye") bye = true;
      program::print("sent: " + line);
      connection.async_send_line(line, asio::use_future).wait();  // if it fails, receiving fails too
    };
    listen();
    std::thread listening([&] { context.run(); });
    say(name + ": " + text);
    for (std::string line; !bye && std::getline(std::cin, line);)
      if (auto const said = program::trim(line); !said.empty()) say(std::string(said));
    if (!bye) say("Bye");
    listening.join();
    return 0;
  });
}
