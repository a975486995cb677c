// SPDX-License-Identifier: BSL-1.0
// A user's program: encodes and parses a message, starts and stops a server.
#include <chatproto/chatproto.hpp>

#include <thread>

int main() {
  chatproto::Message const message("sendall", "hello");
  auto const line = chatproto::encode(message);
  auto const parsed = chatproto::parse(std::string_view(line).substr(0, line.size() - 1));

  chatproto::Server<chatproto::ThreadPool> server({.address = "127.0.0.1", .threads = 1});
  std::thread stopper([&server] { server.stop(); });
  server.run();
  stopper.join();
  return parsed == message && server.port() != 0 ? 0 : 1;
}
