// SPDX-License-Identifier: BSL-1.0
/// @file
/// A threading policy and a service, put together.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <asio/basic_stream_socket.hpp>
#include <asio/dispatch.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/post.hpp>

#include <chatproto/chat_service.hpp>
#include <chatproto/detail/acceptor.hpp>
#include <chatproto/detail/link.hpp>
#include <chatproto/detail/listener.hpp>
#include <chatproto/service.hpp>
#include <chatproto/threading.hpp>

namespace chatproto {

/// What a server can be told; each has a default that suits a public chat.
struct ServerOptions {
  /// The TCP port to listen on; 0 takes a free one, see `Server::port`.
  std::uint16_t port = 0;
  /// The one address to listen on, as text; empty: all addresses, IPv6 and IPv4.
  std::string address = {};
  /// Threads of a policy that has a fixed number of them; 0: as many as the machine has cores.
  unsigned threads = 0;
  /// Bytes that may wait for one client that does not read, before it is cut. See `MessageQueue`.
  std::size_t queue_limit = MessageQueue::default_limit;
  /// A client that has not logged in after this time is closed, where the service has logins.
  std::chrono::milliseconds login_deadline = std::chrono::seconds(10);
  /// A client for which something waits and that takes nothing for this time is cut.
  std::chrono::milliseconds write_deadline = std::chrono::seconds(10);
  /// How long a closed client may take to close its side, so that it can read our last words.
  std::chrono::milliseconds linger = std::chrono::seconds(2);
  /// How long `stop()` waits for clients to take what waits for them.
  std::chrono::milliseconds drain = std::chrono::seconds(10);
};

/// How to stop.
enum class Stop : std::uint8_t {
  drain,  ///< Accept and read no more, write what waits, then close; cut whoever has not taken it in `drain` time.
  now,    ///< Cut everybody.
};

/// A server: listens, gives each client an executor (`Policy`) and a session (`Svc`), until it is stopped.
///
/// @code
/// chatproto::Server<chatproto::ThreadPool> server({.port = 47374});
/// server.run();
/// @endcode
///
/// An error of accepting never ends it: when descriptors or memory are short it tries again after 10 ms, doubling to
/// 1 s; those who are connected are served meanwhile.
///
/// Thread safety: distinct objects: safe. Shared objects: `stop`, `port` and `service` from any thread; `run` from one.
template <ThreadingPolicy Policy, Service Svc = ChatService>
class Server {
 public:
  using executor_type = typename Policy::executor_type;  ///< of one client

  /// Listens. `service_args` make the service. Throws `std::system_error`: the address is bad or cannot be bound, or
  /// the policy cannot start its threads.
  template <class... Args>
    requires std::constructible_from<Svc, Args...>
  explicit Server(ServerOptions options = {}, Args&&... service_args)
      : options_(std::move(options)),
        service_(std::forward<Args>(service_args)...),
        ticker_(io_),
        drain_(io_),
        acceptor_(*this, options_.address, options_.port),
        policy_(make_policy(options_.threads)) {}
  Server(Server const&) = delete;
  Server& operator=(Server const&) = delete;
  /// Cuts those who are still connected, if `run()` was left by an exception.
  ~Server() {
    acceptor_.stop();
    for (auto const& link : links()) link->abort();
    policy_.join();
  }

  /// The port that it listens on.
  std::uint16_t port() const noexcept { return acceptor_.port(); }
  /// The service.
  Svc& service() noexcept { return service_; }
  /// What it was told.
  ServerOptions const& options() const noexcept { return options_; }
  /// The context on which clients are accepted, run by `run()`: for a `signal_set` or a timer of the program's own.
  asio::io_context& context() noexcept { return io_; }

  /// Serves until it is stopped and the last client has ended. Call it once.
  void run() {
    acceptor_.start();
    io_.run();
    policy_.join();
  }

