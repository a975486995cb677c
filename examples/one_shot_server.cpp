// SPDX-License-Identifier: BSL-1.0
// one_shot_server [PORT]: accepts one connection, prints one line from it, and ends.
#include <cstdint>
#include <stdexcept>
#include <string>
#include <system_error>

#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>

#include <chatproto/connection.hpp>
#include <chatproto/listen.hpp>

#include "program.hpp"

int main(int argc, char** argv) {
  std::uint16_t port = 8080;
  CLI::App app("Accepts one connection, prints one line from it, and exits.");
  app.add_option("PORT", port, "TCP port to listen on; 0: a free port, whose number is printed on stderr")
      ->check(program::decimal(0, 65535))
      ->capture_default_str();
  return program::run(app, argc, argv, [&] {
    asio::io_context context(1);
    asio::ip::tcp::acceptor acceptor(context);
    try {
      chatproto::listen(acceptor, port);
      if (port == 0) program::complain("listening on port " + std::to_string(acceptor.local_endpoint().port()));
      chatproto::Connection client(acceptor.accept());
      acceptor.close();
      program::print_or_fail(client.receive_line());
      return 0;
    } catch (std::system_error const& error) {
      if (error.code() == asio::error::eof) throw std::runtime_error("the client sent no line");
      throw std::runtime_error(acceptor.is_open() ? error.what() : "lost the client: " + error.code().message());
    }
  });
}
