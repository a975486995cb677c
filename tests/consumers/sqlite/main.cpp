// SPDX-License-Identifier: BSL-1.0
// A user's program: what was said in a room is in a file, and from there in another store.
#include <chatproto/chatproto.hpp>
#include <chatproto/sqlite_history.hpp>

#include <string>

int main() {
  chatproto::SqliteHistoryOptions const options{.path = "consumer.db"};
  std::string lines;
  {
    chatproto::SqliteHistory history(options);
    history.append("cafe", {.lines = "delivery:cafe:bob:hey!\n", .user = "bob"});
  }
  chatproto::SqliteHistory(options).load([&](std::string_view, auto const& said) { lines += said.lines; });
  return lines == "delivery:cafe:bob:hey!\n" ? 0 : 1;
}
