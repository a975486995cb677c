// SPDX-License-Identifier: BSL-1.0
#include "../examples/reload.hpp"

#include <csignal>
#include <stdexcept>
#include <string>
#include <vector>

#include <asio/io_context.hpp>

#include "catch.hpp"

TEST_CASE("each SIGHUP reads the files again, and an error ends nothing", "[reload]") {
  asio::io_context context;
  program::ServiceManager const manager;
  auto first = 0, second = 0;
  std::vector<program::Reloader> const reloaders = {
      [&] {
        if (++first == 2) throw std::runtime_error("test: a file that is wrong");
      },
      [&] { ++second == 3 ? context.stop() : static_cast<void>(std::raise(SIGHUP)); }};
  {
    program::ReloadOnHangup const reload_on_hangup(context, reloaders, manager, "fine");
    std::raise(SIGHUP);  // also if it comes before run()
    context.run();
  }
  CHECK(first == 3);
  CHECK(second == 3);
  CHECK(std::signal(SIGHUP, SIG_DFL) == SIG_IGN);  // it does not end a program that is about to exit
}

TEST_CASE("of several attempts each failure is reported", "[reload]") {
  program::Attempts attempts;
  auto done = 0;
  attempts.attempt([&] { ++done; });
  CHECK_NOTHROW(attempts.require_success());
  attempts.attempt([] { throw std::runtime_error("one"); });
  attempts.attempt([] { throw program::Errors({"two", "three"}); });
  attempts.attempt([&] { ++done; });
  CHECK(done == 2);
  try {
    attempts.require_success();
    FAIL("it throws nothing");
  } catch (program::Errors const& errors) {
    CHECK(errors.all() == std::vector<std::string>{"one", "two", "three"});
    CHECK(errors.what() == std::string("one; two; three"));
  }
}
