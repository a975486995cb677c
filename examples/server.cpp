// SPDX-License-Identifier: BSL-1.0
// server PORT: the chat server, until SIGINT or SIGTERM; a second one does not wait for clients to read.
#include <chatproto/chat_service.hpp>

#include "serving.hpp"

int main(int argc, char** argv) {
  program::ServerFlags flags;
  CLI::App app("Serves the chat on a TCP port until SIGINT or SIGTERM.", "server");
  flags.add_to(app);
  flags.add_login_deadline_to(app);
  return program::run(app, argc, argv, [&] { return program::serve<chatproto::ChatService>(flags); });
}
