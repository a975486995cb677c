// SPDX-License-Identifier: BSL-1.0
/// @file
/// `ServerCore`, the implementation of `Server`: its clients, deadlines, memory limit and shutdown.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <thread>
#include <utility>

#include <asio/basic_stream_socket.hpp>
#include <asio/dispatch.hpp>
#include <asio/error.hpp>
#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/post.hpp>

#include <chatproto/address_limits.hpp>
#include <chatproto/address_list.hpp>
#include <chatproto/detail/held_memory.hpp>
#include <chatproto/detail/server/acceptor.hpp>
#include <chatproto/detail/server/client_origin.hpp>
#include <chatproto/detail/server/events.hpp>
#include <chatproto/detail/server/handler_memory.hpp>
#include <chatproto/detail/server/link.hpp>
#include <chatproto/detail/server/link_list.hpp>
#include <chatproto/detail/server/listener.hpp>
#include <chatproto/detail/server/mailbox.hpp>
#include <chatproto/detail/server/reliable_timer.hpp>
#include <chatproto/layer.hpp>
#include <chatproto/observer.hpp>
#include <chatproto/server_options.hpp>
#include <chatproto/threading.hpp>

namespace chatproto::detail {

/// Owns a server's clients and acceptor, and manages its deadlines, memory limit and shutdown. `Server` is its public
/// interface; links and the acceptor are its users.
template <class Policy, class Svc>
class ServerCore {
 public:
  using executor_type = typename Policy::executor_type;
  using Link = detail::Link<ServerCore>;
  using TimePoint = std::chrono::steady_clock::time_point;

  template <class... Args>
  explicit ServerCore(ServerOptions options, Args&&... service_args)
      : options_(complete(std::move(options))),
        service_(std::forward<Args>(service_args)...),
        events_(options_.observer),
        mailbox_(io_, *this, mailbox_memory_),
        ticker_(io_, tick_memory_, callback<&ServerCore::tick>(this)),
        patience_(io_, patience_memory_, callback<&ServerCore::stop_reading>(this)),
        deadline_(io_, deadline_memory_, callback<&ServerCore::stop_now>(this)),
        memory_timer_(io_, memory_timer_memory_, callback<&ServerCore::look_at_memory>(this)),
        limits_({.most = options_.max_clients_per_address,
                 .rate = options_.new_clients_per_address,
                 .burst = options_.new_clients_burst}),
        policy_(make_policy(options_.threads)) {
    for (auto const& proxy : options_.proxies) proxies_.add(proxy);
    for (auto const& listener : options_.listeners)
      acceptors_.emplace_back(*this, listener, acceptor_memory_.emplace_back());
  }
  ServerCore(ServerCore const&) = delete;
  ServerCore& operator=(ServerCore const&) = delete;
  ~ServerCore() {
    stop_accepting();
    cut_all();
    constexpr TimePoint failed;
    while (ask_overdue(failed) == failed) std::this_thread::yield();  // a broken link ends only when asked
    policy_.join();
  }

  // --- For the server ------------------------------------------------------------------------------------------------

  std::uint16_t port(std::size_t listener) const { return acceptors_.at(listener).port(); }
  void run() {
    auto const work = asio::make_work_guard(io_);  // until the last client has ended: see ThreadingPolicy
    if constexpr (requires { service_.on_start(io_); }) service_.on_start(io_);
    for (auto& acceptor : acceptors_) acceptor.start();
    io_.run();
    policy_.join();
    if constexpr (requires { service_.on_end(); }) service_.on_end();
  }
  void ask_to_drain() noexcept { mailbox_.template ask<&ServerCore::drain>(); }
  void ask_to_stop() noexcept { mailbox_.template ask<&ServerCore::stop_now>(); }
  void ban(Bans bans) {
    auto const banned = std::make_shared<Bans const>(std::move(bans));
    if constexpr (requires { service_.ban(banned->names); }) service_.ban(banned->names);
    // On the context, so that no client is between `admit` and `add`.
    asio::post(io_, [this, banned] {
      {
        std::lock_guard const lock(bans_mutex_);
        bans_ = banned;
      }
      has_bans_ = !banned->addresses.empty() || !banned->names.empty();
      links_.for_each([](Link& link) { link.end_if_banned(); });
    });
  }
  ServerStats stats() const {
    auto stats = events_.stats();
    stats.held = HeldMemory::total();
    if constexpr (requires { service_.queued_bytes(); }) stats.queued += service_.queued_bytes();
    links_.for_each([&](Link const& link) { stats.queued += link.queued_bytes(); });
    return stats;
  }

