// SPDX-License-Identifier: BSL-1.0
// What a service's own threads and timers do for a client: Peer::post, executor_of.
#include <chatproto/chat_service.hpp>
#include <chatproto/executor.hpp>
#include <chatproto/observer.hpp>
#include <chatproto/peer.hpp>
#include <chatproto/threading.hpp>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <asio/steady_timer.hpp>

#include "catch.hpp"
#include "socket_support.hpp"
#include "support.hpp"

using namespace std::chrono_literals;
using chatproto::Peer;
using test::Client;
using test::Lines;
using test::patient;
using test::ServerThread;

#define POLICIES chatproto::ThreadPerClient, chatproto::ThreadPool, chatproto::StrandPool

namespace {

/// A service that passes each peer to the test. Its sessions have a number that no lock protects.
class Open {
 public:
  struct Session {
    Peer peer;
    Open& service;
    int number = 0;

    void on_line(std::string_view line) {
      if (line == "add:")
        ++number;
      else if (line == "get:")
        peer.send_line("ok:" + std::to_string(number));
      else
        service.meet(*this);
    }
  };
  Session open(Peer peer) { return {std::move(peer), *this}; }

  /// Waits until a client has sent any other line, and returns its peer and session. The session may only be used in
  /// tasks.
  std::pair<Peer, Session*> met() {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, test::patience, [this] { return !met_.empty(); })) throw std::runtime_error("nobody");
    auto const result = met_.front();
    met_.pop_front();
    return result;
  }

 private:
  void meet(Session& session) {
    std::lock_guard const lock(mutex_);
    met_.emplace_back(session.peer, &session);
    changed_.notify_one();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::pair<Peer, Session*>> met_;
};

/// A thread that carries out tasks in order, as a database client might.
class Worker {
 public:
  ~Worker() {
    add(nullptr);
    thread_.join();
  }
  void add(std::function<void()> job) {
    std::lock_guard const lock(mutex_);
    jobs_.push_back(std::move(job));
    changed_.notify_one();
  }

 private:
  void work() {
    for (;;) {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return !jobs_.empty(); });
      auto const job = std::move(jobs_.front());
      jobs_.pop_front();
      if (!job) return;
      lock.unlock();
      job();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> jobs_;
  std::thread thread_{[this] { work(); }};
};

/// Answers each line from another thread, in order: the client is paused meanwhile.
struct Asking {
  struct Session {
    Peer peer;
    Worker& worker;
    void on_line(std::string_view line) {
      peer.pause();
      worker.add([this, client = peer, question = std::string(line)] {
        auto answer = std::make_unique<std::string>("answer to " + question);  // a task need not be copyable
        client.post([this, text = std::move(answer)] {
          peer.send_line(*text);
          peer.resume();
        });
      });
    }
  };
  Session open(Peer peer) { return {std::move(peer), worker}; }
  Worker worker;
};

/// Sends "ding" as many milliseconds after each line as the line says. A new line cancels the timer of the one before.
struct Bell {
  struct Session {
    explicit Session(Peer p) : peer(std::move(p)), timer(chatproto::executor_of(peer)) {}
    void on_line(std::string_view line) {
      timer.expires_after(std::chrono::milliseconds(std::stoi(std::string(line))));
      timer.async_wait([client = peer, this](std::error_code const& ec) {
        if (!ec) client.post([this] { peer.send_line("ding"); });
      });
      peer.send_line("ok:");
    }
    Peer peer;
    asio::steady_timer timer;
  };
  Session open(Peer peer) { return Session(std::move(peer)); }
};

bool rings(Client& client, int oks) {
  for (auto i = 0; i < oks; ++i)
    if (client.next_line() != "ok:") return false;
  return client.next_line() == "ding";
}

struct Witness : chatproto::Observer {
  /// Waits for `count` events, and returns them.
  Lines told(std::size_t count) {
    auto const enough = [&] {
      std::lock_guard const lock(mutex);
      return seen.size() >= count;
    };
    if (!test::eventually(enough)) return {};
    std::lock_guard const lock(mutex);
    return seen;
  }
  void threw(std::uint64_t number, std::string_view what) override {
    std::lock_guard const lock(mutex);
    seen.push_back(std::to_string(number) + " threw " + std::string(what));
  }
  void ended(std::uint64_t number, chatproto::DisconnectReason reason, std::error_code const&) override {
    std::lock_guard const lock(mutex);
    seen.push_back(std::to_string(number) + " " + std::string(to_string(reason)));
  }

 private:
  std::mutex mutex;
  Lines seen;
};

}  // namespace

TEMPLATE_TEST_CASE("tasks and lines of one client never run at once, and each thread's tasks run in order", "[posting]",
                   POLICIES) {
  constexpr auto threads = 4, tasks = 2'000, lines = 2'000;
  ServerThread<TestType, Open> server;
  Client client(server.port());
  client.send("hi:\n");
  auto const met = server->service().met();
  auto const& peer = met.first;
  auto* const session = met.second;
  std::vector<int> last(threads, -1);
  auto out_of_order = 0;  // unguarded, like the session's number
  std::vector<std::thread> posters;
  for (auto t = 0; t < threads; ++t)
    posters.emplace_back([&, t] {
      for (auto i = 0; i < tasks; ++i)
        peer.post([&, t, i, session] {
          ++session->number;
          out_of_order += std::exchange(last[static_cast<std::size_t>(t)], i) != i - 1;
        });
    });
  std::string adds;
  for (auto i = 0; i < lines; ++i) adds += "add:\n";
  client.send(adds);
  for (auto& each : posters) each.join();
  peer.post([&] { peer.send_line("ok:done"); });  // after all that was posted
  CHECK(client.next_line() == "ok:done");
  client.send("get:\n");
  CHECK(client.next_line() == "ok:" + std::to_string(threads * tasks + lines));
  CHECK(out_of_order == 0);
}

