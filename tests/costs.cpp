// SPDX-License-Identifier: BSL-1.0
// What a message, a delivery and an idle client cost the server in system calls and allocations. These counts are the
// same on a slow or busy machine. A bound here is the figure from the design plus a little for chance; a change that
// exceeds it makes the server slower for everyone, or needs a reason next to the new figure. bench/ measures speed.
#include <chatproto/chat_service.hpp>
#include <chatproto/threading.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <list>
#include <semaphore>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "catch.hpp"
#include "sanitized.hpp"
#include "socket_support.hpp"
#include "support.hpp"
#include "system_calls.hpp"

namespace {

using test::calls;
using test::Kind;
using test::kinds;
using test::ServerThread;

/// A chat service whose thread can be held, so that all lines that arrive meanwhile are handled at once.
class HeldService {
 public:
  class Session {
   public:
    Session(HeldService& service, chatproto::Peer peer)
        : service_(service), chat_(service.chat_.open(std::move(peer))) {}
    void on_line(std::string_view line) {
      if (line != "hold:") return chat_.on_line(line);
      service_.held.release();
      service_.go_on.acquire();
    }
    void flush() { chat_.flush(); }
    bool logged_in() const { return chat_.logged_in(); }

   private:
    HeldService& service_;
    chatproto::ChatService::Session chat_;
  };
  Session open(chatproto::Peer peer) { return {*this, std::move(peer)}; }

  std::binary_semaphore held{0}, go_on{0};

 private:
  chatproto::ChatService chat_;
};

chatproto::ServerOptions one_thread() {
  auto options = test::patient();
  options.threads = 1;
  return options;
}

/// What the server has used since this object was created, per thing.
class Used {
 public:
  double per(std::size_t things, Kind kind) const { return ratio(calls[kind] - before_[kind], things); }
  double calls_per(std::size_t things) const {
    auto sum = 0.0;
    for (std::size_t kind = 0; kind < kinds; ++kind) sum += per(things, Kind(kind));
    return sum;
  }
  double allocations_per(std::size_t things) const {
    return ratio(test::spent().allocations - spent_.allocations, things);
  }
  double bytes_per(std::size_t things) const {
    return static_cast<double>(test::spent().live_bytes - spent_.live_bytes) / static_cast<double>(things);
  }

 private:
  static double ratio(std::size_t count, std::size_t things) {
    return static_cast<double>(count) / static_cast<double>(things);
  }
  static std::array<std::size_t, kinds> now() {
    std::array<std::size_t, kinds> result{};
    for (std::size_t kind = 0; kind < kinds; ++kind) result[kind] = calls[kind];
    return result;
  }
  std::array<std::size_t, kinds> before_ = now();
  test::Spent spent_ = test::spent();
};

/// The smallest use of any round: on a busy machine turns end early, which adds calls.
struct Least {
  double sends = 1e9, calls = 1e9, allocations = 1e9;

  void note(Used const& used, std::size_t deliveries) {
    sends = std::min(sends, used.per(deliveries, test::sends));
    calls = std::min(calls, used.calls_per(deliveries));
    allocations = std::min(allocations, used.allocations_per(deliveries));
  }
};

template <class Policy>
constexpr auto thread_for_each = std::is_same_v<Policy, chatproto::ThreadPerClient>;
template <class Policy>
constexpr auto is_strand = std::is_same_v<Policy, chatproto::StrandPool>;

// Sanitizers replace operator new; only glibc tells the size of a block.
#ifdef __GLIBC__
constexpr auto counts_allocations = !CHATPROTO_SANITIZED;
#else
constexpr auto counts_allocations = false;
#endif

}  // namespace

TEMPLATE_TEST_CASE("the cost of a message that is sent alone", "[costs]", chatproto::ThreadPerClient,
                   chatproto::ThreadPool, chatproto::StrandPool) {
  constexpr std::size_t messages = 500;
  test::Uncounted const clients;
  ServerThread<TestType> server(one_thread());
  auto alice = test::receiver(server.port(), "alice", "cafe"), bob = test::sender(server.port(), "bob", "cafe");
  Used const used;
  for (std::size_t i = 0; i < messages; ++i) {
    bob.send("sendall:a text of the length that people write, sixty-four bytes in all\n");
    REQUIRE(alice.next_line().starts_with("delivery:cafe:bob:a text"));
    REQUIRE(bob.next_line().starts_with("ok:"));
  }
  CHECK(used.per(messages, test::sends) == 2);                      // the delivery and the ok
  CHECK(used.per(messages, test::recvs) == Approx(1).margin(0.1));  // none that finds nothing to read
  CHECK(used.per(messages, test::reads) + used.per(messages, test::writes) < 0.1);
  // Asio re-arms a descriptor for each wait. A flush is posted, so the server polls for more input before it. With two
  // threads, one wakes the other.
  CHECK(used.per(messages, test::epoll_ctls) < (thread_for_each<TestType> ? 2.1 : 1.1));
  CHECK(used.per(messages, test::epoll_waits) < (thread_for_each<TestType> ? 4.1 : 2.1));
  // Two allocations for the block of deliveries, one for that of the reply, whose text is short. Asio reuses its
  // memory: a single thread finds all it needs, a post to another thread or a strand often does not.
  auto const allocations = used.allocations_per(messages);
  CHECK(allocations < (thread_for_each<TestType> ? 4.1 : is_strand<TestType> ? 6.1 : 3.1));
  CHECK((allocations > 1 || !counts_allocations));
}

