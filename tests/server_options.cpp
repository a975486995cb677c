// SPDX-License-Identifier: BSL-1.0
#include <chatproto/server_options.hpp>

#include <chatproto/server.hpp>
#include <chatproto/threading.hpp>

#include <chrono>
#include <stdexcept>
#include <type_traits>

#include "catch.hpp"
#include "socket_support.hpp"

using namespace std::chrono_literals;

// docs/reliability.md says the same.
TEST_CASE("a server has defaults", "[server_options]") {
  chatproto::ServerOptions const defaults;
  CHECK(defaults.port == 0);
  CHECK(defaults.address.empty());
  CHECK(defaults.listeners.empty());
  CHECK(defaults.max_handshakes == 4096);
  CHECK(defaults.threads == 0);
  CHECK(defaults.line_limit == 255);
  CHECK(defaults.queue_limit == 256 * 1024);
  CHECK(defaults.memory_limit == 0);
  CHECK(defaults.overflow == chatproto::Overflow::disconnect);
  CHECK(defaults.send_buffer == 64 * 1024);
  CHECK(defaults.max_clients == 0);
  CHECK(defaults.max_clients_per_address == 0);
  CHECK(defaults.new_clients_per_address == 0);
  CHECK(defaults.new_clients_burst == 32);
  CHECK_FALSE(defaults.limit_loopback);
  CHECK(defaults.proxies.empty());
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

TEST_CASE("a server does not begin with a proxy that is no address", "[server_options]") {
  auto options = test::patient();
  options.proxies = {"10.0.0.0/8", "proxy"};
  CHECK_THROWS_AS(chatproto::Server<chatproto::ThreadPool>(options), std::invalid_argument);
}

TEMPLATE_TEST_CASE("a server reports its actual limits and threads", "[server_options]", chatproto::ThreadPerClient,
                   chatproto::ThreadPool, chatproto::StrandPool) {
  constexpr auto has_threads = !std::is_same_v<TestType, chatproto::ThreadPerClient>;
  auto options = test::patient();
  options.threads = 0;
  chatproto::Server<TestType> const automatic(options);
  CHECK(automatic.options().max_clients > 0);
  CHECK(automatic.options().memory_limit > 0);
  CHECK((automatic.options().threads > 0) == has_threads);
  options.threads = 3;
  options.max_clients = 5;
  options.memory_limit = 1'000'000;
  chatproto::Server<TestType> const server(options);
  CHECK(server.options().threads == (has_threads ? 3 : 0));
  CHECK(server.options().max_clients == 5);
  CHECK(server.options().memory_limit == 1'000'000);
}
