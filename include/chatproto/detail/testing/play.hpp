// SPDX-License-Identifier: BSL-1.0
/// @file
/// `Play`: plays a history, chosen by a seed or given.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <ostream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <chatproto/detail/testing/client_end.hpp>
#include <chatproto/detail/testing/random.hpp>
#include <chatproto/detail/testing/simulated_link.hpp>
#include <chatproto/detail/testing/simulated_server.hpp>
#include <chatproto/testing/history.hpp>

namespace chatproto::detail {

/// Plays one history of a `Scenario` (testing.hpp) with a new service of type `S`.
template <class S, class Scenario>
class Play final : SimulatedEvents {
 public:
  using Step = testing::Step;
  using Kind = Step::Kind;
  using Event = testing::Event;

  explicit Play(Scenario const& scenario)
      : scenario_(scenario),
        service_(make()),
        server_(*service_, scenario.options, scenario.clients.size(), *this),
        lines_(scenario.clients.size()),
        connections_(scenario.clients.size()) {
    if (scenario.clients.empty()) throw std::invalid_argument("a Scenario needs clients");
    for (auto const time : scenario.times)
      if (time.count() < 0) throw std::invalid_argument("the times of a Scenario cannot be negative");
    for (auto const& plan : scenario.clients) history_.clients.push_back({.name = plan.name});
  }

  /// Plays the history that a seed chooses.
  testing::History random(std::uint64_t seed) && {
    if (scenario_.trace != nullptr) *scenario_.trace << "seed " << seed << std::endl;
    random_ = std::make_unique<Random>(seed);
    prompt_ = random_->one_of(std::array{100u, 90u, 50u, 10u});
    interrupts_ = random_->one_of(std::array{0u, 0u, 10u, 40u});
    restless_ = random_->one_of(std::array{0u, 20u, 100u});
    most_ = 1 + random_->below(std::max<std::size_t>(scenario_.steps, 1));
    for (std::size_t tries = 0; tries < 20 * most_ && history_.steps.size() < most_ && goes_on(); ++tries)
      take_step(choose());
    return finish();
  }
  /// Plays these steps.
  testing::History steps(std::vector<Step> const& steps) && {
    steps_ = &steps;
    while (next_ < steps.size() && goes_on()) {
      auto step = steps[next_++];
      step.within = 0;
      take_step(step);
    }
    return finish();
  }

 private:
  std::unique_ptr<S> make() const {
    SimulatedTime::start();  // the service may ask for the time
    if (scenario_.make) return scenario_.make();
    if constexpr (std::default_initializable<S>)
      return std::make_unique<S>();
    else
      throw std::invalid_argument("a Scenario needs `make`, because its service has no default constructor");
  }

  bool goes_on() const { return history_.broken.empty(); }
  void broken(std::string what) {
    if (goes_on()) history_.broken = std::move(what);
  }
  void check(auto const& check) {
    if (!check || !goes_on()) return;
    for (std::size_t i = 0; i < history_.clients.size(); ++i) {
      history_.clients[i].connected = server_.is_connected(i);
      history_.clients[i].paused = server_.is_paused(i);
    }
    broken(check({*service_, history_.clients}));
  }
  testing::History finish() {
    is_ending_ = true;
    now_ = history_.steps.size();
    if (goes_on() && !server_.finish()) broken("it never ends");
    check(scenario_.at_end);
    return std::move(history_);
  }

  // --- Steps --------------------------------------------------------------------------------------------------------

  /// Carries the step out and records it, if it is possible.
  void take_step(Step const& step) {
    auto const outer = std::exchange(now_, history_.steps.size());
    auto const depth = depth_++;
    if (depth == 0) interrupted_ = 0;
    if (scenario_.trace != nullptr) trace(step);
    history_.steps.push_back(step);  // before those that interrupt it
    if (!carry_out(step))
      history_.steps.pop_back();
    else if (step.settles && goes_on() && !server_.settle())
      broken("it never ends");
    depth_ = depth;
    now_ = outer;
    if (depth == 0) check(scenario_.after_step);
  }
  bool carry_out(Step const& step) {
    auto const client = step.client;
    if (client >= scenario_.clients.size() && step.kind != Kind::pass_time) return false;
    switch (step.kind) {
      case Kind::connect:
        if (server_.is_connected(client)) return false;
        record(client, Event::Kind::connected, {});
        lines_[client] = 0;
        ++connections_[client];
        return server_.connect(client);
      case Kind::send: {
        if (!server_.sends(client)) return false;
        std::string bytes;
        for (auto const& line : step.lines) {
          if (line.find('\n') != line.npos) broken("the line " + quoted(line) + " contains a line feed");
          bytes.append(line).append(1, '\n');
        }
        server_.send(client, bytes);
        for (auto const& line : step.lines) record(client, Event::Kind::sent, line);
        lines_[client] += step.lines.size();
        return true;
      }
      case Kind::end_input: return server_.end_input(client);
      case Kind::reset: return server_.reset(client);
      case Kind::stop_reading: return server_.stop_taking(client);
      case Kind::read: return server_.take(client, step.amount > 0 ? step.amount : ClientEnd::any_number);
      case Kind::pass_time: server_.pass_time(std::chrono::milliseconds(step.amount)); return true;
      case Kind::server_reads: {
        if (step.amount > 0 && step.amount < server_.most_to_read(client)) ++history_.partial_reads;
        return server_.read(client, step.amount > 0 ? step.amount : ClientEnd::any_number);
      }
      case Kind::server_writes: return server_.write(client);
      case Kind::server_continues: return server_.take_turn(client);
      case Kind::server_runs_posted: return server_.run_posted(client);
      case Kind::server_sees_end: return server_.notice_end(client);
    }
    return false;
  }

