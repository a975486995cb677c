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
#include <asio/error.hpp>
#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/post.hpp>

#include <chatproto/chat_service.hpp>
#include <chatproto/detail/acceptor.hpp>
#include <chatproto/detail/alarm.hpp>
#include <chatproto/detail/events.hpp>
#include <chatproto/detail/link.hpp>
#include <chatproto/detail/listener.hpp>
#include <chatproto/detail/reserved.hpp>
#include <chatproto/observer.hpp>
#include <chatproto/server_options.hpp>
#include <chatproto/service.hpp>
#include <chatproto/threading.hpp>

namespace chatproto {

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
/// An error of accepting never ends it: when descriptors or memory are short it tries again later, and those who are connected are
/// served meanwhile. Memory that is short, or an exception of a service, costs the client that it was for.
///
/// Thread safety: distinct objects: safe. Shared objects: `stop`, `port`, `service` and `stats` from any thread; `run` from one.
template <ThreadingPolicy Policy, Service Svc = ChatService>
class Server {
 public:
  using executor_type = typename Policy::executor_type;  ///< of one client

  /// Listens. `service_args` make the service. Throws `std::system_error`: the address is bad or cannot be bound, or
  /// the policy cannot start its threads.
  template <class... Args>
    requires std::constructible_from<Svc, Args...>
  explicit Server(ServerOptions options = {}, Args&&... service_args)
      : options_(with_max_clients(std::move(options))),
        service_(std::forward<Args>(service_args)...),
        events_(options_.observer),
        ticker_(io_, tick_memory_, detail::callback<&Server::tick>(this)),
        deadline_(io_, deadline_memory_, detail::callback<&Server::stop_now>(this)),
        acceptor_(*this, options_.address, options_.port),
        policy_(make_policy(threads_of(options_))) {}
  Server(Server const&) = delete;
  Server& operator=(Server const&) = delete;
  /// Cuts those who are still connected, if `run()` was left by an exception.
  ~Server() {
    acceptor_.stop();
    cut_all();
    constexpr TimePoint failed;
    while (ask_overdue(failed) == failed) std::this_thread::yield();  // those that only tick() would end
    policy_.join();
  }

  /// The port that it listens on.
  std::uint16_t port() const noexcept { return acceptor_.port(); }
  /// The service.
  Svc& service() noexcept { return service_; }
  /// What it was told; `max_clients` is the limit that holds, never 0.
  ServerOptions const& options() const noexcept { return options_; }
  /// What it has counted: a snapshot, whose figures need not be of quite the same moment. Any thread.
  ServerStats stats() const {
    auto stats = events_.stats();
    std::lock_guard const lock(mutex_);
    for (auto const& link : links_) stats.queued += link->queued_bytes();
    return stats;
  }
  /// The context on which clients are accepted, run by `run()`: for a `signal_set` or a timer of the program's own.
  asio::io_context& context() noexcept { return io_; }

  /// Serves until it is stopped and the last client has ended. Call it once. What a handler of the program's own on `context()`
  /// throws comes out of it.
  void run() {
    auto const work = asio::make_work_guard(io_);  // until the last client has ended: see ThreadingPolicy
    acceptor_.start();
    io_.run();
    policy_.join();
  }

  /// Makes `run()` return; if it was not called yet, as soon as it is. Returns at once. Idempotent; `Stop::now` hastens
  /// a drain under way. From any thread, also from a session. Needs no memory.
  void stop(Stop how = Stop::drain) noexcept {
    if (how == Stop::now) {
      if (!now_asked_.exchange(true)) post(now_memory_, detail::callback<&Server::stop_now>(this));
    } else {
      if (!drain_asked_.exchange(true)) post(drain_memory_, detail::callback<&Server::drain>(this));
    }
  }

 private:
  using Link = detail::Link<Server>;
  using Acceptor = detail::Acceptor<Server, Policy>;
  using TimePoint = std::chrono::steady_clock::time_point;
  friend Link;
  friend Acceptor;

  /// Of a policy that is told how many.
  static unsigned threads_of(ServerOptions const& options) noexcept {
    if constexpr (!std::constructible_from<Policy, unsigned>) return 0;
    return options.threads != 0 ? options.threads : std::max(1u, std::thread::hardware_concurrency());
  }
  static ServerOptions with_max_clients(ServerOptions options) noexcept {
    if (options.max_clients == 0) options.max_clients = detail::client_limit<Policy>(threads_of(options));
    return options;
  }
  static Policy make_policy(unsigned threads) {
    if constexpr (std::constructible_from<Policy, unsigned>)
      return Policy(threads);
    else
      return Policy();
  }

  detail::Events& events() noexcept { return events_; }

  void post(detail::Reserved& memory, detail::Callback what) noexcept { asio::post(io_, memory(what)); }

  void stop_now() {
    stopping_ = true;
    acceptor_.stop();
    cut_all();
    finish_if_empty();
  }