TEMPLATE_TEST_CASE("the cost of a delivery when its sender does not wait", "[costs]", chatproto::ThreadPerClient,
                   chatproto::ThreadPool, chatproto::StrandPool) {
  // So few that one turn takes them all, however slow the machine: the server has read the clock only once by then.
  constexpr std::size_t messages = 15, receivers = 50, rounds = 8;
  test::Uncounted const clients;
  ServerThread<TestType, HeldService> server(one_thread());
  std::list<test::Client> listeners;
  for (std::size_t i = 0; i < receivers; ++i) listeners.push_back(test::receiver(server.port(), "alice", "cafe"));
  auto bob = test::sender(server.port(), "bob", "cafe");
  std::string lines;
  for (std::size_t i = 0; i < messages; ++i) lines += "sendall:a text of the length that people write, or so\n";
  Least least;
  for (std::size_t round = 0; round < rounds; ++round) {
    Used const used;
    bob.send("hold:\n");
    server->service().held.acquire();
    bob.send(lines);
    REQUIRE(bob.has_arrived());
    server->service().go_on.release();
    for (auto& listener : listeners)
      for (std::size_t i = 0; i < messages; ++i) REQUIRE(listener.next_line().starts_with("delivery:"));
    for (std::size_t i = 0; i < messages; ++i) REQUIRE(bob.next_line().starts_with("ok:"));
    least.note(used, 1);
  }
  CHECK(least.sends == receivers + 1);  // one for each receiver, and one for all replies
  CHECK(least.calls < (thread_for_each<TestType> ? 350 : 65));
  // The two blocks, which grow; with strands also a post for each receiver.
  CHECK(least.allocations < (thread_for_each<TestType> ? 100 : is_strand<TestType> ? 150 : 25));
}

TEMPLATE_TEST_CASE("the cost of a delivery when many senders send at once", "[costs]", chatproto::ThreadPool,
                   chatproto::StrandPool) {
  constexpr std::size_t senders = 50, receivers = 100, rounds = 8, deliveries = senders * receivers;
  test::Uncounted const clients;
  ServerThread<TestType, HeldService> server(one_thread());
  std::list<test::Client> listeners, speakers;
  for (std::size_t i = 0; i < receivers; ++i) listeners.push_back(test::receiver(server.port(), "alice", "cafe"));
  for (std::size_t i = 0; i < senders; ++i) speakers.push_back(test::sender(server.port(), "bob", "cafe"));
  test::Client holder(server.port());
  Least least;
  for (std::size_t round = 0; round < rounds; ++round) {
    Used const used;
    holder.send("hold:\n");
    server->service().held.acquire();
    for (auto& speaker : speakers) speaker.send("sendall:hey everybody!\n");
    for (auto& speaker : speakers) REQUIRE(speaker.has_arrived());
    server->service().go_on.release();
    for (auto& listener : listeners)
      for (std::size_t i = 0; i < senders; ++i) REQUIRE(listener.next_line().starts_with("delivery:"));
    for (auto& speaker : speakers) REQUIRE(speaker.next_line().starts_with("ok:"));
    least.note(used, deliveries);
  }
  // All input is read before anything is written: one write for each receiver and each sender.
  CHECK(least.sends == 0.03);
  CHECK(least.calls < 0.055);  // a read and an epoll_ctl for each sender
  // Three for each sender: its deliveries, its reply, and the buffer that holds both until the end of a read. With
  // strands also posts.
  CHECK(least.allocations < (is_strand<TestType> ? 0.16 : 0.1));
}

TEMPLATE_TEST_CASE("the memory that the server holds for an idle client", "[costs]", chatproto::ThreadPool,
                   chatproto::StrandPool) {
  constexpr std::size_t receivers = 200;
  test::Uncounted const clients;
  ServerThread<TestType> server(one_thread());
  auto first = test::receiver(server.port(), "alice", "cafe");
  Used const used;
  std::list<test::Client> listeners;
  for (std::size_t i = 0; i < receivers; ++i) listeners.push_back(test::receiver(server.port(), "alice", "cafe"));
  auto const bytes = used.bytes_per(receivers);
  CHECK(bytes <= 1024);  // 841 and 1014 when measured, of which about 300 are Asio's
  CHECK((bytes > 300 || !counts_allocations));
}
