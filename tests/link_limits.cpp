// SPDX-License-Identifier: BSL-1.0
// The link's limits and deadlines, its rate, its turns, and what it tells an observer.
#include <chatproto/detail/server/link.hpp>

#include <chatproto/chat_service.hpp>
#include <chatproto/server_options.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>

#include <asio/buffer.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/socket_base.hpp>

#include "catch.hpp"
#include "link_scene.hpp"
#include "support.hpp"

using namespace std::chrono_literals;
using namespace link_scene;

// --- Limits ----------------------------------------------------------------------------------------------------------

TEST_CASE("a peer is disconnected at the queue's limit, but only if a write was tried and took nothing", "[link]") {
  Options options;
  options.queue_limit = 100'000;
  Scene scene(options);
  scene.begin();
  auto sent = scene.stall();
  auto const peer = scene.peer();

  SECTION("one that does not read is cut, after a gap-free prefix") {
    std::size_t pushed = 0;
    for (; !scene.ended(); ++pushed) {
      sent.append(1000, 'x');
      REQUIRE(peer.queue().push(test::block(std::string(1000, 'x'))) == PushResult::queued);
      scene.run_posted();  // a write is tried
    }
    CHECK(peer.send("x\n") == PushResult::closed);
    constexpr auto cost = 1000 + chatproto::MessageQueue::entry_cost;
#ifndef _WIN32  // Windows sockets accept a little more now and then
    CHECK(pushed <= options.queue_limit / cost + 1);
#endif
    CHECK(pushed >= (options.queue_limit - 10'000) / cost - 1);  // part of a block waited before
    auto const got = scene.far_reads_all();
    CHECK(got.ends_with("(end)"));
    CHECK((got.size() - 5 < sent.size() && sent.starts_with(got.substr(0, got.size() - 5))));
  }
  SECTION("one that was stalled before, and whose link is too busy to write, is not cut") {
    std::string got;
    for (std::string bytes; test::eventually([&] { return !(bytes = scene.far_reads_unseen()).empty(); });) {
      got += bytes;
      if (got.size() + 100'000 > sent.size()) break;
    }
    // The system has space again, but the link has not noticed yet.
    for (auto i = 0; i < 30; ++i) {
      sent.append(10'000, 'y');
      REQUIRE(scene.push(std::string(10'000, 'y')) == PushResult::queued);
    }
    scene.run_posted();
    while (got.size() < sent.size()) {
      auto const bytes = scene.far_reads();
      if (bytes.front() == '(') break;
      got += bytes;
    }
    CHECK((got == sent));
    CHECK_FALSE(scene.ended());
  }
}

TEST_CASE("a client that has not logged in at the login deadline is closed", "[link]") {
  Options options;
  options.login_deadline = 0ms;
  Scene scene(options);
  auto& service = scene.service();
  service.logged_in = false;
  scene.begin();
  CHECK(scene.deadlines == 1);

  SECTION("silent, or with part of a line") {
    scene.far_sends(GENERATE("", "slogin:b"));
    scene.link().ask_if_overdue();
    CHECK(scene.far_reads_all() == "(end)");
    CHECK(has_seen(service, "(gone)"));
  }
  SECTION("who has logged in has no deadline any more") {
    service.logged_in = true;
    scene.far_sends("login\n");
    REQUIRE(scene.run_until([&] { return has_seen(service, "(flush)"); }));
    CHECK(scene.link().due() == never);
  }
  SECTION("who needs no login has none when asked") {
    service.logged_in = true;
    scene.link().ask_if_overdue();
    scene.run_posted();
    CHECK_FALSE(scene.ended());
    CHECK(scene.link().due() == never);
  }
}

TEST_CASE("nothing happens before a deadline", "[link]") {
  Scene scene;
  auto& service = scene.service();
  service.logged_in = false;
  scene.begin();
  SECTION("of login") {
  }
  SECTION("of writing") {
    scene.stall();
  }
  SECTION("of lingering") {
    scene.peer().close();
    CHECK(scene.far_reads() == "(end)");
  }
  CHECK(scene.link().due() != never);
  scene.link().ask_if_overdue();
  scene.run_posted();
  CHECK_FALSE(scene.ended());
}

TEST_CASE("a service without logins has no login deadline", "[link]") {
  Scene<Echo> scene;
  scene.begin();
  CHECK(scene.link().due() == never);
  CHECK(scene.deadlines == 0);
}

TEST_CASE("a peer that takes nothing until the write deadline is disconnected", "[link]") {
  Options options;
  options.write_deadline = 0ms;
  Scene scene(options);
  auto& service = scene.begin();
  auto sent = scene.stall();
  sent.append(10'000'000, 'x');  // more than the system will ever accept
  scene.push(std::string(10'000'000, 'x'));
  SECTION("open") {
  }
  SECTION("being closed") {
    scene.peer().close();
  }
  SECTION("after its end of input") {
    scene.remote.shutdown(tcp::socket::shutdown_send);
    REQUIRE(scene.run_until([&] { return has_seen(service, "(gone)"); }));
  }
  scene.link().ask_if_overdue();
  scene.run_posted();
  CHECK(scene.ended());
  CHECK(has_seen(service, "(gone)"));
  auto const got = scene.far_reads_all();
  CHECK((got.size() - 5 < sent.size() && sent.starts_with(got.substr(0, got.size() - 5))));
}

TEST_CASE("only progress moves the write deadline, which ends when everything is written", "[link]") {
  auto const logged_in = GENERATE(true, false);
  Scene scene;
  scene.service().logged_in = logged_in;
  scene.begin();
  auto left = scene.stall().size();
  for (auto i = 0; i < 100; ++i, left += 100'000) scene.push(std::string(100'000, 'x'));
  auto first = scene.link().due();
  CHECK(scene.run_until([&] {  // the system may still accept some of it
    first = scene.link().due();
    scene.link().flush();
    return scene.link().due() == first;
  }));
  auto moved = false;
  while (left > 0) {
    left -= scene.far_reads(100'000).size();
    moved = moved || (scene.link().due() > first && scene.link().due() != never);
  }
  CHECK(moved);
  REQUIRE(scene.run_until([&] { return !scene.run_posted(); }));
  CHECK((scene.link().due() == never) == logged_in);  // a link that is not logged in has a login deadline
}

TEST_CASE("a closed client that does not close its side ends after the linger time", "[link]") {
  Options options;
  options.linger = 0ms;
  Scene scene(options);
  scene.begin();
  scene.peer().close();
  CHECK(scene.far_reads() == "(end)");
  CHECK_FALSE(scene.ended());
  scene.link().ask_if_overdue();
  scene.run_posted();
  CHECK(scene.ended());
}

TEST_CASE("a link that has ended can safely be queried and flushed", "[link]") {
  Scene scene;
  scene.begin();
  auto const link = scene.link().shared_from_this();
  link->abort();
  REQUIRE(scene.run_until([&] { return scene.ended(); }));
  link->ask_if_overdue();
  link->flush();
  CHECK_FALSE(scene.run_posted());
}

// --- A rate limit, senders that wait, an observer --------------------------------------------------------------------

namespace {

/// Records its calls; throws at `throws_at`.
struct Witness : chatproto::Observer {
  Lines seen;
  std::string throws_at;

  void note(std::string const& what) {
    seen.push_back(what);
    if (what.starts_with(throws_at) && !throws_at.empty()) throw std::runtime_error(what);
  }
  void connected(std::uint64_t number, std::string_view address) override {
    note("connected " + std::to_string(number) + (address.starts_with("127.0.0.1:") ? "" : " from nowhere"));
  }
  void logged_in(std::uint64_t number, std::string_view name) override {
    note("logged in " + std::to_string(number) + ' ' + std::string(name));
  }
  void ended(std::uint64_t number, chatproto::DisconnectReason reason, std::error_code const& error) override {
    note("ended " + std::to_string(number) + ' ' + std::string(to_string(reason)) + (error ? " with an error" : ""));
  }
};

/// Creates a name when asked for one, and accepts any kind of error.
struct Named {
  struct Session {
    std::string user = {};
    void on_line(std::string_view line) { user = line; }
    void on_bad_line(auto ec) { user = ec.message(); }
    bool logged_in() const { return !user.empty(); }
    std::string name() const { return "the user " + user; }
  };
  Session open(Peer const&) { return {}; }
};

Options observed_by(Witness& witness) {
  Options options;
  options.observer = &witness;
  return options;
}

}  // namespace

TEST_CASE("a session's name may return a new string, and its on_bad_line may be generic", "[link]") {
  auto const [line, name] = GENERATE(table<std::string, std::string>(
      {{"a-name-that-no-small-string-holds", "the user a-name-that-no-small-string-holds"},
       {std::string(300, 'x'), "the user line too long"}}));
  Witness witness;
  Scene<Named> scene(observed_by(witness));
  scene.begin();
  scene.far_sends(line + '\n');
  REQUIRE(scene.run_until([&] { return witness.seen.size() == 2; }));
  CHECK(witness.seen.back() == "logged in 1 " + name);
}

TEST_CASE("a client that is faster than its rate is read more slowly, and nothing is dropped", "[link]") {
  Options options;
  options.rate = 0.001;
  options.rate_burst = 2;
  Scene scene(options);
  auto& service = scene.begin();
  scene.far_sends("a\nb\nc\nd");
  REQUIRE(scene.run_until([&] { return !scene.throttles.empty(); }));
  scene.far_sends("\n");
  scene.run_posted();
  CHECK(service.seen == Lines{"(open)", "a", "b", "(flush)"});
  REQUIRE(scene.throttles.size() == 1);
  CHECK(scene.throttles[0] > 900s);
  CHECK(scene.throttles[0] <= 1000s);
  scene.link().end_throttle();  // too early: it waits again
  scene.run_posted();
  CHECK(scene.throttles.size() == 2);
  CHECK_FALSE(has_seen(service, "c"));
  CHECK(scene.events().stats().throttled == 2);
  scene.peer().resume();  // does not end the throttle
  scene.run_posted();
  CHECK_FALSE(has_seen(service, "c"));
  scene.peer().close();
  CHECK(scene.far_reads_all() == "(end)");
}

TEST_CASE("a line without an end counts against the rate too", "[link]") {
  Options options;
  options.rate = 0.001;
  options.rate_burst = 3;
  Scene scene(options);
  scene.begin();
  auto const part = std::string(options.line_limit / 2, 'x');
  std::uint64_t parts = 0;
  while (scene.throttles.empty() && parts < 100) {
    scene.far_sends(part);
    ++parts;
    CHECK(scene.run_until(
        [&] { return scene.events().stats().bytes_in == parts * part.size() || !scene.throttles.empty(); }));
  }
  CHECK(scene.throttles.size() == 1);
  CHECK(parts > 4);  // three tokens
  CHECK(parts < 12);
}

TEST_CASE("lines that wait for their rate come in order, byte for byte", "[link]") {
  Options options;
  options.rate = 1e6;  // the next token is there when it is needed
  options.rate_burst = 1;
  Scene scene(options);
  auto& service = scene.begin();
  Lines expected = {"(open)"};
  std::string bytes;
  for (auto i = 0; i < 1000; ++i) bytes += expected.emplace_back(std::to_string(i)) + '\n';
  scene.far_sends(bytes);
  REQUIRE(scene.run_until([&] {
    if (!scene.throttles.empty()) scene.link().end_throttle();
    return has_seen(service, "999");
  }));
  service.seen.erase(std::remove(service.seen.begin(), service.seen.end(), "(flush)"), service.seen.end());
  CHECK(service.seen == expected);
}

TEST_CASE("a link does not read from a peer until it has taken its replies", "[link]") {
  Options options;
  options.overflow = GENERATE(chatproto::Overflow::disconnect, chatproto::Overflow::block_sender);
  Scene scene(options);
  auto& service = scene.begin();
  auto all = scene.stall().size();
  scene.push(std::string(40'000, 'x'));  // more than may wait while the client is read
  all += 40'000;
  scene.far_sends("a\n");
  scene.run_posted();
  CHECK_FALSE(has_seen(service, "a"));
  for (std::size_t read = 0; read < all;) read += scene.far_reads().size();
  CHECK(scene.run_until([&] { return has_seen(service, "a"); }));
  scene.far_sends("b\n");
  CHECK(scene.run_until([&] { return has_seen(service, "b"); }));
}

TEST_CASE("after a long reply, further lines of the same read wait until the peer has taken it", "[link]") {
  Scene scene;
  auto& service = scene.begin();
  auto all = scene.stall().size();
  service.on_line = [](Peer const& peer, std::string_view) { peer.send(std::string(39'999, 'x') + '\n'); };
  scene.far_sends("a\nb\nc\n");
  CHECK(scene.run_until([&] { return has_seen(service, "a"); }));
  scene.run_posted();
  CHECK_FALSE(has_seen(service, "b"));
  all += 3 * std::size_t(40'000);
  for (std::size_t read = 0; read < all;) read += scene.far_reads().size();
  CHECK(scene.run_until([&] { return has_seen(service, "c"); }));
}

TEST_CASE("a client that sends much gets its turn, then others get theirs", "[link]") {
  Scene scene;
  auto& service = scene.begin();
  auto const most = chatproto::detail::LinkRules<Scripted::Session, Scene<>::Link>::turn_lines;
  scene.remote.non_blocking(false);
  std::string const lines(3 * most, '\n');
  scene.remote.write_some(asio::buffer(lines));
  auto const flushes = [&] { return std::count(service.seen.begin(), service.seen.end(), "(flush)"); };
  REQUIRE(scene.run_until([&] { return service.seen.size() == 1 + lines.size() + std::size_t(flushes()); }));
  CHECK(flushes() >= 3);
  std::size_t in_a_row = 0;
  for (auto const& each : service.seen) {
    in_a_row = each == "(flush)" ? 0 : in_a_row + 1;
    REQUIRE(in_a_row <= most + 1);
  }
}

TEST_CASE("while memory is short, a link does not read", "[link]") {
  Options options;
  options.memory_limit = 0;
  Scene scene(options);
  auto& service = scene.begin();
  chatproto::detail::HeldMemory::add(1);
  scene.far_sends("a\n");
  CHECK(scene.run_until([&] { return scene.waits_for_memory == 1; }));
  CHECK_FALSE(has_seen(service, "a"));
  chatproto::detail::HeldMemory::remove(1);
  scene.link().memory_is_free();
  CHECK(scene.run_until([&] { return has_seen(service, "a"); }));
  CHECK(scene.waits_for_memory == 1);
}

TEST_CASE("an observer is told why a client ends", "[link]") {
  Witness witness;
  auto options = observed_by(witness);
  auto const expect = [&](std::string const& reason) {
    CHECK(witness.seen == Lines{"connected 1", "ended 1 " + reason});
  };
  SECTION("it has left") {
    Scene scene(options);
    scene.begin();
    scene.remote.close();
    CHECK(scene.ends());
    expect("closed");
  }
  SECTION("it is broken") {
    Scene scene(options);
    scene.begin();
    scene.remote.set_option(asio::socket_base::linger(true, 0));
    scene.remote.close();
    CHECK(scene.ends());
    expect("lost with an error");
  }
  SECTION("it was cut by its session") {
    Scene scene(options);
    scene.begin();
    scene.peer().abort();
    CHECK(scene.ends());
    expect("aborted");
  }
  SECTION("it did not read, up to its limit") {
    options.queue_limit = 1000;
    Scene scene(options);
    scene.begin();
    while (!scene.ended()) {
      scene.push(std::string(500, 'x'));
      scene.run_posted();
    }
    CHECK(scene.ends());
    expect("overflow");
  }
  SECTION("it did not read for too long") {
    options.write_deadline = 1ms;
    Scene scene(options);
    scene.begin();
    scene.stall();
    CHECK(scene.run_until([&] {
      if (!scene.ended()) scene.link().ask_if_overdue();
      return scene.ended();
    }));
    expect("write_deadline");
  }
  SECTION("it did not log in") {
    options.login_deadline = 1ms;
    Scene scene(options);
    scene.service().logged_in = false;
    scene.begin();
    CHECK(scene.run_until([&] {
      if (!scene.ended()) scene.link().ask_if_overdue();
      return !scene.ended() && !scene.link().is_open();
    }));
    scene.remote.close();
    CHECK(scene.ends());
    expect("login_deadline");
  }
  SECTION("its session has thrown") {
    Scene scene(options);
    scene.begin().on_line = [](auto&&...) { throw std::runtime_error("no"); };
    scene.far_sends("a\n");
    CHECK(scene.ends());
    expect("failed");
  }
  SECTION("it could not be told to begin") {
    Scene scene(options);
    scene.link().drop();
    CHECK(scene.ends());
    CHECK(witness.seen == Lines{"ended 1 failed"});
  }
}

TEST_CASE("an observer is told once that a client has logged in", "[link]") {
  Witness witness;
  Scene<chatproto::ChatService> scene(observed_by(witness));
  scene.begin();
  scene.far_sends("slogin:bob\njoin:cafe\n");
  CHECK(scene.far_reads() == "ok:\nok:joined\n");
  scene.far_sends("sendall:hi\n");
  CHECK(scene.far_reads() == "ok:sent\n");
  CHECK(witness.seen == Lines{"connected 1", "logged in 1 bob"});
}

TEST_CASE("an observer that throws loses the client of that event", "[link]") {
  Witness witness;
  witness.throws_at = GENERATE("connected", "logged in", "ended");
  Scene<chatproto::ChatService> scene(observed_by(witness));
  scene.begin();
  if (!scene.ended()) scene.far_sends("slogin:bob\n");
  scene.run_posted();
  if (witness.throws_at == "ended") {
    CHECK(scene.far_reads() == "ok:\n");
    scene.remote.close();
  }
  CHECK(scene.ends());
  auto const stats = scene.events().stats();
  CHECK(stats.observer_failures == 1);
  CHECK(stats.clients == 0);
  CHECK(stats.accepted == 1);
  auto const reason =
      witness.throws_at == "ended" ? chatproto::DisconnectReason::closed : chatproto::DisconnectReason::failed;
  CHECK(stats.ended[static_cast<std::size_t>(reason)] == 1);
}

TEST_CASE("half a line counts as held memory, for which a client can be disconnected", "[link]") {
  Options options;
  options.line_limit = 1'000'000;
  Scene scene(options);
  auto& service = scene.begin();
  auto const before = chatproto::detail::HeldMemory::total();
  scene.far_sends(std::string(100'000, 'x'));
  CHECK(scene.run_until([&] { return chatproto::detail::HeldMemory::total() >= before + 96'000; }));
  scene.link().measure();
  scene.run_posted();
  CHECK(scene.link().held() >= 96'000);
  scene.peer().send("ok:\n");
  scene.run_posted();
  CHECK(scene.link().held() >= 96'000);  // also after a write
  auto const peer = scene.peer();        // keeps the link alive
  SECTION("until the line is over") {
    service.on_line = [](Peer const&, std::string_view) {};
    scene.far_sends("\n");
    REQUIRE(scene.run_until([&] { return service.seen.size() > 1 && service.seen.back() == "(flush)"; }));
  }
  SECTION("or the client is gone") {
    scene.remote.close();
    REQUIRE(scene.run_until([&] { return scene.ended(); }));
  }
  SECTION("or nobody will read it") {
    scene.link().stop_reading(nullptr);
    scene.run_posted();
  }
  CHECK(chatproto::detail::HeldMemory::total() == before);
}

TEST_CASE("lines and bytes are counted", "[link]") {
  Scene<Echo> scene;
  scene.begin();
  scene.far_sends("a\nbb\n" + std::string(300, 'x') + "\nhalf");
  CHECK(scene.far_reads() == "a\nbb\n");
  CHECK(scene.run_until([&] { return scene.events().stats().bytes_in == 310; }));
  auto const stats = scene.events().stats();
  CHECK(stats.lines_in == 3);
  CHECK(stats.bytes_out == 5);
}
