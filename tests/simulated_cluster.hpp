// SPDX-License-Identifier: BSL-1.0
// The servers of a cluster and the engine between them, for the simulation: the real rules (backplane_rules.hpp), and
// in place of Redis a double that loses connections, repeats, delays, forgets and stops on purpose. One step at a time.
#pragma once

#include <chatproto/backplane.hpp>
#include <chatproto/detail/backplane/backplane_rules.hpp>
#include <chatproto/detail/backplane/inbox.hpp>
#include <chatproto/detail/testing/random.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace simulation {

using namespace std::literals;
using chatproto::Backplane;
using chatproto::detail::LogPosition;

/// What a cluster may do wrong, for the self-test: each leaves out one rule of docs/cluster.md.
inline constexpr std::array cluster_wrongs = {"delivers its own texts at once"sv,
                                              "joins at once"sv,
                                              "leaves at once"sv,
                                              "answers at once"sv,
                                              "stores again"sv,
                                              "hides the incarnation"sv,
                                              "reads no gap"sv,
                                              "hides a new life"sv,
                                              "keeps one connection"sv,
                                              "confirms at once"sv,
                                              "counts its own silence"sv,
                                              "hides a loss"sv,
                                              "takes an unknown fate for stored"sv,
                                              "forgets to look"sv,
                                              "waits for no beat"sv,
                                              "keeps what it has left"sv,
                                              "shows an older past"sv};

class ClusterNode;

/// The engine's end of a server's two connections.
struct EnginePair {
  ClusterNode* node;                           // null: the server has closed them
  std::deque<std::function<void()>> commands;  // on their way to the engine
  std::deque<std::function<void()>> subscriptions;
  std::deque<std::function<void()>> replies;  // on their way to the server
  std::deque<std::function<void()>> messages;
  std::set<std::string, std::less<>> channels;
  bool is_broken = false;  // the engine has closed them
};

/// In place of Redis.
class Engine {
 public:
  explicit Engine(chatproto::detail::Random& random) : random_(random) {}

  using Result = chatproto::detail::AppendResult;

  struct Log {
    std::uint64_t incarnation = 0, last = 0, first_kept = 1;
    std::vector<std::string> blocks;  // from first_kept
    std::map<std::size_t, std::uint64_t> counters;
  };

  // What the scripts do:
  std::pair<Result, std::uint64_t> append(std::string const& room, std::size_t node, std::uint64_t sequence,
                                          std::uint64_t incarnation, bool is_retry, std::string const& block) {
    if (refuses > 0 && --refuses >= 0) {
      has_refused_retry = has_refused_retry || is_retry;
      return {Result::refused, 0};
    }
    if (has_no_scripts) return {Result::again, 0};
    auto& log = logs[room];
    auto& counter = log.counters[node];
    if (counter >= sequence && wrong != "stores again") return {Result::stored, shown(log.incarnation)};
    if (is_retry && incarnation != shown(log.incarnation)) return {Result::unknown, 0};
    begin(log);
    counter = sequence;
    ++log.last;
    log.blocks.push_back(block);
    ++appended;
    publish(room, {shown(log.incarnation), log.last}, block);
    return {Result::stored, shown(log.incarnation)};
  }
  struct View {
    LogPosition end;
    std::vector<std::string> blocks;
  };
  View look(std::string const& room, LogPosition const& from, bool wants_past) {
    auto& log = logs[room];
    begin(log);
    View view{{shown(log.incarnation), log.last}, {}};
    if (wants_past) {
      auto const count = std::min(log.blocks.size(), most_past);
      view.blocks.assign(log.blocks.end() - static_cast<std::ptrdiff_t>(count), log.blocks.end());
      if (wrong == "shows an older past" && count > 0) view.blocks.pop_back();
      return view;
    }
    if (wrong == "reads no gap" && from.incarnation != 0) {
      view.end = from;
      return view;
    }
    if (from.incarnation != view.end.incarnation || from.number + 1 < log.first_kept) return view;
    for (auto number = from.number + 1; number <= log.last && view.blocks.size() < most_blocks; ++number)
      view.blocks.push_back(log.blocks[static_cast<std::size_t>(number - log.first_kept)]);
    return view;
  }

  // What may happen to it:
  void trim() {
    for (auto& [name, log] : logs) {
      auto const kept = random_.percent(50) ? 0 : random_.below(log.blocks.size() + 1);
      log.first_kept += log.blocks.size() - kept;
      log.blocks.erase(log.blocks.begin(), log.blocks.end() - static_cast<std::ptrdiff_t>(kept));
    }
  }
  void forget_rooms() { logs.clear(); }
  /// It forgets everything, or only what it has not written to its disk.
  void restart() {
    ++life;
    if (random_.percent(50)) forget_rooms();
    for (auto& [name, log] : logs) {
      auto const rest = std::min(log.blocks.size(), random_.below(3));
      log.last -= rest;
      log.blocks.resize(log.blocks.size() - rest);
    }
    has_no_scripts = false;
    for (auto const& pair : pairs) pair->is_broken = true;
  }

