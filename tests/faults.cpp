// SPDX-License-Identifier: BSL-1.0
// Each system call and each allocation of a server fails once while clients connect, send and disconnect. Whatever
// fails: at most one client is lost, the server serves all others and new ones, and nothing leaks.
#include <chatproto/chat_service.hpp>
#include <chatproto/detail/server/handler_memory.hpp>
#include <chatproto/detail/server/reliable_timer.hpp>
#include <chatproto/listen.hpp>
#include <chatproto/room_table.hpp>
#include <chatproto/threading.hpp>

#include <chrono>
#include <cstddef>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>

#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>

#include "catch.hpp"
#include "sanitized.hpp"
#include "socket_support.hpp"
#include "support.hpp"
#include "system_calls.hpp"

#define POLICIES chatproto::ThreadPerClient, chatproto::ThreadPool, chatproto::StrandPool

namespace {

using test::Client;
using test::Failing;
using test::Fault;

/// A client that acts, and records whether everything went as it must.
class Guest {
 public:
  explicit Guest(std::uint16_t port) : client_(port) {}

  /// Sends these lines, and must get exactly these answers.
  Guest& says(std::string const& lines, test::Lines const& answers) {
    if (well_) well_ = !client_.try_send(lines) && hears(answers).well_;
    return *this;
  }
  Guest& hears(test::Lines const& lines) {
    for (auto const& line : lines) well_ = well_ && client_.next() == line;
    return *this;
  }
  /// Waits for `line`, skipping other deliveries.
  void hears_at_last(std::string const& line) {
    for (auto heard = false; well_ && !heard;) {
      auto const next = client_.next();
      heard = next == line;
      well_ = heard || next.starts_with("delivery:");
    }
  }
  bool is_well() const { return well_; }
  Client& client() { return client_; }

 private:
  Client client_;
  bool well_ = true;
};

test::Lines const ok_ok = {"ok", "ok"};

/// Two clients that stay, and two that connect, send and disconnect. Counts those for which something went wrong.
template <class Policy>
class Round {
 public:
  explicit Round(test::ServerThread<Policy>& server) : server_(server) { settle(); }

  int lost() {
    Guest carol(server_.port());
    carol.says("rlogin:carol\njoin:cafe\n", ok_ok);
    Guest dave(server_.port());
    dave.says("slogin:dave\njoin:cafe\n", ok_ok);
    dave.says("sendall:one\nsendall:two\n", ok_ok).says("senduser:carol:three\nnonsense\n", {"ok", "err"});
    if (dave.is_well()) {  // else its texts may have been delivered or not
      alice_->hears({"delivery:cafe:dave:one", "delivery:cafe:dave:two"});
      carol.hears({"delivery:cafe:dave:one", "delivery:cafe:dave:two", "delivery:cafe:dave:three"});
      dave.says("quit:\n", {"ok", "(end)"});
    }
    bob_->says("sendall:four\n", {"ok"});
    if (bob_->is_well()) {
      alice_->hears_at_last("delivery:cafe:bob:four");
      carol.hears_at_last("delivery:cafe:bob:four");
      if (carol.is_well()) carol.client().end_output();
      carol.hears({"(end)"});
    }
    return !alice_->is_well() + !bob_->is_well() + !carol.is_well() + !dave.is_well();
  }

  /// Disconnects all clients, and connects the two that stay again.
  void settle() {
    alice_.reset();
    bob_.reset();
    REQUIRE(test::eventually([&] { return server_->stats().clients == 0; }));
    CHECK(server_->service().room_count() == 0);
    alice_.emplace(server_.port());
    alice_->says("rlogin:alice\njoin:cafe\n", ok_ok);
    bob_.emplace(server_.port());
    bob_->says("slogin:bob\njoin:cafe\n", ok_ok);
    bob_->says("sendall:hi\n", {"ok"});
    alice_->hears({"delivery:cafe:bob:hi"});
    REQUIRE(alice_->is_well());
    REQUIRE(bob_->is_well());
  }