  // --- For links and the acceptor ------------------------------------------------------------------------------------

  asio::io_context& context() noexcept { return io_; }
  ServerOptions const& options() const noexcept { return options_; }
  Svc& service() noexcept { return service_; }
  Events& events() noexcept { return events_; }
  executor_type next_executor() { return policy_.next_executor(); }

  bool has_room() const { return links_.size() < options_.max_clients; }
  bool has_memory() const noexcept { return HeldMemory::total() <= options_.memory_limit; }

  /// Returns whether one more handshake of a layer may begin. If not, ends those that have taken long.
  bool has_room_for_handshake() {
    if (links_.handshakes() < std::max<std::size_t>(options_.max_handshakes, 1)) return true;
    auto const most = std::min<std::chrono::milliseconds>(options_.login_deadline, std::chrono::hours(1000));
    auto const soon = Link::Clock::now() + most / 2;
    links_.for_each_handshake([&](Link& link) {
      if (link.due() < soon) link.end_handshake();
    });
    return false;
  }
  void handshake_ended(Link& link) noexcept { links_.handshake_ended(link); }

  bool is_banned(asio::ip::address const& address, std::string_view name) const {
    if (!has_bans_) return false;
    std::lock_guard const lock(bans_mutex_);
    return bans_->addresses.contains(address) || bans_->names.contains(name);
  }
  /// Returns why to refuse a client. Otherwise it has a place, and `origin` says what its link must know.
  std::optional<RefusalReason> admit(asio::ip::tcp::endpoint const& endpoint, std::unique_ptr<ClientOrigin>& origin) {
    if (!limits_.is_on() && proxies_.empty() && !has_bans_) return {};
    origin.reset(new ClientOrigin{endpoint});
    origin->awaits_header = proxies_.contains(endpoint.address());
    return origin->awaits_header ? std::nullopt : admit(*origin);
  }
  std::optional<RefusalReason> admit(ClientOrigin& origin) {
    auto const address = unmapped(origin.endpoint.address());
    if (is_banned(address, {})) return RefusalReason::banned;
    if (address.is_loopback() && !options_.limit_loopback) return {};
    return limits_.admit(address, AddressLimits::Clock::now(), origin.place);
  }

  /// Adds a client that was accepted. `layers`: of its listener; may be null. `origin`: see `admit`.
  void add(asio::basic_stream_socket<asio::ip::tcp, executor_type> socket, LayerFactory* layers,
           std::unique_ptr<ClientOrigin> origin) {
    auto const is_in_handshake = layers != nullptr || (origin && origin->awaits_header);
    auto const number = events_.accepted();
    std::shared_ptr<Link> link;
    try {
      link = std::make_shared<Link>(*this, std::move(socket), number, layers != nullptr, std::move(origin));
      links_.add(link, is_in_handshake);
    } catch (...) {
      events_.ended(number, DisconnectReason::failed, asio::error::no_memory);
      throw;
    }
    try {
      asio::dispatch(link->executor(), [link, layers] { link->start(layers); });
    } catch (...) {
      link->drop();
      throw;
    }
  }

  /// Removes a link that has ended; on the link's executor.
  void remove(Link& link) noexcept {
    if (links_.remove(link)) mailbox_.template ask<&ServerCore::finish_if_empty>();
  }