TEMPLATE_TEST_CASE("a session may post a task for another client", "[posting]", POLICIES) {
  ServerThread<TestType, Open> server;
  Client alice(server.port()), bob(server.port());
  alice.send("hi:\n");
  auto const [alice_peer, alice_session] = server->service().met();
  bob.send("hi:\n");
  auto const [bob_peer, bob_session] = server->service().met();
  CHECK(alice_peer != bob_peer);
  CHECK(alice_peer.id() == 1);
  CHECK(bob_peer.id() == 2);
  // Two clients keep counting in each other's sessions, both at once.
  struct Ball {
    Peer here, there;
    Open::Session *mine, *theirs;
    int left;
    void operator()() const {
      ++mine->number;
      if (left > 0) there.post(Ball{there, here, theirs, mine, left - 1});
    }
  };
  alice_peer.post(Ball{alice_peer, bob_peer, alice_session, bob_session, 1'999});
  bob_peer.post(Ball{bob_peer, alice_peer, bob_session, alice_session, 1'999});
  auto const has = [](Client& client, char const* number) {
    client.send("get:\n");
    return client.next_line() == number;
  };
  CHECK(test::eventually([&] { return has(alice, "ok:2000"); }));
  CHECK(test::eventually([&] { return has(bob, "ok:2000"); }));
}

TEMPLATE_TEST_CASE("answers from another thread keep their order, also for a client that sends no more", "[posting]",
                   POLICIES) {
  ServerThread<TestType, Asking> server;
  Client client(server.port());
  std::string lines;
  for (auto i = 0; i < 100; ++i) lines += "question " + std::to_string(i) + '\n';
  client.send(lines);
  client.end_output();
  for (auto i = 0; i < 100; ++i) REQUIRE(client.next_line() == "answer to question " + std::to_string(i));
  CHECK(client.next_line() == "(end)");
}

TEMPLATE_TEST_CASE("a task for a client that has disconnected is dropped", "[posting]", POLICIES) {
  std::optional<ServerThread<TestType, Open>> server(std::in_place);
  auto const held = std::make_shared<int>();
  std::optional<Client> client(server->port());
  client->send("hi:\n");
  auto const met = (*server)->service().met();
  auto const& peer = met.first;
  SECTION("which has left") {
    client->close();
    CHECK(test::eventually([&] { return !peer.post([held] {}); }));
  }
  SECTION("which a task has cut") {
    auto const was_run = std::make_shared<std::atomic<bool>>(false);
    peer.post([peer, was_run] {
      peer.abort();
      peer.post([was_run] { *was_run = true; });
    });
    CHECK(client->next_line() == "(end)");
    CHECK(test::eventually([&] { return was_run.use_count() == 1; }));
    CHECK_FALSE(*was_run);
  }
  SECTION("with its server") {
    server.reset();
  }
  CHECK(test::eventually([&] { return !peer.post([held] {}); }));
  CHECK(test::eventually([&] { return held.use_count() == 1; }));
}

TEMPLATE_TEST_CASE("tasks may be posted while the server stops", "[posting]", POLICIES) {
  auto const how = GENERATE(chatproto::StopMode::drain, chatproto::StopMode::now);
  std::optional<ServerThread<TestType, Open>> server(std::in_place);
  std::vector<Client> clients;
  std::vector<std::thread> posters;
  auto const held = std::make_shared<int>();
  for (auto i = 0; i < 4; ++i) {
    auto& client = clients.emplace_back(server->port());
    client.send("hi:\n");
    posters.emplace_back([met = (*server)->service().met(), held] {
      while (met.first.post([session = met.second, held] { ++session->number; })) std::this_thread::yield();
    });
  }
  (*server)->stop(how);
  for (auto& each : clients) CHECK(each.next_line() == "(end)");
  clients.clear();
  for (auto& each : posters) each.join();
  CHECK(server->ended());
  server.reset();
  CHECK(held.use_count() == 1);
}

TEMPLATE_TEST_CASE("an exception from a session disconnects its client, and the observer gets its text", "[posting]",
                   POLICIES) {
  Witness witness;
  auto options = patient();
  options.observer = &witness;
  ServerThread<TestType, Open> server(options);
  Client alice(server.port()), bob(server.port());
  bob.send("hi:\n");
  auto const met = server->service().met();
  auto const& peer = met.first;
  SECTION("an exception") {
    peer.post([] { throw std::runtime_error("the database is gone"); });
    CHECK(bob.next_line() == "(end)");
    CHECK(witness.told(2) ==
          Lines{std::to_string(peer.id()) + " threw the database is gone", std::to_string(peer.id()) + " failed"});
  }
  SECTION("anything else") {
    peer.post([] { throw 42; });
    CHECK(bob.next_line() == "(end)");
    CHECK(witness.told(2).size() == 2);
  }
  alice.send("get:\n");
  CHECK(alice.next_line() == "ok:0");
}

TEMPLATE_TEST_CASE("a timer of a session runs on its executor and ends with it", "[posting]", POLICIES) {
  ServerThread<TestType, Bell> server;
  Client client(server.port());
  client.send("1\n");
  CHECK(rings(client, 1));
  client.send("100000\n1\n");  // the first never rings
  CHECK(rings(client, 2));
  client.send("100000\n");
  CHECK(client.next() == "ok");
  for (auto i = 0; i < 100; ++i) {  // clients that leave just when it rings
    Client brief(server.port());
    brief.send("1\n0\n");
    brief.reset();
  }
  server->stop(chatproto::StopMode::now);  // does not wait for the timers
  CHECK(server.ended());
}
