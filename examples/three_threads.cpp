// SPDX-License-Identifier: BSL-1.0
// three_threads: three threads that say hello, pause for a random time, and say goodbye.
//
// They share the terminal. The system decides anew each time which thread comes first. The program makes sure that
// lines are never mixed: a thread collects its line and writes it whole (program::print).
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

/// A thread that is joined by the destructor; otherwise the program would end first.
struct Joined {
  explicit Joined(int id) : thread(live, id) {}
  ~Joined() { thread.join(); }
  std::thread thread;
};

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Runs three threads that share a terminal.");
  return program::run(app, argc, argv, [] {
    std::list<Joined> threads;
    for (auto id = 1; id <= 3; ++id) threads.emplace_back(id);
    return 0;
  });
}
