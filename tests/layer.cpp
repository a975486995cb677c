// SPDX-License-Identifier: BSL-1.0
#include <chatproto/layer.hpp>

#include <chatproto/connection.hpp>
#include <chatproto/server.hpp>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <future>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

#include <asio/buffer.hpp>
#include <asio/error.hpp>
#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/post.hpp>
#include <asio/socket_base.hpp>
#include <asio/use_future.hpp>
#include <asio/write.hpp>

#ifndef _WIN32
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>
#include <asio/local/connect_pair.hpp>
#include <asio/local/stream_protocol.hpp>
#endif

#include "catch.hpp"
#include "link_scene.hpp"
#include "socket_support.hpp"

using namespace std::chrono_literals;
using namespace link_scene;
using chatproto::Connection;
using chatproto::DisconnectReason;
using chatproto::Layer;
using chatproto::NativeSocket;
using chatproto::StopMode;
using test::Client;
using test::patient;
using test::Reasons;
using test::ServerThread;

#define POLICIES chatproto::ThreadPerClient, chatproto::ThreadPool, chatproto::StrandPool

namespace {

/// What the layers of a factory do and have seen.
struct Toy {
  std::atomic<bool> reads_only_if_all_is_written = false;
  std::atomic<bool> cannot_be_made = false, fails_to_read = false, fails_to_write = false;
  std::atomic<std::size_t> most_read = 1'000'000;  ///< bytes that a read returns
  std::string farewell{mark};                      ///< what tells the other end that nothing follows

  std::atomic<int> made = 0, closed = 0;
  std::atomic<int> misuse = 0;  ///< calls against the rules of `Layer`, or calls again and again for nothing

  static constexpr char key = 0x15, mark = static_cast<char>(0xff);
};

/// Returns what a toy layer makes of a text, or the text again.
std::string coded(std::string_view text) {
  std::string result(text);
  for (auto& c : result) c = static_cast<char>(c ^ Toy::key);
  return result;
}

constexpr std::string_view hello = "HI\n", answer = "YES";

/// The client says hello, and the server answers. Then each byte travels in disguise. What follows the last one is a
/// mark that cannot be one.
class ToyLayer final : public Layer {
 public:
  ToyLayer(Toy& toy, NativeSocket socket, bool is_server) : toy_(toy), socket_(socket), is_server_(is_server) {
    ++toy_.made;
    if (!is_server_) held_ = hello;
  }

  Result handshake() override {
    note(ready_);
    if (auto const held = flush(); held.error || held.wait != Wait::nothing) return {0, held.wait, held.error};
    auto const wanted = is_server_ ? hello : answer;
    while (met_ < wanted.size()) {
      if (auto const more = fill(); more.error || more.wait != Wait::nothing) return {0, more.wait, more.error};
      if (input_.empty()) return {0, Wait::nothing, make_error_code(std::errc::connection_aborted)};
      if (input_.front() != wanted[met_++]) return {0, Wait::nothing, make_error_code(std::errc::protocol_error)};
      input_.erase(0, 1);
      if (met_ == wanted.size() && is_server_) held_ = answer;
    }
    auto const held = flush();
    ready_ = !held.error && held.wait == Wait::nothing;
    return {0, held.wait, held.error};
  }
  Result read_some(char* bytes, std::size_t size) override {
    note(!ready_ || size == 0);
    if (toy_.fails_to_read) return {0, Wait::nothing, make_error_code(std::errc::bad_message)};
    if (toy_.reads_only_if_all_is_written && !held_.empty()) {
      flush();
      note(++vain_reads_ > 1000);
      if (vain_reads_ > 1000) return {0, Wait::nothing, make_error_code(std::errc::operation_canceled)};
      if (!held_.empty()) return {0, Wait::write, {}};
    }
    vain_reads_ = 0;
    if (auto const more = fill(); more.error || more.wait != Wait::nothing) return more;
    if (input_.empty()) return {0, Wait::nothing, make_error_code(std::errc::connection_aborted)};
    if (input_.front() == Toy::mark) return {};
    auto const n = std::min({input_.find(Toy::mark), input_.size(), size, toy_.most_read.load()});
    auto const text = coded(std::string_view(input_).substr(0, n));
    std::copy(text.begin(), text.end(), bytes);
    input_.erase(0, n);
    return {n, Wait::nothing, {}};
  }
  Result write(char const* bytes, std::size_t size) override {
    note(!ready_ || closed_);
    if (toy_.fails_to_write) return {0, Wait::nothing, make_error_code(std::errc::bad_message)};
    Result all;
    while (all.bytes < size && held_.empty()) {
      auto const n = std::min<std::size_t>(size - all.bytes, 16 * 1024);
      held_ = coded({bytes + all.bytes, n});
      all.bytes += n;
      all.error = flush().error;
    }
    if (!held_.empty()) all.wait = Wait::write;
    return all;
  }
  Result flush() override {
    std::size_t written = 0;
    while (written < held_.size()) {
#ifdef _WIN32
      auto const n = ::send(socket_, held_.data() + written, static_cast<int>(held_.size() - written), 0);
#else
      auto const n = ::send(socket_, held_.data() + written, held_.size() - written, MSG_NOSIGNAL);
#endif
      if (n < 0 && !would_block()) return {written, Wait::nothing, last_error()};
      if (n < 0) break;
      written += static_cast<std::size_t>(n);
    }
    held_.erase(0, written);
    return {written, held_.empty() ? Wait::nothing : Wait::write, {}};
  }
  bool has_input() const noexcept override {
    note(closed_ && ++vain_looks_ > 1000);
    return vain_looks_ <= 1000 && ready_ && !input_.empty();
  }
  void close_output() noexcept override {
    note(!ready_ || closed_);
    closed_ = true;
    ++toy_.closed;
    held_ += toy_.farewell;
  }
  std::string certificate() const override { return "toy"; }

