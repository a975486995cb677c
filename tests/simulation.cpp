// SPDX-License-Identifier: BSL-1.0
// Runs the core under a scheduler driven only by a seed: no thread, no clock, no socket. Clients connect, send, change
// rooms, stall and vanish. The real rules of their links (detail/server/link_rules.hpp) deliver lines, write and end,
// in an order that the seed chooses; other links act between two lines, and between taking output and writing it.
// simulated_client.hpp has the clients, history.hpp checks what all of them have seen.
//
//   simulation [--seconds S | --histories N] [--first SEED]   runs many histories, with the seeds from SEED on
//   simulation --seed SEED                                    runs this one, and reports each step
//   simulation --self-test                                    uses the rules wrongly, which must be detected
//
// With --servers 3 in front, the rooms span several servers, with simulated_cluster.hpp between them.
#include <chatproto/chat_service.hpp>
#include <chatproto/detail/held_memory.hpp>
#include <chatproto/detail/testing/random.hpp>
#include <chatproto/detail/testing/simulated_link.hpp>
#include <chatproto/login.hpp>
#include <chatproto/message_queue.hpp>
#include <chatproto/observer.hpp>
#include <chatproto/peer.hpp>
#include <chatproto/server_options.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <iostream>
#include <iterator>
#include <list>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "history.hpp"
#include "sanitized.hpp"
#include "simulated_client.hpp"
#include "simulated_cluster.hpp"
#include "support.hpp"
#if CHATPROTO_SANITIZED
#include <sanitizer/common_interface_defs.h>
#endif

namespace simulation {

using chatproto::ChatService;
using chatproto::DisconnectReason;
using chatproto::MessageQueue;

// --- The parts -------------------------------------------------------------------------------------------------------

/// What a link may do wrong, for the self-test. The first three happen with a partial write.
constexpr std::array wrongs = {"loses a byte"sv,           "repeats a byte"sv,       "drops the rest of a line"sv,
                               "writes twice"sv,           "writes the log first"sv, "forgets a wakeup"sv,
                               "forgets to write again"sv, "forgets turns"sv,        "forgets a resume"sv,
                               "forgets the time"sv,       "forgets a task"sv,       "forgets a flush"sv,
                               "keeps the session"sv,      "ends early"sv,           "cuts untried"sv,
                               "reads unasked"sv,          "ends a half line"sv};

class Link;

class Simulation : public World {
 public:
  Simulation(std::uint64_t seed, std::string_view how, bool aloud, Tally& counts, std::size_t server_count);
  Simulation(Simulation const&) = delete;
  Simulation& operator=(Simulation const&) = delete;
  ~Simulation();

  void run();
  void look();
  /// Lets other links act, now and then.
  void meanwhile();

  std::string_view const wrong;              // empty: nothing
  std::vector<chatproto::Verdict> verdicts;  // on logins, which they all let in
  Engine engine{random};
  std::vector<std::shared_ptr<ClusterNode>> nodes;  // of each service, if there are several
  std::list<ChatService> services;
  std::vector<std::shared_ptr<Link>> links;
  Link* acting = nullptr;
  std::uint64_t said = 0, kept = 0;  // texts that sessions got; an upper bound of those not in a log yet
  bool drained = false;              // all links have stopped reading
  bool may_lose = false;             // something has happened for which a cluster cuts clients

 private:
  void step();
  void pass_time();
  void act_in_cluster();
  void disturb();
  void judge();

  std::size_t const weather = random.one_of(std::array{1u, 5u, 9u});  // which disturbances happen
  std::vector<Link*> present_;
  std::uint64_t steps_ = 0;
  std::size_t depth_ = 0;  // how many links are acting in between
};

// --- A link: the server's end of a client's connection ---------------------------------------------------------------

/// Checks what the rules do with the client, or uses them wrongly.
class Link final : public chatproto::detail::SimulatedLink<ChatService, Client> {
 public:
  Link(Simulation& world, ChatService& service)
      : SimulatedLink(service, world.options, world.links.size() + 1, world), world_(world) {}