  void cut_all() noexcept {
    std::lock_guard const lock(mutex_);
    for (auto const& link : links_) link->abort();
  }

  void drain() {
    if (std::exchange(stopping_, true)) return;
    acceptor_.stop();
    {
      // Who is closed gets no more, so first nobody says more: what was answered by ok is then in every queue. The last
      // link that has stopped reading lets go of this.
      auto const read_by_all = [](Server* s) { s->post(s->close_memory_, detail::callback<&Server::close_all>(s)); };
      std::shared_ptr<void> const reading(this, read_by_all, reader_memory_.template allocator<Server>());
      std::lock_guard const lock(mutex_);
      for (auto const& link : links_) link->stop_reading(reading);
    }
    deadline_.set(options_.drain);
    finish_if_empty();
  }

  void close_all() noexcept {
    std::lock_guard const lock(mutex_);
    for (auto const& link : links_) link->close();
  }

  void finish_if_empty() {
    std::lock_guard const lock(mutex_);
    if (stopping_ && links_.empty()) io_.stop();
  }
  void finish() {
    {
      std::lock_guard const lock(mutex_);
      finishing_ = false;
    }
    finish_if_empty();
  }

  /// Whether there is room for one more client.
  bool has_room() const {
    std::lock_guard const lock(mutex_);
    return links_.size() < options_.max_clients;
  }

  /// A client is there.
  void add(asio::basic_stream_socket<asio::ip::tcp, executor_type> socket) {
    auto const number = events_.accepted();
    std::shared_ptr<Link> link;
    try {
      link = std::make_shared<Link>(*this, std::move(socket), number);
      std::lock_guard const lock(mutex_);
      link->slot() = static_cast<std::uint32_t>(links_.size());
      links_.push_back(link);
    } catch (...) {
      events_.ended(number, Ended::failed, asio::error::no_memory);
      throw;
    }
    try {
      asio::dispatch(link->executor(), [link] { link->start(); });
    } catch (...) {
      link->drop();
      throw;
    }
  }

  /// A link has ended: on its executor.
  void remove(Link& link) noexcept {
    std::shared_ptr<Link> last;  // released after the lock
    std::lock_guard const lock(mutex_);
    auto& place = links_[link.slot()];
    last = std::move(place);
    place = std::move(links_.back());
    if (place) place->slot() = link.slot();
    links_.pop_back();
    if (links_.empty() && !std::exchange(finishing_, true))
      post(finish_memory_, detail::callback<&Server::finish>(this));
  }

  /// A link has got a deadline: from any thread. One timer looks after all of them, and only while there are any.
  void watch_deadlines() noexcept {
    if (!ticking_.exchange(true)) post(tick_memory_, detail::callback<&Server::tick_later>(this));
  }

  void tick_later() {
    ticker_.set(std::clamp<std::chrono::milliseconds>(
        std::min({options_.login_deadline, options_.write_deadline, options_.linger}) / 4, std::chrono::milliseconds(5),
        std::chrono::seconds(1)));
  }

  void tick() {
    ticking_.exchange(false);  // what was due before somebody found it true, is seen now
    if (ask_overdue(Link::Clock::now()) != TimePoint::max()) watch_deadlines();
  }

  /// Asks those that were due until then; returns when the first of all is due, `max()` if none is.
  TimePoint ask_overdue(TimePoint until) {
    auto first = TimePoint::max();
    std::lock_guard const lock(mutex_);
    for (auto const& link : links_) {
      auto const due = link->due();
      first = std::min(first, due);
      if (due <= until) link->ask_if_overdue();
    }
    return first;
  }

  /// A client may send again after this time: from any thread.
  void end_throttle_in(std::chrono::steady_clock::duration time, std::weak_ptr<Link> client) {
    asio::post(io_, [this, time, client = std::move(client)] {
      try {
        auto const timer = std::make_shared<detail::ContextTimer>(io_, time);
        timer->async_wait([timer, client](std::error_code const&) {
          if (auto const link = client.lock()) link->end_throttle();
        });
      } catch (...) {
        if (auto const link = client.lock()) link->abort();
      }
    });
  }

  ServerOptions const options_;
  Svc service_;
  detail::Events events_;
  // What the server itself waits for, and would be lost without when memory is short.
  detail::Reserved drain_memory_, now_memory_, deadline_memory_, reader_memory_, close_memory_, finish_memory_,
      tick_memory_, accept_memory_, retry_memory_, drop_input_memory_;
  asio::io_context io_{1};
  detail::Alarm ticker_, deadline_;
  Acceptor acceptor_;
  std::atomic<bool> drain_asked_ = false, now_asked_ = false;
  bool stopping_ = false;
  std::atomic<bool> ticking_ = false;
  mutable std::mutex mutex_;  // of links_ and finishing_; a queue's lock may be taken within it
  std::vector<std::shared_ptr<Link>> links_;
  bool finishing_ = false;  // a look whether it is over is under way
  Policy policy_;           // last: its threads end before anything that they use
};

}  // namespace chatproto
