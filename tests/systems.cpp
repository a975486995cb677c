// SPDX-License-Identifier: BSL-1.0
// Tests the services of examples/ with many clients at once. conformance/systems has what the programs print.
#include "../examples/arrival_service.hpp"
#include "../examples/descriptors.hpp"
#include "../examples/poke_service.hpp"
#include "../examples/quiz_service.hpp"

#include <chatproto/connection.hpp>
#include <chatproto/threading.hpp>

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <latch>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include "catch.hpp"
#include "socket_support.hpp"
#include "support.hpp"

#define POLICIES chatproto::ThreadPerClient, chatproto::ThreadPool, chatproto::StrandPool

using chatproto::Peer;
using examples::ArrivalService;
using examples::AtomicCounter;
using examples::MutexCounter;
using examples::OwnedCounter;
using examples::PokeService;
using examples::QuizService;
using test::Lines;
using test::RecordingQueue;
using test::ServerThread;

namespace {

/// Whether `numbers` are 1 to `count`, each once.
bool all_different(std::vector<std::uint64_t> numbers, std::size_t count) {
  std::sort(numbers.begin(), numbers.end());
  auto const twice = std::adjacent_find(numbers.begin(), numbers.end()) != numbers.end();
  return !twice && numbers.size() == count && numbers.front() == 1 && numbers.back() == count;
}

/// 1,000 clients, if the system allows five descriptors for each. Fewer on Windows: MinGW's locks, with this many
/// threads waiting for one, take half a minute under Wine, and longer on a busy machine.
std::size_t most_clients() {
#ifdef _WIN32
  return 200;
#else
  auto const descriptors = program::raise_descriptor_limit();
  if (descriptors >= 6'000) return 1'000;
  WARN("only 100 clients, for this system allows only " << descriptors << " descriptors");
  return 100;
#endif
}

/// A client that sends lines that are not messages.
class Talker {
 public:
  explicit Talker(std::uint16_t port) { connection_.connect("127.0.0.1", std::to_string(port)); }
  void says(std::string const& line) { connection_.send_line(line); }
  std::string hears() { return connection_.receive_line(); }

 private:
  chatproto::Connection connection_;
};

/// Collects what a server prints, for a thread that waits for it.
class Printed {
 public:
  void operator()(std::string const& line) {
    std::lock_guard const lock(mutex_);
    lines_.push_back(line);
    changed_.notify_all();
  }
  /// Waits for a line that ends with `end`, and drops it and those before it.
  bool wait_for(std::string const& end) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, test::patience, [&] {
      auto const at = std::find_if(lines_.begin(), lines_.end(), [&](auto const& line) { return line.ends_with(end); });
      if (at == lines_.end()) return false;
      lines_.erase(lines_.begin(), at + 1);
      return true;
    });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  Lines lines_;
};

}  // namespace

TEMPLATE_TEST_CASE("a shared counter gives each number once", "[systems]", AtomicCounter, MutexCounter, OwnedCounter) {
  constexpr std::size_t threads = 8, each = std::is_same_v<TestType, OwnedCounter> ? 2'000 : 50'000;
  TestType counter;
  std::latch start(threads);  // else a short-lived thread ends before the next one begins
  CHECK(counter.get() == 0);
  std::vector<std::vector<std::uint64_t>> numbers(threads);
  std::vector<std::thread> running;
  for (auto& mine : numbers)
    running.emplace_back([&] {
      start.arrive_and_wait();
      for (std::size_t i = 0; i < each; ++i) mine.push_back(counter.add());
    });
  for (auto& thread : running) thread.join();
  std::vector<std::uint64_t> all;
  for (auto const& mine : numbers) {
    CHECK(std::is_sorted(mine.begin(), mine.end()));
    all.insert(all.end(), mine.begin(), mine.end());
  }
  CHECK(all_different(all, threads * each));
  CHECK(counter.get() == threads * each);
}

TEMPLATE_TEST_CASE("1,000 clients poke at once, and no poke is lost", "[systems]", AtomicCounter, MutexCounter,
                   OwnedCounter) {
  constexpr std::size_t each = 5;
  auto const clients = most_clients();
  auto const poke = [clients](auto policy) {
    ServerThread<typename decltype(policy)::type, PokeService<TestType>> server;
    std::list<test::Client> pokers;
    std::string lines = "slogin:bob\n";
    for (std::size_t i = 0; i < each; ++i) lines += "poke:\n";
    for (std::size_t i = 0; i < clients; ++i) pokers.emplace_back(server.port());
    for (auto& poker : pokers) poker.send(lines);
    std::vector<std::uint64_t> numbers;
    for (auto& poker : pokers) {
      poker.next();
      for (std::size_t i = 0; i < each; ++i) numbers.push_back(std::stoull(poker.next_line().substr(3)));
    }
    CHECK(all_different(numbers, clients * each));
    pokers.front().send("pokes:\n");
    CHECK(pokers.front().next_line() == "ok:" + std::to_string(clients * each));
  };
  SECTION("pool") {
    poke(std::type_identity<chatproto::ThreadPool>());
  }
  SECTION("strand") {
    poke(std::type_identity<chatproto::StrandPool>());
  }
  SECTION("thread per client") {
    poke(std::type_identity<chatproto::ThreadPerClient>());
  }
}