  void comes() {
    client.tell("comes:", client.me.user, client.manner());
    start();
  }

  /// Does one of the things that are due, if there are any.
  void act() {
    due_.clear();
    list_due(due_);
    auto const unpauses = to_unpause_ && !is_busy() ? 1u : 0u;
    if (due_.size() + unpauses == 0) return;
    refused_ = false;
    auto const chosen = random_.below(due_.size() + unpauses);
    if (chosen == due_.size()) {
      to_unpause_ = false;
      return peer().resume();
    }
    auto const action = due_[chosen];
    std::size_t which = 0;
    if (action == Action::take_turn) ++world_.tally.at("turns");
    if (action == Action::run) which = random_.below(posted());
    if (action == Action::read) {
      which = most_to_read();
      if (random_.percent(50)) which = 1 + random_.below(std::min<std::size_t>(which, 600));
    }
    SimulatedLink::act(action, which);
  }

  /// Closes or aborts it from outside, at any moment.
  void close_it(bool at_once = false) {
    client.tell(at_once ? "is aborted" : "is closed");
    client.leaves();
    misses_ = world_.in_cluster && !world_.drained;
    unanswered_ = unanswered_ || is_busy() || is_paused();
    (at_once ? aborted_ : closed_) = true;
    if (at_once && random_.percent(30)) return MessageQueue::cut(State::over_memory);  // memory is short
    at_once ? peer().abort() : peer().close();
  }
  void post_task() {
    auto const posted = peer().post([this] {
      has_run_ = true;
      if (!is_paused() && random_.percent(20)) pause();  // else its resume would make up for a forgotten one
    });
    if (posted == has_ended()) client.fault("takes a task after its end, or none before");
  }
  bool stops() { return (reads_lines() || rules().is_awaited()) && !has_ended(); }

 private:
  // What the session does:
  void on_line(Session& chat, std::string_view line) override {
    takes([&] { chat.on_line(line); }, chat);
  }
  void on_bad_line(Session& chat, std::error_code ec) override {
    takes([&] { chat.on_bad_line(ec); }, chat);
  }
  void on_resume(Session& chat) override {
    chat.on_resume();
    waits_ = chat.role() == Session::waiting;
    gone_ = chat.role() == Session::gone;  // by a quit that was deferred
  }
  void flush(Session& chat) override {
    if (wrong("forgets a flush", 20)) return;
    flushes_ = true;
    chat.flush();
    flushes_ = false;
    waits_ = chat.role() == Session::waiting;
    gone_ = chat.role() == Session::gone;  // the same: a task comes before the resume
    world_.look();
    world_.kept -= std::exchange(kept_, 0);
    pending_ = 0;
  }
  bool logged_in(std::string_view /*name*/) override {
    if (client.begun() == 0 || waits_) client.fault("is wrongly taken to be logged in");
    has_logged_in_ = true;
    return true;
  }
  void threw(std::string_view what) override { client.fault("threw " + std::string(what)); }

  // What the queue does:
  void wake() override {
    if (flushes_ && !world_.in_cluster && world_.services.front().texts() + world_.kept - kept_ < world_.said)
      client.fault("gets an ok for what does not stand in its room's log");
    if (!is_woken() && !wrong("forgets a wakeup", 5)) SimulatedLink::wake();
  }
  void pause_input() override {
    if (!to_unpause_) ++world_.tally.at("waits");
    SimulatedLink::pause_input();
  }
  void resume_input() noexcept override {
    if (!wrong("forgets a resume", 20)) SimulatedLink::resume_input();
  }
  void throttled(Time::duration time) override {
    ++world_.tally.at("throttles");
    SimulatedLink::throttled(time);
  }