  /// Called by links while the server drains, see `Link::be_awaited` and `Link::stop_reading`.
  void await_client() noexcept { ++awaited_; }
  void client_is_done() noexcept {
    if (--awaited_ == 0) mailbox_.template ask<&ServerCore::drain_on>();
  }

  /// A link has a new deadline. One timer serves the deadlines of all links, and runs only while there is one.
  void watch_deadlines() noexcept {
    if (!ticking_.exchange(true)) mailbox_.template ask<&ServerCore::tick_later>();
  }
  /// A link waits for memory.
  void watch_memory() noexcept { mailbox_.template ask<&ServerCore::look_at_memory_later>(); }

  /// Calls `end_throttle` of `client` after this time. Any thread may call it.
  void end_throttle_in(std::chrono::steady_clock::duration time, std::weak_ptr<Link> client) {
    asio::post(io_, [this, time, client = std::move(client)] {
      try {
        auto const timer = std::make_shared<ContextTimer>(io_, time);
        timer->async_wait([timer, client](std::error_code const&) {
          if (auto const link = client.lock()) link->end_throttle();
        });
      } catch (...) {
        if (auto const link = client.lock()) link->abort();
      }
    });
  }

 private:
  /// The number of threads for the policy; 0: the policy decides.
  static unsigned threads_of(ServerOptions const& options) noexcept {
    if constexpr (!std::constructible_from<Policy, unsigned>) return 0;
    return options.threads != 0 ? options.threads : std::max(1u, std::thread::hardware_concurrency());
  }
  /// Fills in what is 0.
  static ServerOptions complete(ServerOptions options) {
    options.threads = threads_of(options);
    if (options.max_clients == 0) options.max_clients = client_limit<Policy>(options.threads);
    if (options.memory_limit == 0) options.memory_limit = half_of_memory();
    if (options.listeners.empty())
      options.listeners.push_back({.port = options.port, .address = options.address});
    else if (options.port != 0 || !options.address.empty())
      throw std::invalid_argument("chatproto::ServerOptions: both listeners and a port or address");
    return options;
  }
  static Policy make_policy(unsigned threads) {
    if constexpr (std::constructible_from<Policy, unsigned>)
      return Policy(threads);
    else
      return Policy();
  }

  /// Calls `on_stop` the first time. Returns whether this was the first time.
  bool begin_to_stop(StopMode how) {
    if (std::exchange(stopping_, true)) return false;
    try {
      if constexpr (requires { service_.on_stop(how); }) service_.on_stop(how);
    } catch (...) {  // the server stops anyway
    }
    return true;
  }

  void stop_now() {
    begin_to_stop(StopMode::now);
    stop_accepting();
    cut_all();
    finish_if_empty();
  }

  void stop_accepting() {
    for (auto& acceptor : acceptors_) acceptor.stop();
  }

  void cut_all() noexcept {
    links_.for_each([](Link& link) { link.abort(); });
  }

  void drain() {
    if (!begin_to_stop(StopMode::drain)) return;
    stop_accepting();
    {
      // Who was accepted shall not be sent away without an answer. So first those who have still to log in may do so,
      // but for a limited time. `looking` counts as one of them, until each link has looked.
      awaited_ = 1;
      auto const seen_by_all = [](ServerCore* core) { core->client_is_done(); };
      std::shared_ptr<void> const looking(this, seen_by_all, newcomer_memory_.template allocator<ServerCore>());
      links_.for_each([&](Link& link) { link.be_awaited(looking); });
    }
    patience_.set(options_.drain / 10);
    finish_if_empty();
  }
  void stop_reading() {
    if (std::exchange(reads_no_more_, true)) return;
    {
      // A closed client may miss later texts. So first all links stop reading; everything answered by ok is then in a
      // log. When the last link has stopped reading, and the last session that had something to finish is done with it,
      // all links are closed. `reading` counts as one of these sessions, until each link has stopped.
      ++awaited_;
      auto const read_by_all = [](ServerCore* core) { core->client_is_done(); };
      std::shared_ptr<void> const reading(this, read_by_all, reader_memory_.template allocator<ServerCore>());
      links_.for_each([&](Link& link) { link.stop_reading(reading); });
    }
    deadline_.set(options_.drain);
    finish_if_empty();
  }
  /// Nobody is awaited any more.
  void drain_on() {
    if (awaited_ == 0) reads_no_more_ ? close_all() : stop_reading();
  }
  void close_all() {
    links_.for_each([](Link& link) { link.close(); });
  }
  void finish_if_empty() {
    if (stopping_ && links_.size() == 0) io_.stop();
  }