 private:
  void note(bool wrong) const noexcept { toy_.misuse += wrong; }

  /// Reads from the socket if there is no input.
  Result fill() {
    if (!input_.empty()) return {};
    char buffer[4096];
#ifdef _WIN32
    auto const n = ::recv(socket_, buffer, static_cast<int>(sizeof buffer), 0);
#else
    auto const n = ::recv(socket_, buffer, sizeof buffer, 0);
#endif
    if (n < 0) return would_block() ? Result{0, Wait::read, {}} : Result{0, Wait::nothing, last_error()};
    input_.append(buffer, static_cast<std::size_t>(n));
    return {};
  }
  static std::error_code last_error() { return chatproto::detail::last_error(); }
  static bool would_block() { return last_error() == asio::error::would_block; }

  Toy& toy_;
  NativeSocket const socket_;
  bool const is_server_;
  bool ready_ = false, closed_ = false;
  std::size_t met_ = 0;  // bytes of the hello or answer
  std::string input_, held_;
  int vain_reads_ = 0;
  mutable int vain_looks_ = 0;
};

struct Toys final : chatproto::LayerFactory, Toy {
  explicit Toys(bool server = true) : is_server(server) {}
  std::unique_ptr<Layer> make_layer(NativeSocket socket, std::string_view host) override {
    if (cannot_be_made) throw std::system_error(make_error_code(std::errc::function_not_supported), "toy");
    misuse += host.empty() != is_server;
    return std::make_unique<ToyLayer>(*this, socket, is_server);
  }
  bool const is_server;
};

/// A link with a toy layer.
struct LayeredScene {
  explicit LayeredScene(Options options = {}) : scene(observed(options), false, toys) {}
  ~LayeredScene() { CHECK(toys->misuse == 0); }
  Options observed(Options options) {
    options.observer = &reasons;
    return options;
  }

  /// Lets the handshake happen.
  Scripted& meet() {
    auto& service = scene.begin();
    scene.far_sends(hello);
    CHECK(scene.far_reads() == answer);
    CHECK(scene.run_until([&] { return has_seen(service, "(open)"); }));
    return service;
  }
  /// Returns whether the link ends for this reason.
  bool ends(std::string const& why) { return scene.ends() && reasons.seen == Lines{why}; }
  void far_says(std::string_view text) { scene.far_sends(coded(text)); }
  std::string far_hears() {
    auto const bytes = scene.far_reads();
    return bytes.front() == '(' ? bytes : coded(bytes);
  }

  Reasons reasons;
  std::shared_ptr<Toys> toys = std::make_shared<Toys>();
  Scene<> scene;
};

std::string const end_mark = coded(std::string(1, Toy::mark)) + "(end)";

}  // namespace

// --- A link with a layer ---------------------------------------------------------------------------------------------

