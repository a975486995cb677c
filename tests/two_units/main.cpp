// SPDX-License-Identifier: BSL-1.0
// One of two translation units that use the same functions: one that is not inline would be defined twice.
#include <chatproto/chatproto.hpp>

chatproto::Server<chatproto::StrandPool>* other_server();
std::error_category const& other_category();

int main() {
  chatproto::Server<chatproto::StrandPool> server({.address = "127.0.0.1", .threads = 1});
  server.stop();
  server.run();
  return other_server() == nullptr && other_category() == chatproto::chatproto_category() ? 0 : 1;
}
