// SPDX-License-Identifier: BSL-1.0
#include <chatproto/connection.hpp>

#include <chatproto/server.hpp>

#include <chrono>
#include <cstddef>
#include <deque>
#include <functional>
#include <future>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <asio/bind_cancellation_slot.hpp>
#include <asio/co_spawn.hpp>
#include <asio/read_until.hpp>
#include <asio/strand.hpp>
#include <asio/use_awaitable.hpp>
#include <asio/use_future.hpp>
#include <asio/write.hpp>

#include "catch.hpp"
#include "socket_support.hpp"

namespace {

using namespace chatproto;
using namespace std::chrono_literals;
using asio::ip::tcp;

// A scripted peer. The system accepts and buffers, so one thread can play both sides.
class Script {
 public:
  std::string port() const { return std::to_string(acceptor_.local_endpoint().port()); }
  void accept() { acceptor_.accept(peer_.emplace(context_)); }
  void write(std::string const& bytes) { asio::write(*peer_, asio::buffer(bytes)); }
  std::string read_line() {
    auto const size = asio::read_until(*peer_, asio::dynamic_buffer(input_), '\n');
    auto line = input_.substr(0, size);
    input_.erase(0, size);
    return line;
  }
  void close() { peer_.reset(); }
  tcp::socket take() { return std::move(*peer_); }

 private:
  asio::io_context context_;
  tcp::acceptor acceptor_{context_, tcp::endpoint(asio::ip::address_v4::loopback(), 0)};
  std::optional<tcp::socket> peer_;
  std::string input_;
};

// A connection and the script that it is connected to; on a context of the test's if one is given.
struct Pair {
  explicit Pair(Connection c = Connection()) : connection(std::move(c)) {
    connection.connect("127.0.0.1", script.port());
    script.accept();
  }
  Script script;
  Connection connection;
};

// A port on which a connection is neither accepted nor refused, because the listener's queue is full.
class Unanswered {
 public:
  Unanswered() {
    acceptor_.open(tcp::v4());
    acceptor_.bind({asio::ip::address_v4::loopback(), 0});
    acceptor_.listen(0);
    for (auto i = 0; i < 8; ++i) {
      auto& socket = sockets_.emplace_back(context_);
      socket.open(tcp::v4());
      socket.non_blocking(true);
      std::error_code ignored;
      ::connect(socket.native_handle(), acceptor_.local_endpoint().data(),
                static_cast<socklen_t>(acceptor_.local_endpoint().size()));
    }
  }
  std::string port() const { return std::to_string(acceptor_.local_endpoint().port()); }

 private:
  asio::io_context context_;
  tcp::acceptor acceptor_{context_};
  std::deque<tcp::socket> sockets_;
};

// Runs a context in a thread while it lives.
class Running {
 public:
  ~Running() {
    guard_.reset();
    thread_.join();
  }
  asio::io_context context{1};

 private:
  asio::executor_work_guard<asio::io_context::executor_type> guard_{context.get_executor()};
  std::thread thread_{[this] { context.run(); }};
};

std::error_code error_of(auto const& call) {
  try {
    call();
  } catch (std::system_error const& error) {
    return error.code();
  }
  return {};
}

// Returns the error of a future that `io` fulfils. The context's thread drops its exception first: TSan does not see
// libstdc++'s reference count of exceptions.
std::error_code error_of(Running& io, auto future) {
  future.wait();
  asio::post(io.context, asio::use_future).get();
  return error_of([&] { future.get(); });
}

// A user-defined service: returns each line.
struct Echo {
  static constexpr std::string_view refusal = R"({"error":"line too long"})";

  struct Session {
    Peer peer;
    void on_line(std::string_view line) const { peer.send(std::string(line) + '\n'); }
    void on_bad_line(std::error_code) const { peer.send(std::string(refusal) + '\n'); }
  };
  Session open(Peer peer) { return {std::move(peer)}; }
};

auto const aborted = std::error_code(asio::error::operation_aborted);
auto const timed_out = std::error_code(asio::error::timed_out);
auto const eof = std::error_code(asio::error::eof);

}  // namespace

