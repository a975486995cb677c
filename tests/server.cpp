// SPDX-License-Identifier: BSL-1.0
#include <chatproto/server.hpp>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <functional>
#include <future>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <asio/error.hpp>
#include <asio/io_context.hpp>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>
#include <asio/use_future.hpp>

#ifdef __linux__
#include <ctime>

#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>
#endif

#include "catch.hpp"
#include "sanitized.hpp"
#include "socket_support.hpp"

using namespace std::chrono_literals;
using namespace std::string_literals;
using chatproto::ChatService;
using chatproto::Peer;
using chatproto::PushResult;
using chatproto::Server;
using chatproto::ServerOptions;
using chatproto::StopMode;
using chatproto::StrandPool;
using chatproto::ThreadPerClient;
using chatproto::ThreadPool;
using test::Client;
using test::Lines;
using test::patient;
using test::ServerThread;

#define POLICIES ThreadPerClient, ThreadPool, StrandPool

namespace {

/// A minimal service.
struct Echo {
  struct Session {
    Peer peer;
    void on_line(std::string_view line) const { peer.send(std::string(line) + '\n'); }
  };
  Session open(Peer peer) { return {std::move(peer)}; }
};

/// An echo that fails on request.
struct Moody {
  struct Session {
    Peer peer;
    bool fails = false;
    void on_line(std::string_view line) {
      if (line == "throw:on_line") throw std::runtime_error("on_line");
      fails = fails || line == "throw:flush";
      peer.send(std::string(line) + '\n');
    }
    void flush() const {
      if (fails) throw 42;  // anything can be thrown
    }
  };
  Session open(Peer peer) {
    if (fails_to_open.exchange(false)) throw std::bad_alloc();
    return {std::move(peer)};
  }
  std::atomic<bool> fails_to_open = false;
};

/// An echo, constructed from an argument, that also does what a test wants with each line.
struct Handing {
  using Do = std::function<void(Peer const&, std::string_view)>;
  explicit Handing(Do what) : on_line(std::move(what)) {}
  Do on_line;

  struct Session {
    Handing& service;
    Peer peer;
    void on_line(std::string_view line) const {
      peer.send(std::string(line) + '\n');
      service.on_line(peer, line);
    }
  };
  Session open(Peer peer) { return {*this, std::move(peer)}; }
};

/// Records the calls of its hooks, and has a timer on the server's context.
class Hooked {
 public:
  struct Session {
    Session(Hooked& s, Peer p) : service(s), peer(std::move(p)) { service.note("open"); }
    ~Session() { service.note("gone"); }
    void on_line(std::string_view) {
      peer.send_line(service.ticked_.get_future().wait_for(test::patience) == std::future_status::ready ? "tick:"
                                                                                                        : "?:");
    }
    Hooked& service;
    Peer peer;
  };
  explicit Hooked(Lines& seen) : seen_(seen) {}
  Session open(Peer peer) { return Session(*this, std::move(peer)); }
  void on_start(asio::io_context& context) {
    if (!seen_.empty()) throw std::runtime_error("on_start");
    note("start");
    timer_.emplace(context, 1ms);
    timer_->async_wait([this](std::error_code const& ec) {
      if (!ec) ticked_.set_value();
    });
    never_.emplace(context, std::chrono::hours(1));  // still pending when the server is destroyed
    never_->async_wait([](std::error_code const&) {});
  }
  void on_stop(StopMode how) { note(how == StopMode::drain ? "drain" : "stop"); }
  void on_end() { note("end"); }

 private:
  void note(std::string what) {
    std::lock_guard const lock(mutex_);
    seen_.push_back(std::move(what));
  }

  std::mutex mutex_;
  Lines& seen_;
  std::promise<void> ticked_;
  std::optional<asio::steady_timer> timer_, never_;
};

/// A pool that fails with `error`, unless that is 0.
struct Failing : ThreadPool {
  inline static std::atomic<int> error = 0;
  inline static std::atomic<int> failures = 0;
  inline static std::atomic<unsigned> threads_wanted = 0;

  explicit Failing(unsigned threads) : ThreadPool(1) { threads_wanted = threads; }
  executor_type next_executor() {
    if (error == 0) return ThreadPool::next_executor();
    ++failures;
    throw std::system_error(std::error_code(error, asio::error::get_system_category()), "no room");
  }
};

/// Blocks the accepting thread while it lives: new clients wait.
class AcceptHeld {
 public:
  explicit AcceptHeld(asio::io_context& context) {
    asio::post(context, [released = release_.get_future().share()] { released.wait(); });
  }
  ~AcceptHeld() { release_.set_value(); }
  AcceptHeld(AcceptHeld const&) = delete;
  AcceptHeld& operator=(AcceptHeld const&) = delete;

