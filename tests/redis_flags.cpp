// SPDX-License-Identifier: BSL-1.0
#include "../examples/redis.hpp"

#include <stdexcept>
#include <string>

#include "catch.hpp"

namespace {

std::string name_of(std::string const& text) { return program::redis_server(text).name(); }

std::string error_of(std::string const& text) {
  try {
    program::redis_server(text);
  } catch (std::invalid_argument const& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("a Redis is named by its host and port", "[redis_flags]") {
  auto const server = program::redis_server("redis.example.org:6380");
  CHECK(server.host == "redis.example.org");
  CHECK(server.port == 6380);
  CHECK(program::redis_server("[2001:db8::7]:65535").host == "2001:db8::7");
  CHECK(program::redis_server("[2001:db8::7]:65535").port == 65535);
  for (auto const* const name :
       {"localhost:1", "127.0.0.1:6379", "[::1]:6379", "[fe80::1%eth0]:6379", "my_redis-0:6379"})
    CHECK(name_of(name) == name);
  CHECK(name_of("localhost:06379") == "localhost:6379");
  CHECK(name_of("[localhost]:6379") == "localhost:6379");
}

TEST_CASE("what names no Redis is an error", "[redis_flags]") {
  auto const* const wrong =
      ",:,:6379,[]:6379,nonsense,localhost:,localhost:0,localhost:65536,localhost:99999999999,localhost:-1,"
      "localhost:+1,localhost:1x,localhost: 1,localhost:1 , localhost:1,local host:1,::1,::1:6379,[::1],[::1:6379,"
      "::1]:6379,[::1]6379,[[::1]]:6379,redis://localhost:6379,"
      "local\"host:1,local\\host:1,localhost\n:1,local\x7fhost:1";
  for (auto const& text : program::split(wrong)) CHECK(error_of(text) == "'" + text + "' is not HOST:PORT");
}
