// SPDX-License-Identifier: BSL-1.0
// A user's program: the TLS of a client, and of a server whose files are missing.
#include <chatproto/chatproto.hpp>
#include <chatproto/tls.hpp>

#include <memory>
#include <string>
#include <system_error>

int main() {
  chatproto::Connection connection;
  connection.layer(std::make_shared<chatproto::TlsClient>());
  try {
    chatproto::TlsServer const server({"no-such.pem", "no-such.key"});
  } catch (std::system_error const& error) {
    return std::string(error.what()).find("no-such.pem") != std::string::npos ? 0 : 1;
  }
  return 1;
}