 private:
  std::promise<void> release_;
};

std::string numbered(int i, std::size_t size = 0) {
  auto text = std::to_string(i) + ':';
  return text.append(size - std::min(size, text.size()), 'x');
}

/// A text from bob as a receiver in cafe sees it.
std::string delivered(int i, std::size_t size = 0) { return "delivery:cafe:bob:" + numbered(i, size); }

/// Makes `sender` send `count` texts from `first` on. Returns whether each got its ok.
bool says(Client& sender, int first, int count, std::size_t size = 0) {
  std::string lines;
  for (auto i = first; i < first + count; ++i) lines += "sendall:" + numbered(i, size) + '\n';
  sender.send(lines);
  return sender.next(static_cast<std::size_t>(count)) == Lines(static_cast<std::size_t>(count), "ok");
}

/// Returns whether `receiver` gets exactly these texts next.
bool hears(Client& receiver, int first, int count, std::size_t size = 0) {
  for (auto i = first; i < first + count; ++i)
    if (receiver.next() != delivered(i, size)) return false;
  return true;
}

/// Returns whether the receiver still gets fewer than `count` texts, from `first` on and without a gap, and then the
/// end, perhaps after a part of the next text.
bool hears_only_prefix(Client& receiver, int first, int count, std::size_t size = 0) {
  auto lines = receiver.rest();
  lines.pop_back();
  for (auto const& line : lines)
    if (line != delivered(first++, size)) return false;
  return static_cast<int>(lines.size()) < count && delivered(first, size).starts_with(receiver.unfinished());
}

}  // namespace

static_assert(!std::is_copy_constructible_v<Server<ThreadPool>>);
static_assert(std::is_constructible_v<Server<ThreadPool, Handing>, ServerOptions, Handing::Do>);
static_assert(!std::is_constructible_v<Server<ThreadPool, Handing>, ServerOptions>);  // its argument is required
static_assert(!std::is_convertible_v<ServerOptions, Server<ThreadPool>>);

// --- A conversation --------------------------------------------------------------------------------------------------

TEMPLATE_TEST_CASE("a conversation through sockets", "[server]", POLICIES) {
  ServerThread<TestType> server;
  CHECK(test::converse(server.port()) == "");
  CHECK(test::converse(server.port()) == "");
  CHECK(test::eventually([&] { return server->service().room_count() == 0; }));
}

TEMPLATE_TEST_CASE("many lines in one segment and lines in many segments get the same replies", "[server]", POLICIES) {
  ServerThread<TestType> server;
  Client whole(server.port()), bytewise(server.port());
  std::string lines =
      "slogin:bob\njoin:cafe\r\nsendall:\nnonsense\n\n" + std::string(400, 'x') + "\nleave:\nleave:\nquit:\n";
  whole.send(lines);
  for (auto const c : lines) bytewise.send({&c, 1});
  Lines const replies = {"ok", "ok", "ok", "err", "err", "err", "ok", "err", "ok", "(end)"};
  CHECK(whole.rest() == replies);
  CHECK(bytewise.rest() == replies);
}

TEMPLATE_TEST_CASE("a line of 10 MB costs its client one err", "[server]", POLICIES) {
  ServerThread<TestType> server;
  auto bob = test::sender(server.port(), "bob", "cafe");
  auto alice = test::receiver(server.port(), "alice", "cafe");
  bob.send(std::string(10'000'000, 'x') + "\nsendall:hi\n");
  CHECK(bob.next(2) == Lines{"err", "ok"});
  CHECK(alice.next() == "delivery:cafe:bob:hi");
}

TEMPLATE_TEST_CASE("a server runs a service of the user's own", "[server]", POLICIES) {
  ServerThread<TestType, Echo> server;
  Client one(server.port()), two(server.port());
  CHECK(one.asks("a:1") == "a:1");
  CHECK(two.asks("b:2") == "b:2");
  one.send(std::string(300, 'x') + "\nc:3\npart");  // too long: the service does not handle bad lines
  CHECK(one.next() == "c:3");
  one.end_output();
  CHECK(one.next() == "(end)");
  CHECK(two.asks("d:4") == "d:4");
}

TEMPLATE_TEST_CASE("a service that throws loses only that client", "[server]", POLICIES) {
  ServerThread<TestType, Moody> server;
  Client other(server.port());
  CHECK(other.asks("a:1") == "a:1");
  for (auto const* line : {"throw:on_line", "throw:flush"}) {
    Client victim(server.port());
    CHECK(victim.asks("a:1") == "a:1");
    victim.send(line + "\nb:2\n"s);
    auto const rest = victim.rest();
    CHECK(std::count(rest.begin(), rest.end(), "b:2") == 0);
  }
  server->service().fails_to_open = true;
  CHECK(Client(server.port()).next() == "(end)");
  CHECK(other.asks("b:2") == "b:2");
  CHECK(Client(server.port()).asks("c:3") == "c:3");
}

