// SPDX-License-Identifier: BSL-1.0
// Helpers for tests with sockets: a client, a server in a thread, and a conversation between them.
#pragma once

#include <chatproto/server.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <asio/buffer.hpp>
#include <asio/error.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/post.hpp>
#include <asio/socket_base.hpp>
#include <asio/use_future.hpp>
#include <asio/write.hpp>

#ifdef __linux__
#include <filesystem>
#include <iterator>

#include <sys/ioctl.h>
#endif

#include "support.hpp"

namespace test {

/// A plain client that waits for each result, and throws if it never comes. Must be used by the thread that created it.
class Client {
 public:
  /// Connects. With a small `receive_buffer` the client soon accepts no more bytes unless it reads.
  explicit Client(std::uint16_t port, char const* address = "127.0.0.1", int receive_buffer = 0) : socket_(context()) {
    asio::ip::tcp::endpoint const endpoint(asio::ip::make_address(address), port);
    socket_.open(endpoint.protocol());
    if (receive_buffer != 0) socket_.set_option(asio::socket_base::receive_buffer_size(receive_buffer));
    auto const ec = wait([&](auto done) { socket_.async_connect(endpoint, done); });
    if (ec) throw std::system_error(ec, "connect");
    socket_.set_option(asio::ip::tcp::no_delay(true));
  }

  void send(std::string_view bytes) {
    auto const ec = try_send(bytes);
    if (ec) throw std::system_error(ec, "send");
  }
  std::error_code try_send(std::string_view bytes) {
    return wait([&](auto done) {
      asio::async_write(socket_, asio::buffer(bytes), [done](std::error_code error, std::size_t) { done(error); });
    });
  }

  /// Returns the gist of the next line, "(end)" if the server has closed, or "(reset)" if the connection was reset.
  std::string next() {
    auto line = next_line();
    return line == "(end)" || line == "(reset)" ? line : gist(line);
  }
  /// Like next(), but returns the line as it is.
  std::string next_line() {
    for (;;) {
      auto const end = input_.find('\n', begin_);
      if (end != std::string::npos) {
        auto line = input_.substr(begin_, end - begin_);
        begin_ = end + 1;
        return line;
      }
      auto const ec = read_more();
      if (ec == asio::error::eof) return "(end)";
      if (ec) return "(reset)";
    }
  }
  Lines next(std::size_t count) {
    Lines lines(count);
    for (auto& line : lines) line = next();
    return lines;
  }
  /// Returns all gists up to and including the end.
  Lines rest() {
    Lines lines;
    do lines.push_back(next());
    while (lines.back() != "(end)" && lines.back() != "(reset)");
    return lines;
  }
  /// Returns the bytes after the last whole line.
  std::string unfinished() const { return input_.substr(begin_); }

  /// Waits up to `time` for a whole line or the end, and returns whether it has come.
  bool has_next(std::chrono::milliseconds time) {
    if (input_.find('\n', begin_) != std::string::npos) return true;
    auto came = false;
    socket_.async_wait(asio::socket_base::wait_read, [&](std::error_code const& ec) { came = !ec; });
    context().restart();
    context().run_for(time);
    if (!came) {
      socket_.cancel();
      context().restart();
      context().run();
    }
    return came;
  }

  std::string asks(std::string const& line) {
    send(line + "\n");
    return next();
  }

#ifdef __linux__
  /// Waits until all that was sent has reached the other end, which may not have read it yet. Returns false if it never
  /// does.
  bool has_arrived() {
    return eventually([this] {
      auto unacknowledged = 0;
      return ::ioctl(socket_.native_handle(), TIOCOUTQ, &unacknowledged) == 0 && unacknowledged == 0;
    });
  }
#endif

  auto descriptor() { return socket_.native_handle(); }
  void end_output() { socket_.shutdown(asio::socket_base::shutdown_send); }
  void reset() {
    socket_.set_option(asio::socket_base::linger(true, 0));
    socket_.close();
  }
  void close() { socket_.close(); }

 private:
#ifdef _WIN32  // a context has its own threads there, which an ending thread must not wait for
  asio::io_context& context() { return *context_; }
  std::unique_ptr<asio::io_context> context_ = std::make_unique<asio::io_context>(1);
#else
  /// One for each thread, so that a client costs one descriptor.
  static asio::io_context& context() {
    static thread_local asio::io_context mine(1);
    return mine;
  }
#endif

  std::error_code wait(auto start) {
    std::optional<std::error_code> result;
    start([&](std::error_code error) { result = error; });
    context().restart();
    context().run_for(patience);
    if (!result) {
      socket_.close();
      context().restart();
      context().run();
      throw std::runtime_error("waited in vain");
    }
    return *result;
  }

  std::error_code read_more() {
    input_.erase(0, std::exchange(begin_, 0));
    auto const old = input_.size();
    input_.resize(old + 64 * 1024);
    std::size_t size = 0;
    auto const ec = wait([&](auto done) {
      socket_.async_read_some(asio::buffer(&input_[old], input_.size() - old),
                              [done, &size](std::error_code error, std::size_t n) {
                                size = n;
                                done(error);
                              });
    });
    input_.resize(old + size);
    return ec;
  }

