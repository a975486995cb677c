// SPDX-License-Identifier: BSL-1.0
// echo_server [PORT]: prints and says back each line; a client that says "end" is closed.
#include "echo_service.hpp"
#include "serving.hpp"

int main(int argc, char** argv) {
  program::ServerFlags flags;
  CLI::App app("Says back each line, until it is 'end'. Serves on a TCP port until SIGINT or SIGTERM.");
  flags.add_to(app, 8080);
  return program::run(app, argc, argv, [&] { return program::serve<examples::EchoService>(flags, program::print); });
}