 private:
  test::ServerThread<Policy>& server_;
  std::optional<Guest> alice_, bob_;
};

/// Makes the 1st call or allocation fail, then the 2nd, and so on, until a whole round has fewer.
template <class Policy>
void fail_each(Fault fault, std::size_t style) {
  test::Uncounted const clients;
  auto options = test::patient();
  options.threads = 1;
  options.accept_retry = std::chrono::milliseconds(1);
  chatproto::Observer observer;  // the server makes addresses only for an observer
  options.observer = &observer;
  test::ServerThread<Policy> server(options);
  Round<Policy> round(server);
  round.lost();
  round.settle();
  test::let_it_accept(server->context());  // what the server holds for the next client belongs to the base
  auto const base = test::descriptors();
  std::size_t n = 1;
  for (auto again = true; again; ++n) {
    Failing failing(fault, n, style);
    CAPTURE(n);
    auto const lost = round.lost();
    again = failing.happened();
    std::string const what = failing.name();
    failing.end();
    CAPTURE(what);
    CHECK(lost <= 1);
    if (!again) CHECK(lost == 0);
    round.settle();
    // Instead of an eventfd Asio uses a pipe, which has two descriptors; it may be kept for the next client.
    auto const kept = what == "eventfd" ? 1 : 0;
    CHECK(test::eventually([&] { return test::descriptors() <= base + kept; }));
  }
  CHECK(n > (fault == Fault::allocation && CHATPROTO_SANITIZED ? 3 : 20));  // where only Asio's allocations can fail
  server->stop();
}

/// An echo that keeps the peer of its last client.
class Known {
 public:
  struct Session {
    chatproto::Peer peer;
    void on_line(std::string_view line) { peer.send_line(line); }
  };
  Session open(chatproto::Peer peer) {
    std::lock_guard const lock(mutex_);
    last_ = peer;
    return {std::move(peer)};
  }
  chatproto::Peer last() {
    std::lock_guard const lock(mutex_);
    return last_.value();
  }

 private:
  std::mutex mutex_;
  std::optional<chatproto::Peer> last_;
};

}  // namespace

TEST_CASE("listen: a system whose IPv6 sockets accept no IPv4, such as OpenBSD, listens on IPv4", "[faults]") {
  auto fallen_back = 0;
  std::size_t n = 1;
  for (auto again = true; again; ++n) {
    asio::io_context context;
    asio::ip::tcp::acceptor acceptor(context);
    Failing failing(Fault::call, n);
    try {
      chatproto::listen(acceptor, 0);
      auto const is_v4 = acceptor.local_endpoint().protocol() == asio::ip::tcp::v4();
      if (is_v4 && std::string_view(failing.name()) == "setsockopt") ++fallen_back;
    } catch (std::system_error const&) {  // another option
    }
    again = failing.happened();
  }
  CHECK(fallen_back == 1);
}

TEMPLATE_TEST_CASE("each system call fails once", "[faults]", POLICIES) {
  fail_each<TestType>(Fault::call, GENERATE(range(std::size_t(0), std::size_t(4))));
}

// Not with strands: when memory runs out while Asio (1.22) creates a strand or passes its turn on, the process ends.
TEMPLATE_TEST_CASE("each allocation fails once", "[faults]", chatproto::ThreadPerClient, chatproto::ThreadPool) {
  fail_each<TestType>(Fault::allocation, 0);
}

