// SPDX-License-Identifier: BSL-1.0
// A user's test: simulates a service, and needs no Asio.
#include <chatproto/testing.hpp>

#include <iostream>

#ifdef ASIO_STANDALONE
#error "chatproto::testing must not bring what only Asio needs"
#endif

namespace {

struct Echo {
  struct Session {
    chatproto::Peer peer;
    void on_line(std::string_view line) { peer.send_line(line); }
  };
  Session open(chatproto::Peer peer) { return {std::move(peer)}; }
};

}  // namespace

int main() {
  chatproto::testing::Scenario<Echo> scenario{.clients = {{.name = "alice", .lines = {"a", "b"}}}};
  scenario.at_end = [](auto const& view) {
    auto const& alice = view.clients[0];
    return alice.connected && alice.received() != alice.sent() ? "a line has no echo" : "";
  };
  if (auto const failure = chatproto::testing::find_failure(scenario)) {
    std::cerr << *failure;
    return 1;
  }
  scenario.at_end = [](auto const& view) { return view.clients[0].received().empty() ? "" : "there is an echo"; };
  return chatproto::testing::find_failure(scenario) ? 0 : 1;
}