  void tick_later() {
    ticker_.set(std::clamp<std::chrono::milliseconds>(
        std::min({options_.login_deadline, options_.write_deadline, options_.linger}) / 4, std::chrono::milliseconds(5),
        std::chrono::seconds(1)));
  }

  void tick() {
    ticking_.exchange(false);  // not a store: if a setter of a deadline has found `true`, its deadline is seen below
    if (ask_overdue(Link::Clock::now()) != TimePoint::max()) watch_deadlines();
  }

  /// Asks the links that are due at `until` or earlier. Returns the earliest deadline of all links, or `max()`.
  TimePoint ask_overdue(TimePoint until) {
    auto first = TimePoint::max();
    links_.for_each([&](Link& link) {
      auto const due = link.due();
      first = std::min(first, due);
      if (due <= until) link.ask_if_overdue();
    });
    return first;
  }

  void look_at_memory_later() {
    if (!memory_timer_.is_set()) memory_timer_.set(memory_step);
  }
  /// While all clients together hold too much, disconnects the one that holds most, after some patience. Otherwise lets
  /// links read again.
  void look_at_memory() {
    if (has_memory()) {
      memory_looks_ = 0;
      links_.for_each([](Link& link) { link.memory_is_free(); });
      return;
    }
    if (memory_looks_++ % memory_patience == 0) {
      links_.for_each([](Link& link) { link.measure(); });
    } else if (memory_looks_ > memory_patience) {
      links_.use([](auto const& links) {
        auto const holds_less = [](auto const& a, auto const& b) { return a->held() < b->held(); };
        auto const most = std::max_element(links.begin(), links.end(), holds_less);
        if (most != links.end() && (*most)->held() > 0) (*most)->cut(MessageQueue::State::over_memory);
      });
    }
    memory_timer_.set(memory_step);
  }

  static constexpr auto memory_step = std::chrono::milliseconds(10);
  static constexpr unsigned memory_patience = 20;  // looks before a client is disconnected

  ServerOptions const options_;
  // For the server's own operations, which must continue when memory is short.
  HandlerMemory mailbox_memory_, newcomer_memory_, reader_memory_, tick_memory_, patience_memory_, deadline_memory_,
      memory_timer_memory_;
  std::deque<AcceptorMemory> acceptor_memory_;
  asio::io_context io_{1};
  Svc service_;  // may have a timer on io_
  Events events_;
  Mailbox<ServerCore, &ServerCore::drain, &ServerCore::stop_now, &ServerCore::drain_on, &ServerCore::finish_if_empty,
          &ServerCore::tick_later, &ServerCore::look_at_memory_later>
      mailbox_;
  ReliableTimer ticker_, patience_, deadline_, memory_timer_;
  std::deque<Acceptor<ServerCore, executor_type>> acceptors_;  // one for each listener
  bool stopping_ = false, reads_no_more_ = false;
  unsigned memory_looks_ = 0;  // looks since memory became short
  std::atomic<bool> ticking_ = false;
  std::atomic<std::size_t> awaited_ = 0;  // clients to wait for, while draining
  AddressLimits limits_;
  AddressList proxies_;
  mutable std::mutex bans_mutex_;  // guards bans_
  std::shared_ptr<Bans const> bans_;
  std::atomic<bool> has_bans_ = false;
  LinkList<Link> links_;
  Policy policy_;  // last, so that its threads end before anything that they use
};

}  // namespace chatproto::detail