  /// Executes a command. Returns false if it has none, or stands still.
  bool step() {
    std::erase_if(
        pairs, [](auto const& pair) { return (pair->node == nullptr && pair->commands.empty()) || pair->is_broken; });
    if (stands_still || pairs.empty()) return false;
    auto const pair = random_.one_of(pairs);
    auto& queue = random_.percent(50) ? pair->commands : pair->subscriptions;
    if (queue.empty()) return false;
    auto const command = std::move(queue.front());
    queue.pop_front();
    command();
    return true;
  }

  std::map<std::string, Log, std::less<>> logs;
  std::vector<std::shared_ptr<EnginePair>> pairs;
  std::uint64_t life = 1, appended = 0;
  int refuses = 0;  // the next commands
  bool stands_still = false, has_no_scripts = false;
  bool has_refused_retry = false;  // so nobody knows what became of the first attempt
  std::string_view wrong;

 private:
  static constexpr std::size_t most_blocks = 3, most_past = 8;

  std::uint64_t shown(std::uint64_t incarnation) const { return wrong == "hides the incarnation" ? 1 : incarnation; }
  void begin(Log& log) {
    if (log.incarnation == 0) log.incarnation = ++incarnations_;
  }
  void publish(std::string const& room, LogPosition const& at, std::string const& block);

  chatproto::detail::Random& random_;
  std::uint64_t incarnations_ = 0;
};

/// A server's backplane.
class ClusterNode final : public Backplane {
 public:
  using Rules = chatproto::detail::BackplaneRules<ClusterNode>;

  ClusterNode(Engine& engine, std::size_t number, chatproto::detail::Random& random, std::string_view wrong)
      : wrong_(wrong), engine_(engine), number_(number), random_(random) {}
  ~ClusterNode() override { close(); }

  // What the service asks for:
  void start(Sink& sink) override { sink_ = &sink; }
  void stop() noexcept override {
    sink_ = nullptr;
    close();
  }
  void append(std::string_view room, Said const& said, std::shared_ptr<Waiter> waiter) override {
    if (wrong_ == "delivers its own texts at once") sink_->deliver(room, said);
    if (wrong_ == "answers at once" && waiter) std::exchange(waiter, nullptr)->tell(Outcome::done);
    inbox_.append(room, said, std::move(waiter), [this] { has_requests_ = true; });
  }
  void follow(std::string_view room, std::shared_ptr<Waiter> waiter) override {
    if (wrong_ == "joins at once" && waiter) std::exchange(waiter, nullptr)->tell(Outcome::done);
    inbox_.follow(room, std::move(waiter), [this] { has_requests_ = true; });
  }
  void unfollow(std::string_view room) noexcept override { inbox_.unfollow(room); }
  void at_end(std::string_view room, std::shared_ptr<Waiter> waiter) override {
    if (wrong_ == "leaves at once" && waiter) std::exchange(waiter, nullptr)->tell(Outcome::done);
    inbox_.at_end(room, std::move(waiter), [this] { has_requests_ = true; });
  }

  // What the rules ask for:
  void deliver(std::string_view room, Said const& said) { sink_->deliver(room, said); }
  void lost(std::string_view room) {
    ++losses;
    if (wrong_ != "hides a loss") sink_->lost(room);
  }
  void past(std::string_view room, Said const& said) { sink_->past(room, said); }
  void left(std::string_view room) {
    if (wrong_ != "keeps what it has left") sink_->left(room);
  }
  void append(std::string_view room, std::uint64_t sequence, std::uint64_t incarnation, bool is_retry,
              std::string_view block) {
    if (is_retry) ++retries;
    command([=, this, name = std::string(room), text = std::string(block)](EnginePair& pair) {
      auto const [result, now] = engine_.append(name, number_, sequence, incarnation, is_retry, text);
      reply(pair, [=, this, outcome = result, known = now] {
        auto const is_wrong = outcome == Engine::Result::unknown && wrong_ == "takes an unknown fate for stored";
        if (outcome == Engine::Result::again) engine_.has_no_scripts = false;  // they are loaded again
        rules.appended(name, sequence, is_wrong ? Engine::Result::stored : outcome, known);
      });
    });
  }
  void look(std::string_view room, LogPosition const& from, bool wants_past) {
    wants_past = wants_past && sink_->wanted_past();
    command([=, this, name = std::string(room)](EnginePair& pair) {
      if (engine_.refuses > 0 && --engine_.refuses >= 0) return reply(pair, [=, this] { rules.looked(name, nullptr); });
      auto seen = engine_.look(name, from, wants_past);
      reply(pair, [=, this, view = std::move(seen)] {
        chatproto::detail::LogView shown{view.end, {}, from.number + 1};
        if (wrong_ == "forgets to look" && from.incarnation != 0) shown.end = {};  // has to be known already
        for (auto const& block : view.blocks) shown.blocks.push_back(block);
        rules.looked(name, &shown);
      });
    });
  }
  void subscribe(std::string_view room) {
    auto const confirm = [this, name = std::string(room)] { rules.subscribed(name); };
    auto const at_once = wrong_ == "confirms at once";
    pair_->subscriptions.push_back([=, name = std::string(room), pair = pair_.get()] {
      pair->channels.insert(name);
      if (!at_once && pair->node != nullptr) pair->messages.push_back(confirm);
    });
    if (at_once) pair_->messages.push_back(confirm);
  }
  void unsubscribe(std::string_view room) {
    pair_->subscriptions.push_back([name = std::string(room), pair = pair_.get()] { pair->channels.erase(name); });
  }
  void beat(std::uint64_t number) {
    if (wrong_ == "waits for no beat") return pair_->messages.push_front([=, this] { rules.beat_came(number); });
    command([=, this](EnginePair& pair) {
      if (pair.node != nullptr) pair.messages.push_back([=, this] { rules.beat_came(number); });
    });
  }
  void renew(std::string_view) {}
  void reconnect() { break_off(); }

