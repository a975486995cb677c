// SPDX-License-Identifier: BSL-1.0
#include <chatproto/server_options.hpp>

#include <chrono>

#include "catch.hpp"

using namespace std::chrono_literals;

// docs/reliability.md says the same.
TEST_CASE("a server has defaults", "[server_options]") {
  chatproto::ServerOptions const defaults;
  CHECK(defaults.port == 0);
  CHECK(defaults.address.empty());
  CHECK(defaults.threads == 0);
  CHECK(defaults.line_limit == 255);
  CHECK(defaults.queue_limit == 256 * 1024);
  CHECK(defaults.memory_limit == 0);
  CHECK(defaults.overflow == chatproto::Overflow::disconnect);
  CHECK(defaults.send_buffer == 64 * 1024);
  CHECK(defaults.max_clients == 0);
  CHECK(defaults.rate == 0);
  CHECK(defaults.rate_burst == 20);
  CHECK(defaults.login_deadline == 10s);
  CHECK(defaults.write_deadline == 10s);
  CHECK(defaults.linger == 2s);
  CHECK(defaults.drain == 10s);
  CHECK(defaults.keepalive == 60s);
  CHECK(defaults.accept_retry == 10ms);
  CHECK(defaults.accept_retry_most == 1s);
  CHECK(defaults.observer == nullptr);
}
