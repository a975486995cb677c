// SPDX-License-Identifier: BSL-1.0
// A user's program: a server for WebSocket, and the WebSocket of a connection.
#include <chatproto/chatproto.hpp>
#include <chatproto/websocket.hpp>

#include <memory>

int main() {
  auto const web = std::make_shared<chatproto::WebSocketServer>();
  chatproto::Server<chatproto::ThreadPool> server(
      {.listeners = {{.port = 0, .address = "127.0.0.1", .layer = web}}, .threads = 1});
  server.stop(chatproto::StopMode::now);
  server.run();
  chatproto::Connection connection;
  connection.layer(std::make_shared<chatproto::WebSocketClient>());
  return server.port() != 0 ? 0 : 1;
}