TEMPLATE_TEST_CASE("a server can be stopped when memory is short", "[faults]", chatproto::ThreadPerClient,
                   chatproto::ThreadPool) {
  test::Uncounted const clients;
  auto const how = GENERATE(chatproto::StopMode::drain, chatproto::StopMode::now);
  std::size_t n = 1;
  for (auto again = true; again; ++n) {
    auto options = test::patient();
    options.threads = 1;
    test::ServerThread<TestType> server(options);
    auto alice = test::receiver(server.port(), "alice", "cafe");
    auto bob = test::sender(server.port(), "bob", "cafe");
    CHECK(bob.asks("sendall:hi") == "ok");
    CHECK(alice.next() == "delivery:cafe:bob:hi");
    CAPTURE(n);
    Failing failing(Fault::allocation, n);
    server->stop(how);
    alice.end_output();
    bob.end_output();
    CHECK(server.ended());
    again = failing.happened();
    failing.end();
    CHECK(server->stats().clients == 0);
  }
}

TEMPLATE_TEST_CASE("a task that cannot be posted for lack of memory disconnects its client and no other", "[faults]",
                   chatproto::ThreadPerClient, chatproto::ThreadPool) {
  test::Uncounted const clients;
  auto options = test::patient();
  options.threads = 1;
  test::ServerThread<TestType, Known> server(options);
  Client other(server.port());
  REQUIRE(other.asks("ok:hi") == "ok");  // so that it is not the last client opened
  std::size_t n = 1;
  for (auto again = true; again; ++n) {
    CAPTURE(n);
    Client client(server.port());
    REQUIRE(client.asks("ok:hi") == "ok");
    auto const peer = server->service().last();
    struct Resuming {  // uses the peer when destroyed, as a task may
      chatproto::Peer peer;
      ~Resuming() { peer.resume(); }
    };
    std::unique_ptr<Resuming> resuming(new Resuming{peer});
    Failing failing(Fault::allocation, n);
    test::counts_as_spent() = true;
    auto const posted = peer.post([last = std::move(resuming)] { last->peer.send_line("ok:done"); });
    test::counts_as_spent() = false;
    auto const next = client.next();
    again = failing.happened();
    failing.end();
    CHECK((next == "ok" || again));
    CHECK((posted || next == "(end)"));
    CHECK(other.asks("ok:hi") == "ok");
  }
  CHECK((n > 2 || CHATPROTO_SANITIZED));
}

TEST_CASE("a client that leaves a room while memory is short has left it", "[faults]") {
  auto const how = GENERATE(range(0, 3));
  std::size_t n = 1;
  for (auto again = true; again; ++n) {
    CAPTURE(n);
    chatproto::RoomTable rooms;
    auto const stay = rooms.enter("cafe");
    auto const queue = std::make_shared<test::RecordingQueue>();
    auto alice = std::make_unique<chatproto::Participant>("alice", chatproto::Peer(queue));
    alice->enter(rooms, "cafe");
    alice->listen();
    stay.room().broadcast("bob", std::string(100, 'x') + "\n");
    Failing failing(Fault::allocation, n);
    try {
      if (how == 0) alice->leave();
      if (how == 1) alice->enter(rooms, "a room with a name that is long enough to be allocated");
      if (how == 2) alice.reset();
    } catch (std::bad_alloc const&) {
    }
    again = failing.happened();
    failing.end();
    if (how == 1 && alice->is_in_room() && alice->room_name() == "cafe") {  // nothing was done
      CHECK(again);
      continue;
    }
    CHECK(stay.room().size() == 0);
    CHECK((again ? queue->is_cut() : queue->take().size() == 101));
  }
  CHECK((n > 2 || CHATPROTO_SANITIZED));
}

TEST_CASE("a server's timer goes off when memory is short", "[faults]") {
  std::size_t n = 1;
  for (auto again = true; again; ++n) {
    CAPTURE(n);
    chatproto::detail::HandlerMemory memory;
    asio::io_context io;
    auto went_off = false;
    chatproto::detail::ReliableTimer timer(io, memory, {&went_off, [](void* it) { *static_cast<bool*>(it) = true; }});
    Failing failing(Fault::allocation, n);
    timer.set(std::chrono::milliseconds(1));
    io.run();
    again = failing.happened();
    CHECK(went_off);
  }
  CHECK((n > 2 || CHATPROTO_SANITIZED));  // Asio's array of timers
}
