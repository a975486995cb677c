#include <chatproto/server.hpp>

#include <cstdlib>
#include <iostream>

#include <asio/signal_set.hpp>

int main(int argc, char** argv) {
  auto const port = static_cast<std::uint16_t>(argc > 1 ? std::atoi(argv[1]) : 47374);
  chatproto::Server<chatproto::ThreadPool> server({.port = port});  // or StrandPool, ThreadPerClient
  std::cout << "listening on port " << server.port() << std::endl;

  asio::signal_set signals(server.context(), SIGINT, SIGTERM);
  signals.async_wait([&](std::error_code, int) {
    server.stop();
    signals.clear();  // a second one ends the program at once
  });

  server.run();
}