// --- How connections end ---------------------------------------------------------------------------------------------

TEMPLATE_TEST_CASE("quit: the ok arrives, and then the end of the connection, whatever the client sends after it",
                   "[server]", POLICIES) {
  ServerThread<TestType> server;
  auto bob = test::sender(server.port(), "bob", "cafe");
  auto alice = test::receiver(server.port(), "alice", "cafe");
  std::string more(1'000'000, '\n');
  for (auto* each : {&bob, &alice}) {
    CHECK_FALSE(each->try_send("quit:\nsendall:too late\n" + more));
    CHECK_FALSE(each->try_send(more));
    CHECK(each->rest() == Lines{"ok", "(end)"});
  }
}

TEMPLATE_TEST_CASE("a refused login: the err arrives, and then the end, whatever the client sends after it", "[server]",
                   POLICIES) {
  ServerThread<TestType> server;
  for (auto const* first : {"hello\n", "slogin:b b\n", "join:cafe\n", "\n"}) {
    Client client(server.port());
    CHECK_FALSE(client.try_send(first + std::string(1'000'000, '\n')));
    CHECK(client.rest() == Lines{"err", "(end)"});
  }
}

TEMPLATE_TEST_CASE("a half-closed sender gets all its replies", "[server]", POLICIES) {
  ServerThread<TestType> server;
  auto alice = test::receiver(server.port(), "alice", "cafe");
  Client bob(server.port());
  std::string lines = "slogin:bob\njoin:cafe\n";
  for (auto i = 0; i < 2000; ++i) lines += "sendall:" + numbered(i) + '\n';
  bob.send(lines + "sendall:unfinished");
  bob.end_output();
  auto expected = Lines(2002, "ok");
  expected.push_back("(end)");
  CHECK(bob.rest() == expected);
  CHECK(hears(alice, 0, 2000));
  auto carol = test::sender(server.port(), "bob", "cafe");
  CHECK(says(carol, 2000, 1));
  CHECK(hears(alice, 2000, 1));  // and not the unfinished line
}

TEMPLATE_TEST_CASE("a half-closed receiver gets what was sent before", "[server]", POLICIES) {
  auto options = patient();
  options.queue_limit = 100'000'000;
  ServerThread<TestType> server(options);
  auto alice = test::receiver(server.port(), "alice", "cafe", 4096);
  auto bob = test::sender(server.port(), "bob", "cafe");
  REQUIRE(says(bob, 0, 2000, 200));
  alice.end_output();
  REQUIRE(bob.asks("leave:") == "ok");
  CHECK(hears(alice, 0, 2000, 200));
  CHECK(alice.next() == "(end)");
  CHECK(test::eventually([&] { return server->service().room_count() == 0; }));
}

TEMPLATE_TEST_CASE("a receiver that vanishes leaves its room though nobody speaks", "[server]", POLICIES) {
  ServerThread<TestType> server;
  auto alice = test::receiver(server.port(), "alice", "cafe");
  auto bob = test::sender(server.port(), "bob", "bar");
  CHECK(server->service().room_count() == 2);
  GENERATE(0, 1) == 0 ? alice.close() : alice.reset();
  CHECK(test::eventually([&] { return server->service().room_count() == 1; }));
}

#ifdef __linux__
TEMPLATE_TEST_CASE("clients that connect and reset leave nothing behind", "[server]", POLICIES) {
  ServerThread<TestType> server;
  REQUIRE(test::converse(server.port()) == "");
  auto alice = test::receiver(server.port(), "alice", "cafe");
  test::let_it_accept(server->context());  // what the server holds for the next client belongs to the base
  auto const base = test::descriptors();
  for (auto i = 0; i < (!CHATPROTO_SANITIZED ? 10'000 : 1'000); ++i) {
    Client client(server.port());
    if (i % 3 == 1) client.send("rlogin:x\njoin:cafe\n");  // the connection breaks while it is being served
    if (i % 3 == 2) client = test::receiver(server.port(), "x", "cafe");
    client.reset();
  }
  CHECK(test::eventually([&] { return test::descriptors() <= base; }));
  CHECK(alice.asks("quit:") == "ok");
  CHECK(test::converse(server.port()) == "");
  CHECK(test::eventually([&] { return server->service().room_count() == 0; }));
}
#endif

// --- Limits ----------------------------------------------------------------------------------------------------------