TEST_CASE("a session opens after the handshake of its layer", "[layer]") {
  LayeredScene s;
  auto& service = s.scene.begin();
  service.on_line = send_ok;
  for (auto const c : hello) {
    while (s.scene.run_posted()) continue;
    CHECK(service.seen.empty());
    CHECK(s.scene.handshakes == 0);
    s.scene.far_sends({&c, 1});
  }
  REQUIRE(s.scene.run_until([&] { return has_seen(service, "(open)"); }));
  CHECK(s.scene.handshakes == 1);
  CHECK(s.scene.far_reads() == answer);
  s.far_says("a\n");
  CHECK(s.far_hears() == "ok:\n");
  CHECK(service.seen == Lines{"(open)", "a", "(flush)"});
  s.scene.peer().close();
  CHECK(coded(s.scene.far_reads_all().substr(0, 1)) + "(end)" == end_mark);
  CHECK(s.toys->closed == 1);
}

TEST_CASE("a layer has read lines together with the handshake: the session gets them", "[layer]") {
  LayeredScene s;
  SECTION("at once") {
  }
  SECTION("some bytes at a time") {
    s.toys->most_read = 2;
  }
  auto& service = s.scene.begin();
  s.scene.far_sends(std::string(hello) + coded("a\nbb\nccc\nd"));
  CHECK(s.scene.run_until([&] { return has_seen(service, "ccc"); }));
  s.far_says("\n");
  CHECK(s.scene.run_until([&] { return has_seen(service, "d"); }));
  service.seen.erase(std::remove(service.seen.begin(), service.seen.end(), "(flush)"), service.seen.end());
  CHECK(service.seen == Lines{"(open)", "a", "bb", "ccc", "d"});
}

TEST_CASE("what a layer has read waits while its client is paused", "[layer]") {
  LayeredScene s;
  s.toys->most_read = 2;
  s.scene.service().on_line = [](Peer const& peer, std::string_view) { peer.pause(); };
  auto& service = s.scene.begin();
  s.scene.far_sends(std::string(hello) + coded("a\nb\n"));
  REQUIRE(s.scene.run_until([&] { return has_seen(service, "a"); }));
  while (s.scene.run_posted()) continue;
  CHECK_FALSE(has_seen(service, "b"));
  s.scene.peer().resume();
  CHECK(s.scene.run_until([&] { return has_seen(service, "b"); }));
}

TEST_CASE("a handshake that fails ends the link, without a session", "[layer]") {
  LayeredScene s;
  auto& service = s.scene.begin();
  std::string why = "handshake";
  SECTION("by what the client sends") {
    s.scene.far_sends("slogin:bob\n");
  }
  SECTION("by the end of the client's output") {
    s.scene.far_sends("HI");
    s.scene.remote.shutdown(tcp::socket::shutdown_send);
  }
  SECTION("by a reset") {
    s.scene.remote.set_option(asio::socket_base::linger(true, 0));
    s.scene.remote.close();
  }
  CHECK(s.ends(why));
  CHECK(s.scene.handshakes == 1);
  CHECK(service.seen.empty());
  CHECK(s.toys->closed == 0);
  CHECK(s.reasons.errors.at(0));
}

TEST_CASE("a layer that cannot be made costs its client", "[layer]") {
  LayeredScene s;
  s.toys->cannot_be_made = true;
  auto& service = s.scene.begin();
  CHECK(s.ends("failed"));
  CHECK(s.scene.handshakes == 1);
  CHECK(service.seen.empty());
}

TEST_CASE("a handshake has a deadline", "[layer]") {
  Options options;
  options.login_deadline = 0ms;
  LayeredScene s(options);
  auto& service = s.scene.begin();
  CHECK(s.scene.deadlines == 1);
  s.scene.far_sends("HI");
  s.scene.link().ask_if_overdue();
  CHECK(s.ends("handshake"));
  CHECK(s.scene.handshakes == 1);
  CHECK(service.seen.empty());
}

TEST_CASE("a deadline that has not passed leaves a handshake alone", "[layer]") {
  LayeredScene s;
  auto& service = s.scene.begin();
  s.scene.link().ask_if_overdue();
  while (s.scene.run_posted()) continue;
  s.scene.far_sends(hello);
  CHECK(s.scene.run_until([&] { return has_seen(service, "(open)"); }));
}

TEST_CASE("a handshake that takes too long for others is ended; one that is done is not", "[layer]") {
  LayeredScene s;
  SECTION("under way") {
    s.scene.begin();
    s.scene.link().end_handshake();
    CHECK(s.ends("handshake"));
  }
  SECTION("done") {
    auto& service = s.meet();
    s.scene.link().end_handshake();
    while (s.scene.run_posted()) continue;
    s.far_says("a\n");
    CHECK(s.scene.run_until([&] { return has_seen(service, "a"); }));
  }
  CHECK(s.scene.handshakes == 1);
}

