// SPDX-License-Identifier: BSL-1.0
// Tests of the server's limits under load, its statistics, and senders that wait, with all policies.
#include <chatproto/chat_service.hpp>
#include <chatproto/detail/server/listener.hpp>
#include <chatproto/threading.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <future>
#include <list>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <vector>

#include <asio/post.hpp>
#include <asio/use_future.hpp>

#ifdef __linux__
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>

#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

#include "../examples/descriptors.hpp"
#include "catch.hpp"
#include "sanitized.hpp"
#include "socket_support.hpp"

using namespace std::chrono_literals;
using chatproto::DisconnectReason;
using chatproto::Overflow;
using chatproto::RefusalReason;
using test::Client;
using test::Lines;
using test::patient;
using test::ServerThread;

#define POLICIES chatproto::ThreadPerClient, chatproto::ThreadPool, chatproto::StrandPool

namespace {

std::uint64_t ended(chatproto::ServerStats const& stats, DisconnectReason reason) {
  return stats.ended[static_cast<std::size_t>(reason)];
}

std::uint64_t refused(chatproto::ServerStats const& stats, RefusalReason reason) {
  return stats.refused[static_cast<std::size_t>(reason)];
}

/// Sends `count` texts, which begin with their number, without waiting for replies.
void say(Client& sender, int first, int count, std::size_t size = 200) {
  std::string lines;
  for (auto i = first; i < first + count; ++i) {
    auto text = std::to_string(i) + ':';
    lines += "sendall:" + text.append(size - text.size(), 'x') + '\n';
  }
  sender.send(lines);
}

/// Returns whether exactly these texts come next.
bool hears(Client& receiver, int first, int count) {
  for (auto i = first; i < first + count; ++i)
    if (!receiver.next_line().starts_with("delivery:cafe:bob:" + std::to_string(i) + ':')) return false;
  return true;
}

bool oks(Client& sender, int count) {
  for (auto i = 0; i < count; ++i)
    if (sender.next() != "ok") return false;
  return true;
}

/// Runs a sender of `texts` texts in its own thread. The result is how many were answered by ok before anything else
/// came.
std::future<int> speaker(std::uint16_t port, std::string const& user, int texts) {
  return std::async(std::launch::async, [=] {
    auto speaker = test::sender(port, user, "cafe");
    try {
      say(speaker, 0, texts);
    } catch (std::system_error const&) {  // the server was stopped; the replies so far count
    }
    auto answered = 0;
    while (answered < texts && speaker.next() == "ok") ++answered;
    return answered;
  });
}

}  // namespace

// --- Limits on clients and rates -------------------------------------------------------------------------------------

TEMPLATE_TEST_CASE("a server that is full says so, and has room again when somebody leaves", "[limits]", POLICIES) {
  auto options = patient();
  options.max_clients = 2;
  ServerThread<TestType> server(options);
  auto alice = test::receiver(server.port(), "alice", "cafe");
  {
    auto bob = test::sender(server.port(), "bob", "cafe");
    for (auto i = 0; i < 40; ++i) CHECK(Client(server.port()).rest() == Lines{"err", "(end)"});
    Client eager(server.port());
    eager.send("slogin:carol\njoin:cafe\n");
    CHECK(eager.rest() == Lines{"err", "(end)"});
    CHECK(bob.asks("sendall:hi") == "ok");
    CHECK(alice.next() == "delivery:cafe:bob:hi");
    CHECK(refused(server->stats(), RefusalReason::full) == 41);
    CHECK(server->stats().clients == 2);
    CHECK(server->stats().accepted == 2);
  }
  REQUIRE(test::eventually([&] { return server->stats().clients == 1; }));
  auto carol = test::sender(server.port(), "carol", "cafe");
  CHECK(carol.asks("sendall:hi") == "ok");
  CHECK(alice.next() == "delivery:cafe:carol:hi");
}

TEMPLATE_TEST_CASE("a client that is refused while it sends is not reset", "[limits]", POLICIES) {
  auto options = patient();
  options.max_clients = 1;
  chatproto::Server<TestType> server(options);
  Client alice(server.port()), eager(server.port());  // the system has queued them, the server has not accepted them
  eager.send("slogin:carol\njoin:cafe\n");
  auto const run = std::async(std::launch::async, [&] { server.run(); });
  CHECK(eager.rest() == Lines{"err", "(end)"});  // a reset could destroy the err
  server.stop(chatproto::StopMode::now);
}

