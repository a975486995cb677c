// SPDX-License-Identifier: BSL-1.0
// echo_server [PORT]: prints each line and sends it back; closes a client that sends "end".
#include "echo_service.hpp"
#include "serving.hpp"

int main(int argc, char** argv) {
  program::ServerFlags flags;
  CLI::App app("Says back each line, until it is 'end'. Serves on a TCP port until SIGINT or SIGTERM.");
  flags.add_to(app, 8080);
  return program::run(app, argc, argv, [&] { return program::serve<examples::EchoService>(flags, program::print); });
}
