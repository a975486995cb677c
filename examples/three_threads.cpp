// SPDX-License-Identifier: BSL-1.0
// three_threads: three threads that say hello, take a random pause, and say goodbye.
//
// They share the terminal. Which of them comes first is decided by the system, anew each time; that a line is never
// mixed with another is our affair: a thread gathers its line and hands it over whole (std::osyncstream, in print).
#include <chrono>
#include <list>
#include <random>
#include <string>
#include <thread>

#include "program.hpp"

namespace {

void live(int id) {
  auto const name = "thread " + std::to_string(id);
  program::print("Hi, I'm " + name);
  std::random_device dice;
  std::this_thread::sleep_for(std::chrono::milliseconds(std::uniform_int_distribution(0, 500)(dice)));
  program::print("Goodbye from " + name);
}

/// A thread that is waited for when this ends; or the program would end before it.
struct Joined {
  explicit Joined(int id) : thread(live, id) {}
  ~Joined() { thread.join(); }
  std::thread thread;
};

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Three threads that share a terminal.");
  return program::run(app, argc, argv, [] {
    std::list<Joined> threads;
    for (auto id = 1; id <= 3; ++id) threads.emplace_back(id);
    return 0;
  });
}