TEMPLATE_TEST_CASE("many clients that are refused at once all get an err", "[limits]", POLICIES) {
  auto options = patient();
  options.max_clients = 1;
  ServerThread<TestType> server(options);
  auto alice = test::receiver(server.port(), "alice", "cafe");
  std::list<Client> crowd;
  for (auto i = 0; i < 100; ++i) crowd.emplace_back(server.port());
  auto told = 0;
  for (auto& each : crowd)
    if (each.next() == "err") ++told;
  CHECK(told == 100);
  CHECK(alice.asks("quit:") == "ok");
}

#ifdef __linux__
TEST_CASE("a process's memory limit is the least of its control groups and their parents", "[limits]") {
  auto const pattern = (std::filesystem::temp_directory_path() / "groups.XXXXXX").string();
  std::vector<char> name(pattern.begin(), pattern.end());
  name.push_back('\0');
  std::filesystem::path const root = ::mkdtemp(name.data());
  auto const write = [&](std::string const& file, std::string const& text) {
    std::filesystem::create_directories((root / file).parent_path());
    std::ofstream(root / file) << text;
  };
  auto const least = [&](std::string const& groups) {
    write("groups", groups);
    return chatproto::detail::group_memory((root / "groups").c_str(), root.c_str());
  };
  constexpr auto none = ~std::uint64_t();
  write("a/b/memory.max", "max\n");
  write("a/memory.max", "5000\n");
  write("memory/c/memory.limit_in_bytes", "9223372036854771712\n");  // means no limit in version 1
  write("memory/memory.limit_in_bytes", "3000\n");
  CHECK(least("0::/a/b\n") == 5000);
  CHECK(least("0::/x\n") == none);
  CHECK(least("0::/\n") == none);  // the root has no limit
  CHECK(least("9:memory:/c/d\n8:cpu:/a\n0::/x") == 3000);
  CHECK(least("12:cpuset,memory:/c\n0::/a") == 3000);
  write("a/b/memory.max", "2000\n");
  CHECK(least("0::/a/b\n9:memory:/c\n") == 2000);
  CHECK(least("nonsense\n:\n\n::\n0::" + std::string(2000, 'x')) == none);
  std::filesystem::remove_all(root);
  CHECK(chatproto::detail::group_memory((root / "groups").c_str(), root.c_str()) == none);
}

TEMPLATE_TEST_CASE("without max_clients, a server accepts as many clients as it has descriptors for", "[limits]",
                   POLICIES) {
  rlimit old{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &old) == 0);
  auto limit = old;
  limit.rlim_cur = 100;
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &limit) == 0);
  ServerThread<TestType> server;
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &old) == 0);
  // 32 for the program; each client's thread takes four, each of two other threads takes three.
  std::size_t const most = std::is_same_v<TestType, chatproto::ThreadPerClient> ? (100 - 32) / 4 : 100 - 32 - 2 * 3;
  std::list<Client> clients;
  for (std::size_t i = 0; i < most; ++i) CHECK(clients.emplace_back(server.port()).asks("slogin:bob") == "ok");
  CHECK(Client(server.port()).rest() == Lines{"err", "(end)"});
}
#endif

TEMPLATE_TEST_CASE("a sender that is faster than its rate loses nothing", "[limits]", POLICIES) {
  auto options = patient();
  options.rate = 2000;
  options.rate_burst = 10;
  ServerThread<TestType> server(options);
  auto alice = test::receiver(server.port(), "alice", "cafe");
  auto bob = test::sender(server.port(), "bob", "cafe");
  auto const begin = std::chrono::steady_clock::now();
  say(bob, 0, 500);
  bob.end_output();  // input that came before the end is still read
  CHECK(hears(alice, 0, 500));
  CHECK(oks(bob, 500));
  CHECK(bob.next() == "(end)");
  // Never sooner, however fast the machine: all but the burst had to wait for tokens.
  CHECK(std::chrono::steady_clock::now() - begin >= 240ms);
  CHECK(server->stats().throttled > 0);
}

TEMPLATE_TEST_CASE("the line limit is an option", "[limits]", POLICIES) {
  auto options = patient();
  options.line_limit = 20;
  ServerThread<TestType> server(options);
  auto bob = test::sender(server.port(), "bob", "cafe");
  CHECK(bob.asks("sendall:" + std::string(11, 'x')) == "ok");
  bob.send("sendall:" + std::string(12, 'x') + "\n");
  auto const refused = bob.next_line();
  CHECK(refused.starts_with("err:"));
  CHECK(refused.find("255") == refused.npos);  // which is not the limit here
}

