// SPDX-License-Identifier: BSL-1.0
#include <chatproto/observer.hpp>

#include <cstddef>
#include <set>
#include <string_view>
#include <system_error>

#include "catch.hpp"

using chatproto::DisconnectReason;

TEST_CASE("each reason has a word of its own", "[observer]") {
  std::set<std::string_view> words;
  for (std::size_t i = 0; i < chatproto::disconnect_reasons; ++i)
    words.insert(to_string(static_cast<DisconnectReason>(i)));
  CHECK(words.size() == chatproto::disconnect_reasons);
  CHECK(words.count("") == 0);
  CHECK(to_string(DisconnectReason::closed) == "closed");
  CHECK(to_string(DisconnectReason::write_deadline) == "write_deadline");
  CHECK(to_string(DisconnectReason::memory) == "memory");
  CHECK(to_string(DisconnectReason::room_lost) == "room_lost");  // the last one
  CHECK(static_cast<std::size_t>(DisconnectReason::room_lost) + 1 == chatproto::disconnect_reasons);
}

TEST_CASE("each reason to refuse a client has a word of its own", "[observer]") {
  std::set<std::string_view> words;
  for (std::size_t i = 0; i < chatproto::refusal_reasons; ++i)
    words.insert(to_string(static_cast<chatproto::RefusalReason>(i)));
  CHECK(words.size() == chatproto::refusal_reasons);
  CHECK(words.count("") == 0);
  CHECK(to_string(chatproto::RefusalReason::full) == "full");
  CHECK(to_string(chatproto::RefusalReason::banned) == "banned");  // the last one
  CHECK(static_cast<std::size_t>(chatproto::RefusalReason::banned) + 1 == chatproto::refusal_reasons);
}

TEST_CASE("an observer need not handle any event", "[observer]") {
  struct : chatproto::Observer {
  } careless;
  careless.connected(1, "127.0.0.1:1");
  careless.logged_in(1, "bob");
  careless.ended(1, DisconnectReason::closed, {});
  careless.refused("127.0.0.1:1", chatproto::RefusalReason::full);
  careless.accept_failed(std::make_error_code(std::errc::not_enough_memory));
  CHECK(chatproto::ServerStats{}.clients == 0);
}
