// SPDX-License-Identifier: BSL-1.0
#include <chatproto/error.hpp>

#include <chatproto/message.hpp>

#include <set>
#include <string>
#include <system_error>

#include "catch.hpp"

using chatproto::Errc;

namespace {

Errc const all[] = {Errc::malformed,       Errc::line_too_long, Errc::invalid_name,
                    Errc::invalid_payload, Errc::unexpected,    Errc::inbox_full};

}  // namespace

TEST_CASE("an Errc becomes an error_code of our category", "[error]") {
  for (auto const error : all) {
    std::error_code const ec = error;
    CHECK(ec);
    CHECK(ec == error);
    CHECK(ec.value() == static_cast<int>(error));
    CHECK(ec.category() == chatproto::chatproto_category());
    CHECK(ec != std::error_code(static_cast<int>(error), std::generic_category()));
  }
  CHECK(std::string(chatproto::chatproto_category().name()) == "chatproto");
  CHECK(&chatproto::chatproto_category() == &chatproto::chatproto_category());
}

TEST_CASE("each error has a text of its own, which fits an err reply", "[error]") {
  std::set<std::string> texts;
  for (auto const error : all) {
    auto const text = make_error_code(error).message();
    CHECK_FALSE(text.empty());
    CHECK_NOTHROW(chatproto::encode({chatproto::tag::err, text}));
    texts.insert(text);
  }
  CHECK(texts.size() == std::size(all));
  CHECK(texts.count(std::error_code(4711, chatproto::chatproto_category()).message()) == 0);
}

TEST_CASE("a system_error says what was done and what went wrong", "[error]") {
  std::system_error const error(Errc::malformed, "reading");
  CHECK(error.code() == Errc::malformed);
  CHECK(std::string(error.what()) == "reading: " + make_error_code(Errc::malformed).message());
}
