// SPDX-License-Identifier: BSL-1.0
/// @file
/// `SimulatedServer`: a service and its clients, without sockets, threads or clock.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <chatproto/detail/testing/client_end.hpp>
#include <chatproto/detail/testing/simulated_link.hpp>
#include <chatproto/observer.hpp>
#include <chatproto/peer.hpp>
#include <chatproto/server_options.hpp>
#include <chatproto/service.hpp>

namespace chatproto::detail {

/// Tasks that wait for a time of the simulation.
struct SimulatedTimers {
  struct Timer {
    SimulatedTime::time_point time;
    Peer peer;
    std::function<void()> task;
  };
  static inline std::vector<Timer> waiting;  // the oldest first

  static void add(Peer peer, SimulatedTime::duration delay, std::function<void()> task) {
    waiting.push_back({SimulatedTime::time + delay, std::move(peer), std::move(task)});
  }
  /// Posts the tasks whose time has come, those of the earliest time first.
  static void post_due() {
    for (;;) {
      auto const by_time = [](Timer const& a, Timer const& b) { return a.time < b.time; };
      auto const first = std::min_element(waiting.begin(), waiting.end(), by_time);
      if (first == waiting.end() || first->time > SimulatedTime::time) return;
      auto const timer = std::move(*first);
      waiting.erase(first);
      timer.peer.post(timer.task);
    }
  }
};

/// What happens at a `SimulatedServer`. Clients are told apart by their indexes.
class SimulatedEvents {
 public:
  virtual void received(std::size_t client, std::string_view line) = 0;
  virtual void disconnected(std::size_t client, std::string_view why) = 0;
  virtual void threw(std::size_t client, std::string_view what) = 0;
  virtual void stalled() = 0;      ///< a client took a part of the output only
  virtual void interrupted() = 0;  ///< a link is acting, and others may act now

 protected:
  ~SimulatedEvents() = default;
};

/// Each function does one thing, and returns false if it cannot be done now, which then changes nothing.
template <Service S>
class SimulatedServer {
  class Link;
  using Action = typename SimulatedLink<S>::Action;

 public:
  SimulatedServer(S& service, ServerOptions options, std::size_t clients, SimulatedEvents& events)
      : service_(service), options_(std::move(options)), events_(events), clients_(clients) {
    SimulatedTimers::waiting.clear();
  }
  SimulatedServer(SimulatedServer const&) = delete;
  SimulatedServer& operator=(SimulatedServer const&) = delete;
  ~SimulatedServer() {
    for (auto const& links : clients_)
      for (auto const& link : links) link->drop();
    SimulatedTimers::waiting.clear();
  }

  // What clients do:
  bool connect(std::size_t client) {
    if (is_connected(client)) return false;
    clients_[client].push_back(std::make_shared<Link>(*this, client, ++connections_));
    clients_[client].back()->start();
    return true;
  }
  bool send(std::size_t client, std::string_view bytes) {
    if (!sends(client)) return false;
    end_of(client).send(bytes);
    return true;
  }
  bool end_input(std::size_t client) {
    if (!sends(client)) return false;
    end_of(client).end_input();
    return true;
  }
  bool reset(std::size_t client) {
    if (!is_connected(client)) return false;
    end_of(client).reset();
    events_.disconnected(client, "reset");
    return true;
  }
  bool stop_taking(std::size_t client) {
    if (!is_connected(client) || end_of(client).appetite() == 0) return false;
    end_of(client).set_appetite(0);
    return true;
  }
  /// `ClientEnd::any_number`: as many as the server sends from now on.
  bool take(std::size_t client, std::size_t bytes) {
    if (!is_connected(client) || end_of(client).appetite() == ClientEnd::any_number) return false;
    end_of(client).add_appetite(bytes);
    return true;
  }

  /// From the client's point of view.
  bool is_connected(std::size_t client) const {
    auto const& links = clients_[client];
    return !links.empty() && !links.back()->client.has_reset() && !links.back()->client.saw_end();
  }
  bool sends(std::size_t client) const { return is_connected(client) && !end_of(client).has_ended_input(); }
  bool is_paused(std::size_t client) const {
    auto const& links = clients_[client];
    return !links.empty() && links.back()->is_paused() && !links.back()->has_ended();
  }
  bool takes_all(std::size_t client) const { return end_of(client).appetite() == ClientEnd::any_number; }