  void trace(Step const& step) const {
    auto const known = step.client < scenario_.clients.size();
    *scenario_.trace << numbered(history_.steps.size(), step, known ? scenario_.clients[step.client].name : "",
                                 known && connections_[step.client] > 0)
                     << std::endl;
  }

  // --- Choices ------------------------------------------------------------------------------------------------------

  Step choose() {
    auto& random = *random_;
    Step step{Kind::server_writes, random.below(scenario_.clients.size())};
    auto const& plan = scenario_.clients[step.client];
    auto const die = random.below(1000);
    step.settles = random.percent(prompt_);
    if (!server_.is_connected(step.client)) {
      if (die < 300 && connections_[step.client] < plan.connections) step.kind = Kind::connect;
    } else if (die < restless_) {
      step.kind = random.one_of(std::array{Kind::end_input, Kind::reset, Kind::stop_reading, Kind::stop_reading});
    } else if (die < restless_ + 50 && !server_.takes_all(step.client)) {
      step.kind = Kind::read;
      step.amount = random.percent(50) ? 1 + random.below(40) : 0;
    } else if (die < 400) {
      step.kind = Kind::send;
      if (auto line = next_line(plan, step.client)) step.lines.push_back(std::move(*line));
      if (step.lines.empty()) step.kind = Kind::server_writes;
      return step;
    }
    if (step.kind != Kind::server_writes) return step;
    if (die >= 980 && !scenario_.times.empty()) {
      step.kind = Kind::pass_time;
      step.client = Step::nobody;
      step.amount = static_cast<std::size_t>(random.one_of(scenario_.times).count());
      return step;
    }
    step.kind =
        random.one_of(std::array{Kind::server_reads, Kind::server_reads, Kind::server_writes, Kind::server_writes,
                                 Kind::server_continues, Kind::server_runs_posted, Kind::server_sees_end});
    if (auto const most = step.kind == Kind::server_reads ? server_.most_to_read(step.client) : 0;
        most > 1 && random.percent(50))
      step.amount = 1 + random.below(most - 1);
    return step;
  }
  std::optional<std::string> next_line(auto const& plan, std::size_t client) {
    if (lines_[client] < plan.first.size()) return plan.first[lines_[client]];
    if (plan.next) return plan.next(*random_, history_.clients[client]);
    std::size_t all = 0;
    for (auto const& choice : plan.lines) all += choice.weight;
    if (all == 0) return std::nullopt;
    auto place = random_->below(all);
    auto choice = plan.lines.begin();
    for (; place >= choice->weight; ++choice) place -= choice->weight;
    return choice->line;
  }

  // --- What happens -------------------------------------------------------------------------------------------------

  void record(std::size_t client, Event::Kind kind, std::string_view line) {
    history_.clients[client].events.push_back({kind, std::string(line), now_, ++order_});
  }
  void received(std::size_t client, std::string_view line) override { record(client, Event::Kind::received, line); }
  void disconnected(std::size_t client, std::string_view why) override {
    record(client, Event::Kind::disconnected, why);
  }
  void threw(std::size_t client, std::string_view what) override {
    if (!scenario_.may_throw)
      broken("the session of " + history_.clients[client].name + " threw: " + std::string(what));
  }
  void stalled() override { ++history_.stalls; }
  void interrupted() override {
    if (is_ending_ || depth_ != 1 || !goes_on()) return;
    ++interrupted_;
    if (random_ != nullptr) {
      while (history_.steps.size() < most_ && random_->percent(interrupts_)) {
        auto step = choose();
        step.within = interrupted_;
        take_step(step);
      }
    } else {
      while (next_ < steps_->size() && (*steps_)[next_].within == interrupted_) take_step((*steps_)[next_++]);
    }
  }

  Scenario const& scenario_;
  std::unique_ptr<S> service_;
  testing::History history_;
  std::unique_ptr<Random> random_;  // null: `steps_` are played
  std::vector<Step> const* steps_ = nullptr;
  std::size_t next_ = 0;  // of steps_
  SimulatedServer<S> server_;
  std::vector<std::size_t> lines_;        // how many each client has sent on its connection
  std::vector<std::size_t> connections_;  // how many each client has made
  std::size_t now_ = 0;                   // the step that is being carried out
  std::size_t order_ = 0;                 // of the last event
  std::size_t depth_ = 0;                 // 1: within a step, 2: within one that interrupts it
  std::size_t interrupted_ = 0;           // how often the step was interrupted
  bool is_ending_ = false;
  std::size_t most_ = 0;                                    // steps
  std::size_t prompt_ = 0, interrupts_ = 0, restless_ = 0;  // chances in percent, the last in a thousand
};

}  // namespace chatproto::detail