TEST_CASE("Connection: a conversation with a server, by blocking calls") {
  Server<ThreadPool> server({.threads = 1});
  std::thread running([&] { server.run(); });
  auto const port = std::to_string(server.port());
  {
    Connection alice, bob;
    alice.connect("localhost", port);
    CHECK(alice.is_open());
    CHECK(alice.request(Message("rlogin", "alice")).tag == "ok");
    CHECK(alice.request(Message("join", "cafe")).tag == "ok");
    bob.connect("127.0.0.1", port);
    CHECK(bob.request(Message("slogin", "bob")).tag == "ok");
    CHECK(bob.request(Message("sendall", "too early")).tag == "err");
    CHECK(bob.request(Message("join", "cafe")).tag == "ok");
    CHECK(bob.request(Message("sendall", "hey everybody!")).tag == "ok");
    CHECK(alice.receive() == Message("delivery", "cafe:bob:hey everybody!"));
    CHECK(bob.request(Message("quit", "")).tag == "ok");
    CHECK(error_of([&] { bob.receive(); }) == eof);
  }
  server.stop();
  running.join();
}

TEST_CASE("Connection: sends exactly the line, and takes lines with LF and CR LF, however split") {
  Pair p;
  p.connection.send(Message("sendall", " a:b "));
  CHECK(p.script.read_line() == "sendall: a:b \n");
  p.script.write("ok:on");
  p.script.write("e\r\nok:two\n");
  CHECK(p.connection.receive() == Message("ok", "one"));
  CHECK(p.connection.receive() == Message("ok", "two"));
}

TEST_CASE("Connection: a request keeps what comes before its reply for receive") {
  Pair p;
  p.script.write("delivery:cafe:bob:1\ndelivery:cafe:bob:2\nok:joined\ndelivery:cafe:bob:3\n");
  CHECK(p.connection.request(Message("join", "cafe")) == Message("ok", "joined"));
  for (auto const* text : {"1", "2", "3"})
    CHECK(p.connection.receive() == Message("delivery", std::string("cafe:bob:") + text));
}