  // What the server does, for the client's oldest connection of which it may do it:
  bool read(std::size_t client, std::size_t bytes) { return act(client, {Action::read}, bytes); }
  bool write(std::size_t client) { return act(client, {Action::flush, Action::write}, 0); }
  bool take_turn(std::size_t client) { return act(client, {Action::take_turn}, 0); }
  bool run_posted(std::size_t client) { return act(client, {Action::run}, 0); }
  bool notice_end(std::size_t client) { return act(client, {Action::lose, Action::end_input}, 0); }
  /// The most bytes to read now; 0: none.
  std::size_t most_to_read(std::size_t client) {
    auto* const link = find(client, {Action::read}).first;
    return link != nullptr ? link->most_to_read() : 0;
  }

  void pass_time(std::chrono::milliseconds time) {
    SimulatedTime::time += time;
    SimulatedTimers::post_due();
    for (auto const& links : clients_)
      for (auto const& link : links)
        if (!link->has_ended()) link->pass_time();
  }

  /// Does all that is due, one thing for each client in turn. Returns false if that has no end.
  bool settle() {
    constexpr auto most = 20'000;
    auto done = 0;
    for (auto acted = true; acted;) {
      acted = false;
      for (std::size_t client = 0; client < clients_.size(); ++client)
        for (std::size_t i = 0; i < clients_[client].size(); ++i) {  // connections may be added meanwhile
          auto& link = *clients_[client][i];
          auto const& due = due_of(link);
          if (due.empty()) continue;
          auto const action = due.front();
          if (++done > most) return false;
          act(link, action, ClientEnd::any_number);
          acted = true;
        }
    }
    return true;
  }
  /// All clients take everything, and those whom the rate limit holds back get their time. Returns false if that has no
  /// end.
  bool finish() {
    for (std::size_t client = 0; client < clients_.size(); ++client) take(client, ClientEnd::any_number);
    for (auto rounds = 0; rounds < 10'000; ++rounds) {
      if (!settle()) return false;
      auto next = SimulatedTime::time_point::max();
      for (auto const& links : clients_)
        for (auto const& link : links)
          if (!link->has_ended()) next = std::min(next, link->throttle_end());
      if (next == SimulatedTime::time_point::max()) return true;
      pass_time(std::chrono::ceil<std::chrono::milliseconds>(next - SimulatedTime::time));
    }
    return false;
  }

 private:
  class Link final : public SimulatedLink<S> {
   public:
    Link(SimulatedServer& server, std::size_t index, std::uint64_t number)
        : SimulatedLink<S>(server.service_, server.options_, number), events_(server.events_), index_(index) {}

   private:
    using typename SimulatedLink<S>::Session;

    void on_line(Session& session, std::string_view line) override {
      session.on_line(line);
      events_.interrupted();
    }
    void took_output(bool /*found*/) override { events_.interrupted(); }
    std::size_t write_bytes(std::string_view bytes) override {
      auto const size = std::min(bytes.size(), this->client.appetite());
      if (size < bytes.size()) events_.stalled();
      this->client.accept(bytes.substr(0, size), [this](std::string_view line) { events_.received(index_, line); });
      return size;
    }
    void shut_down() override {
      see_end(DisconnectReason::closed);
      SimulatedLink<S>::shut_down();
    }
    void was_ended(DisconnectReason reason) override { see_end(reason); }
    void see_end(DisconnectReason reason) {
      if (this->client.has_reset() || this->client.saw_end()) return;
      this->client.see_end();
      this->client.end_input();
      events_.disconnected(index_, to_string(reason));
    }
    void threw(std::string_view what) override { events_.threw(index_, what); }

    SimulatedEvents& events_;
    std::size_t const index_;
  };

  ClientEnd& end_of(std::size_t client) const { return clients_[client].back()->client; }
  std::vector<Action> const& due_of(Link& link) {
    due_.clear();
    link.list_due(due_);
    return due_;
  }
  std::pair<Link*, Action> find(std::size_t client, std::initializer_list<Action> wanted) {
    for (auto const& link : clients_[client]) {
      auto const& due = due_of(*link);
      auto const at = std::find_first_of(due.begin(), due.end(), wanted.begin(), wanted.end());
      if (at != due.end()) return {link.get(), *at};
    }
    return {};
  }
  bool act(std::size_t client, std::initializer_list<Action> wanted, std::size_t which) {
    auto const [link, action] = find(client, wanted);
    if (link == nullptr) return false;
    act(*link, action, which);
    return true;
  }
  void act(Link& link, Action action, std::size_t bytes) {
    auto const keep = link.shared_from_this();
    link.act(action, action == Action::read ? std::min(bytes, link.most_to_read()) : 0);
  }

  S& service_;
  ServerOptions const options_;
  SimulatedEvents& events_;
  std::vector<std::vector<std::shared_ptr<Link>>> clients_;  // all connections of each, the oldest first
  std::uint64_t connections_ = 0;
  std::vector<Action> due_;  // kept for its memory
};

}  // namespace chatproto::detail
