// SPDX-License-Identifier: BSL-1.0
#include <chatproto/detail/server/link.hpp>

#include <chatproto/detail/server/link_list.hpp>
#include <chatproto/executor.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <asio/any_io_executor.hpp>
#include <asio/buffer.hpp>
#include <asio/execution/context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/query.hpp>
#include <asio/socket_base.hpp>

#include "catch.hpp"
#include "link_scene.hpp"
#include "support.hpp"

using namespace std::chrono_literals;
using namespace link_scene;
using chatproto::DisconnectReason;

// --- Lines in, replies out -------------------------------------------------------------------------------------------

TEST_CASE("the lines of a read go to the session, then flush is called once", "[link]") {
  Scene scene;
  auto& service = scene.begin();
  scene.far_sends("a\r\nb\n" + std::string(300, 'x') + "\n\npart");
  REQUIRE(scene.run_until([&] { return service.seen.size() > 1; }));
  CHECK(service.seen == Lines{"(open)", "a", "b", "(too long)", "", "(flush)"});
  scene.far_sends("ial\n");
  REQUIRE(scene.run_until([&] { return service.seen.size() > 6; }));
  CHECK(service.seen.at(6) == "partial");
}

TEST_CASE("a posted task is run later, for a session that still lives, and then flushed", "[link]") {
  Scene scene;
  auto& service = scene.begin();
  scene.run_posted();
  auto const peer = scene.peer();
  CHECK(peer.id() == 1);
  auto const held = std::make_shared<int>();
  CHECK(peer.post([&, held] { service.seen.push_back("(task)"); }));
  CHECK(service.seen == Lines{"(open)"});
  scene.run_posted();
  CHECK(service.seen == Lines{"(open)", "(task)", "(flush)"});
  CHECK(held.use_count() == 1);

  SECTION("also while its client is paused, and its reply goes out then") {
    peer.pause();
    CHECK(peer.post([&] { peer.send("ok:\n"); }));
    CHECK(scene.far_reads() == "ok:\n");
  }
  SECTION("not when the client was closed meanwhile") {
    CHECK(peer.post([&, held] { service.seen.push_back("(late)"); }));
    peer.close();
    scene.remote.close();
    CHECK(scene.run_until([&] { return scene.ended(); }));
    CHECK(service.seen == Lines{"(open)", "(task)", "(flush)", "(gone)"});
    CHECK(held.use_count() == 1);
    CHECK_FALSE(peer.post([held] {}));
    CHECK(held.use_count() == 1);
  }
  SECTION("not when the server drains") {
    scene.link().stop_reading(nullptr);
    CHECK(peer.post([&] { service.seen.push_back("(late)"); }));
    scene.run_posted();
    CHECK(service.seen.back() == "(flush)");
  }
  SECTION("it may close the client") {
    CHECK(peer.post([&] { peer.close(); }));
    CHECK(scene.far_reads() == "(end)");
    CHECK(service.seen.back() == "(gone)");
  }
  SECTION("what it throws costs the client") {
    CHECK(peer.post([] { throw std::runtime_error("out of order"); }));
    CHECK(scene.far_reads() == "(end)");
    CHECK(scene.ended());
  }
  SECTION("it runs on the client's executor") {
    asio::any_io_executor executor;
    CHECK(peer.post([&] { executor = chatproto::executor_of(peer); }));
    scene.run_posted();
    REQUIRE(executor);
    CHECK(&asio::query(executor, asio::execution::context) == &scene.context());
    executor = {};
  }
}

TEST_CASE("a session needs only the required members", "[link]") {
  Scene<Echo> scene;
  scene.begin();
  scene.far_sends("a\n" + std::string(300, 'x') + "\nb\n");
  std::string got;
  while (got.size() < 4) got += scene.far_reads();
  CHECK(got == "a\nb\n");
}