  // What the rules want:
  bool wants_input() override { return SimulatedLink::wants_input() || wrong("reads unasked", 5); }
  bool wants_writable() override { return SimulatedLink::wants_writable() && world_.wrong != "forgets to write again"; }
  bool wants_turn() override { return SimulatedLink::wants_turn() && world_.wrong != "forgets turns"; }
  bool wants_shutdown() override {
    return SimulatedLink::wants_shutdown() || (wrong("ends early", 5) && closed_ && !client.saw_end());
  }
  Time::time_point deadline() override {
    return world_.wrong == "forgets the time" ? Time::time_point::max() : SimulatedLink::deadline();
  }

  // What happens at the connection:
  void end_input() override {
    client.tell("sends no more");
    if (world_.wrong == "ends a half line") rules().received("\n");
    client.leaves();
    SimulatedLink::end_input();
    finishes_ = !is_open();  // else its session still waits for texts
  }
  void run_task(Task& task) override {
    ++world_.tally.at("tasks");
    auto const runs = has_session() && is_open() && reads_lines();
    has_run_ = false;
    if (!wrong("forgets a task", 20)) SimulatedLink::run_task(task);
    if (has_run_ != runs) client.fault(runs ? "does not run a task" : "runs a task, and is closed");
  }
  void took_output(bool found) override {
    finishes_ = finishes_ || (found && !is_open());
    world_.meanwhile();
  }
  std::string bytes_of(chatproto::detail::Output const& output) override {
    if (world_.wrong == "writes the log first") return test::text_of(output.log) + test::text_of(output.batch);
    return SimulatedLink::bytes_of(output);
  }
  std::size_t write_bytes(std::string_view bytes) override {
    auto size = std::min(bytes.size(), client.appetite());
    if (size > 1 && random_.percent(10)) size = 1 + random_.below(size);
    if (wrong("cuts untried", 20)) size = 0;
    client.tell("is sent", size, "bytes of", bytes.size());
    auto const stalls = size < bytes.size();
    if (stalls) ++world_.tally.at("stalls");
    if (size > 0 || !stalls) moved_ = Time::time;
    auto const see = [this](std::string_view line) { client.sees(line); };
    client.accept(bytes.substr(0, size), see);
    refused_ = stalls && client.appetite() == 0;
    if (wrong("writes twice", 5)) client.receive(bytes.substr(0, size), see);
    if (stalls && size > 0) {
      if (world_.wrong == "loses a byte") ++size;
      if (world_.wrong == "repeats a byte") --size;
      if (world_.wrong == "drops the rest of a line") size = bytes.find('\n', size - 1) + 1;
    }
    return size;
  }
  void shut_down() override {
    client.sees_end(is_unanswered(), misses_);
    rules().shut_down();
    if (!has_input_ended() && !rules().wants_input()) client.fault("will not be read to its end");
  }
  void forget_session() override {
    if (world_.wrong != "keeps the session") SimulatedLink::forget_session();
  }
  void was_ended(DisconnectReason reason) override {
    client.tell("has ended:", to_string(reason));
    judge_end(reason);
    if ((reason == DisconnectReason::closed || reason == DisconnectReason::login_deadline) && !client.has_reset() &&
        !client.saw_end())
      client.sees_end(is_unanswered(), misses_);
    client.leaves();
  }

  /// Whether it may end before all its lines are answered.
  bool is_unanswered() const { return unanswered_ || waits_; }
  bool wrong(std::string_view how, std::size_t percent) { return world_.wrong == how && random_.percent(percent); }

  /// Delivers a line to its session.
  void takes(auto const& call, Session const& chat) {
    world_.look();
    if (!gone_) {  // else the line is ignored
      auto const& said = client.begins();
      leaves_ = said.what == Said::enter || said.what == Said::quit;
      if (said.what == Said::text) {
        pending_ += said.size;
        ++world_.said;
        ++world_.kept;
        ++kept_;
      }
    }
    world_.meanwhile();
    call();
    waits_ = chat.role() == Session::waiting;
    gone_ = chat.role() == Session::gone;
    if (random_.percent(world_.pauses)) pause();
  }
  void pause() {
    ++world_.tally.at("pauses");
    to_unpause_ = true;
    peer().pause();
  }