TEMPLATE_TEST_CASE("a receiver that never reads is disconnected and does not harm the others", "[server]", POLICIES) {
  constexpr auto texts = 50'000, batch = 500;
  constexpr std::size_t size = 200;  // 10 MB are more than the system buffers for a client that does not read
  auto options = patient();
  options.queue_limit = 64 * 1024;
  ServerThread<TestType> server(options);
  auto stuck = test::receiver(server.port(), "stuck", "cafe", 4096);
  auto alice = test::receiver(server.port(), "alice", "cafe"), carol = test::receiver(server.port(), "carol", "cafe");
  auto bob = test::sender(server.port(), "bob", "cafe");
  auto all_said = true, all_heard = true;
  for (auto i = 0; i < texts; i += batch) {
    all_said = all_said && says(bob, i, batch, size);
    all_heard = all_heard && hears(alice, i, batch, size) && hears(carol, i, batch, size);
  }
  CHECK(all_said);
  CHECK(all_heard);
  CHECK(hears_only_prefix(stuck, 0, texts, size));
  CHECK(says(bob, texts, 1, size));
  CHECK(hears(alice, texts, 1, size));
}

TEMPLATE_TEST_CASE("a sender that never reads its replies is not read, and is disconnected at the write deadline",
                   "[server]", POLICIES) {
  auto options = patient();
  options.write_deadline = 200ms;
  ServerThread<TestType> server(options);
  auto alice = test::receiver(server.port(), "alice", "cafe");
  auto bob = test::sender(server.port(), "bob", "cafe");
  Client flood(server.port(), "127.0.0.1", 4096);
  flood.send("slogin:mallory\njoin:bar\n");
  flood.try_send(std::string(10'000'000, '\n'));  // more than the server reads of it
  constexpr auto reason = static_cast<std::size_t>(chatproto::DisconnectReason::write_deadline);
  CHECK(test::eventually([&] { return server->stats().ended[reason] == 1; }));  // it has left its room by then
  CHECK(server->service().room_count() == 1);
  CHECK(server->stats().bytes_in < 1'000'000);
  CHECK(bob.asks("sendall:hi") == "ok");
  CHECK(alice.next() == "delivery:cafe:bob:hi");
}

TEMPLATE_TEST_CASE("a client that takes nothing is disconnected at the write deadline", "[server]", POLICIES) {
  constexpr auto texts = 50'000;
  constexpr std::size_t size = 200;
  auto options = patient();
  options.queue_limit = 1'000'000'000;
  options.write_deadline = 200ms;
  ServerThread<TestType> server(options);
  auto stuck = test::receiver(server.port(), "stuck", "cafe", 4096);
  auto silent = test::receiver(server.port(), "silent", "bar");
  auto bob = test::sender(server.port(), "bob", "cafe");
  for (auto i = 0; i < texts; i += 1000) REQUIRE(says(bob, i, 1000, size));
  REQUIRE(bob.asks("join:bar") == "ok");
  CHECK(test::eventually([&] { return server->service().room_count() == 1; }));
  CHECK(hears_only_prefix(stuck, 0, texts, size));
  CHECK(bob.asks("sendall:hi") == "ok");
  CHECK(silent.next() == "delivery:bar:bob:hi");  // nothing was waiting for it
}

TEMPLATE_TEST_CASE("the server closes a client that has not logged in at the login deadline", "[server]", POLICIES) {
  auto options = patient();
  options.login_deadline = 200ms;
  ServerThread<TestType> server(options);
  auto alice = test::receiver(server.port(), "alice", "cafe");
  auto newcomer = test::client_of(server.port(), {"rlogin:carol"});  // and joins no room
  auto bob = test::client_of(server.port(), {"slogin:bob"});
  Client silent(server.port()), slow(server.port());
  auto closed = false;
  for (auto const c : "slogin:" + std::string(200, 'x')) {  // one byte now and then
    closed = slow.has_next(20ms);
    if (closed) break;
    slow.try_send({&c, 1});
  }
  CHECK(closed);
  CHECK(slow.rest().size() == 1);  // the end, without a reply
  CHECK(silent.next() == "(end)");
  CHECK(bob.asks("join:cafe") == "ok");
  CHECK(bob.asks("sendall:hi") == "ok");
  CHECK(alice.next() == "delivery:cafe:bob:hi");
  CHECK(newcomer.next() == "(end)");
}

TEMPLATE_TEST_CASE("the server does not wait longer than linger for a client to close its side", "[server]", POLICIES) {
  auto options = patient();
  options.linger = 1ms;
  ServerThread<TestType> server(options);
  auto bob = test::client_of(server.port(), {"slogin:bob", "quit:"});
  CHECK(bob.next() == "(end)");
  CHECK(test::eventually([&] { return static_cast<bool>(bob.try_send("x")); }));
}

