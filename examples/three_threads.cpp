// SPDX-License-Identifier: BSL-1.0
// three_threads: three threads that say hello, take a random pause, and say goodbye.
//
// They share the terminal. Which of them comes first is decided by the system, anew each time; that a line is never
// mixed with another is our affair: a thread gathers its line and hands it over whole (std::osyncstream, in print).
#include <chrono>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "program.hpp"

namespace {

void live(int id) {
  auto const name = "thread " + std::to_string(id);
  program::print("Hi, I'm " + name);
  std::random_device dice;
  std::this_thread::sleep_for(std::chrono::milliseconds(std::uniform_int_distribution(0, 500)(dice)));
  program::print("Goodbye from " + name);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Three threads that share a terminal.", "three_threads");
  return program::run(app, argc, argv, [] {
    std::vector<std::thread> threads;
    for (auto id = 1; id <= 3; ++id) threads.emplace_back(live, id);
    for (auto& thread : threads) thread.join();  // or the program would end before them
    return 0;
  });
}