TEST_CASE("Connection: a request keeps no more than the inbox limit") {
  Pair p;
  SECTION("it ends, the connection too, and what it has kept can still be received") {
    p.connection.inbox_limit(0);
    p.script.write("delivery:cafe:bob:1\n");
    CHECK(error_of([&] { p.connection.request(Message("join", "cafe")); }) == Errc::inbox_full);
    CHECK_FALSE(p.connection.is_open());
    CHECK(p.connection.receive() == Message("delivery", "cafe:bob:1"));
    CHECK(error_of([&] { p.connection.receive(); }));
  }
  SECTION("by default too, from a server that never stops") {
    auto const flood = std::async(std::launch::async, [&] {
      std::string deliveries;
      while (deliveries.size() < 60'000) deliveries += "delivery:cafe:bob:" + std::string(230, 'x') + '\n';
      try {
        for (std::size_t sent = 0; sent < 64u << 20; sent += deliveries.size()) p.script.write(deliveries);
        p.script.write("ok:\n");
      } catch (std::system_error const&) {  // the connection has closed
      }
    });
    CHECK(error_of([&] { p.connection.request(Message("join", "cafe")); }) == Errc::inbox_full);
    p.connection.close();
  }
  SECTION("what is received makes room, and so does a new connection") {
    p.connection.inbox_limit(1000);
    for (auto i = 0; i < 100; ++i) {
      p.script.write("delivery:cafe:bob:x\nok:\n");
      CHECK(p.connection.request(Message("join", "cafe")).tag == "ok");
      if (i % 5 != 0) continue;
      p.connection.connect("127.0.0.1", p.script.port());
      p.script.accept();
    }
    for (auto i = 0; i < 100; ++i) {
      p.script.write("delivery:cafe:bob:x\nok:\n");
      CHECK(p.connection.request(Message("join", "cafe")).tag == "ok");
      CHECK(p.connection.receive().tag == "delivery");
    }
  }
  SECTION("an asynchronous one") {
    asio::io_context context;
    Pair other{Connection(context)};
    other.connection.inbox_limit(0);
    other.script.write("delivery:cafe:bob:1\n");
    std::error_code ec;
    Message kept;
    other.connection.async_request(Message("join", "cafe"), [&](std::error_code result, Message const&) {
      ec = result;
      other.connection.async_receive([&](std::error_code, Message const& message) { kept = message; });
    });
    context.run();
    CHECK(ec == Errc::inbox_full);
    CHECK_FALSE(other.connection.is_open());
    CHECK(kept == Message("delivery", "cafe:bob:1"));
  }
}

TEST_CASE("Connection: a request fails on a message that is neither a reply nor a delivery") {
  Pair p;
  p.script.write("frob:x\nok:late\n");
  CHECK(error_of([&] { p.connection.request(Message("join", "cafe")); }) == Errc::unexpected);
}

TEST_CASE("Connection: a line that is not a message is an error, and the next message can be received") {
  Pair p;
  p.script.write("hello\n" + std::string(300, 'x') + "\nok:\n");
  CHECK(error_of([&] { p.connection.receive(); }) == Errc::malformed);
  CHECK(error_of([&] { p.connection.receive(); }) == Errc::line_too_long);
  CHECK(p.connection.receive() == Message("ok", ""));
}

TEST_CASE("Connection: a message that cannot be encoded is not sent") {
  Pair p;
  CHECK(error_of([&] { p.connection.send(Message("sendall", "a\nquit:")); }) == Errc::invalid_payload);
  CHECK(error_of([&] { p.connection.request(Message("sendall", std::string(255, 'x'))); }) == Errc::line_too_long);
  std::error_code ec;
  p.connection.send(Message("sendall", "next"), ec);
  CHECK_FALSE(ec);
  CHECK(p.script.read_line() == "sendall:next\n");
}

TEST_CASE("Connection: lines that are not messages") {
  Pair p;
  p.connection.send_line("X: Alice");
  p.connection.send_line("");
  p.connection.send_line(std::string(254, 'x'));
  CHECK(p.script.read_line() == "X: Alice\n");
  CHECK(p.script.read_line() == "\n");
  CHECK(p.script.read_line() == std::string(254, 'x') + "\n");
  CHECK(error_of([&] { p.connection.send_line(std::string(255, 'x')); }) == Errc::line_too_long);
  CHECK(error_of([&] { p.connection.send_line("a\nb"); }) == Errc::invalid_payload);
  CHECK(error_of([&] { p.connection.send_line("a\r"); }) == Errc::invalid_payload);
  p.script.write("Y: Bob\r\n\n" + std::string(300, 'x') + "\nok:\nunfini");
  CHECK(p.connection.receive_line() == "Y: Bob");
  CHECK(p.connection.receive_line().empty());
  CHECK(error_of([&] { p.connection.receive_line(); }) == Errc::line_too_long);
  CHECK(p.connection.receive() == Message("ok", ""));
  p.connection.time_limit(std::chrono::milliseconds(1));
  CHECK(error_of([&] { p.connection.receive_line(); }) == timed_out);
  p.connection.time_limit({});
  p.script.write("shed\n");
  CHECK(p.connection.receive_line() == "unfinished");
  p.script.close();
  CHECK(error_of([&] { p.connection.receive_line(); }) == eof);
}

TEST_CASE("Connection: the line limit can be changed") {
  Running io;
  Script script;
  Connection c(io.context);
  c.line_limit(12);
  c.connect("127.0.0.1", script.port());
  script.accept();
  auto const fits = Message("sendall", "abc"), too_long = Message("sendall", "abcd");
  SECTION("of what is sent") {
    script.write("ok:\nok:\n");
    c.send(fits);
    c.send_line("sendall:abc");
    c.request(fits);
    c.async_send(fits, asio::use_future).get();
    c.async_send_line("sendall:abc", asio::use_future).get();
    c.async_request(fits, asio::use_future).get();
    CHECK(error_of([&] { c.send(too_long); }) == Errc::line_too_long);
    CHECK(error_of([&] { c.send_line("sendall:abcd"); }) == Errc::line_too_long);
    CHECK(error_of([&] { c.request(too_long); }) == Errc::line_too_long);
    CHECK(error_of(io, c.async_send(too_long, asio::use_future)) == Errc::line_too_long);
    CHECK(error_of(io, c.async_send_line("sendall:abcd", asio::use_future)) == Errc::line_too_long);
    CHECK(error_of(io, c.async_request(too_long, asio::use_future)) == Errc::line_too_long);
    c.send_line("end");
    for (auto i = 0; i < 6; ++i) CHECK(script.read_line() == "sendall:abc\n");
    CHECK(script.read_line() == "end\n");
  }
  SECTION("of what comes in") {
    for (auto i = 0; i < 4; ++i) script.write("sendall:abc\nsendall:ab\r\nsendall:abcd\nsendall:abc\r\n");
    CHECK(c.receive() == fits);
    CHECK(c.receive() == Message("sendall", "ab"));
    CHECK(error_of([&] { c.receive(); }) == Errc::line_too_long);
    CHECK(error_of([&] { c.receive(); }) == Errc::line_too_long);
    CHECK(c.receive_line() == "sendall:abc");
    CHECK(c.receive_line() == "sendall:ab");
    CHECK(error_of([&] { c.receive_line(); }) == Errc::line_too_long);
    CHECK(error_of([&] { c.receive_line(); }) == Errc::line_too_long);
    CHECK(c.async_receive(asio::use_future).get() == fits);
    CHECK(c.async_receive(asio::use_future).get() == Message("sendall", "ab"));
    CHECK(error_of(io, c.async_receive(asio::use_future)) == Errc::line_too_long);
    CHECK(error_of(io, c.async_receive(asio::use_future)) == Errc::line_too_long);
    CHECK(c.async_receive_line(asio::use_future).get() == "sendall:abc");
    CHECK(c.async_receive_line(asio::use_future).get() == "sendall:ab");
    CHECK(error_of(io, c.async_receive_line(asio::use_future)) == Errc::line_too_long);
    CHECK(error_of(io, c.async_receive_line(asio::use_future)) == Errc::line_too_long);
    script.write("ok:longer than it\nok:reply\n");
    CHECK(error_of([&] { c.request(fits); }) == Errc::line_too_long);
    CHECK(c.receive() == Message("ok", "reply"));
  }
  SECTION("also when it is connected again, and when it is moved") {
    auto moved = std::move(c);
    moved.connect("127.0.0.1", script.port());
    script.accept();
    script.write("sendall:abc\nsendall:abcd\n");
    CHECK(moved.receive() == fits);
    CHECK(error_of([&] { moved.receive(); }) == Errc::line_too_long);
    CHECK(error_of([&] { moved.send(too_long); }) == Errc::line_too_long);
  }
  SECTION("from now on, also of a line that came in part, and of what was read but not returned") {
    script.write("ok:\nabc");
    CHECK(c.receive() == Message("ok", ""));
    c.time_limit(1ms);
    CHECK(error_of([&] { c.receive_line(); }) == timed_out);
    c.time_limit({});
    c.line_limit(500);
    c.send(too_long);
    CHECK(script.read_line() == "sendall:abcd\n");
    auto const rest = std::string(496, 'x');
    script.write(rest + "\nhello\nabcd\nabc\n");
    CHECK(c.receive_line() == "abc" + rest);
    CHECK(c.receive_line() == "hello");
    c.line_limit(4);
    CHECK(error_of([&] { c.receive_line(); }) == Errc::line_too_long);
    CHECK(c.receive_line() == "abc");
  }
  SECTION("with 1 only empty lines fit, with 0 none") {
    c.line_limit(1);
    c.send_line("");
    CHECK(script.read_line() == "\n");
    CHECK(error_of([&] { c.send_line("x"); }) == Errc::line_too_long);
    script.write("\nx\n\n\n");
    CHECK(c.receive_line().empty());
    CHECK(error_of([&] { c.receive_line(); }) == Errc::line_too_long);
    c.line_limit(0);
    CHECK(error_of([&] { c.send_line(""); }) == Errc::line_too_long);
    CHECK(error_of([&] { c.receive_line(); }) == Errc::line_too_long);
    c.line_limit(max_line);
    CHECK(c.receive_line().empty());
  }
  SECTION("as large as you like") {
    c.line_limit(std::numeric_limits<std::size_t>::max());
    script.write(std::string(20'000, 'x') + '\n');
    CHECK(c.receive_line() == std::string(20'000, 'x'));
    c.send_line(std::string(1000, 'x'));
    CHECK(script.read_line().size() == 1001);
  }
}

TEMPLATE_TEST_CASE("Connection: lines of 64 KiB to and from a server that accepts them", "", ThreadPerClient,
                   ThreadPool, StrandPool) {
  constexpr std::size_t limit = 64 * 1024;
  auto options = test::patient();
  options.line_limit = limit;
  test::ServerThread<TestType, Echo> server(options);
  auto const port = std::to_string(server.port());
  auto const json = [](std::size_t size) {
    std::string const head = R"({"id":7,"text":")", tail = R"("})";
    auto text = head;
    for (auto i = 0; text.size() + tail.size() < size; ++i) text += static_cast<char>('a' + i % 26);
    return text + tail;
  };
  auto const most = limit - 1;  // length of a line without its terminator

  SECTION("by blocking calls") {
    Connection c;
    c.line_limit(limit);
    c.connect("127.0.0.1", port);
    for (auto const size : {std::size_t{60'000}, most}) {
      c.send_line(json(size));
      CHECK(c.receive_line() == json(size));
      auto const message = Message("ok", json(size - 3));
      CHECK(c.request(message) == message);
      c.send(message);
      CHECK(c.receive() == message);
    }
    CHECK(error_of([&] { c.send_line(json(most + 1)); }) == Errc::line_too_long);
    CHECK(error_of([&] { c.request(Message("ok", json(most - 2))); }) == Errc::line_too_long);
    c.line_limit(limit + 1);
    c.send_line(json(most + 1));
    CHECK(c.receive_line() == Echo::refusal);
    c.send_line(json(most));
    c.send_line("[]");
    c.line_limit(limit - 1);
    CHECK(error_of([&] { c.receive_line(); }) == Errc::line_too_long);
    CHECK(c.receive_line() == "[]");
  }
  SECTION("by asynchronous ones") {
    Running io;
    Connection c(io.context);
    c.line_limit(limit);
    c.async_connect("127.0.0.1", port, asio::use_future).get();
    for (auto const size : {std::size_t{60'000}, most}) {
      c.async_send_line(json(size), asio::use_future).get();
      CHECK(c.async_receive_line(asio::use_future).get() == json(size));
      auto const message = Message("ok", json(size - 3));
      CHECK(c.async_request(message, asio::use_future).get() == message);
      c.async_send(message, asio::use_future).get();
      CHECK(c.async_receive(asio::use_future).get() == message);
    }
    CHECK(error_of(io, c.async_send_line(json(most + 1), asio::use_future)) == Errc::line_too_long);
    CHECK(error_of(io, c.async_request(Message("ok", json(most - 2)), asio::use_future)) == Errc::line_too_long);
    c.line_limit(limit + 1);
    c.async_send_line(json(most + 1), asio::use_future).get();
    CHECK(c.async_receive_line(asio::use_future).get() == Echo::refusal);
    c.async_send_line(json(most), asio::use_future).get();
    c.async_send_line("[]", asio::use_future).get();
    c.line_limit(limit - 1);
    CHECK(error_of(io, c.async_receive_line(asio::use_future)) == Errc::line_too_long);
    CHECK(c.async_receive_line(asio::use_future).get() == "[]");
  }
}

TEST_CASE("Connection: takes a socket that was accepted") {
  Pair p;
  Connection accepted(p.script.take());
  accepted.send_line("hello");
  CHECK(p.connection.receive_line() == "hello");
  asio::io_context context;
  CHECK(error_of([&] { Connection never{tcp::socket(context)}; }) == asio::error::bad_descriptor);
}

TEST_CASE("Connection: nobody listens, no such host, not connected, the other end has closed") {
  std::string port;
  {
    Script gone;
    port = gone.port();
  }
  Connection c;
  CHECK(error_of([&] { c.connect("127.0.0.1", port); }) == asio::error::connection_refused);
  CHECK_FALSE(c.is_open());
  CHECK(error_of([&] { c.connect("no.such.host.invalid", port); }));
  CHECK(error_of([&] { c.connect("127.0.0.1", "no-such-service"); }));
  CHECK(error_of([&] { c.send(Message("quit", "")); }));
  CHECK(error_of([&] { c.receive(); }));
  Pair p;
  p.script.write("ok:last\nunfinished");
  p.script.close();
  CHECK(p.connection.receive() == Message("ok", "last"));
  CHECK(error_of([&] { p.connection.receive(); }) == eof);
}

TEST_CASE("Connection: can be connected again, and moved") {
  Pair p;
  p.script.write("half a li");
  auto moved = std::move(p.connection);
  moved.connect("127.0.0.1", p.script.port());
  p.script.accept();
  p.script.write("ok:new\n");
  CHECK(moved.receive() == Message("ok", "new"));
}

TEST_CASE("Connection: blocking calls work on a context that nobody runs") {
  asio::io_context context;
  Pair p{Connection(context)};
  p.script.write("ok:\n");
  CHECK(p.connection.request(Message("join", "cafe")) == Message("ok", ""));
}

TEST_CASE("Connection: time limits of blocking calls") {
  SECTION("receive loses nothing") {
    Pair p;
    p.connection.time_limit(20ms);
    p.script.write("ok:ha");
    CHECK(error_of([&] { p.connection.receive(); }) == timed_out);
    p.script.write("lf\n");
    p.connection.time_limit(0ms);
    CHECK(p.connection.receive() == Message("ok", "half"));
  }
  SECTION("request closes, so that a late reply is nobody else's") {
    Pair p;
    p.connection.time_limit(20ms);
    CHECK(error_of([&] { p.connection.request(Message("join", "cafe")); }) == timed_out);
    CHECK_FALSE(p.connection.is_open());
  }
  SECTION("send to somebody who does not read") {
    Pair p;
    p.connection.time_limit(20ms);
    std::error_code ec;
    while (!ec) p.connection.send(Message("sendall", std::string(200, 'x')), ec);
    CHECK(ec == timed_out);
    CHECK_FALSE(p.connection.is_open());
  }
  SECTION("request to somebody who never stops") {
    Pair p;
    p.connection.inbox_limit(std::numeric_limits<std::size_t>::max());
    p.connection.time_limit(20ms);
    auto const flood = std::async(std::launch::async, [&] {
      std::string deliveries;
      while (deliveries.size() < 60'000) deliveries += "delivery:a:b:\n";  // these take longer to read than to write
      try {
        for (std::size_t sent = 0; sent < 64u << 20; sent += deliveries.size()) p.script.write(deliveries);
        p.script.write("ok:\n");
      } catch (std::system_error const&) {  // the connection has closed
      }
    });
    CHECK(error_of([&] { p.connection.request(Message("join", "cafe")); }) == timed_out);
    CHECK_FALSE(p.connection.is_open());
  }
#ifdef __linux__  // elsewhere a full queue refuses connections
  SECTION("connect") {
    Unanswered nobody;
    Connection c;
    c.time_limit(20ms);
    CHECK(error_of([&] { c.connect("127.0.0.1", nobody.port()); }) == timed_out);
  }
#endif
}

TEST_CASE("Connection: a blocking call is cancelled by another thread") {
  auto const cancelled_by_thread = [](Connection& c, auto const& call) {
    auto canceller = std::async(std::launch::async, [&] {
      std::this_thread::sleep_for(20ms);  // most likely during the call, but not necessarily
      c.cancel();
    });
    auto const ec = error_of(call);
    canceller.get();
    return ec;
  };
  SECTION("receive") {
    Pair p;
    CHECK(cancelled_by_thread(p.connection, [&] { p.connection.receive(); }) == aborted);
    CHECK(error_of([&] { p.connection.send(Message("quit", "")); }) == aborted);  // until it is connected again
    p.connection.connect("127.0.0.1", p.script.port());
    CHECK_NOTHROW(p.connection.send(Message("quit", "")));
  }
  SECTION("request") {
    Pair p;
    CHECK(cancelled_by_thread(p.connection, [&] { p.connection.request(Message("quit", "")); }) == aborted);
    CHECK_FALSE(p.connection.is_open());  // the late reply would be taken for another's
  }
  SECTION("send") {
    Pair p;
    CHECK(cancelled_by_thread(p.connection, [&] {
            for (;;) p.connection.send(Message("sendall", std::string(200, 'x')));
          }) == aborted);
  }
#ifdef __linux__
  SECTION("connect") {
    Unanswered nobody;
    Connection c;
    CHECK(cancelled_by_thread(c, [&] { c.connect("127.0.0.1", nobody.port()); }) == aborted);
  }
#endif
}

TEST_CASE("Connection: asynchronous operations with callbacks, on the caller's context") {
  asio::io_context context;
  Script script;
  Connection c(context);
  std::vector<std::string> seen;
  c.async_connect("127.0.0.1", script.port(), [&](std::error_code ec) {
    REQUIRE_FALSE(ec);
    script.accept();
    script.write("delivery:cafe:bob:early\nok:joined\n");
    c.async_request(Message("join", "cafe"), [&](std::error_code request_ec, Message reply) {
      CHECK_FALSE(request_ec);
      seen.push_back(reply.payload);
      c.async_receive([&](std::error_code receive_ec, Message message) {
        CHECK_FALSE(receive_ec);
        seen.push_back(message.payload);
        c.async_send(Message("quit", ""), [&](std::error_code send_ec) {
          CHECK_FALSE(send_ec);
          seen.push_back("sent");
        });
        CHECK(seen.size() == 2);  // never called back from within the initiating function
      });
    });
  });
  context.run();
  CHECK(seen == std::vector<std::string>{"joined", "cafe:bob:early", "sent"});
  CHECK(script.read_line() == "join:cafe\n");
  CHECK(script.read_line() == "quit:\n");
}

TEST_CASE("Connection: asynchronous operations with futures") {
  Running io;
  Script script;
  Connection c(io.context);
  c.async_connect("localhost", script.port(), asio::use_future).get();
  script.accept();
  auto reply = c.async_request(Message("join", "cafe"), asio::use_future);
  CHECK(script.read_line() == "join:cafe\n");
  script.write("ok:in\n");
  CHECK(reply.get() == Message("ok", "in"));
  auto next = c.async_receive(asio::use_future);  // full duplex
  c.async_send(Message("sendall", "x"), asio::use_future).get();
  CHECK(script.read_line() == "sendall:x\n");
  c.async_send_line("a line", asio::use_future).get();
  CHECK(script.read_line() == "a line\n");
  CHECK(error_of(io, c.async_send_line("a\nb", asio::use_future)) == Errc::invalid_payload);
  script.write("junk\nmore junk\n");
  CHECK(error_of(io, std::move(next)) == Errc::malformed);
  CHECK(c.async_receive_line(asio::use_future).get() == "more junk");
  CHECK(error_of(io, c.async_send(Message("BAD", ""), asio::use_future)) == Errc::malformed);
  script.close();
  CHECK(error_of(io, c.async_receive(asio::use_future)) == eof);
  CHECK(error_of(io, c.async_connect("no.such.host.invalid", "1", asio::use_future)));
}

#ifdef ASIO_HAS_CO_AWAIT
TEST_CASE("Connection: asynchronous operations with coroutines, on a strand") {
  asio::io_context context;
  Script script;
  auto const conversation = [&]() -> asio::awaitable<Message> {
    Connection c(asio::make_strand(context));
    auto const port = script.port();
    co_await c.async_connect("127.0.0.1", port, asio::use_awaitable);
    script.accept();
    script.write("ok:in\ndelivery:cafe:bob:x\n");
    Message const join("join", "cafe");
    auto reply = co_await c.async_request(join, asio::use_awaitable);
    CHECK(reply == Message("ok", "in"));
    auto delivery = co_await c.async_receive(asio::use_awaitable);
    co_return delivery;
  };
  auto result = asio::co_spawn(context, conversation(), asio::use_future);
  context.run();
  CHECK(result.get() == Message("delivery", "cafe:bob:x"));
}
#endif

TEST_CASE("Connection: time limits of asynchronous operations, after which nothing is left to do") {
  asio::io_context context;
  std::error_code ec;
  auto const save = [&ec](std::error_code result, auto&&...) { ec = result; };
  SECTION("receive loses nothing") {
    Pair p{Connection(context)};
    p.script.write("ok:ha");
    p.connection.time_limit(20ms);
    p.connection.async_receive(save);
    context.run();  // returns: no operation is left behind
    CHECK(ec == timed_out);
    p.script.write("lf\n");
    p.connection.time_limit(0ms);
    Message message;
    p.connection.async_receive([&](std::error_code, Message m) { message = m; });
    context.restart();
    context.run();
    CHECK(message == Message("ok", "half"));
  }
  SECTION("request closes") {
    Pair p{Connection(context)};
    p.connection.time_limit(20ms);
    p.connection.async_request(Message("join", "cafe"), save);
    context.run();
    CHECK(ec == timed_out);
    CHECK_FALSE(p.connection.is_open());
  }
  SECTION("send to somebody who does not read") {
    Pair p{Connection(context)};
    p.connection.time_limit(20ms);
    p.connection.line_limit(100'000);
    // Bytes. Whether a part of the last text is sent depends on them.
    auto const size = GENERATE(std::size_t(200), 25000u, 30000u, 35000u, 40000u, 50000u, 60000u, 70000u, 80000u);
    std::function<void()> const send = [&] {
      p.connection.async_send(Message("sendall", std::string(size, 'x')), [&](std::error_code result) {
        ec = result;
        if (!ec) send();
      });
    };
    send();
    context.run();
    CHECK(ec == timed_out);
    CHECK_FALSE(p.connection.is_open());
  }
#ifdef __linux__
  SECTION("connect") {
    Unanswered nobody;
    Connection c(context);
    c.time_limit(20ms);
    c.async_connect("127.0.0.1", nobody.port(), save);
    context.run();
    CHECK(ec == timed_out);
  }
#endif
}

TEST_CASE("Connection: asynchronous operations are cancelled") {
  asio::io_context context;
  std::vector<std::error_code> results;
  auto const save = [&](std::error_code ec, auto&&...) { results.push_back(ec); };
  SECTION("one by its slot, and nothing is lost") {
    Pair p{Connection(context)};
    asio::cancellation_signal signal;
    p.connection.async_receive(asio::bind_cancellation_slot(signal.slot(), save));
    context.run_for(5ms);
    p.script.write("ok:still there\n");
    signal.emit(asio::cancellation_type::terminal);
    context.restart();
    context.run();
    if (results.back() == aborted) {  // unless it was done by then
      p.connection.async_receive(save);
      context.restart();
      context.run();
    }
    CHECK_FALSE(results.back());
  }
  SECTION("a connect by its slot") {
    Script script;
    Connection c(context);
    asio::cancellation_signal signal;
    c.async_connect("no.such.host.invalid", "1", asio::bind_cancellation_slot(signal.slot(), save));
    context.poll();
    signal.emit(asio::cancellation_type::terminal);
    context.run();
    REQUIRE(results.size() == 1);
    CHECK(results[0]);
  }
  SECTION("all by cancel, from another thread") {
    Pair p{Connection(context)};
    p.connection.async_receive(save);
    p.connection.async_send(Message("sendall", "x"), [](std::error_code) {});
    context.run_for(5ms);
    std::thread([&] { p.connection.cancel(); }).join();
    context.restart();
    context.run();
    CHECK(results == std::vector{aborted});
  }
  SECTION("all by the end of the connection") {
    std::optional<Pair> p(std::in_place, Connection(context));
    p->connection.async_receive(save);
    context.run_for(5ms);
    p.reset();
    context.restart();
    context.run();
    CHECK(results == std::vector{aborted});
  }
}