  asio::ip::tcp::socket socket_;
  std::string input_;
  std::size_t begin_ = 0;
};

/// Connects a client that sends `lines`, each of which must be answered by ok.
inline Client client_of(std::uint16_t port, std::initializer_list<std::string> lines, int receive_buffer = 0) {
  Client client(port, "127.0.0.1", receive_buffer);
  for (auto const& line : lines)
    if (auto const reply = client.asks(line); reply != "ok") throw std::runtime_error(line + " got " + reply);
  return client;
}
inline Client sender(std::uint16_t port, std::string const& user, std::string const& room) {
  return client_of(port, {"slogin:" + user, "join:" + room});
}
inline Client receiver(std::uint16_t port, std::string const& user, std::string const& room, int receive_buffer = 0) {
  return client_of(port, {"rlogin:" + user, "join:" + room}, receive_buffer);
}

/// Returns the options of tests that do not set their own: loopback only, and no deadline that expires during a test.
inline chatproto::ServerOptions patient() {
  chatproto::ServerOptions options;
  options.address = "127.0.0.1";
  options.threads = 2;
  options.login_deadline = options.write_deadline = options.linger = options.drain = std::chrono::hours(1);
  return options;
}

/// Records why a server's clients have ended.
struct Reasons : chatproto::Observer {
  void ended(std::uint64_t, chatproto::DisconnectReason reason, std::error_code const& error) override {
    std::lock_guard const lock(mutex);
    seen.emplace_back(to_string(reason));
    errors.push_back(error);
  }
  Lines all() {
    std::lock_guard const lock(mutex);
    return seen;
  }
  std::mutex mutex;
  Lines seen;
  std::vector<std::error_code> errors;
};

/// A server that runs in its own thread until it is stopped.
template <class Policy, class Service = chatproto::ChatService>
class ServerThread {
 public:
  using Server = chatproto::Server<Policy, Service>;

  template <class... Args>
  explicit ServerThread(chatproto::ServerOptions options = patient(), Args&&... service_args)
      : server_(std::move(options), std::forward<Args>(service_args)...),
        run_(std::async(std::launch::async, [this] { server_.run(); })) {}

  ~ServerThread() {
    server_.stop(chatproto::StopMode::now);
    if (ended()) return;
    std::fputs("a server cannot be stopped\n", stderr);
    std::abort();
  }

  Server* operator->() noexcept { return &server_; }
  std::uint16_t port() const noexcept { return server_.port(); }
  /// Waits for run() to return. Returns false if it does not within `time`.
  bool ended(std::chrono::milliseconds time = patience) const {
    return run_.wait_for(time) == std::future_status::ready;
  }
  bool running() const { return !ended(std::chrono::milliseconds(0)); }

 private:
  Server server_;
  std::future<void> run_;
};

/// A conversation that every chat server must support. Returns the differences as text; empty if there are none.
inline std::string converse(std::uint16_t port) {
  std::string wrong;
  auto const expect = [&](Client& client, char const* who, Lines const& lines) {
    for (auto const& line : lines) {
      auto const got = client.next();
      if (got != line) wrong.append(who).append(" got ").append(got).append(" and not ").append(line).append("\n");
    }
  };
  auto alice = receiver(port, "alice", "cafe"), alice_too = receiver(port, "alice", "cafe");
  auto carol = receiver(port, "carol", "bar");
  auto bob = sender(port, "bob", "cafe"), also_alice = sender(port, "alice", "cafe");

  bob.send("sendall:hey everybody!\r\nnonsense\nsenduser:alice:psst\n");
  expect(bob, "bob", {"ok", "err", "ok"});
  for (auto const c : std::string("sendall:slowly\n")) bob.send({&c, 1});
  expect(bob, "bob", {"ok"});
  also_alice.send("sendall:not to myself\nsenduser:alice:but so\nquit:\nsendall:too late\n");
  expect(also_alice, "alice the sender", {"ok", "ok", "ok", "(end)"});
  for (auto* each : {&alice, &alice_too})
    expect(*each, "alice",
           {"delivery:cafe:bob:hey everybody!", "delivery:cafe:bob:psst", "delivery:cafe:bob:slowly",
            "delivery:cafe:alice:but so"});

  bob.send("join:bar\nsendall:to the bar\nleave:\nsendall:to nobody\njoin:cafe\n");
  expect(bob, "bob", {"ok", "ok", "ok", "err", "ok"});
  alice.send("sendall:no\njoin:bar\n");
  expect(alice, "alice", {"err", "ok"});
  bob.send(std::string(1000, 'x') + "\nsendall:to the cafe\njoin:bar\nsendall:to both\nquit:\n");
  expect(bob, "bob", {"err", "ok", "ok", "ok", "ok", "(end)"});
  expect(alice, "alice", {"delivery:bar:bob:to both"});
  expect(alice_too, "alice, who stayed,", {"delivery:cafe:bob:to the cafe"});
  expect(carol, "carol", {"delivery:bar:bob:to the bar", "delivery:bar:bob:to both"});
  for (auto* each : {&alice, &alice_too, &carol}) {
    each->send("quit:\n");
    expect(*each, "a receiver", {"ok", "(end)"});
  }
  return wrong;
}

/// Waits until the accepting thread has polled its work several times.
inline void let_it_accept(asio::io_context& context) {
  for (auto i = 0; i < 5; ++i) asio::post(context, asio::use_future).wait();
}

#ifdef __linux__
inline std::ptrdiff_t descriptors() {
  return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), std::filesystem::directory_iterator());
}
#endif

}  // namespace test