// --- Listening -------------------------------------------------------------------------------------------------------

TEST_CASE("a server that cannot listen says so", "[server]") {
  auto options = patient();
  Server<ThreadPool> const first(options);
  CHECK(first.port() != 0);
  CHECK(first.options().address == options.address);
  SECTION("the port is in use") {
    options.port = first.port();
  }
  SECTION("the address is none") {
    options.address = GENERATE("nonsense", "localhost", "1.2.3", "::g");
  }
  SECTION("the address is not ours") {
    options.address = "192.0.2.1";
  }
  CHECK_THROWS_AS(Server<ThreadPerClient>(options), std::system_error);
  CHECK_THROWS_AS(Server<ThreadPool>(options), std::system_error);
  CHECK_THROWS_AS(Server<StrandPool>(options), std::system_error);
}

TEST_CASE("a server listens on the address in its options", "[server]") {
  auto options = patient();
  SECTION("by default on IPv6 and IPv4") {
    options.address.clear();
    ServerThread<ThreadPool> server(options);
    CHECK(Client(server.port(), "127.0.0.1").asks("slogin:bob") == "ok");
    CHECK(Client(server.port(), "::1").asks("slogin:bob") == "ok");
  }
  SECTION("on one address only") {
    auto const v6 = GENERATE(false, true);
    options.address = v6 ? "::1" : "127.0.0.1";
    ServerThread<ThreadPool> server(options);
    CHECK(Client(server.port(), v6 ? "::1" : "127.0.0.1").asks("slogin:bob") == "ok");
    CHECK_THROWS_AS(Client(server.port(), v6 ? "127.0.0.1" : "::1"), std::system_error);
  }
  SECTION("on the port, again at once after a server with clients has ended") {
    std::optional<ServerThread<ThreadPool>> server(std::in_place, options);
    options.port = server->port();
    auto alice = test::receiver(options.port, "alice", "cafe");
    server->operator->()->stop(StopMode::now);
    REQUIRE(server->ended());
    server.reset();
    CHECK(alice.next() == "(end)");
    server.emplace(options);
    CHECK(server->port() == options.port);
    CHECK(test::converse(options.port) == "");
  }
}

TEST_CASE("the policy gets the number of threads", "[server]") {
  ServerOptions options;
  options.address = "127.0.0.1";
  options.threads = 3;
  { Server<Failing> const server(options); }
  CHECK(Failing::threads_wanted == 3);
  options.threads = 0;
  { Server<Failing> const server(options); }
  CHECK(Failing::threads_wanted == std::max(1u, std::thread::hardware_concurrency()));
}

// --- Shortage --------------------------------------------------------------------------------------------------------

TEST_CASE("a client for which there is no thread gets an err, and the server goes on", "[server]") {
  Failing::error = 0;
  ServerThread<Failing> server;
  auto alice = test::receiver(server.port(), "alice", "cafe");
  auto bob = test::sender(server.port(), "bob", "cafe");
  Failing::error = EAGAIN;
  Client spare(server.port());  // the server may already hold what this one needs
  spare.asks("slogin:carol");
  CHECK(Client(server.port()).rest() == Lines{"err", "(end)"});
  {
    std::optional<AcceptHeld> held(std::in_place, server->context());
    Client eager(server.port());
    eager.send("slogin:dave\n");
    held.reset();
    CHECK(eager.rest() == Lines{"err", "(end)"});  // no reset, which could destroy the err
  }
  CHECK(bob.asks("sendall:hi") == "ok");
  CHECK(alice.next() == "delivery:cafe:bob:hi");
  Failing::error = 0;
  CHECK(test::converse(server.port()) == "");
}

TEST_CASE("a client for which there is no descriptor or memory waits", "[server]") {
  Failing::error = 0;
  auto options = patient();
  options.accept_retry = GENERATE(10ms, 0ms);
  ServerThread<Failing> server(options);
  auto bob = test::sender(server.port(), "bob", "cafe");
  std::vector<int> errors = {asio::error::no_descriptors, asio::error::no_buffer_space, asio::error::no_memory};
#ifndef _WIN32
  errors.push_back(ENFILE);
#endif
  auto const error = GENERATE_COPY(from_range(errors));
  CAPTURE(error);
  Failing::error = error;
  Client spare(server.port());  // the server may already hold what this one needs
  spare.send("slogin:carol\n");
  auto const before = Failing::failures.load();
  Client waiting(server.port());
  waiting.send("slogin:dave\n");
  REQUIRE(test::eventually([&] { return Failing::failures >= before + 4; }));
  test::let_it_accept(server->context());
  CHECK(Failing::failures < before + 50);  // it backs off, and does not spin
  CHECK(bob.asks("sendall:hi") == "ok");
  Failing::error = 0;
  CHECK(waiting.next() == "ok");
  CHECK(spare.next() == "ok");
}

