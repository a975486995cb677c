// SPDX-License-Identifier: BSL-1.0
/// @file
/// A threading policy and a service, put together.
#pragma once

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <asio/buffer.hpp>
#include <asio/dispatch.hpp>
#include <asio/error.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/ip/v6_only.hpp>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>

#include <chatproto/chat_service.hpp>
#include <chatproto/detail/link.hpp>
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
        acceptor_(io_),
        retry_(io_),
        ticker_(io_),
        drain_(io_),
        policy_(make_policy(options_.threads)) {
    listen();
  }
  Server(Server const&) = delete;
  Server& operator=(Server const&) = delete;
  /// Cuts those who are still connected, if `run()` was left by an exception.
  ~Server() {
    for (auto const& link : links()) link->abort();
    next_executor_.reset();
    policy_.join();
  }

  /// The port that it listens on.
  std::uint16_t port() const noexcept { return port_; }
  /// The service.
  Svc& service() noexcept { return service_; }
  /// What it was told.
  ServerOptions const& options() const noexcept { return options_; }
  /// The context on which clients are accepted, run by `run()`: for a `signal_set` or a timer of the program's own.
  asio::io_context& context() noexcept { return io_; }

  /// Serves until it is stopped and the last client has ended. Call it once.
  void run() {
    accept_when_ready();
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
  friend Link;

  static Policy make_policy(unsigned threads) {
    if constexpr (std::constructible_from<Policy, unsigned>)
      return Policy(threads != 0 ? threads : std::max(1u, std::thread::hardware_concurrency()));
    else
      return Policy();
  }

  void listen() {
    using asio::ip::tcp;
    std::error_code ec;
    tcp::endpoint endpoint(tcp::v6(), options_.port);
    if (!options_.address.empty()) endpoint = {asio::ip::make_address(options_.address), options_.port};
    acceptor_.open(endpoint.protocol(), ec);
    if (ec && options_.address.empty()) {  // a machine without IPv6
      endpoint = {tcp::v4(), options_.port};
      acceptor_.open(endpoint.protocol());
    } else if (ec) {
      throw std::system_error(ec, "open");
    }
    if (options_.address.empty() && endpoint.protocol() == tcp::v6()) acceptor_.set_option(asio::ip::v6_only(false));
#ifdef _WIN32  // there SO_REUSEADDR would let a second server take the port
    acceptor_.set_option(asio::detail::socket_option::boolean<SOL_SOCKET, SO_EXCLUSIVEADDRUSE>(true));
#else  // so that it can be started again at once
    acceptor_.set_option(tcp::acceptor::reuse_address(true));
#endif
    acceptor_.bind(endpoint);
    acceptor_.listen(4096);  // the system takes what it allows
    acceptor_.non_blocking(true);
    port_ = acceptor_.local_endpoint().port();
  }

  void accept_when_ready() {
    if (!acceptor_.is_open()) return;
    acceptor_.async_wait(asio::ip::tcp::acceptor::wait_read, [this](std::error_code const& ec) {
      if (!acceptor_.is_open()) return;
      if (ec) return accept_later();
      accept();
    });
  }

  void accept_later() {
    retry_.expires_after(retry_delay_);
    retry_delay_ = std::min<std::chrono::milliseconds>(2 * retry_delay_, std::chrono::seconds(1));
    retry_.async_wait([this](std::error_code const&) { accept_when_ready(); });
  }

  void accept() {
    for (int i = 0; i < 64; ++i) {  // then let timers and stop() have their turn
      std::error_code ec;
      try {
        accept_one(ec);
      } catch (std::system_error const& error) {
        ec = error.code();
      } catch (...) {
        ec = asio::error::no_memory;
      }
      if (ec == asio::error::would_block || ec == asio::error::try_again) break;
      if (!ec)
        retry_delay_ = first_delay;
      else if (ec != asio::error::connection_aborted && ec != asio::error::interrupted &&
               ec != std::error_code(EPROTO, asio::error::get_system_category()))
        return accept_later();  // a shortage, or something that will not go away by asking again at once
    }
    accept_when_ready();
  }

  void accept_one(std::error_code& ec) {
    if (!next_executor_) {
      try {
        next_executor_.emplace(policy_.next_executor());
      } catch (std::system_error const& error) {
        if (is_shortage(error.code())) throw;
        return refuse_one(ec);
      }
    }
    typename Link::Socket socket(*next_executor_);
    acceptor_.accept(socket, ec);
    if (ec) return;
    next_executor_.reset();
    auto link = std::make_shared<Link>(*this, std::move(socket));
    auto executor = link->executor();
    add(link);
    asio::dispatch(executor, [link = std::move(link)] { link->start(); });
  }

  /// No thread could be made for a client: it is told, and the others are served.
  void refuse_one(std::error_code& ec) {
    auto const socket = std::make_shared<asio::ip::tcp::socket>(io_);
    acceptor_.accept(*socket, ec);
    if (ec) return;
    std::error_code ignored;
    socket->non_blocking(true, ignored);
    socket->write_some(asio::buffer(std::string_view("err:server full\n")), ignored);
    socket->shutdown(asio::socket_base::shutdown_send, ignored);
    auto const timer = std::make_shared<asio::steady_timer>(io_, options_.linger);
    timer->async_wait([socket, timer](std::error_code const&) {
      std::error_code closed;
      socket->close(closed);
    });
    drop_input(socket, timer);
  }

  /// What a refused client sends must not reset the connection, see `detail::Link`.
  void drop_input(std::shared_ptr<asio::ip::tcp::socket> const& socket,
                  std::shared_ptr<asio::steady_timer> const& timer) {
    socket->async_wait(asio::socket_base::wait_read, [this, socket, timer](std::error_code ec) {
      char dropped[4096];
      if (!ec) socket->read_some(asio::buffer(dropped), ec);
      if (ec && ec != asio::error::would_block) return static_cast<void>(timer->cancel());
      drop_input(socket, timer);
    });
  }

  static bool is_shortage(std::error_code const& ec) noexcept {
    // Asio's category does not map all of them to std::errc.
    return ec == asio::error::no_descriptors || ec == asio::error::no_buffer_space || ec == asio::error::no_memory ||
           ec == std::error_code(ENFILE, asio::error::get_system_category()) || ec == std::errc::too_many_files_open ||
           ec == std::errc::too_many_files_open_in_system || ec == std::errc::no_buffer_space ||
           ec == std::errc::not_enough_memory;
  }

  void do_stop(Stop how) {
    if (stopping_ && how == Stop::drain) return;
    stopping_ = true;
    std::error_code ignored;
    acceptor_.close(ignored);
    retry_.cancel();
    next_executor_.reset();
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

  void add(std::shared_ptr<Link> link) {
    std::lock_guard const lock(mutex_);
    link->slot = links_.size();
    links_.push_back(std::move(link));
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

  static constexpr auto first_delay = std::chrono::milliseconds(10);

  ServerOptions const options_;
  Svc service_;
  asio::io_context io_{1};
  asio::ip::tcp::acceptor acceptor_;
  asio::steady_timer retry_, ticker_, drain_;
  std::chrono::milliseconds retry_delay_ = first_delay;
  std::optional<executor_type> next_executor_;  // made for a client that was not there after all
  std::uint16_t port_ = 0;
  bool stopping_ = false;
  std::atomic<bool> ticking_ = false;
  std::mutex mutex_;  // of links_; no other lock is taken within it
  std::vector<std::shared_ptr<Link>> links_;
  Policy policy_;  // last: its threads end before anything that they use
};

}  // namespace chatproto
