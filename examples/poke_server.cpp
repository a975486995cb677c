// SPDX-License-Identifier: BSL-1.0
// poke_server PORT: the chat, and a counter that all senders share.
#include "poke_service.hpp"
#include "serving.hpp"

int main(int argc, char** argv) {
  program::ServerFlags flags;
  CLI::App app("Serves the chat and a shared poke counter on a TCP port until SIGINT or SIGTERM.");
  flags.add_to(app);
  flags.add_login_deadline_to(app);
  return program::run(app, argc, argv, [&] { return program::serve<examples::PokeService<>>(flags); });
}