#ifdef __GLIBC__
namespace {

/// While it lives, no thread can be created, because its stack does not fit in memory.
class NoThreads {
 public:
  NoThreads() {
    ::pthread_getattr_default_np(&old_);
    auto large = old_;
    ::pthread_attr_setstacksize(&large, std::numeric_limits<std::size_t>::max() / 2);
    ::pthread_setattr_default_np(&large);
  }
  ~NoThreads() {
    ::pthread_setattr_default_np(&old_);
    ::pthread_attr_destroy(&old_);
  }
  NoThreads(NoThreads const&) = delete;
  NoThreads& operator=(NoThreads const&) = delete;

 private:
  pthread_attr_t old_{};
};

}  // namespace

TEST_CASE("a client for which no thread can be created gets an err, and the others go on", "[server]") {
  ServerThread<ThreadPerClient> server;
  auto alice = test::receiver(server.port(), "alice", "cafe");
  auto bob = test::sender(server.port(), "bob", "cafe");
  {
    NoThreads const none;
    Client spare(server.port());  // the server may already hold what this one needs
    spare.asks("slogin:carol");
    for (auto i = 0; i < 3; ++i) CHECK(Client(server.port()).rest() == Lines{"err", "(end)"});
    CHECK(bob.asks("sendall:hi") == "ok");
    CHECK(alice.next() == "delivery:cafe:bob:hi");
  }
  // The next client may still be refused: the server had tried to create a thread for it in advance.
  CHECK(test::eventually([&] { return Client(server.port()).asks("slogin:dave") == "ok"; }));
  CHECK(test::converse(server.port()) == "");
}
#endif

#ifdef __linux__
namespace {

/// Uses up this process's descriptors while it lives.
class NoDescriptors {
 public:
  NoDescriptors() : lowest_(::dup(0)) {
    ::getrlimit(RLIMIT_NOFILE, &old_);
    auto limit = old_;
    limit.rlim_cur = static_cast<rlim_t>(lowest_) + 1;
    ::setrlimit(RLIMIT_NOFILE, &limit);
  }
  ~NoDescriptors() {
    ::setrlimit(RLIMIT_NOFILE, &old_);
    ::close(lowest_);
  }
  NoDescriptors(NoDescriptors const&) = delete;
  NoDescriptors& operator=(NoDescriptors const&) = delete;

 private:
  int lowest_;  // all lower ones are in use
  rlimit old_{};
};

/// Returns the CPU time of the accepting thread.
std::chrono::nanoseconds cpu_time_of(asio::io_context& context) {
  std::promise<timespec> read;
  asio::post(context, [&read] {
    timespec now{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    read.set_value(now);
  });
  auto const now = read.get_future().get();
  return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
}

}  // namespace

TEMPLATE_TEST_CASE("when no descriptor is left, connected clients go on and new ones wait", "[server]", POLICIES) {
  ServerThread<TestType> server;
  auto alice = test::receiver(server.port(), "alice", "cafe");
  auto bob = test::sender(server.port(), "bob", "cafe");
  std::optional<AcceptHeld> held(std::in_place, server->context());
  std::vector<Client> waiting;
  for (auto i = 0; i < 3; ++i) {
    waiting.emplace_back(server.port());
    waiting.back().send("slogin:dave\n");
  }
  {
    NoDescriptors const none;
    held.reset();
    test::let_it_accept(server->context());
    auto const cpu = cpu_time_of(server->context());
    auto const until = std::chrono::steady_clock::now() + 500ms;
    auto spoken = 0;
    for (; std::chrono::steady_clock::now() < until; ++spoken) {
      REQUIRE(says(bob, spoken, 1));
      REQUIRE(hears(alice, spoken, 1));
    }
    CHECK(spoken > 0);
    CHECK(cpu_time_of(server->context()) - cpu < 100ms);  // it does not retry in a loop
  }
  for (auto& each : waiting) CHECK(each.next() == "ok");
  CHECK(test::converse(server.port()) == "");
}
#endif

// --- Stopping --------------------------------------------------------------------------------------------------------

TEMPLATE_TEST_CASE("a server that never ran can be destroyed", "[server]", POLICIES) {
  std::optional<Server<TestType>> server(std::in_place, patient());
  SECTION("is destroyed") {
  }
  SECTION("is destroyed after a stop") {
    server->stop(GENERATE(StopMode::drain, StopMode::now));
  }
  SECTION("is destroyed while somebody waits") {
    Client client(server->port());
    server.reset();
    CHECK(client.rest().size() == 1);
  }
}

TEMPLATE_TEST_CASE("a server that was stopped before it ran ends as soon as it runs", "[server]", POLICIES) {
  Server<TestType> server(patient());
  Client client(server.port());
  server.stop(GENERATE(StopMode::drain, StopMode::now));
  server.run();
  CHECK(client.rest().size() == 1);
  server.stop();  // a second call is allowed
}

TEMPLATE_TEST_CASE("stop can be called from any thread, any number of times", "[server]", POLICIES) {
  ServerThread<TestType> server;
  auto alice = test::receiver(server.port(), "alice", "cafe");
  std::vector<std::thread> threads;
  for (auto i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      for (auto again = 0; again < 10; ++again) server->stop();
    });
  for (auto& thread : threads) thread.join();
  CHECK(alice.next() == "(end)");
  alice.close();
  CHECK(server.ended());
  server->stop();
  CHECK_THROWS_AS(Client(server.port()), std::system_error);
}

