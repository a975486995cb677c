// SPDX-License-Identifier: BSL-1.0
#include <chatproto/listen.hpp>

#include <cstdint>
#include <string>
#include <system_error>

#include <asio/error.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>

#include "catch.hpp"

using asio::ip::tcp;

namespace {

std::error_code error_of(std::uint16_t port, std::string const& address, std::string const& said) {
  asio::io_context context;
  tcp::acceptor acceptor(context);
  try {
    chatproto::listen(acceptor, port, address);
  } catch (std::system_error const& error) {
    CHECK(std::string(error.what()).starts_with(said));
    return error.code();
  }
  return {};
}

}  // namespace

TEST_CASE("listen: accepts connections on a free port", "[listen]") {
  asio::io_context context;
  tcp::acceptor acceptor(context);
  std::string const address = GENERATE("", "127.0.0.1");
  chatproto::listen(acceptor, 0, address);
  auto const port = acceptor.local_endpoint().port();
  CHECK(port != 0);
  tcp::socket client(context);
  client.connect({asio::ip::address_v4::loopback(), port});
  CHECK(acceptor.accept().is_open());
  auto const where = (address.empty() ? "" : address + " ") + "port " + std::to_string(port);
  auto const error = error_of(port, address, "cannot listen on " + where + ": ");
#ifdef _WIN32  // Windows says either, depending on the addresses
  CHECK((error == asio::error::access_denied || error == asio::error::address_in_use));
#else
  CHECK(error == asio::error::address_in_use);
#endif
}

TEST_CASE("listen: fails on an address that cannot be used", "[listen]") {
  CHECK(error_of(0, "localhost", "cannot listen on localhost port 0: "));
  CHECK(error_of(0, "192.0.2.1", "cannot listen on 192.0.2.1 port 0: "));  // assigned to no host (RFC 5737)
}

TEST_CASE("listen: works on a port whose last connections ended a moment ago", "[listen]") {
  asio::io_context context;
  std::uint16_t port = 0;
  for (auto i = 0; i < 3; ++i) {
    tcp::acceptor acceptor(context);
    chatproto::listen(acceptor, port, "127.0.0.1");
    port = acceptor.local_endpoint().port();
    tcp::socket client(context);
    client.connect(acceptor.local_endpoint());
    acceptor.accept().close();  // our side closes first, so that it is left in TIME_WAIT
  }
}