TEST_CASE("a poke's announcement reaches the room before its reply", "[systems]") {
  PokeService<> service;
  auto const alice = std::make_shared<RecordingQueue>(), bob = std::make_shared<RecordingQueue>();
  auto listener = service.open(Peer(alice));
  auto poker = service.open(Peer(bob));
  for (auto const* line : {"rlogin:alice", "join:cafe"}) listener.on_line(line);
  for (auto const* line : {"slogin:bob", "join:cafe"}) poker.on_line(line);
  listener.flush();
  poker.flush();
  alice->take();
  bob->take();
  auto announced = std::string();
  bob->on_wake = [&] { announced = alice->take(); };
  for (auto const* line : {"sendall:a", "poke:", "sendall:b", "pokes:"}) poker.on_line(line);
  poker.flush();
  CHECK(announced == "delivery:cafe:bob:a\ndelivery:cafe:bob:poke 1\ndelivery:cafe:bob:b\n");
  CHECK(bob->take() == "ok:sent\nok:1\nok:sent\nok:1\n");
}

/// Questions whose text is their number, which is also the answer.
QuizService::Author numbers() {
  return [n = 0]() mutable -> QuizService::Question {
    ++n;
    return {"number " + std::to_string(n), std::to_string(n)};
  };
}

TEST_CASE("the first right answer earns the point, and enough points win", "[systems]") {
  QuizService quiz(numbers(), std::chrono::hours(1), 2);
  auto const x = std::make_shared<RecordingQueue>(), y = std::make_shared<RecordingQueue>();
  auto ann = quiz.open(Peer(x));
  for (auto const* line : {"a b", "ann"}) ann.on_line(line);
  CHECK(x->take() == "* your name, please: letters and digits\n* ann has come\n* here are ann 0\n");
  ann.on_line("1");
  CHECK(x->take() == "* no, or too late\n");  // no question was asked
  {
    auto bob = quiz.open(Peer(y));
    bob.on_line("ann");
    CHECK(y->take() == "* there is another ann here\n");
    CHECK_FALSE(bob.logged_in());
    bob.on_line("bob");
    CHECK(bob.logged_in());
    CHECK(bob.name() == "bob");
    CHECK(y->take() == "* bob has come\n* here are ann 0, bob 0\n");
    quiz.ask();
    bob.on_line("2");
    bob.on_line("1");
    ann.on_line("1");
    CHECK(y->take() == "? number 1\n* no, or too late\n! bob is right: 1, now 1\n");
    CHECK(x->take() == "* bob has come\n? number 1\n! bob is right: 1, now 1\n* no, or too late\n");
    quiz.ask();
    ann.on_line("2");
    quiz.ask();
    ann.on_line("3");
    ann.on_line("who");
    CHECK(x->take().ends_with("! ann is right: 3, now 2\n! that wins. Again from 0\n* ann 0, bob 0\n"));
  }
  CHECK(x->take() == "* bob has gone\n");
  ann.on_line("who");
  CHECK(x->take() == "* ann 0\n");
}

TEMPLATE_TEST_CASE("when many clients answer at once, one gets the point", "[systems]", POLICIES) {
  constexpr auto players = 20, questions = 100;
  ServerThread<TestType, QuizService> server(test::patient(), numbers(), std::chrono::hours(1), questions + 1u);
  std::list<test::Client> clients;
  for (auto i = 0; i < players; ++i) {
    auto& client = clients.emplace_back(server.port());
    client.send("p" + std::to_string(i) + '\n');
    while (!client.next_line().starts_with("* here are ")) continue;
  }
  auto right = 0;
  for (auto q = 1; q <= questions; ++q) {
    server->service().ask();
    for (auto& client : clients) client.send(std::to_string(q) + '\n');
    auto i = 0;
    for (auto& client : clients) {  // each hears who was right, and the others that they were not
      auto const mine = "! p" + std::to_string(i++) + " is right";
      auto awarded = 0, refused = 0, won = 0;
      while (awarded == 0 || refused + won == 0) {
        auto const line = client.next_line();
        if (line == "(end)" || line == "(reset)") FAIL(line);
        awarded += line.starts_with("! ");
        won += line.starts_with(mine);
        refused += line == "* no, or too late";
      }
      right += won;
    }
  }
  CHECK(right == questions);
}

TEST_CASE("what a client sends before its partner connects is kept, and is first", "[systems]") {
  ArrivalService service([](auto&&) {});
  auto const x = std::make_shared<RecordingQueue>(), y = std::make_shared<RecordingQueue>();
  auto first = service.open(Peer(x), "x");
  first.on_line("X: Alice");
  first.on_line("hello?");
  SECTION("") {
    auto second = service.open(Peer(y), "y");
    CHECK(x->take().empty());
    second.on_line("Y: Bob");
    CHECK(x->take() == "X: Alice received before Y: Bob\n");
    CHECK(y->take() == "X: Alice received before Y: Bob\nhello?\n");
  }
  SECTION("but not without end") {
    for (auto i = 2; i < 64; ++i) first.on_line("hello?");
    CHECK(x->take().empty());
    first.on_line("hello?");
    CHECK(x->take() == "* not kept: the other has not come yet\n");
  }
}