  /// Something that came in the room `name`.
  void came(std::string const& name, LogPosition const& at, std::string const& block) { rules.came(name, at, block); }

  // What may happen:
  /// Does one of the things that are due. Returns false if there is none.
  bool step() {
    if (stands_still) return false;
    if (has_requests_ && random_.percent(50)) {
      has_requests_ = false;
      inbox_.pass_on(
          false, [this](auto const&) -> auto& { return rules; });
      return true;
    }
    if (!pair_) {
      if (engine_.stands_still || random_.percent(80)) return false;
      connect();
      return true;
    }
    auto& queue = random_.percent(50) ? pair_->replies : pair_->messages;
    if (queue.empty()) {
      if (!pair_->is_broken || !pair_->replies.empty() || !pair_->messages.empty()) return false;
      break_off();
      return true;
    }
    auto const event = std::move(queue.front());
    queue.pop_front();
    event();
    return true;
  }
  void tick(std::chrono::milliseconds passed) {
    if (stands_still) return;
    auto const before = rules.silence();
    silence += std::min<std::chrono::milliseconds>(passed, 2 * Rules::tick_period);
    if (wrong_ == "counts its own silence") {
      for (; passed > 0ms; passed -= Rules::tick_period) rules.tick(std::min(passed, Rules::tick_period));
    } else {
      rules.tick(passed);
    }
    inbox_.pass_on(
        true, [this](auto const&) -> auto& { return rules; });
    has_requests_ = false;
    if (rules.silence() < before) silence = 0ms;
  }
  /// The engine closes the connections, or only one if `wrong` says so. What is on its way may still come.
  void be_killed() {
    if (!pair_ || pair_->is_broken) return;
    if (wrong_ == "keeps one connection") {  // the other one is made anew in silence
      pair_->messages.clear();
      return;
    }
    pair_->is_broken = true;
    if (random_.percent(50)) pair_->messages.clear();
    if (random_.percent(50)) pair_->replies.clear();
  }
  /// Closes the connections. The engine may still execute what was sent.
  void break_off() {
    close();
    rules.disconnected();
  }
  bool is_connected() const { return pair_ != nullptr; }

  std::uint64_t losses = 0, retries = 0;
  std::chrono::milliseconds silence{};  // since a beat came, while it did not stand still
  bool stands_still = false;

 private:
  void connect() {
    pair_ = std::make_shared<EnginePair>();
    pair_->node = this;
    engine_.pairs.push_back(pair_);
    rules.connected(wrong_ == "hides a new life" ? "1" : std::to_string(engine_.life));
  }
  void close() noexcept {
    if (auto const pair = std::exchange(pair_, nullptr)) pair->node = nullptr;
  }
  void command(auto run) {
    pair_->commands.push_back([run = std::move(run), pair = pair_.get()] { run(*pair); });
  }
  void reply(EnginePair& pair, std::function<void()> event) {
    if (pair.node != nullptr) pair.replies.push_back(std::move(event));
  }

  std::string_view const wrong_;
  Engine& engine_;
  std::size_t const number_;
  chatproto::detail::Random& random_;
  Sink* sink_ = nullptr;
  std::shared_ptr<EnginePair> pair_;
  chatproto::detail::BackplaneInbox inbox_;
  bool has_requests_ = false;

 public:
  Rules rules{*this, {}, 10s};
};

inline void Engine::publish(std::string const& room, LogPosition const& at, std::string const& block) {
  for (auto const& pair : pairs) {
    if (pair->node == nullptr || !pair->channels.contains(room)) continue;
    auto const event = [=, node = pair->node] { node->came(room, at, block); };
    pair->messages.push_back(event);
    if (random_.percent(5)) pair->messages.push_back(event);  // repeats it
  }
}

}  // namespace simulation