TEMPLATE_TEST_CASE("a service learns when its server starts, stops and ends, and can use its context", "[server]",
                   POLICIES) {
  Lines seen;
  auto const how = GENERATE(StopMode::drain, StopMode::now);
  {
    Server<TestType, Hooked> server(patient(), seen);
    auto run = std::async(std::launch::async, [&] { server.run(); });
    Client client(server.port());
    CHECK(client.asks("tick:") == "tick:");  // its timer has expired
    server.stop(how);
    server.stop(StopMode::now);
    CHECK(client.next() == "(end)");
    client.close();
    run.get();
    CHECK(seen.back() == "end");
  }
  CHECK(seen == Lines{"start", "open", how == StopMode::drain ? "drain" : "stop", "gone", "end"});
}

TEMPLATE_TEST_CASE("run throws what a service throws at the start", "[server]", POLICIES) {
  Lines seen{"fail"};
  Server<TestType, Hooked> server(patient(), seen);
  CHECK_THROWS_AS(server.run(), std::runtime_error);
  CHECK(seen == Lines{"fail"});
}

TEMPLATE_TEST_CASE("a session can stop its server, and its client gets the reply", "[server]", POLICIES) {
  std::function<void()> stop;
  ServerThread<TestType, Handing> server(patient(), [&](Peer const&, std::string_view line) {
    if (line == "stop:") stop();
  });
  auto const how = GENERATE(StopMode::drain, StopMode::now);
  stop = [&] { server->stop(how); };
  Client one(server.port()), two(server.port());
  CHECK(two.asks("a:1") == "a:1");
  one.send("stop:\n");
  if (how == StopMode::drain) CHECK(one.next() == "stop:");
  one.rest();
  CHECK(two.next() == "(end)");
  one.close();
  two.close();
  CHECK(server.ended());
}

TEMPLATE_TEST_CASE("a drain waits for those who have still to log in, for a tenth of its time", "[server]", POLICIES) {
  auto options = patient();
  auto const logs_in = GENERATE(true, false);
  if (!logs_in) options.drain = 100ms;
  ServerThread<TestType> server(options);
  auto alice = test::receiver(server.port(), "alice", "cafe");
  Client bob(server.port());
  REQUIRE(test::eventually([&] { return server->stats().accepted == 2; }));
  server->stop();
  std::promise<void> begun;
  asio::post(server->context(), [&] { begun.set_value(); });  // after the drain has begun
  begun.get_future().wait();
  CHECK_THROWS_AS(Client(server.port()), std::system_error);
  if (logs_in) CHECK(bob.asks("slogin:bob") == "ok");
  CHECK(bob.next() == "(end)");
  CHECK(alice.next() == "(end)");
  bob.close();
  alice.close();
  CHECK(server.ended());
}

TEMPLATE_TEST_CASE("a drain delivers every text that was answered by ok", "[server]", POLICIES) {
  constexpr auto texts = 20'000;
  constexpr std::size_t size = 200;
  auto options = patient();
  options.queue_limit = 1'000'000'000;
  ServerThread<TestType> server(options);
  auto alice = test::receiver(server.port(), "alice", "cafe", 4096);
  auto bob = test::sender(server.port(), "bob", "cafe");
  for (auto i = 0; i < texts; i += 1000) REQUIRE(says(bob, i, 1000, size));
  server->stop();
  CHECK(bob.next() == "(end)");
  bob.close();
  CHECK(hears(alice, 0, texts, size));
  CHECK(alice.next() == "(end)");
  alice.close();
  CHECK(server.ended());
}