 public:
  /// Checks its backlog, after each step.
  void look() {
    auto const limit = world_.options.queue_limit;
    auto const unread = log_backlog();
    auto const behind = unread + queued_bytes();
    auto const* const from = world_.acting;
    if (is_cut() && !std::exchange(was_cut_, true)) {
      most_behind_ = behind_ + entry_cost;
      if (from != nullptr) most_behind_ += from->pending_;
      if (from == this) most_behind_ += client.awaited() * 320 + (world_.keeps > 0 ? 64 * 1024 : 0);
      if (world_.in_cluster) most_behind_ += 64 * 1024;  // a block joins what many have said
      left_ = leaves_ && is_paused();
    }
    if (overflow() == chatproto::Overflow::block_sender) {
      // Each sender may have added one more block, of what its session held back.
      if (unread > limit + limit / 16 + world_.links.size() * 34'000)
        client.fault("has more unread than the limit lets it");
    } else if (!is_busy() && unread > unread_before_ + limit / 16) {
      if (unread_before_ >= (limit + 1) * hard_limit_factor) client.fault("is not cut, and is far behind");
      if (unread_before_ > limit && rules().wants_writable() && !is_woken())
        client.fault("is behind, and no write is tried");
    }
    if (finishes_ && unread > unread_before_) client.fault("is closed, and has more to read");
    finishes_ = finishes_ || (has_input_ended() && !is_open() && !closed_ && !aborted_);
    if (world_.in_cluster && is_paused() && !is_open()) unanswered_ = true;  // while it waited for the engine
    unread_before_ = unread;
    behind_ = behind;
    auto const idle = !is_busy() && is_open() && !client.has_reset() && !is_woken() && !is_listed() && posted() == 0 &&
                      !is_paused() && !rules().wants_writable() && !rules().wants_turn() &&
                      throttle_end() == Time::time_point::max();
    if (!idle) return;
    if (client.awaited() > 0) client.fault("has a line without its reply");
    if (behind > 0) client.fault("is asleep, and something waits for it");
  }

 private:
  void judge_end(DisconnectReason reason) {
    auto const expect = [this](bool right, char const* what) { right ? void() : client.fault(what); };
    auto const& options = world_.options;
    switch (reason) {
      case DisconnectReason::closed: return expect(closed_ || gone_ || has_input_ended(), "is closed by nobody");
      case DisconnectReason::memory:
      case DisconnectReason::aborted: return expect(aborted_, "is aborted by nobody");
      case DisconnectReason::lost: return expect(client.has_reset(), "is taken to be lost");
      case DisconnectReason::refused:
      case DisconnectReason::banned: return expect(false, "is refused, without a proxy or a ban");
      case DisconnectReason::room_lost:
        return expect(world_.may_lose || world_.engine.has_refused_retry, "is cut, and nothing can be lost");
      case DisconnectReason::handshake: return expect(false, "had a handshake, without a layer");
      case DisconnectReason::login_deadline:
        return expect(!has_logged_in_ && Time::time >= came_ + options.login_deadline, "has logged in, or had time to");
      case DisconnectReason::write_deadline:
        ++world_.tally.at("deadlines");
        return expect(refused_ && Time::time >= moved_ + options.write_deadline,
                      "is cut, and its socket took something");
      case DisconnectReason::overflow:
        ++world_.tally.at("overflows");
        if (refused_ && overflow() == chatproto::Overflow::disconnect) return;
        // A closed link retains what others send after that, and is cut for it. So does one whose session leaves.
        return expect(was_cut_ && (finishes_ || left_ || most_behind_ >= hard_limit_factor * options.queue_limit),
                      "is cut, and no write was tried");
      default: return client.fault("has failed");
    }
  }

  Simulation& world_;
  chatproto::detail::Random& random_ = world_.random;
  std::vector<Action> due_;  // kept for its memory
  bool to_unpause_ = false, has_run_ = false;

  // What is known
  Time::time_point const came_ = Time::time;
  Time::time_point moved_ = came_;                                // its socket accepted bytes, or nothing was left
  bool flushes_ = false;                                          // its session sends what it has held back
  std::uint64_t kept_ = 0;                                        // an upper bound of the texts held back
  std::size_t pending_ = 0;                                       // an upper bound of the bytes of deliveries held back
  std::size_t behind_ = 0, unread_before_ = 0, most_behind_ = 0;  // backlog in bytes at the last look
  bool was_cut_ = false;                                          // at the last look
  bool finishes_ = false;                                         // its link knows that it is closed
  bool refused_ = false;                                          // its socket accepted nothing just now
  bool gone_ = false;                                             // has quit or was refused: its lines are ignored
  bool leaves_ = false, left_ = false;                            // its last line leaves its room; had when it was cut
  bool waits_ = false, has_logged_in_ = false;                    // for the verdict on its login; has got it
  bool closed_ = false, aborted_ = false;                         // from outside
  bool misses_ = false;                                           // closed before it had all of its room's texts
  bool unanswered_ = false;                                       // it was closed before its replies were queued
};

// --- The scheduler ---------------------------------------------------------------------------------------------------

Simulation::Simulation(std::uint64_t seed, std::string_view how, bool aloud, Tally& counts, std::size_t server_count)
    : World(seed, aloud, counts), wrong(how) {
  options.queue_limit = random.one_of(std::array{4u, 12u, 300u, 600u, 1500u, 40'000u, 262'144u});
  if (random.percent(40)) options.overflow = chatproto::Overflow::block_sender;
  in_cluster = server_count > 1;
  if (in_cluster) options.overflow = chatproto::Overflow::disconnect;
  engine.wrong = wrong;
  if (random.percent(30)) keeps = random.one_of(std::array{1u, 10u, 1000u});
  for (std::size_t i = 0; i < server_count; ++i) {
    chatproto::ChatOptions chat;
    if (asks) chat.authenticate = [this](auto&&, auto verdict) { verdicts.push_back(std::move(verdict)); };
    if (in_cluster) chat.backplane = nodes.emplace_back(std::make_shared<ClusterNode>(engine, i, random, wrong));
    chat.history.lines = keeps;
    services.emplace_back(std::move(chat));
  }
  if (random.percent(10)) options.rate = 1000;
  Time::start(random.one_of(std::array{0us, 0us, 1us, 30us, 300us}));
}

Simulation::~Simulation() {
  for (auto const& link : links) link->drop();
}

void Simulation::look() {
  for (auto* link : present_) link->look();
}

void Simulation::meanwhile() {
  look();
  ++depth_;
  while (depth_ < 4 && steps_ % 1000 != 0 && faults.empty() && random.percent(others)) step();
  --depth_;
}

void Simulation::pass_time() {
  auto const passed = random.one_of(std::array{1ms, 20ms, 20ms, 200ms, 3000ms, 11000ms});
  Time::time += passed;
  for (auto* link : present_) link->pass_time();
  for (auto const& node : nodes) {
    node->tick(std::chrono::duration_cast<std::chrono::milliseconds>(passed));
    may_lose = may_lose || node->silence >= 4s;
  }
}

/// Lets the engine or a server do what is due between them.
void Simulation::act_in_cluster() {
  for (auto tries = 0; tries < 8; ++tries)
    if (random.percent(40) ? engine.step() : random.one_of(nodes)->step()) return;
}

void Simulation::disturb() {
  auto& node = *random.one_of(nodes);
  auto const happens = [this](std::string_view what, bool loses) {
    tell("cluster:", what);
    ++tally.at(what);
    may_lose = may_lose || loses;
  };
  switch (random.below(weather)) {
    case 0:
    case 1: return happens("kills", false), node.be_killed();
    case 2: return node.stands_still ? void() : happens("stopped servers", false), void(node.stands_still ^= true);
    case 3: return happens("refusals", false), void(engine.refuses = static_cast<int>(random.below(5)));
    case 4: return happens("lost scripts", false), void(engine.has_no_scripts = true);
    case 5: return happens("stops of the engine", true), void(engine.stands_still ^= true);
    case 6: return happens("restarts", true), engine.restart();
    case 7:
      happens("flushes", true);
      if (random.percent(50)) node.be_killed();
      return engine.forget_rooms();
    default: return happens("trims", true), engine.trim();
  }
}

void Simulation::step() {
  ++tally.at("steps");
  ++steps_;
  if (!last_call && present_.size() < most_clients && links.size() < 60 && (present_.empty() || random.percent(5))) {
    auto const which = static_cast<std::ptrdiff_t>(random.below(services.size()));
    links.push_back(std::make_shared<Link>(*this, *std::next(services.begin(), which)));
    present_.push_back(links.back().get());
    return links.back()->comes();
  }
  if (!verdicts.empty() && random.percent(5)) {
    ++tally.at("verdicts");
    std::swap(verdicts[random.below(verdicts.size())], verdicts.back());
    auto verdict = std::move(verdicts.back());
    verdicts.pop_back();
    return verdict.accept();
  }
  if (in_cluster && random.percent(60)) {
    act_in_cluster();
    if (!last_call && random.below(1000) < 3) disturb();
    look();
    if (random.percent(50)) return;
  }
  if (present_.empty()) return;  // all that may come have come and gone
  auto* const link = random.one_of(present_);
  auto* const outer = std::exchange(acting, link);
  auto const die = random.below(1000);
  if (die < 6)
    pass_time();
  else if (die < 9 && !last_call)
    link->close_it(random.percent(60));
  else if (die < 14)
    link->post_task();
  else if (die < 300)
    link->client.live();
  else
    link->act();
  look();
  acting = outer;
  if (link->has_ended()) present_.erase(std::find(present_.begin(), present_.end(), link));
}

void Simulation::run() {
  for (auto const most = 50 + random.below(900); steps_ < most && faults.empty();) step();
  last_call = true;
  engine.stands_still = false;
  for (auto const& node : nodes) node->stands_still = false;
  draining = random.percent(40);
  if (draining) ++tally.at("drains");
  if (draining)
    for (auto* link : present_) {
      link->stop_reading();
      if (in_cluster) link->client.leaves();  // it may miss what other servers' senders say from now on
    }
  for (auto const most = steps_ + 30'000; !present_.empty() && faults.empty();) {
    if (draining && !drained &&
        std::none_of(present_.begin(), present_.end(), [](auto* link) { return link->stops(); })) {
      drained = true;
      for (auto* link : present_) link->close_it();
    }
    if (steps_ > most) return fault("It never ends.");
    step();
  }
  if (faults.empty()) judge();
}

void Simulation::judge() {
  for (auto const& service : services)
    if (service.room_count() != 0) fault("A room is left.");
  for (auto const& node : nodes) {
    auto const& counts = node->rules.counts();
    tally.at("retries") += node->retries;
    tally.at("rooms lost") += node->losses;
    tally.at("gaps closed") += counts.gaps_closed;
    tally.at("appends refused") += counts.refused;
    tally.at("appends unknown") += counts.unknown;
  }
  if (in_cluster) services.clear();  // what waits for the engine holds clients
  nodes.clear();
  verdicts.clear();  // on clients that have gone
  history::History history;
  for (auto const& link : links) {
    if (link.use_count() != 1) fault("A client is still held by something.");
    history.senders.emplace(static_cast<std::uint32_t>(history.senders.size()), std::move(link->client.sender));
    history.receivers.push_back(std::move(link->client.me));
    for (auto& stay : history.receivers.back().stays) stay.past_is_whole = !may_lose;
  }
  std::size_t histories = 0;
  for (auto const& service : services) histories += service.history_bytes();
  if (chatproto::detail::HeldMemory::total() != histories) fault("Memory is still held.");
  history::Judge const judge(history);
  for (auto const& what : judge.faults()) fault(what);
  tally.at("receipts owed") += judge.owed();
}

// --- The program -----------------------------------------------------------------------------------------------------

std::uint64_t seed = 1;  // of the current history
std::uint64_t servers = 1;
char const* program = "simulation";

Tally no_tally() {
  auto tally = nothing_yet;
  if (servers == 1) return tally;
  tally.insert(nothing_in_clusters.begin(), nothing_in_clusters.end());
  return tally;
}

/// Runs a history. Returns whether nothing was wrong.
bool happens(std::string_view wrong, bool told, Tally& tally) {
  Simulation world(seed, wrong, told, tally, static_cast<std::size_t>(servers));
  world.run();
  ++tally.at("histories");
  if (wrong.empty() && !told)
    for (auto const& fault : world.faults) std::cerr << fault << '\n';
  return world.faults.empty();
}

void tell_how_to_repeat() {
  std::cerr << "seed " << seed << " fails. Again: " << program << (servers > 1 ? " --servers 3" : "") << " --seed "
            << seed << '\n';
}

int self_test() {
  constexpr std::uint64_t most = 20'000;  // histories; what is wrong in one of some thousand is found as well
  auto missed = 0;
  std::vector<std::string_view> all(wrongs.begin(), wrongs.end());
  if (servers > 1) all.assign(cluster_wrongs.begin(), cluster_wrongs.end());
  for (auto const wrong : all) {
    auto tally = no_tally();
    for (seed = 1; seed <= most && happens(wrong, false, tally); ++seed) {
    }
    if (seed > most) ++missed;
    std::cout << (servers > 1 ? "wrong cluster \"" : "wrong link \"") << wrong
              << (seed > most ? "\": NOT found" : "\": found") << " after " << tally.at("histories") << " histories\n";
  }
  return missed == 0 ? 0 : 1;
}

int main(int argc, char** argv) {
  program = argv[0];
  std::uint64_t seconds = 0, histories = 3000, one = 0;
  for (auto i = 1; i < argc; i += 2) {
    std::string_view const option = argv[i];
    if (option == "--self-test") return self_test();
    auto* const number = option == "--seconds"     ? &seconds
                         : option == "--histories" ? &histories
                         : option == "--first"     ? &seed
                         : option == "--seed"      ? &one
                         : option == "--servers"   ? &servers
                                                   : nullptr;
    std::string_view const value = i + 1 < argc ? argv[i + 1] : "";
    if (number == nullptr ||
        std::from_chars(value.data(), value.data() + value.size(), *number).ptr != value.data() + value.size() ||
        value.empty()) {
      std::cerr << "usage: simulation [--servers 3] [--seconds S | --histories N] [--first SEED] | --seed SEED | "
                   "--self-test\n";
      return 1;
    }
  }
#if CHATPROTO_SANITIZED
  __sanitizer_set_death_callback(tell_how_to_repeat);
#endif
  for (auto const signal : {SIGABRT, CHATPROTO_SANITIZED ? SIGABRT : SIGSEGV})  // a failed assertion or a crash
    std::signal(signal, [](int number) {
      std::signal(number, SIG_DFL);
      tell_how_to_repeat();
    });

  auto tally = no_tally();
  if (one > 0) {
    seed = one;
    return happens("", true, tally) ? 0 : 1;
  }
  auto const end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  for (; seconds > 0 ? tally.at("histories") % 64 != 0 || std::chrono::steady_clock::now() < end
                     : tally.at("histories") < histories;
       ++seed)
    if (!happens("", false, tally)) return tell_how_to_repeat(), 1;
  auto complete = true;
  for (auto const& [what, count] : tally) {
    std::cout << count << ' ' << what << '\n';
    if (count == 0 && tally.at("histories") >= 1000) complete = false;
  }
  if (!complete) std::cerr << "something never happened\n";
  return complete ? 0 : 1;
}

}  // namespace simulation

int main(int argc, char** argv) { return simulation::main(argc, argv); }
