#include <chatproto/server.hpp>
#include <chatproto/stop_on_signals.hpp>

#include <cstdlib>
#include <iostream>

int main(int argc, char** argv) {
  auto const port = static_cast<std::uint16_t>(argc > 1 ? std::atoi(argv[1]) : 47374);
  chatproto::Server<chatproto::ThreadPool> server({.port = port});  // or StrandPool, ThreadPerClient
  std::cout << "listening on port " << server.port() << std::endl;

  chatproto::StopOnSignals const stop_on_signals(server);
  server.run();
}
