// SPDX-License-Identifier: BSL-1.0
// quiz_server [PORT]: asks all clients sums; the first correct answer earns a point.
#include <chrono>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>

#include "quiz_service.hpp"
#include "serving.hpp"

namespace {

/// Makes sums of two numbers up to 20.
examples::QuizService::Author sums() {
  return [engine = std::mt19937(std::random_device()())]() mutable -> examples::QuizService::Question {
    auto const a = engine() % 20 + 1, b = engine() % 20 + 1;
    return {std::to_string(a) + " + " + std::to_string(b), std::to_string(a + b)};
  };
}

}  // namespace

int main(int argc, char** argv) {
  program::ServerFlags flags;
  std::chrono::milliseconds interval = std::chrono::seconds(10);
  auto to_win = 5u;
  CLI::App app("Asks all clients sums; the first right answer earns a point. Serves until SIGINT or SIGTERM.");
  flags.add_to(app, 8083);
  flags.add_login_deadline_to(app);
  program::add_seconds(app, "--interval", interval, "Time from one question to the next");
  app.add_option("--to-win", to_win, "Points that a client needs to win")
      ->check(program::decimal(1, 1'000'000))
      ->capture_default_str();
  return program::run(app, argc, argv, [&] {
    if (flags.options.overflow != chatproto::Overflow::disconnect)
      throw std::runtime_error("--overflow block-sender: a quiz does not wait for slow clients");
    return program::serve<examples::QuizService>(flags, sums(), interval, to_win);
  });
}