TEMPLATE_TEST_CASE("a drain under load: every receiver gets each text that was answered by ok", "[server]", POLICIES) {
  for (auto round = 0; round < 5; ++round) {
    auto options = patient();
    options.queue_limit = 100'000'000;  // alice does not read until the end
    ServerThread<TestType> server(options);
    auto alice = test::receiver(server.port(), "alice", "cafe");
    std::vector<Client> idle;  // between the others, so that the server has work to do
    for (auto i = 0; i < 60; ++i) idle.push_back(test::sender(server.port(), "idle", "cafe"));
    std::atomic<bool> begun = false;
    auto talk = std::async(std::launch::async, [&] {
      auto bob = test::sender(server.port(), "bob", "cafe");
      auto answered = 0;
      for (auto next = 0;; next += 50) {
        std::string lines;
        for (auto i = next; i < next + 50; ++i) lines += "sendall:" + numbered(i) + '\n';
        bob.try_send(lines);
        for (auto i = 0; i < 50; ++i, ++answered)
          if (bob.next() != "ok") return answered;
        begun = true;
      }
    });
    CHECK(test::eventually([&] { return begun.load(); }));
    server->stop();
    auto heard = alice.rest();
    heard.pop_back();
    alice.close();
    idle.clear();
    auto in_order = 0;
    while (in_order < static_cast<int>(heard.size()) &&
           heard[static_cast<std::size_t>(in_order)] == delivered(in_order))
      ++in_order;
    CHECK(in_order == static_cast<int>(heard.size()));
    CHECK(in_order >= talk.get());
    CHECK(server.ended());
  }
}

TEMPLATE_TEST_CASE("stopping with a peer that never reads", "[server]", POLICIES) {
  auto options = patient();
  options.queue_limit = 1'000'000'000;
  options.drain = 1h;
  auto const hasty = GENERATE(false, true);
  if (hasty) options.drain = 200ms;
  ServerThread<TestType> server(options);
  auto stuck = test::receiver(server.port(), "stuck", "cafe", 4096);
  auto bob = test::sender(server.port(), "bob", "cafe");
  for (auto i = 0; i < 50'000; i += 1000) REQUIRE(says(bob, i, 1000, 200));

  if (hasty) {
    SECTION("ends at the drain's deadline") {
      server->stop();
      CHECK(server.ended(5s));  // long before the default deadline
    }
    SECTION("ends at the first drain's deadline, however often it is stopped") {
      CHECK(test::eventually([&] {
        server->stop();
        return !server.running();
      }));
    }
  } else {
    SECTION("takes no new clients meanwhile, and can be hastened") {
      server->stop();
      CHECK(bob.next() == "(end)");
      CHECK_THROWS_AS(Client(server.port()), std::system_error);
      CHECK(server.running());
      server->stop(StopMode::now);
    }
    SECTION("cuts everybody now") {
      server->stop(StopMode::now);
    }
  }
  CHECK(server.ended());
  CHECK(hears_only_prefix(stuck, 0, 50'000, 200));
}

TEMPLATE_TEST_CASE("a server disconnects its clients when an exception leaves run", "[server]", POLICIES) {
  std::optional<Client> alice;
  {
    Server<TestType> server(patient());
    auto run = std::async(std::launch::async, [&] { server.run(); });
    alice = test::receiver(server.port(), "alice", "cafe");
    asio::post(server.context(), [] { throw std::runtime_error("a handler of the program's"); });
    CHECK_THROWS_AS(run.get(), std::runtime_error);
    CHECK(alice->asks("join:bar") == "ok");
  }
  CHECK(alice->next() == "(end)");
}

// --- Peers -----------------------------------------------------------------------------------------------------------

TEMPLATE_TEST_CASE("a peer can be used in any thread, and is harmless after its server has been destroyed", "[server]",
                   POLICIES) {
  std::mutex mutex;
  std::vector<Peer> peers;
  std::optional<ServerThread<TestType, Handing>> server(std::in_place, patient(), [&](Peer const& peer, auto) {
    std::lock_guard const lock(mutex);
    peers.push_back(peer);
  });
  Client one(server->port()), two(server->port());
  CHECK(one.asks("a:1") == "a:1");
  CHECK(two.asks("b:2") == "b:2");
  std::thread flood([peer = peers[0]] {
    while (peer.send("c:3\n") == PushResult::queued) std::this_thread::yield();
  });
  CHECK(one.next(100) == Lines(100, "c:3"));
  one.reset();
  flood.join();
  server.reset();
  for (auto const& peer : peers) {
    CHECK(peer.send("d:4\n") == PushResult::closed);
    peer.close();
    peer.abort();
  }
  CHECK(two.next() == "(end)");
}
