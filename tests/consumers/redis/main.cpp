// SPDX-License-Identifier: BSL-1.0
// A user's program: a chat that shares its rooms through a Redis, which is not there.
#include <chatproto/chatproto.hpp>
#include <chatproto/redis.hpp>

#include <memory>

int main() {
  chatproto::RedisOptions const redis{.servers = {{"127.0.0.1", 1}}};
  chatproto::ChatOptions chat;
  chat.backplane = std::make_shared<chatproto::RedisBackplane>(redis);
  chatproto::Server<chatproto::ThreadPool> server({.port = 0, .address = "127.0.0.1", .threads = 1}, chat);
  server.stop(chatproto::StopMode::now);
  server.run();
  return chatproto::RedisBackplane::errors(redis).size() == 1 ? 0 : 1;
}