  /// Makes `run()` return; if it was not called yet, as soon as it is. Returns at once. Idempotent; `Stop::now` hastens
  /// a drain under way. From any thread, also from a session.
  void stop(Stop how = Stop::drain) {
    asio::post(io_, [this, how] { do_stop(how); });
  }

 private:
  using Link = detail::Link<Server>;
  using Acceptor = detail::Acceptor<Server, Policy>;
  friend Link;
  friend Acceptor;

  static Policy make_policy(unsigned threads) {
    if constexpr (std::constructible_from<Policy, unsigned>)
      return Policy(threads != 0 ? threads : std::max(1u, std::thread::hardware_concurrency()));
    else
      return Policy();
  }

  void do_stop(Stop how) {
    if (stopping_ && how == Stop::drain) return;
    stopping_ = true;
    acceptor_.stop();
    if (how == Stop::now) {
      for (auto const& link : links()) link->abort();
    } else {
      // Who is closed gets no more, so first nobody says more: what was answered by ok is then in every queue.
      std::shared_ptr<void> const last_reader(nullptr, [this](void*) {
        asio::post(io_, [this] {
          for (auto const& link : links()) link->close();
        });
      });
      for (auto const& link : links()) link->stop_reading(last_reader);
      drain_.expires_after(options_.drain);
      drain_.async_wait([this](std::error_code const& ec) {
        if (!ec) do_stop(Stop::now);
      });
    }
    finish_if_empty();
  }

  void finish_if_empty() {
    std::lock_guard const lock(mutex_);
    if (stopping_ && links_.empty()) io_.stop();
  }

  std::vector<std::shared_ptr<Link>> links() {
    std::lock_guard const lock(mutex_);
    return links_;
  }

  /// A client is there.
  void add(asio::basic_stream_socket<asio::ip::tcp, executor_type> socket) {
    auto link = std::make_shared<Link>(*this, std::move(socket));
    auto const executor = link->executor();
    {
      std::lock_guard const lock(mutex_);
      link->slot = links_.size();
      links_.push_back(link);
    }
    asio::dispatch(executor, [link = std::move(link)] { link->start(); });
  }

  /// A link has ended: on its executor.
  void remove(Link& link) {
    std::shared_ptr<Link> last;  // released after the lock
    std::lock_guard const lock(mutex_);
    last = std::move(links_[link.slot]);
    links_[link.slot] = std::move(links_.back());
    if (links_[link.slot]) links_[link.slot]->slot = link.slot;
    links_.pop_back();
    if (links_.empty()) asio::post(io_, [this] { finish_if_empty(); });
  }

  /// A link has got a deadline: from any thread. One timer looks after all of them, and only while there are any.
  void watch_deadlines() {
    if (!ticking_.exchange(true)) asio::post(io_, [this] { tick_later(); });
  }

  void tick_later() {
    ticker_.expires_after(std::clamp<std::chrono::milliseconds>(
        std::min({options_.login_deadline, options_.write_deadline, options_.linger}) / 4, std::chrono::milliseconds(5),
        std::chrono::seconds(1)));
    ticker_.async_wait([this](std::error_code const&) { tick(); });
  }

  void tick() {
    ticking_ = false;
    auto const now = Link::Clock::now();
    auto any = false;
    std::vector<std::shared_ptr<Link>> overdue;
    {
      std::lock_guard const lock(mutex_);
      for (auto const& link : links_) {
        any = any || link->due() != Link::Clock::time_point::max();
        if (link->due() <= now) overdue.push_back(link);
      }
    }
    for (auto const& link : overdue) link->ask_if_overdue();
    if (any) watch_deadlines();
  }

  ServerOptions const options_;
  Svc service_;
  asio::io_context io_{1};
  detail::ContextTimer ticker_, drain_;
  Acceptor acceptor_;
  bool stopping_ = false;
  std::atomic<bool> ticking_ = false;
  std::mutex mutex_;  // of links_; no other lock is taken within it
  std::vector<std::shared_ptr<Link>> links_;
  Policy policy_;  // last: its threads end before anything that they use
};

}  // namespace chatproto