TEST_CASE("a server that stops ends a handshake", "[layer]") {
  LayeredScene s;
  auto& service = s.scene.begin();
  s.scene.far_sends("HI");
  std::string why = "closed";
  SECTION("drain") {
    s.scene.link().stop_reading(nullptr);
    s.scene.peer().close();
  }
  SECTION("now") {
    s.scene.peer().abort();
    why = "aborted";
  }
  CHECK(s.ends(why));
  CHECK(service.seen.empty());
  CHECK(s.scene.handshakes == 1);
  CHECK(s.toys->closed == 0);
}

TEST_CASE("a host that drains learns when a client has done its handshake and logged in", "[layer]") {
  LayeredScene s;
  auto& service = s.scene.begin();
  service.logged_in = false;
  s.scene.link().be_awaited(nullptr);
  while (s.scene.run_posted()) continue;
  CHECK(s.scene.awaited == 1);
  SECTION("it does") {
    s.scene.far_sends(hello);
    REQUIRE(s.scene.run_until([&] { return has_seen(service, "(open)"); }));
    CHECK(s.scene.awaited == 1);
    service.logged_in = true;
    s.far_says("a\n");
    REQUIRE(s.scene.run_until([&] { return has_seen(service, "(flush)"); }));
  }
  SECTION("it fails") {
    s.scene.far_sends("HO");
    CHECK(s.ends("handshake"));
  }
  CHECK(s.scene.awaited == 0);
}

TEST_CASE("output that a layer holds is written later, in order", "[layer]") {
  LayeredScene s;
  s.meet();
  auto const sent = s.scene.push_all_sizes();
  s.scene.peer().close();
  auto const got = s.scene.far_reads_all();
  REQUIRE(got.size() == sent.size() + end_mark.size());
  CHECK((coded(got.substr(0, sent.size())) == sent));
  CHECK(coded(got.substr(sent.size(), 1)) + got.substr(sent.size() + 1) == end_mark);
}

TEST_CASE("a client that does not take what its layer holds is disconnected at the write deadline", "[layer]") {
  Options options;
  options.write_deadline = 0ms;
  LayeredScene s(options);
  SECTION("of its output") {
    s.meet();
    s.scene.stall();
    CHECK(s.scene.link().queued_bytes() == 0);  // the layer holds it
  }
  SECTION("of the close") {
    s.toys->farewell = std::string(3'000'000, Toy::mark);
    s.meet();
    s.scene.peer().close();
    REQUIRE(s.scene.run_until([&] { return s.toys->closed == 1; }));
  }
  while (s.scene.run_posted()) continue;
  s.scene.link().ask_if_overdue();
  CHECK(s.ends("write_deadline"));
}

TEST_CASE("a layer's close that the socket takes in parts is written, then the link shuts down", "[layer]") {
  LayeredScene s;
  s.toys->farewell = std::string(3'000'000, Toy::mark);
  s.meet();
  s.scene.peer().send("ok:\n");
  s.scene.peer().close();
  CHECK((s.scene.far_reads_all() == coded("ok:\n") + s.toys->farewell + "(end)"));
  s.scene.remote.close();
  CHECK(s.ends("closed"));
  CHECK(s.toys->closed == 1);
}