// --- Senders that wait -----------------------------------------------------------------------------------------------

namespace {

chatproto::ServerOptions lossless(std::size_t queue_limit = 32 * 1024) {
  auto options = patient();
  options.overflow = Overflow::block_sender;
  options.queue_limit = queue_limit;
  options.send_buffer = 8 * 1024;
  return options;
}

}  // namespace

TEMPLATE_TEST_CASE("if senders wait, receivers that pause lose nothing", "[limits]", POLICIES) {
#ifdef _WIN32  // Wine's single server process would do nothing else
  constexpr auto all = 20;
#else
  constexpr auto all = 100;
#endif
  constexpr auto texts = 5'000;  // 1 MB, more than all buffers on the way
  ServerThread<TestType> server(lossless());
  std::list<Client> receivers;
  for (auto i = 0; i < all; ++i) receivers.push_back(test::receiver(server.port(), "alice", "cafe", 4096));
  auto bob = speaker(server.port(), "bob", texts);
  auto all_heard = true;
  std::uint64_t most_queued = 0;
  for (auto from = 0; from < texts; from += 100) {  // 20 KB, less than is on its way to a receiver that does not read
    for (auto& each : receivers) all_heard = hears(each, from, 100) && all_heard;
    most_queued = std::max(most_queued, server->stats().queued);
  }
  CHECK(all_heard);
  CHECK(bob.get() == texts);
  // The limit, and what one read of the sender can add.
  CHECK(most_queued <= all * (32 + 32 + 8) * 1024);
  CHECK(ended(server->stats(), DisconnectReason::overflow) == 0);
  for (auto& each : receivers) CHECK(each.asks("quit:") == "ok");
}

TEMPLATE_TEST_CASE("a sender that waits gets its ok and is read again when the receiver has read", "[limits]",
                   POLICIES) {
  ServerThread<TestType> server(lossless(4096));
  auto alice = test::receiver(server.port(), "alice", "cafe", 4096);
  auto carol = test::receiver(server.port(), "carol", "cafe");
  auto bob = test::sender(server.port(), "bob", "cafe"), other = test::sender(server.port(), "eve", "bar");
  auto said = 0;
  for (auto waits = false; !waits;) {
    say(bob, said++, 1);
    CHECK(test::eventually([&] { return bob.has_next(1ms) || server->stats().queued > 4096; }));
    waits = !bob.has_next(200ms);
    if (!waits) REQUIRE(oks(bob, 1));
  }
  CHECK(server->stats().queued > 4096);
  CHECK(hears(carol, 0, said));             // a receiver that reads gets everything
  CHECK(other.asks("sendall:hi") == "ok");  // other rooms are not affected
  CHECK(hears(alice, 0, said));
  CHECK(oks(bob, 1));
  CHECK(alice.asks("quit:") == "ok");
}