TEST_CASE("a client that leaves before another connects is not its partner", "[systems]") {
  ArrivalService service([](auto&&) {});
  auto const x = std::make_shared<RecordingQueue>(), y = std::make_shared<RecordingQueue>(),
             z = std::make_shared<RecordingQueue>();
  { auto const ghost = service.open(Peer(x), "x"); }
  auto first = service.open(Peer(y), "y"), second = service.open(Peer(z), "z");
  first.on_line("Y: Bob");
  second.on_line("Z: Carol");
  CHECK(x->take().empty());
  CHECK(y->take() == "Y: Bob received before Z: Carol\n");
}

TEST_CASE("a pair of clients can talk and leave in any order", "[systems]") {
  ArrivalService service([](auto&&) {});
  auto const x = std::make_shared<RecordingQueue>(), y = std::make_shared<RecordingQueue>();
  auto first = service.open(Peer(x), "x");
  std::unique_ptr<ArrivalService::Session> second(new ArrivalService::Session(service.open(Peer(y), "y")));
  auto const gone = "* the other has gone; Bye leaves\n";

  SECTION("what one says before the other has spoken is kept") {
    second->on_line("Y: Bob");
    second->on_line("hello?");
    CHECK(x->take().empty());
    first.on_line("X: Alice");
    CHECK(x->take() == "Y: Bob received before X: Alice\nhello?\n");
    CHECK(y->take() == "Y: Bob received before X: Alice\n");
  }
  SECTION("but not without end") {
    second->on_line("Y: Bob");
    for (auto i = 0; i < 64; ++i) second->on_line("hello?");
    CHECK(y->take().empty());
    second->on_line("hello?");
    CHECK(y->take() == "* not kept: the other has not spoken yet\n");
  }
  SECTION("also a Bye") {
    second->on_line("Y: Bob");
    second->on_line("Bye");
    CHECK(y->is_open());
    first.on_line("X: Alice");
    CHECK(x->take() == "Y: Bob received before X: Alice\nBye\n");
    CHECK_FALSE(x->is_open());
    CHECK_FALSE(y->is_open());
  }
  SECTION("who begins with Bye leaves") {
    second->on_line("Bye");
    CHECK_FALSE(y->is_open());
    CHECK(x->take() == gone);
  }
  SECTION("the other may vanish, before or after its line") {
    if (GENERATE(true, false)) second->on_line("Y: Bob");
    second.reset();
    CHECK(x->take() == gone);
    first.on_line("X: Alice");
    CHECK(x->take() == gone);
    first.on_line("Bye");
    CHECK_FALSE(x->is_open());
  }
}

TEMPLATE_TEST_CASE("a client that sends a line before the other connects is first", "[systems]", POLICIES) {
  Printed printed;
  ServerThread<TestType, ArrivalService> server(test::patient(), [&](std::string const& line) { printed(line); });
  auto wrong = 0;
  for (auto i = 0; i < 200; ++i) {
    test::Client alice(server.port());
    alice.send("X: Alice\n");
    REQUIRE(printed.wait_for(" speaks before the other has come"));
    test::Client bob(server.port());
    bob.send("Y: Bob\n");
    wrong += bob.next_line() != "X: Alice received before Y: Bob";
    REQUIRE(printed.wait_for("Y: Bob"));
  }
  CHECK(wrong == 0);
}

TEMPLATE_TEST_CASE("the client whose line arrives first is first, 1,000 times, in both orders of connecting",
                   "[systems]", POLICIES) {
  Printed printed;
  ServerThread<TestType, ArrivalService> server(test::patient(), [&](std::string const& line) { printed(line); });
  auto wrong = 0;
  for (auto i = 0; i < 1'000; ++i) {
    auto const first_connects_first = i % 2 == 0;
    Talker one(server.port()), two(server.port());
    auto& alice = first_connects_first ? one : two;
    auto& bob = first_connects_first ? two : one;
    auto const number = std::to_string(i);
    auto const x = std::string("X").append(number) + ": Alice", y = std::string("Y").append(number) + ": Bob";
    auto news = x + " received before " + y;
    if (i % 4 < 2) {  // one after the other
      alice.says(x);
      REQUIRE(printed.wait_for(x));
      bob.says(y);
    } else {  // at once
      std::thread other([&] { bob.says(y); });
      alice.says(x);
      other.join();
    }
    auto const heard = alice.hears();
    if (i % 4 >= 2 && heard != news) news = y + " received before " + x;
    wrong += heard != news || bob.hears() != news;
    alice.says("Bye");
    wrong += bob.hears() != "Bye";
  }
  CHECK(wrong == 0);
}