TEST_CASE("above the queue's limit, what a layer holds counts as not taken", "[layer]") {
  Options options;
  options.queue_limit = 100'000;
  LayeredScene s(options);
  s.meet();
  SECTION("a client that takes nothing is disconnected") {
    s.scene.stall();
    for (auto i = 0; i < 12 && !s.scene.ended(); ++i) {
      s.scene.push(std::string(10'000, 'x'));
      while (s.scene.run_posted()) continue;
    }
    CHECK(s.ends("overflow"));
  }
  SECTION("a client that takes some is not") {
    std::string got;
    for (auto i = 0; i < 300; ++i) {
      s.scene.push(std::string(10'000, 'x'));
      got += s.scene.far_reads(10'000);
    }
    while (got.size() < 3'000'000) got += s.scene.far_reads();
    CHECK((coded(got) == std::string(3'000'000, 'x')));
    CHECK_FALSE(s.scene.ended());
  }
}

TEST_CASE("a layer that must write before it can read reads when the socket has taken that", "[layer]") {
  LayeredScene s;
  s.toys->most_read = 2;
  auto& service = s.meet();
  auto const ok = [](Peer const& peer, std::string_view) { peer.send("ok:\n"); };
  std::string before;
  SECTION("input that comes then") {
    s.toys->reads_only_if_all_is_written = true;
    service.on_line = ok;
    before = s.scene.stall();
    s.scene.push(std::string(3'000'000, 'x'));
    before += std::string(3'000'000, 'x');
    s.far_says("a\nb\n");
  }
  SECTION("input that the layer has already") {
    service.on_line = [&](Peer const& peer, std::string_view line) {
      if (line == "a") {
        before = std::string(3'000'000, 'x');
        s.scene.push(before);
        s.toys->reads_only_if_all_is_written = true;
      }
      peer.send("ok:\n");
    };
    s.far_says("a\nb\n");
  }
  for (auto i = 0; i < 3; ++i) s.scene.run_posted();
  CHECK_FALSE(has_seen(service, "b"));
  std::string got;
  while (got.size() < before.size() + 8) {
    auto const bytes = s.scene.far_reads();
    REQUIRE(bytes.front() != '(');
    got += coded(bytes);
  }
  CHECK((got == before + "ok:\nok:\n"));
}

TEST_CASE("after a close the link reads the socket, not the layer", "[layer]") {
  LayeredScene s;
  s.toys->most_read = 2;
  auto& service = s.meet();
  service.on_line = [](Peer const& peer, std::string_view line) {
    if (line == "q") peer.close();
  };
  s.far_says("q\nmore that the layer has read\n");
  CHECK(coded(s.scene.far_reads_all().substr(0, 1)) + "(end)" == end_mark);
  for (auto i = 0; i < 3; ++i) s.scene.run_posted();
  s.far_says(std::string(1'000'000, 'x'));
  CHECK_FALSE(s.scene.ended());
  s.scene.remote.close();
  CHECK(s.ends("closed"));
  CHECK(service.seen == Lines{"(open)", "q", "(flush)", "(gone)"});
}

TEST_CASE("the end of input within a layer: pending output is written, then the link ends", "[layer]") {
  LayeredScene s;
  auto& service = s.meet();
  service.on_line = send_ok;
  auto const waiting = GENERATE(false, true) ? s.scene.stall() : std::string();
  s.scene.far_sends(coded("a\npart") + Toy::mark);
  REQUIRE(s.scene.run_until([&] { return has_seen(service, "(gone)"); }));
  auto got = s.scene.far_reads_all();
  REQUIRE(got.size() == waiting.size() + 4 + 1 + 5);
  CHECK((coded(got.substr(0, waiting.size() + 4)) == waiting + "ok:\n"));
  CHECK(got.ends_with(std::string(1, Toy::mark) + "(end)"));
  CHECK(s.ends("closed"));
}

TEST_CASE("an error of a layer ends its link", "[layer]") {
  LayeredScene s;
  auto& service = s.meet();
  SECTION("of a read") {
    s.toys->fails_to_read = true;
    s.far_says("a\n");
  }
  SECTION("the connection's end before the layer's") {
    s.scene.remote.shutdown(tcp::socket::shutdown_send);
  }
  SECTION("of a write") {
    s.toys->fails_to_write = true;
    s.scene.peer().send("ok:\n");
  }
  SECTION("a reset while the layer holds output") {
    s.scene.stall();
    s.scene.remote.set_option(asio::socket_base::linger(true, 0));
    s.scene.remote.close();
  }
  CHECK(s.ends("lost"));
  CHECK(service.seen == Lines{"(open)", "(gone)"});
  CHECK(s.toys->closed == 0);
  CHECK(s.reasons.errors.at(0));
}

// --- A server's listeners --------------------------------------------------------------------------------------------

namespace {

/// Options of a server with a plain listener and one with toys.
chatproto::ServerOptions both(std::shared_ptr<Toys> const& toys, chatproto::Observer* observer = nullptr) {
  auto options = patient();
  options.address.clear();
  options.listeners = {{.address = "127.0.0.1"}, {.address = "127.0.0.1", .layer = toys}};
  options.observer = observer;
  return options;
}

/// Toys for both ends, whose layers were used as they may be.
struct Ends {
  ~Ends() {
    CHECK(near_end->misuse == 0);
    CHECK(far_end->misuse == 0);
  }
  /// Returns a connection to the second listener of a server.
  Connection connect(auto& server) const {
    Connection connection;
    set_up(connection);
    connection.connect("127.0.0.1", std::to_string(server->port(1)));
    return connection;
  }
  void set_up(Connection& connection) const {
    connection.time_limit(test::patience);
    connection.layer(far_end);
  }
  std::shared_ptr<Toys> near_end = std::make_shared<Toys>(), far_end = std::make_shared<Toys>(false);
};

std::string ask(Connection& connection, std::string_view line) {
  return connection.request(chatproto::parse(line)).tag;
}

}  // namespace

TEMPLATE_TEST_CASE("clients of all listeners meet in one room", "[layer]", POLICIES) {
  Ends ends;
  ServerThread<TestType> server(both(ends.near_end));
  CHECK(server->port(0) == server->port());
  CHECK(server->port(1) != server->port());
  CHECK_THROWS_AS(server->port(2), std::out_of_range);
  auto alice = ends.connect(server), bob = ends.connect(server);
  for (auto const& line : {"rlogin:alice", "join:cafe"}) CHECK(ask(alice, line) == "ok");
  for (auto const& line : {"slogin:bob", "join:cafe"}) CHECK(ask(bob, line) == "ok");
  auto carol = test::receiver(server.port(), "carol", "cafe");
  auto dave = test::sender(server.port(), "dave", "cafe");
  CHECK(ask(bob, "sendall:hi") == "ok");
  CHECK(dave.asks("sendall:ho") == "ok");
  CHECK(carol.next(2) == Lines{"delivery:cafe:bob:hi", "delivery:cafe:dave:ho"});
  CHECK(alice.receive_line() == "delivery:cafe:bob:hi");
  CHECK(alice.receive_line() == "delivery:cafe:dave:ho");
  CHECK(ask(bob, "quit:") == "ok");
  std::error_code ec;
  bob.receive(ec);
  CHECK(ec == asio::error::eof);
}

TEMPLATE_TEST_CASE("a room's texts pass through a layer to a receiver that reads late", "[layer]", POLICIES) {
  Ends ends;
  auto options = both(ends.near_end);
  options.overflow = chatproto::Overflow::block_sender;
  options.queue_limit = 32 * 1024;
  options.send_buffer = 8 * 1024;
  ServerThread<TestType> server(options);
  auto alice = ends.connect(server), bob = ends.connect(server);
  for (auto const& line : {"rlogin:alice", "join:cafe"}) REQUIRE(ask(alice, line) == "ok");
  for (auto const& line : {"slogin:bob", "join:cafe"}) REQUIRE(ask(bob, line) == "ok");
  constexpr auto texts = 20'000;  // 4 MB, more than all buffers on the way
  auto const text = [](int i) { return std::to_string(i) + std::string(200, 'x'); };
  auto said = std::async(std::launch::async, [&] {
    auto oks = 0;
    for (auto i = 0; i < texts; i += 100) {
      for (auto k = i; k < i + 100; ++k) bob.send_line("sendall:" + text(k));
      for (auto k = i; k < i + 100; ++k) oks += bob.receive().tag == "ok";
    }
    return oks;
  });
  auto wrong = 0;
  for (auto i = 0; i < texts; ++i) wrong += alice.receive_line() != "delivery:cafe:bob:" + text(i);
  CHECK(wrong == 0);
  CHECK(said.get() == texts);
}

TEST_CASE("above the maximum number of handshakes, further clients wait and then get in", "[layer]") {
  Ends ends;
  Reasons reasons;
  auto options = both(ends.near_end, &reasons);
  options.max_handshakes = 1;
  SECTION("when the handshake is done") {
    ServerThread<chatproto::ThreadPool> server(options);
    Client slow(server->port(1));
    REQUIRE(test::eventually([&] { return server->stats().accepted == 1; }));
    Client second(server->port(1));
    second.send(std::string(hello) + coded("slogin:bob\n"));
    CHECK(Client(server->port(0)).asks("slogin:carol") == "ok");  // a plain one need not wait
    CHECK(server->stats().accepted == 2);
    slow.send(hello);
    CHECK(test::eventually([&] { return second.has_next(10ms) && server->stats().accepted == 3; }));
  }
  SECTION("when the client has gone") {
    ServerThread<chatproto::ThreadPool> server(options);
    Client slow(server->port(1));
    REQUIRE(test::eventually([&] { return server->stats().accepted == 1; }));
    slow.close();
    auto second = ends.connect(server);
    CHECK(ask(second, "slogin:bob") == "ok");
    CHECK(test::eventually([&] { return reasons.all() == Lines{"handshake"}; }));
  }
  SECTION("when the handshake has taken too long") {
    options.login_deadline = 400ms;
    ServerThread<chatproto::ThreadPool> server(options);
    Client slow(server->port(1));
    REQUIRE(test::eventually([&] { return server->stats().accepted == 1; }));
    Client second(server->port(1));
    CHECK(test::eventually([&] { return server->stats().accepted == 2; }));
    CHECK(slow.next() == "(end)");
    CHECK(test::eventually([&] { return !reasons.all().empty(); }));
    CHECK(reasons.all().at(0) == "handshake");
  }
}

TEMPLATE_TEST_CASE("a server stops although a handshake is under way", "[layer]", POLICIES) {
  Ends ends;
  Reasons reasons;
  auto const how = GENERATE(StopMode::drain, StopMode::now);
  auto options = both(ends.near_end, &reasons);
  options.drain = 10s;  // a tenth of it for the handshake
  ServerThread<TestType> server(options);
  Client client(server->port(1));
  client.send("HI");
  REQUIRE(test::eventually([&] { return ends.near_end->made == 1; }));
  server->stop(how);
  CHECK(server.ended());
  CHECK(reasons.seen == Lines{how == StopMode::drain ? "closed" : "aborted"});
}

TEST_CASE("a client of a layer that says nothing is disconnected", "[layer]") {
  Ends ends;
  Reasons reasons;
  auto options = both(ends.near_end, &reasons);
  options.login_deadline = 50ms;
  ServerThread<chatproto::ThreadPool> server(options);
  Client client(server->port(1));
  CHECK(client.next() == "(end)");
  CHECK(test::eventually([&] { return reasons.all() == Lines{"handshake"}; }));
}

TEST_CASE("options with listeners have no port or address besides", "[layer]") {
  chatproto::ServerOptions options;
  options.listeners = {{.address = "127.0.0.1"}};
  SECTION("port") {
    options.port = 1;
  }
  SECTION("address") {
    options.address = "127.0.0.1";
  }
  CHECK_THROWS_AS(chatproto::Server<chatproto::ThreadPool>(options), std::invalid_argument);
}

#ifndef _WIN32
TEST_CASE("a server takes over a socket that listens", "[layer]") {
  asio::io_context context;
  tcp::acceptor acceptor(context, tcp::endpoint(asio::ip::address_v4::loopback(), 0));
  auto const port = acceptor.local_endpoint().port();
  Client early(port);  // comes before the server
  auto options = patient();
  options.address.clear();
  options.listeners = {{.address = "127.0.0.1"}, {.descriptor = ::dup(acceptor.native_handle())}};
  acceptor.close();
  {
    ServerThread<chatproto::ThreadPool> server(options);
    CHECK(server->port(1) == port);
    CHECK(test::converse(port).empty());
    CHECK(early.asks("slogin:bob") == "ok");
    CHECK((::fcntl(options.listeners[1].descriptor, F_GETFD) & FD_CLOEXEC) != 0);
  }
  CHECK_THROWS_AS(Client(port), std::system_error);  // the server has closed it
}

TEST_CASE("a server does not take over what does not listen", "[layer]") {
  asio::io_context context;
  tcp::socket socket(context);
  socket.open(tcp::v4());
  asio::local::stream_protocol::socket other(context), another(context);
  asio::local::connect_pair(other, another);
  chatproto::ServerOptions options;
  int const descriptors[] = {socket.native_handle(), other.native_handle(), 99'999};
  options.listeners = {{.descriptor = descriptors[GENERATE(0, 1, 2)]}};
  CAPTURE(options.listeners[0].descriptor);
  try {
    chatproto::Server<chatproto::ThreadPool> const server(options);
    FAIL("it did");
  } catch (std::system_error const& error) {
    CHECK(std::string(error.what()).find("descriptor " + std::to_string(options.listeners[0].descriptor)) !=
          std::string::npos);
  }
}
#endif

// --- A Connection with a layer ---------------------------------------------------------------------------------------

TEST_CASE("a Connection talks through a layer", "[layer]") {
  Ends ends;
  ends.near_end->most_read = ends.far_end->most_read = GENERATE(1u, 3u, 1'000'000u);
  ServerThread<chatproto::ThreadPool> server(both(ends.near_end));
  auto const port = std::to_string(server->port(1));
  SECTION("blocking") {
    auto alice = ends.connect(server), bob = ends.connect(server);
    for (auto const& line : {"rlogin:alice", "join:cafe"}) CHECK(ask(alice, line) == "ok");
    for (auto const& line : {"slogin:bob", "join:cafe", "sendall:hi"}) CHECK(ask(bob, line) == "ok");
    CHECK(alice.receive_line() == "delivery:cafe:bob:hi");
    bob.close();
    CHECK_FALSE(bob.is_open());
    bob.connect("127.0.0.1", port);
    CHECK(ask(bob, "slogin:bob") == "ok");
  }
  SECTION("asynchronous") {
    asio::io_context context(1);
    auto guard = asio::make_work_guard(context);
    std::thread running([&] { context.run(); });
    {
      Connection alice(context), bob(context);
      ends.set_up(alice);
      ends.set_up(bob);
      for (auto* each : {&alice, &bob}) each->async_connect("127.0.0.1", port, asio::use_future).get();
      auto const tag = [](Connection& c, char const* line) {
        return c.async_request(chatproto::parse(line), asio::use_future).get().tag;
      };
      for (auto const& line : {"rlogin:alice", "join:cafe"}) CHECK(tag(alice, line) == "ok");
      auto heard = alice.async_receive(asio::use_future);
      for (auto const& line : {"slogin:bob", "join:cafe"}) CHECK(tag(bob, line) == "ok");
      for (auto i = 0; i < 100; ++i) bob.async_send_line("sendall:hi", asio::use_future).get();
      for (auto i = 0; i < 100; ++i) CHECK(bob.async_receive(asio::use_future).get().tag == "ok");
      CHECK(heard.get().payload == "cafe:bob:hi");
      for (auto i = 0; i < 99; ++i) CHECK(alice.async_receive_line(asio::use_future).get() == "delivery:cafe:bob:hi");
      asio::post(context, asio::use_future).wait();
    }
    guard.reset();
    running.join();
  }
}

namespace {

/// The other end of a Connection, which does only what the test does.
struct Far {
  Far() : acceptor(context, tcp::endpoint(asio::ip::address_v4::loopback(), 0)) {}
  std::string port() const { return std::to_string(acceptor.local_endpoint().port()); }
  asio::io_context context;
  tcp::acceptor acceptor;
};

}  // namespace

TEST_CASE("a handshake that gets no answer ends a connect by its time limit or by cancel()", "[layer]") {
  Ends ends;
  Far far_end;
  auto const cancels = GENERATE(false, true);
  std::error_code ec;
  Connection connection;
  connection.layer(ends.far_end);
  if (!cancels) connection.time_limit(50ms);
  std::thread canceller;
  auto const cancel = [&](Connection& each) {
    if (cancels)
      canceller = std::thread([&] {
        CHECK(test::eventually([&] { return ends.far_end->made == 1; }));
        each.cancel();
      });
  };
  SECTION("blocking") {
    cancel(connection);
    connection.connect("127.0.0.1", far_end.port(), ec);
    CHECK_FALSE(connection.is_open());
  }
  SECTION("asynchronous") {
    asio::io_context context(1);
    Connection other(context);
    other.layer(ends.far_end);
    if (!cancels) other.time_limit(50ms);
    other.async_connect("127.0.0.1", far_end.port(), [&](std::error_code result) { ec = result; });
    cancel(other);
    context.run();
    CHECK_FALSE(other.is_open());
  }
  if (canceller.joinable()) canceller.join();
  CHECK(ec == (cancels ? std::error_code(asio::error::operation_aborted) : asio::error::timed_out));
}

TEST_CASE("a handshake that fails is the error of the connect, and the object can connect again", "[layer]") {
  Ends ends;
  ServerThread<chatproto::ThreadPool> server(both(ends.near_end));
  Connection connection;
  ends.set_up(connection);
  std::error_code ec;
  SECTION("a wrong answer") {
    connection.connect("127.0.0.1", std::to_string(server->port(0)), ec);  // which answers err
    CHECK(ec == std::errc::protocol_error);
  }
  SECTION("no layer") {
    ends.far_end->cannot_be_made = true;
    connection.connect("127.0.0.1", std::to_string(server->port(1)), ec);
    CHECK(ec == std::errc::function_not_supported);
    ends.far_end->cannot_be_made = false;
  }
  connection.connect("127.0.0.1", std::to_string(server->port(1)));
  CHECK(ask(connection, "slogin:bob") == "ok");
}

TEST_CASE("a send that the other end does not take ends by its time limit", "[layer]") {
  Ends ends;
  Far far_end;
  auto accepted = std::async(std::launch::async, [&] {
    auto socket = far_end.acceptor.accept();
    asio::write(socket, asio::buffer(answer));
    return socket;
  });
  Connection connection;
  ends.set_up(connection);
  connection.connect("127.0.0.1", far_end.port());
  auto const socket = accepted.get();
  connection.line_limit(2'000'000);
  connection.time_limit(50ms);
  std::error_code ec;
  for (auto i = 0; !ec && i < 1000; ++i) connection.send_line(std::string(1'000'000, 'x'), ec);
  CHECK(ec == asio::error::timed_out);
  CHECK_FALSE(connection.is_open());
}