TEST_CASE("blocks of all sizes arrive byte for byte, through a slow reader", "[link]") {
  Scene scene;
  scene.begin();
  auto const sent = scene.push_all_sizes();
  scene.peer().close();
  std::string got;
  while (got.size() < sent.size()) {
    auto const bytes = scene.far_reads(33'333);
    if (bytes.front() == '(') break;
    got += bytes;
  }
  CHECK((got == sent));
  CHECK(scene.far_reads() == "(end)");
}

// --- How a link ends -------------------------------------------------------------------------------------------------

TEST_CASE("end of input: the session is destroyed, pending output is written, then the link ends", "[link]") {
  Scene scene;
  auto& service = scene.begin();
  service.on_line = send_ok;
  std::string waiting;
  SECTION("and the peer takes it at once") {
  }
  SECTION("and the peer takes it later") {
    waiting = scene.stall();
  }
  scene.far_sends("a\nb\npart");
  scene.remote.shutdown(tcp::socket::shutdown_send);
  REQUIRE(scene.run_until([&] { return has_seen(service, "(gone)"); }));
  CHECK(service.seen == Lines{"(open)", "a", "b", "(flush)", "(gone)"});
  CHECK((scene.far_reads_all() == waiting + "ok:\nok:\n(end)"));
  CHECK(scene.ends());
}

TEST_CASE("a reset ends the link at once", "[link]") {
  Scene scene;
  auto& service = scene.begin();
  SECTION("silent") {
  }
  SECTION("while something waits") {
    scene.stall();
  }
  scene.remote.set_option(asio::socket_base::linger(true, 0));
  scene.remote.close();
  CHECK(scene.ends());
  CHECK(service.seen == Lines{"(open)", "(gone)"});
}

TEST_CASE("a write that fails ends the link, and its output is dropped", "[link]") {
  Scene scene;
  auto& service = scene.begin();
  scene.remote.set_option(asio::socket_base::linger(true, 0));
  scene.remote.close();
  auto bytes = block("delivery:cafe:bob:hi\n");
  std::weak_ptr const watch = bytes;
  scene.link().push(std::move(bytes));
  scene.link().flush();
  CHECK(scene.ended());
  CHECK(service.seen == Lines{"(open)", "(gone)"});
  CHECK(watch.expired());
}

TEST_CASE("close: pending output is written, then input is read and dropped until the peer closes", "[link]") {
  Scene scene;
  auto& service = scene.begin();
  std::string waiting;
  SECTION("at once") {
  }
  SECTION("when the peer takes it") {
    waiting = scene.stall();
  }
  scene.peer().send("ok:\n");
  scene.peer().close();
  CHECK((scene.far_reads_all() == waiting + "ok:\n(end)"));
  CHECK(service.seen == Lines{"(open)", "(gone)"});
  scene.far_sends(std::string(1'000'000, 'x') + "\nnever executed\n");
  CHECK_FALSE(scene.ended());
  scene.remote.close();
  CHECK(scene.ends());
  CHECK(service.seen == Lines{"(open)", "(gone)"});
}

TEST_CASE("abort: pending output is dropped", "[link]") {
  Scene scene;
  auto& service = scene.begin();
  auto const waiting = scene.stall();
  scene.peer().abort();
  scene.run_posted();
  CHECK(scene.ended());
  CHECK(service.seen == Lines{"(open)", "(gone)"});
  auto const got = scene.far_reads_all();
  CHECK(got.ends_with("(end)"));
  CHECK(got.size() - 5 < waiting.size());
  CHECK(waiting.starts_with(got.substr(0, got.size() - 5)));
}

TEST_CASE("lines after a session has closed its client are ignored", "[link]") {
  Scene scene;
  auto& service = scene.begin();
  service.on_line = [](Peer const& peer, std::string_view line) {
    peer.send("ok:\n");
    if (line == "close") peer.close();
    if (line == "abort") peer.abort();
  };
  SECTION("close") {
    scene.far_sends("a\nclose\nb\n");
    CHECK(scene.far_reads_all() == "ok:\nok:\n(end)");
    CHECK(service.seen == Lines{"(open)", "a", "close", "(flush)", "(gone)"});
  }
  SECTION("abort") {
    scene.far_sends("a\nabort\nb\n");
    CHECK(scene.far_reads_all() == "(end)");
    CHECK(service.seen == Lines{"(open)", "a", "abort", "(flush)", "(gone)"});
    CHECK(scene.ends());
  }
}

TEST_CASE("a session may close its client when it is opened", "[link]") {
  Scene scene;
  scene.service().on_open = [](Peer const& peer) {
    peer.send("err:closed today\n");
    peer.close();
  };
  scene.far_sends("a\n");
  scene.begin();
  CHECK(scene.far_reads_all() == "err:closed today\n(end)");
  CHECK_FALSE(has_seen(scene.service(), "a"));
  CHECK(has_seen(scene.service(), "(gone)"));
}

TEST_CASE("a link that has ended before it begins opens no session", "[link]") {
  Scene scene;
  SECTION("closed") {
    scene.peer().close();
    scene.begin();
    CHECK(scene.far_reads() == "(end)");
  }
  SECTION("aborted") {
    scene.peer().abort();
    auto const link = scene.link().shared_from_this();
    scene.run_posted();
    CHECK(scene.ended());
    link->start();
    CHECK(scene.far_reads() == "(end)");
  }
  CHECK(scene.service().seen.empty());
}

TEST_CASE("a host that stops reads no more lines, and learns when the last one has been executed", "[link]") {
  Scene scene;
  auto& service = scene.begin();
  auto done = std::make_shared<int>();
  std::weak_ptr const carried_out = done;
  service.on_line = [&](Peer const& peer, std::string_view line) {
    send_ok(peer, line);
    if (line != "a") return;
    scene.link().stop_reading(std::move(done));
    CHECK_FALSE(carried_out.expired());
  };
  scene.far_sends("a\nb\n");
  REQUIRE(scene.run_until([&] { return carried_out.expired(); }));
  CHECK(service.seen == Lines{"(open)", "a", "b", "(flush)"});
  scene.far_sends("c\n");
  scene.peer().close();
  CHECK(scene.far_reads_all() == "ok:\nok:\n(end)");
  CHECK(service.seen == Lines{"(open)", "a", "b", "(flush)", "(gone)"});
}

TEST_CASE("a host that drains learns when a client has logged in or is gone", "[link]") {
  Scene scene;
  auto& service = scene.begin();
  service.logged_in = false;
  auto const looks = std::make_shared<int>();
  for (auto i = 0; i < 2; ++i) scene.link().be_awaited(looks);
  CHECK(looks.use_count() == 3);
  scene.run_posted();
  CHECK(looks.use_count() == 1);
  CHECK(scene.awaited == 1);
  scene.far_sends("a\n");
  REQUIRE(scene.run_until([&] { return has_seen(service, "(flush)"); }));
  CHECK(scene.awaited == 1);
  SECTION("has logged in") {
    service.logged_in = true;
    scene.far_sends("b\n");
    REQUIRE(scene.run_until([&] { return has_seen(service, "b"); }));
    CHECK(scene.awaited == 0);
    scene.link().be_awaited(looks);
    scene.run_posted();
    CHECK(looks.use_count() == 1);
  }
  SECTION("was sent away, and has not closed yet") {
    scene.peer().close();
    CHECK(scene.run_until([&] { return scene.awaited == 0; }));
  }
  SECTION("is gone") {
    scene.peer().abort();
    CHECK(scene.ends());
  }
  CHECK(scene.awaited == 0);
}

TEST_CASE("a host that drains does not wait for the clients of a service without logins", "[link]") {
  Scene<Echo> scene;
  scene.begin();
  scene.link().be_awaited(nullptr);
  scene.run_posted();
  CHECK(scene.awaited == 0);
}

TEST_CASE("a session that pauses gets no more lines until it is resumed", "[link]") {
  Scene scene;
  auto& service = scene.begin();
  service.on_line = [](Peer const& peer, std::string_view line) {
    peer.send("ok:\n");
    if (line.starts_with("pause")) peer.pause();
  };
  scene.far_sends("a\npause\nb\r\npause too\nc\n" + std::string(300, 'x') + "\npar");
  REQUIRE(scene.run_until([&] { return has_seen(service, "(flush)"); }));
  CHECK(service.seen == Lines{"(open)", "a", "pause", "(flush)"});
  CHECK(scene.far_reads() == "ok:\nok:\n");  // what the session has sent is written
  scene.far_sends("tial\n");
  service.seen.clear();
  SECTION("by itself or by anybody else, with what was read before and then what was not") {
    scene.peer().resume();
    scene.run_posted();
    CHECK(service.seen == Lines{"(resumed)", "b", "pause too", "(flush)"});
    service.seen.clear();
    scene.peer().resume();
    scene.peer().resume();  // a second resume has no effect
    REQUIRE(scene.run_until([&] { return has_seen(service, "partial"); }));
    scene.run_posted();
    CHECK(service.seen == Lines{"(resumed)", "c", "(too long)", "(flush)", "partial", "(flush)"});
  }
  SECTION("but never once its host has stopped") {
    scene.link().stop_reading(nullptr);
    scene.peer().resume();
    scene.far_sends("d\n");
    scene.run_posted();
    scene.remote.shutdown(tcp::socket::shutdown_send);
    CHECK(scene.ends());
    CHECK(service.seen == Lines{"(resumed)", "(flush)", "(gone)"});
  }
  SECTION("but never once it is closed, and the connection ends in order") {
    scene.peer().close();
    if (GENERATE(true, false)) scene.peer().resume();
    CHECK(scene.far_reads_all() == "(end)");
    CHECK_FALSE(scene.ended());
    scene.remote.close();
    CHECK(scene.ends());
    CHECK(service.seen == Lines{"(gone)"});
  }
  SECTION("and may be cut") {
    auto const peer = scene.peer();
    peer.abort();
    REQUIRE(scene.run_until([&] { return scene.ended(); }));
    peer.resume();
    CHECK_FALSE(scene.run_posted());
    CHECK(service.seen == Lines{"(gone)"});
  }
}

TEST_CASE("a session may pause when it is opened", "[link]") {
  Scene scene;
  scene.service().on_open = [](Peer const& peer) { peer.pause(); };
  auto& service = scene.begin();
  scene.far_sends("a\n");
  scene.remote.shutdown(tcp::socket::shutdown_send);
  scene.run_posted();
  CHECK(service.seen == Lines{"(open)"});
  scene.peer().resume();
  CHECK(scene.ends());
  CHECK(service.seen == Lines{"(open)", "(resumed)", "(flush)", "a", "(flush)", "(gone)"});
}

#ifdef __linux__  // elsewhere Asio may not see a reset while nothing is read
TEST_CASE("a client that resets its connection while its session has paused is ended at once", "[link]") {
  Options options;
  auto const throttled = GENERATE(false, true);
  if (throttled) options.rate = 0.001, options.rate_burst = 1;
  Scene scene(options);
  auto& service = scene.begin();
  service.on_line = [&](Peer const& peer, std::string_view) {
    if (!throttled) peer.pause();
  };
  scene.far_sends("a\nb\n");
  REQUIRE(scene.run_until([&] { return has_seen(service, "(flush)"); }));
  REQUIRE(scene.throttles.size() == (throttled ? 1 : 0));
  SECTION("after it began") {
    scene.run_posted();
  }
  SECTION("or just before") {
  }
  scene.remote.set_option(asio::socket_base::linger(true, 0));
  scene.remote.close();
  CHECK(scene.ends());
}

TEST_CASE("urgent data does not keep a paused link busy", "[link]") {
  Scene scene;
  auto& service = scene.begin();
  service.on_line = [](Peer const& peer, std::string_view) { peer.pause(); };
  scene.far_sends("a\n");
  REQUIRE(scene.run_until([&] { return has_seen(service, "(flush)"); }));
  scene.remote.send(asio::buffer("!", 1), asio::socket_base::message_out_of_band);
  CHECK(scene.run_until([&] { return !scene.run_posted(); }));
  scene.peer().resume();
  scene.far_sends("b\n");
  CHECK(scene.run_until([&] { return has_seen(service, "b"); }));
}
#endif

TEST_CASE("a resume without a pause does nothing", "[link]") {
  Scene scene;
  auto& service = scene.begin();
  scene.peer().resume();
  scene.run_posted();
  scene.far_sends("a\n");
  REQUIRE(scene.run_until([&] { return has_seen(service, "(flush)"); }));
  CHECK(service.seen == Lines{"(open)", "a", "(flush)"});
}

TEST_CASE("a service can ask for a client's address", "[link]") {
  Scene<Asking<std::string>> scene;
  auto const port = std::to_string(scene.remote.local_endpoint().port());
  CHECK(scene.begin().told == "127.0.0.1:" + port);
}

TEST_CASE("a service can ask for all that is known of a client", "[link]") {
  Scene<Asking<chatproto::ClientInfo>> scene;
  auto const port = std::to_string(scene.remote.local_endpoint().port());
  auto const& client = scene.begin().told;
  CHECK(client.address == "127.0.0.1:" + port);
  CHECK(client.is_loopback);
  CHECK_FALSE(client.is_encrypted);
  CHECK(client.certificate.empty());
}

// --- Proxies and bans ------------------------------------------------------------------------------------------------

namespace {

std::uint64_t ended(auto& scene, DisconnectReason reason) {
  return scene.events().stats().ended[static_cast<std::size_t>(reason)];
}

/// Tells of clients as a log does.
struct Clients : chatproto::Observer {
  void connected(std::uint64_t, std::string_view address) override {
    seen.push_back("connected " + std::string(address));
  }
  void refused(std::string_view address, chatproto::RefusalReason reason) override {
    seen.push_back(std::string(to_string(reason)) + ' ' + std::string(address));
  }
  Lines seen;
};

Options observed_by(Clients& clients) {
  Options options;
  options.observer = &clients;
  return options;
}

}  // namespace

TEST_CASE("a client that comes through a proxy is the one that its header names", "[link]") {
  Clients clients;
  Scene scene(observed_by(clients), true);
  auto& service = scene.begin();
  scene.run_posted();
  CHECK(clients.seen.empty());
  std::string_view const all = "PROXY TCP4 203.0.113.7 127.0.0.1 50312 1\r\na\nb\n";
  auto const split = GENERATE(std::size_t(1), std::size_t(43), std::size_t(44), std::size_t(46));
  scene.far_sends(all.substr(0, split));
  for (auto i = 0; i < 20; ++i) scene.run_posted();
  CHECK(scene.handshakes == (split >= 43));
  scene.far_sends(all.substr(split));
  REQUIRE(scene.run_until([&] { return has_seen(service, "b"); }));
  service.seen.erase(std::remove(service.seen.begin(), service.seen.end(), "(flush)"), service.seen.end());
  CHECK(service.seen == Lines{"(open)", "a", "b"});
  CHECK(clients.seen == Lines{"connected 203.0.113.7:50312"});
  CHECK(scene.seen_origin.address().to_string() == "203.0.113.7");
  CHECK(scene.handshakes == 1);
  CHECK(scene.link().due() == never);
}

TEST_CASE("a part of a proxy's header does not keep a link busy", "[link]") {
  Scene scene({}, true);
  scene.begin();
  scene.far_sends("PROXY TCP4 203.0");
  auto idle = 0;
  CHECK(scene.run_until([&] { return !scene.run_posted() && ++idle > 10; }));
  scene.far_sends(".113.7 127.0.0.1 50312 1\r\na\n");
  CHECK(scene.run_until([&] { return has_seen(scene.service(), "a"); }));
}

TEST_CASE("a proxy that names no client is the client, without limits", "[link]") {
  Clients clients;
  Scene scene(observed_by(clients), true);
  scene.refusal = chatproto::RefusalReason::too_many;
  auto& service = scene.begin();
  scene.far_sends("PROXY UNKNOWN\r\na\n");
  REQUIRE(scene.run_until([&] { return has_seen(service, "a"); }));
  CHECK(clients.seen == Lines{"connected " + chatproto::detail::to_text(scene.remote.local_endpoint())});
}

TEST_CASE("a proxy without a valid header in time is disconnected", "[link]") {
  Clients clients;
  auto options = observed_by(clients);
  if (GENERATE(true, false)) {
    Scene scene(options, true);
    scene.begin();
    scene.far_sends("slogin:bob\n");
    CHECK(scene.ends());
    CHECK(ended(scene, DisconnectReason::handshake) == 1);
    CHECK(scene.service().seen.empty());
  } else {
    options.login_deadline = 0ms;
    Scene scene(options, true);
    scene.begin();
    CHECK(scene.deadlines == 1);
    scene.link().ask_if_overdue();
    CHECK(scene.ends());
    CHECK(ended(scene, DisconnectReason::handshake) == 1);
    CHECK(scene.handshakes == 1);
  }
  CHECK(clients.seen.size() == 1);
  CHECK(clients.seen.at(0).starts_with("connected 127.0.0.1:"));
}

TEST_CASE("a client that comes through a proxy may be refused", "[link]") {
  Clients clients;
  Scene scene(observed_by(clients), true);
  scene.refusal = chatproto::RefusalReason::too_many;
  scene.begin();
  scene.far_sends("PROXY TCP4 203.0.113.7 127.0.0.1 50312 1\r\nslogin:bob\n");
  CHECK(scene.far_reads_all() == "err:too many clients from your address\n(end)");
  scene.remote.close();
  CHECK(scene.ends());
  CHECK(scene.service().seen.empty());
  CHECK(clients.seen == Lines{"connected 203.0.113.7:50312", "too_many 203.0.113.7:50312"});
  CHECK(ended(scene, DisconnectReason::refused) == 1);
}

TEST_CASE("a client whose address is banned is ended, and no other", "[link]") {
  Scene scene({}, GENERATE(true, false));
  scene.begin();
  scene.link().end_if_banned();
  scene.run_posted();
  REQUIRE_FALSE(scene.ended());
  scene.banned = "127.0.0.1";
  scene.link().end_if_banned();
  scene.run_posted();
  // The proxy itself is not the client. (In a link without one, the link has ended.)
  if (scene.ended()) {
    CHECK(ended(scene, DisconnectReason::banned) == 1);
    return;
  }
  scene.banned = "203.0.113.7";
  scene.far_sends("PROXY TCP4 203.0.113.7 127.0.0.1 50312 1\r\na\n");
  REQUIRE(scene.run_until([&] { return has_seen(scene.service(), "a"); }));
  scene.link().end_if_banned();
  CHECK(scene.ends());
  CHECK(ended(scene, DisconnectReason::banned) == 1);
}

TEST_CASE("a list of links has those in a handshake in front", "[link]") {
  struct Number {
    std::uint32_t& slot() { return place; }
    int value;
    std::uint32_t place = 0;
  };
  chatproto::detail::LinkList<Number> list;
  std::vector<std::shared_ptr<Number>> numbers;
  auto const seen = [&] {
    std::vector<int> values;
    list.for_each_handshake([&](Number const& number) { values.push_back(number.value); });
    std::sort(values.begin(), values.end());
    return values;
  };
  for (auto i = 0; i < 6; ++i) {
    numbers.push_back(std::make_shared<Number>(Number{i}));
    list.add(numbers.back(), i % 2 == 1);
  }
  CHECK(list.size() == 6);
  CHECK(seen() == std::vector{1, 3, 5});
  CHECK(list.handshakes() == 3);
  list.handshake_ended(*numbers[1]);
  CHECK(seen() == std::vector{3, 5});
  CHECK_FALSE(list.remove(*numbers[0]));
  CHECK_FALSE(list.remove(*numbers[1]));
  CHECK(numbers[1].use_count() == 1);
  CHECK(seen() == std::vector{3, 5});
  list.use([](auto const& links) {
    for (std::size_t i = 0; i < links.size(); ++i) CHECK(links[i]->place == i);
  });
  for (auto const i : {5, 3}) list.handshake_ended(*numbers[static_cast<std::size_t>(i)]);
  CHECK(seen().empty());
  for (auto const i : {4, 2, 5}) CHECK_FALSE(list.remove(*numbers[static_cast<std::size_t>(i)]));
  CHECK(list.remove(*numbers[3]));
}

TEST_CASE("a peer may outlive its link, and then sends nothing", "[link]") {
  Scene scene;
  auto& service = scene.begin();
  std::optional peer(scene.peer());
  peer->abort();
  CHECK(scene.run_until([&] { return scene.ended(); }));
  CHECK(peer->send("a:\n") == PushResult::closed);
  peer->close();
  peer->abort();
  CHECK_FALSE(scene.run_posted());
  CHECK(has_seen(service, "(gone)"));
  CHECK_FALSE(scene.watch().expired());
  peer.reset();
  CHECK(scene.watch().expired());
}

TEST_CASE("a service that throws loses only its client, and the session is destroyed", "[link]") {
  Scene scene;
  auto& service = scene.service();
  auto const fail = [](auto&&...) { throw std::runtime_error("a service failed"); };
  SECTION("open") {
    service.on_open = fail;
    scene.begin();
    CHECK(service.seen.empty());
  }
  SECTION("on_line") {
    service.on_line = fail;
    scene.begin();
    scene.far_sends("a\nb\n");
    CHECK(scene.ends());
    CHECK(service.seen == Lines{"(open)", "a", "(gone)"});
  }
  SECTION("flush") {
    service.on_flush = fail;
    scene.begin();
    scene.far_sends("a\nb\n");
    CHECK(scene.ends());
    CHECK(service.seen == Lines{"(open)", "a", "b", "(flush)", "(gone)"});
  }
  CHECK(scene.ends());
  CHECK(scene.far_reads() == "(end)");
}
