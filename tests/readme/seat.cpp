#include <chatproto/testing.hpp>

#include <atomic>
#include <iostream>
#include <string>
#include <utility>

// One seat is for sale. "look" says whether it is free, and then "book" books it.
struct BoxOffice {
  struct Session {
    BoxOffice& office;
    chatproto::Peer peer;
    bool was_free = false;

    void on_line(std::string_view line) {
      if (line == "look") peer.send_line((was_free = !office.sold) ? "free" : "sold");
      if (line == "book") peer.send_line(book() ? "yours" : "sorry");
    }
    bool book() {
      if (was_free) office.sold = true;
      return std::exchange(was_free, false);
    }
  };
  Session open(chatproto::Peer peer) { return {*this, std::move(peer)}; }

  std::atomic<bool> sold = false;
};

// Checks that the seat is sold once at most.
std::string sold_once(chatproto::testing::View<BoxOffice> const& view) {
  auto owners = 0;
  for (auto const& client : view.clients)
    for (auto const& line : client.received()) owners += line == "yours" ? 1 : 0;
  return owners > 1 ? "the seat was sold twice" : "";
}

int main() {
  chatproto::testing::Scenario<BoxOffice> const scenario{
      .clients = {{.name = "alice", .lines = {"look", "book"}},
                  {.name = "bob", .lines = {{"look", 2}, "book"}, .connections = 3},
                  {.name = "carol", .lines = {"look", "book"}}},
      .at_end = sold_once};
  auto const failure = chatproto::testing::find_failure(scenario);
  if (!failure) return 0;
  std::cout << *failure;
  return 1;
}