TEMPLATE_TEST_CASE("a receiver that takes nothing holds up senders until the write deadline", "[limits]", POLICIES) {
  auto options = lossless();
  options.write_deadline = 300ms;
  ServerThread<TestType> server(options);
  auto stuck = test::receiver(server.port(), "stuck", "cafe", 4096);
  auto alice = test::receiver(server.port(), "alice", "cafe");
  auto bob = speaker(server.port(), "bob", 5'000);
  CHECK(hears(alice, 0, 5'000));
  CHECK(bob.get() == 5'000);
  CHECK(test::eventually([&] { return ended(server->stats(), DisconnectReason::write_deadline) == 1; }));
  auto heard = 0;
  for (std::string line; (line = stuck.next_line()).starts_with("delivery:"); ++heard)
    if (!line.starts_with("delivery:cafe:bob:" + std::to_string(heard) + ':')) FAIL(line);
  CHECK(heard < 5'000);  // a prefix, without a gap
}

TEMPLATE_TEST_CASE("senders that wait for each other's receivers get all their replies", "[limits]", POLICIES) {
  // Each program has a sender and a receiver, and does not read before all that it sends is answered.
  constexpr auto texts = 2'000;
  auto options = lossless();
  options.write_deadline = 500ms;
  ServerThread<TestType> server(options);
  auto ada_hears = test::receiver(server.port(), "adahears", "cafe", 4096);
  auto eve_hears = test::receiver(server.port(), "evehears", "cafe", 4096);
  auto ada = speaker(server.port(), "ada", texts), eve = speaker(server.port(), "eve", texts);
  CHECK(ada.get() == texts);
  CHECK(eve.get() == texts);
}

TEMPLATE_TEST_CASE("a server can be stopped while senders wait", "[limits]", POLICIES) {
  auto options = lossless();
  ServerThread<TestType> server(options);
  auto alice = test::receiver(server.port(), "alice", "cafe", 4096);
  auto bob = speaker(server.port(), "bob", 5'000);
  REQUIRE(test::eventually([&] { return server->stats().queued > 32 * 1024; }));
  auto const drains = GENERATE(true, false);
  server->stop(drains ? chatproto::StopMode::drain : chatproto::StopMode::now);
  auto const answered = bob.get();  // before alice reads, which would free him
  auto heard = 0, gaps = 0;
  for (std::string line; (line = alice.next_line()).starts_with("delivery:"); ++heard)
    if (!line.starts_with("delivery:cafe:bob:" + std::to_string(heard) + ':')) ++gaps;
  CHECK(gaps == 0);
  if (!drains) return;  // she may be disconnected before him, which frees him too
  CHECK(answered < 5'000);
  CHECK(heard >= answered);
}

// --- Memory for all clients ------------------------------------------------------------------------------------------

TEMPLATE_TEST_CASE("when all clients together hold too much, the server disconnects the one that holds most",
                   "[limits]", POLICIES) {
  constexpr auto texts = 20'000;  // 4 MB
  auto options = patient();
  options.queue_limit = 1'000'000'000;  // which alone would not disconnect it
  options.memory_limit = 1024 * 1024;
  ServerThread<TestType> server(options);
  auto stuck = test::receiver(server.port(), "stuck", "cafe", 4096);
  auto alice = test::receiver(server.port(), "alice", "cafe");
  auto bob = speaker(server.port(), "bob", texts);
  CHECK(hears(alice, 0, texts));
  CHECK(bob.get() == texts);
  CHECK(test::eventually([&] { return ended(server->stats(), DisconnectReason::memory) == 1; }));
  auto heard = 0;
  for (std::string line; (line = stuck.next_line()).starts_with("delivery:"); ++heard)
    if (!line.starts_with("delivery:cafe:bob:" + std::to_string(heard) + ':')) FAIL(line);
  CHECK(heard < texts);  // a prefix, without a gap
}

TEMPLATE_TEST_CASE("while memory is short, new clients and lines wait, and are served later", "[limits]", POLICIES) {
  auto options = patient();
  options.memory_limit = 1024 * 1024;
  ServerThread<TestType> server(options);
  auto bob = test::sender(server.port(), "bob", "cafe");
  auto const accepted = server->stats().accepted;
  asio::post(server->context(), asio::use_future).get();         // after this nothing is being accepted
  chatproto::detail::HeldMemory::add(2 * options.memory_limit);  // as another server of this process would
  bob.send("sendall:hi\n");
  Client late(server.port());
  late.send("slogin:late\n");
  CHECK(server->stats().held > options.memory_limit);
  CHECK_FALSE(late.has_next(400ms));  // by then a client that held memory would have been disconnected
  CHECK(server->stats().accepted == accepted);
  CHECK(server->service().texts() == 0);
  chatproto::detail::HeldMemory::remove(2 * options.memory_limit);
  CHECK(late.next() == "ok");
  CHECK(bob.next() == "ok");
  CHECK(ended(server->stats(), DisconnectReason::memory) == 0);
}

// --- Many clients ----------------------------------------------------------------------------------------------------

TEMPLATE_TEST_CASE("when 50 of 1,000 receivers take nothing, the other 950 get everything in order", "[limits]",
                   POLICIES) {
#if CHATPROTO_SANITIZED || defined(_WIN32)
  constexpr auto all = 100, stuck = 5, texts = 1'000;
#else
  constexpr auto all = 1'000, stuck = 50, texts = 1'000;
#endif
  program::raise_descriptor_limit();
  auto options = patient();
  options.queue_limit = 32 * 1024;
  ServerThread<TestType> server(options);
  std::list<Client> listeners, deaf;
  for (auto i = 0; i < stuck; ++i) deaf.push_back(test::receiver(server.port(), "deaf", "cafe", 4096));
  for (auto i = stuck; i < all; ++i) listeners.push_back(test::receiver(server.port(), "alice", "cafe"));
  auto bob = test::sender(server.port(), "bob", "cafe");
  auto good = 0;
  for (auto from = 0; from < texts; from += 100) {
    say(bob, from, 100);
    for (auto& listener : listeners)
      if (hears(listener, from, 100)) ++good;
    CHECK(oks(bob, 100));
  }
  CHECK(good == (all - stuck) * texts / 100);
  CHECK(test::eventually([&] { return ended(server->stats(), DisconnectReason::overflow) == stuck; }));
  for (auto& listener : deaf) {  // a prefix, without a gap
    auto heard = 0;
    for (std::string line; (line = listener.next_line()).starts_with("delivery:"); ++heard)
      if (!line.starts_with("delivery:cafe:bob:" + std::to_string(heard) + ':')) FAIL(line);
    CHECK(heard < texts);
  }
}

TEMPLATE_TEST_CASE("while one client floods, the others get their turn", "[limits]", POLICIES) {
  ServerThread<TestType> server;
  std::atomic<bool> enough = false;
  auto flood = std::async(std::launch::async, [&, port = server.port()] {
    auto speaker = test::sender(port, "flood", "cafe");
    std::string lines;
    for (auto i = 0; i < 1'000; ++i) lines += "sendall:x\n";
    auto count = 0;
    for (; !enough; count += 1'000) {
      speaker.send(lines);
      if (!oks(speaker, 1'000)) return -1;
    }
    return count;
  });
  auto alice = test::receiver(server.port(), "alice", "bar");
  auto bob = test::sender(server.port(), "bob", "bar");
  auto turns = 0;
  for (; turns < 500; ++turns) {
    if (bob.asks("sendall:hi") != "ok" || alice.next() != "delivery:bar:bob:hi") break;
  }
  CHECK(turns == 500);
  enough = true;
  CHECK(flood.get() > 0);
}

// --- Statistics and observers ----------------------------------------------------------------------------------------

namespace {

/// Counts events from any thread.
struct Tally : chatproto::Observer {
  std::mutex mutex;
  std::vector<std::string> events;
  std::string throws_at;

  void note(std::string event) {
    std::lock_guard const lock(mutex);
    events.push_back(event);
    if (!throws_at.empty() && event.starts_with(throws_at)) throw std::runtime_error(event);
  }
  std::size_t count(std::string_view event) {
    std::lock_guard const lock(mutex);
    return static_cast<std::size_t>(std::count(events.begin(), events.end(), event));
  }
  void connected(std::uint64_t, std::string_view) override { note("connected"); }
  void logged_in(std::uint64_t, std::string_view name) override { note("logged in " + std::string(name)); }
  void ended(std::uint64_t, DisconnectReason reason, std::error_code const&) override {
    note("ended " + std::string(to_string(reason)));
  }
  void refused(std::string_view, chatproto::RefusalReason) override { note("refused"); }
  void accept_failed(std::error_code const&) override { note("accept failed"); }
};

}  // namespace

TEMPLATE_TEST_CASE("a server reports and counts events", "[limits]", POLICIES) {
  Tally tally;
  auto options = patient();
  options.observer = &tally;
  options.max_clients = 3;
  options.queue_limit = 16 * 1024;
  ServerThread<TestType> server(options);
  auto alice = test::receiver(server.port(), "alice", "cafe");
  auto bob = test::sender(server.port(), "bob", "cafe");
  {
    auto carol = test::receiver(server.port(), "carol", "cafe");
    CHECK(Client(server.port()).next() == "err");
    say(bob, 0, 10);
    CHECK(hears(alice, 0, 10));
    CHECK(hears(carol, 0, 10));
    CHECK(oks(bob, 10));
    CHECK(carol.asks("quit:") == "ok");
  }
  REQUIRE(test::eventually([&] { return server->stats().clients == 2; }));
  {
    auto stuck = test::receiver(server.port(), "stuck", "cafe", 4096);
    for (auto from = 10; ended(server->stats(), DisconnectReason::overflow) == 0; from += 50) {
      say(bob, from, 50);
      REQUIRE(hears(alice, from, 50));
      REQUIRE(oks(bob, 50));
    }
  }
  CHECK(test::eventually([&] { return tally.count("ended overflow") == 1; }));
  auto const stats = server->stats();
  CHECK(stats.clients == 2);
  CHECK(stats.accepted == 4);
  CHECK(refused(stats, RefusalReason::full) == 1);
  CHECK(ended(stats, DisconnectReason::closed) == 1);
  CHECK(stats.lines_in == server->service().texts() + 9);  // logins, joins, a quit
  CHECK(server->service().deliveries() >= server->service().texts() + 10);
  CHECK(stats.bytes_out > stats.bytes_in);
  CHECK(stats.observer_failures == 0);
  CHECK(tally.count("connected") == 4);
  CHECK(tally.count("logged in bob") == 1);
  CHECK(tally.count("refused") == 1);
  CHECK(tally.count("ended closed") == 1);
}

TEMPLATE_TEST_CASE("an observer that throws does not harm other clients", "[limits]", POLICIES) {
  Tally tally;
  auto options = patient();
  options.observer = &tally;
  ServerThread<TestType> server(options);
  auto alice = test::receiver(server.port(), "alice", "cafe");
  auto bob = test::sender(server.port(), "bob", "cafe");
  auto const at = GENERATE("connected", "logged in", "ended", "refused", "accept");
  {
    std::lock_guard const lock(tally.mutex);
    tally.throws_at = at;
  }
  for (auto i = 0; i < 3; ++i) {
    Client victim(server.port());
    victim.try_send("slogin:victim\nquit:\n");
    victim.rest();
  }
  CHECK(test::eventually([&] { return server->stats().clients == 2; }));
  auto const fails = at != std::string("refused") && at != std::string("accept");  // these do not occur here
  CHECK(test::eventually([&] { return server->stats().observer_failures == (fails ? 3u : 0u); }));
  CHECK(bob.asks("sendall:hi") == "ok");
  CHECK(alice.next() == "delivery:cafe:bob:hi");
}

// --- Sockets ---------------------------------------------------------------------------------------------------------

#ifdef __linux__
namespace {

std::set<int> sockets() {
  std::set<int> result;
  for (auto fd = 0; fd < 4096; ++fd) {
    auto type = 0;
    socklen_t size = sizeof type;
    if (::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0) result.insert(fd);
  }
  return result;
}

int option(int fd, int level, int name) {
  auto value = 0;
  socklen_t size = sizeof value;
  REQUIRE(::getsockopt(fd, level, name, &value, &size) == 0);
  return value;
}

}  // namespace

TEMPLATE_TEST_CASE("a server's sockets: no program inherits them, dead peers are found, buffers are bounded",
                   "[limits]", POLICIES) {
  auto options = patient();
  options.keepalive = 40s;
  options.write_deadline = 10s;
  auto const before = sockets();
  ServerThread<TestType> server(options);
  test::Client client(server.port());  // its own socket is not one of the server's
  auto const own = client.descriptor();
  REQUIRE(client.asks("slogin:bob") == "ok");
  auto of_server = 0;
  for (auto const fd : sockets()) {
    if (before.count(fd) != 0 || fd == own) continue;
    CAPTURE(fd);
    ++of_server;
    CHECK((::fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    CHECK(option(fd, SOL_SOCKET, SO_KEEPALIVE) == 1);
    CHECK(option(fd, IPPROTO_TCP, TCP_KEEPIDLE) == 40);
    CHECK(option(fd, IPPROTO_TCP, TCP_KEEPINTVL) == 10);
    CHECK(option(fd, IPPROTO_TCP, TCP_KEEPCNT) == 4);
    CHECK(option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT) == 80'000);  // longer than the write deadline
    CHECK(option(fd, SOL_SOCKET, SO_SNDBUF) <= 2 * 64 * 1024);
  }
  CHECK(of_server == 2);
}

TEMPLATE_TEST_CASE("a program that the server's program starts inherits none of its descriptors", "[limits]",
                   POLICIES) {
  auto const before = sockets();
  ServerThread<TestType> server;
  auto alice = test::receiver(server.port(), "alice", "cafe");
  auto const name_of = [](int fd) {
    char name[100] = {};
    auto const size = ::readlink(("/proc/self/fd/" + std::to_string(fd)).c_str(), name, sizeof name);
    return std::string(name, static_cast<std::size_t>(std::max<ssize_t>(size, 0)));
  };
  auto* const list = ::popen("ls -l /proc/self/fd", "r");
  REQUIRE(list != nullptr);
  std::string all;
  char part[4096];
  while (std::fgets(part, sizeof part, list) != nullptr) all += part;
  CHECK(::pclose(list) == 0);
  CAPTURE(all);
  CHECK(all.find("pipe:") != std::string::npos);
  for (auto const* kind : {"eventpoll", "eventfd", "timerfd"}) CHECK(all.find(kind) == std::string::npos);
  for (auto const fd : sockets())
    if (fd != alice.descriptor() && before.count(fd) == 0) CHECK(all.find(name_of(fd)) == std::string::npos);
  CHECK(alice.asks("quit:") == "ok");
}
#endif
