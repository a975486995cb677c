// SPDX-License-Identifier: BSL-1.0
// A client of the simulation, at its own end of the connection: what it sends, what must result from each line, and a
// check that it receives just that. history.hpp judges its record in the end.
#pragma once

#include <chatproto/detail/testing/random.hpp>
#include <chatproto/detail/testing/simulated_link.hpp>
#include <chatproto/message.hpp>
#include <chatproto/server_options.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iostream>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "history.hpp"

namespace simulation {

using namespace std::literals;
using history::Tick;
using Time = chatproto::detail::SimulatedTime;

/// How often each kind of event occurred: a simulation that never reaches one proves nothing about it.
using Tally = std::map<std::string_view, std::uint64_t>;
inline Tally const nothing_yet = {{"histories", 0},     {"steps", 0},          {"lines", 0},
                                  {"receipts owed", 0}, {"stalls", 0},         {"overflows", 0},
                                  {"deadlines", 0},     {"resets", 0},         {"ends of input", 0},
                                  {"quits", 0},         {"moves", 0},          {"pauses", 0},
                                  {"waits", 0},         {"throttles", 0},      {"turns", 0},
                                  {"drains", 0},        {"floods of text", 0}, {"floods of errors", 0},
                                  {"tasks", 0},         {"verdicts", 0},       {"texts of histories", 0}};
/// And in a cluster.
inline Tally const nothing_in_clusters = {
    {"kills", 0},       {"stopped servers", 0}, {"stops of the engine", 0}, {"restarts", 0}, {"flushes", 0},
    {"trims", 0},       {"refusals", 0},        {"lost scripts", 0},        {"retries", 0},  {"rooms lost", 0},
    {"gaps closed", 0}, {"appends refused", 0}, {"appends unknown", 0}};

/// What all clients of a history share, and the parameters of this history.
struct World {
  World(std::uint64_t seed, bool aloud, Tally& counts) : random(seed), told(aloud), tally(counts) {}

  Tick tick() { return ++now; }
  void tell(auto const&... parts) const {
    if (!told) return;
    std::cout << now;
    ((std::cout << ' ' << parts), ...);
    std::cout << '\n';
  }
  void fault(std::string what) {
    tell("FAULT:", what);
    if (faults.size() < 5) faults.push_back(std::move(what));
  }

  chatproto::detail::Random random;
  bool const told;
  Tally& tally;
  chatproto::ServerOptions options;
  std::vector<history::Sender const*> senders;  // by their clients' numbers
  Tick now = 0;
  std::vector<std::string> faults;
  bool last_call = false, draining = false;
  bool in_cluster = false;
  std::size_t keeps = 0;  // how many texts of each room the servers keep

  std::size_t const rooms = random.one_of(std::array{1u, 1u, 2u, 3u});    // how many
  std::size_t const users = random.one_of(std::array{1u, 3u, 4u, 4u});    // how many
  std::size_t const most_clients = 3 + random.below(6);                   // at a time
  std::size_t const most_lines = random.one_of(std::array{1u, 4u, 12u});  // in one write
  // Chances in percent, unless another unit is given:
  std::size_t const others = random.one_of(std::array{2u, 15u, 40u});  // that another link acts in between
  std::size_t const stuck = random.one_of(std::array{0u, 10u, 40u});
  std::size_t const slow = random.one_of(std::array{0u, 30u, 80u});
  std::size_t const restless = random.one_of(std::array{1u, 5u, 25u});  // that a line is a join
  std::size_t const fickle = random.one_of(std::array{1u, 10u});        // in a thousand: to leave, at each step
  std::size_t const impatient = random.one_of(std::array{0u, 50u});     // the same at the end, if it never reads
  std::size_t const pauses = random.one_of(std::array{0u, 0u, 5u});     // after a line
  bool const asks = random.percent(25);                                 // whether the server asks for logins
};

/// A line that a client has sent, and what must result from it.
struct Said {
  enum What { other, text, enter, quit, history } what = other;  // enter: a receiver joins another room
  bool ok = false;
  std::string room = {}, to = {};
  std::uint32_t number = 0;  // of a text
  std::size_t size = 0;      // of its delivery
  Tick begun = 0;            // before its session got the line
};

class Client : public chatproto::detail::ClientEnd {
 public:
  explicit Client(World& world) : world_(world) {
    if (auto const bytes = random_.below(300); !eager_) set_appetite(bytes);
    me.user = sender.user = users[random_.below(world.users)];
    world.senders.push_back(&sender);
  }
  Client(Client const&) = delete;
  Client& operator=(Client const&) = delete;

  history::Receiver me;
  history::Sender sender;

  void tell(auto const&... parts) const { world_.tell(number_, parts...); }
  void fault(std::string const& what) { world_.fault(std::to_string(number_) + ' ' + what); }

  std::string manner() const {
    return (talks_ ? "talks, "s : "listens, "s) + (stuck_ ? "stuck" : eager_ ? "eager" : "slow");
  }

  void live() {
    if (has_reset()) return;
    if (random_.percent(40) && !stuck_) add_appetite(random_.below(world_.last_call ? 5000 : 500));
    auto const goes = random_.below(1000);
    if ((!world_.last_call && goes < world_.fickle) || (world_.last_call && stuck_ && goes < world_.impatient))
      return vanish();
    if (saw_end() || goes < 2 * world_.fickle || (world_.last_call && !world_.draining && goes < 200))
      return half_close();
    auto const starts = role_ == Role::guest || role_ == Role::newcomer;
    if (!world_.last_call && random_.percent(starts ? 90 : talks_ ? 60 : world_.restless)) speak();
  }

  // The client's connection:

  void sees(std::string_view line) {
    if (has_reset()) return;  // it has vanished because of an earlier line of the same write
    if (line.starts_with("delivery:"))
      past_left_ > 0 ? hears_of_past(line) : hears(line);
    else
      is_answered(line);
  }
  /// The connection ends. `unanswered`: replies may be missing. `misses`: so may texts.
  void sees_end(bool unanswered, bool misses) {
    if (has_reset()) return;
    if (saw_end()) fault("sees the end twice");
    see_end();
    if (has_half_line()) fault("sees the end within a line");
    if (awaited() > 0 && !unanswered) fault("sees the end before its replies");
    if (stays_begun_ > 0) me.stays[stays_begun_ - 1].complete = !misses;
  }

  // The client's session:

  /// The session gets the client's next line.
  Said const& begins() {
    if (begun_ == said_.size()) {
      fault("is taken to say more lines than it did");
      said_.emplace_back();
    }
    ++world_.tally.at("lines");
    auto& said = said_[begun_++];
    said.begun = world_.tick();
    tell("is heard, line", begun_);
    if (said.what == Said::text) sender.texts.push_back({said.room, said.to, world_.tick()});
    if (said.what == Said::enter || said.what == Said::quit) leaves();
    if (said.what == Said::enter) me.stays.push_back({said.room, world_.tick(), ~Tick()});
    return said;
  }
  /// From now on the client may have left its room.
  void leaves() {
    if (!me.stays.empty() && me.stays.back().left == 0) me.stays.back().left = world_.tick();
  }
  std::size_t begun() const { return begun_; }
  /// Returns how many of these lines have no reply yet.
  std::size_t awaited() const { return begun_ - answers_; }

 private:
  enum class Role { guest, newcomer, receiver, sender, gone };  // after all lines that it has sent

  static constexpr std::array users = {"ann"sv, "bob"sv, "eve"sv, "Ann7"sv};
  static constexpr std::array rooms = {"a"sv, "cafe"sv, "Cafe"sv};

  void vanish() {
    tell("vanishes");
    ++world_.tally.at("resets");
    reset();
    leaves();
    if (random_.percent(50)) drop_sent();
  }
  void half_close() {
    if (has_ended_input()) return;
    end_input();
    ++world_.tally.at("ends of input");
    if (random_.percent(30)) send("sendall:nobody may hear this");
  }

  /// More than a session holds back: texts to all, texts to all or to one user, lines that only cause small errors.
  enum class Flood { none, texts, mixed, nothings };
  void speak() {
    if (has_ended_input()) return;
    auto flood = Flood::none;
    if (talks_ && world_.options.rate == 0 && random_.below(150) == 0)
      flood = random_.one_of(std::array{Flood::texts, Flood::mixed, Flood::nothings});
    if (flood != Flood::none) ++world_.tally.at(flood == Flood::nothings ? "floods of errors" : "floods of text");
    auto lines = flood == Flood::none ? 1 + random_.below(world_.most_lines) : flood == Flood::nothings ? 2000 : 180;
    for (; lines > 0; --lines) {
      std::string text;
      said_.push_back(line(flood, text));
      auto const& said = said_.back();
      if (world_.told) tell(said.ok ? "says" : "wrongly says", shown(text.substr(0, 30)));
      send(text.append(random_.percent(85) ? "\n" : "\r\n"));
      if (said.what == Said::quit || (!said.ok && (role_ == Role::guest || role_ == Role::newcomer)))
        role_ = Role::gone;
    }
  }
  static std::string shown(std::string text) {
    for (auto& byte : text)
      if (byte < ' ' || byte > '~') byte = '?';
    return text;
  }
  /// Makes a line, and writes it into `text`.
  Said line(Flood flood, std::string& text) {
    static constexpr std::array nonsense = {""sv,      "x"sv,        ":"sv,  "ok:"sv, "Join:a"sv, "slogin:a b"sv,
                                            "join:"sv, "join:a b"sv, "\r"sv, ":a"sv,  "err:x"sv,  "delivery:a:b:c"sv};
    static std::array const too_long = {std::string(255, 'x'), "join:" + std::string(250, 'x'), std::string(600, ':')};
    if (flood == Flood::nothings) return {};
    auto const talks_only = flood != Flood::none;
    if (role_ == Role::gone || random_.percent(3)) {
      auto const which = random_.below(nonsense.size() + too_long.size());
      text = which < nonsense.size() ? std::string(nonsense[which]) : too_long[which - nonsense.size()];
      return {};
    }
    if (role_ == Role::guest && world_.asks && !has_secret_ && random_.percent(50)) {
      has_secret_ = true;
      text = "pass: any\xff secret";
      return {Said::other, true};
    }
    if (role_ == Role::guest) {
      role_ = talks_ ? Role::sender : Role::newcomer;
      text.append(talks_ ? "slogin:" : "rlogin:").append(me.user);
      return {Said::other, true};
    }
    if (role_ == Role::receiver && random_.percent(40)) {
      text = "history:" + std::to_string(random_.one_of(std::array{0u, 1u, 3u, 1000u, 1000u}));
      return {Said::history, world_.keeps > 0};
    }
    auto const die = talks_only ? 99 : random_.below(100);
    if (die < 1 && role_ != Role::newcomer) {
      ++world_.tally.at("quits");
      text = "quit:";
      return {Said::quit, true};
    }
    if (role_ != Role::sender || (room_.empty() && die < 80) || random_.percent(talks_only ? 0 : world_.restless)) {
      std::string const next(rooms[random_.below(world_.rooms)]);
      auto const stays = std::exchange(room_, next) == next;
      text = "join:" + next;
      if (role_ == Role::sender || stays) return {Said::other, true};
      role_ = Role::receiver;
      return {Said::enter, true, next};
    }
    if (die < 5) {
      text = "leave:";
      return {Said::other, !std::exchange(room_, {}).empty()};
    }
    auto const room_left = chatproto::max_line - 12 - room_.size() - me.user.size();  // for the text in a delivery
    auto const whispers = random_.percent(flood == Flood::texts ? 0 : flood == Flood::mixed ? 60 : 30);
    auto const size = random_.percent(4)                             ? room_left + random_.below(2)
                      : flood == Flood::texts || random_.percent(10) ? 190 + random_.below(30)
                                                                     : 12 + random_.below(30);
    Said said{Said::other, false, room_, std::string(whispers ? random_.one_of(users) : "")};
    text = whispers ? "senduser:" + said.to + ":" : "sendall:";
    text += history::text_of({number_, texts_}, size);
    if (room_.empty() || size > room_left) return said;
    said.what = Said::text;
    said.ok = true;
    said.number = texts_++;
    said.size = chatproto::max_line - room_left + size;
    return said;
  }

  void is_answered(std::string_view line) {
    if (awaited() == 0) return fault("gets a reply too many");
    auto const& said = said_[answers_++];
    if (world_.in_cluster && said.ok && line.starts_with("err:the room cannot be reached")) return is_refused(said);
    if (!line.starts_with(said.ok ? "ok:" : "err:")) fault("gets as a reply " + std::string(line.substr(0, 40)));
    answered_ = said.begun;
    if (said.what == Said::text) sender.texts[said.number].ok = world_.tick();
    if (said.what == Said::history && said.ok) {
      auto const number = line.substr(3);
      if (std::from_chars(number.data(), number.data() + number.size(), past_left_).ec != std::errc())
        fault("is told no number of texts");
      past_.clear();
    }
    if (said.what != Said::enter) return;
    if (stays_begun_ > 0) me.stays[stays_begun_ - 1].complete = true;
    if (stays_begun_ > 0) ++world_.tally.at("moves");
    me.stays[stays_begun_++].entered = world_.tick();
  }
  /// The cluster's engine cannot be reached.
  void is_refused(Said const& said) {
    if (said.what == Said::text)
      sender.texts[said.number].refused = true;
    else if (said.what == Said::enter)
      vanish();  // what it has sent already does not fit the room that it is still in
    else
      fault("is refused what needs no engine");
  }
  void hears(std::string_view line) {
    if (auto const id = id_of(line)) me.stays[stays_begun_ - 1].got.push_back({*id, world_.tick(), answered_});
  }
  /// One of the texts that were said before it came.
  void hears_of_past(std::string_view line) {
    if (auto const id = id_of(line)) past_.push_back(*id);
    if (--past_left_ > 0) return;
    world_.tally.at("texts of histories") += past_.size();
    auto& past = me.stays[stays_begun_ - 1].past;
    if (past.empty()) past = std::move(past_);
  }
  /// Returns the id of what is delivered in the present room.
  std::optional<history::TextId> id_of(std::string_view line) {
    auto const wrong = [this](char const* what) { return fault(what), std::nullopt; };
    if (stays_begun_ == 0) return wrong("gets a delivery before it is in a room");
    auto const& stay = me.stays[stays_begun_ - 1];
    auto const start = "delivery:" + stay.room + ':';
    auto const colon = line.find(':', start.size());
    if (!line.starts_with(start) || line.size() >= chatproto::max_line || colon == line.npos)
      return wrong("gets a strange delivery");
    auto const id = history::id_of(line.substr(colon + 1));
    auto const from = line.substr(start.size(), colon - start.size());
    if (!id || id->sender >= world_.senders.size() || world_.senders[id->sender]->user != from)
      return wrong("gets a delivery of what nobody said");
    return id;
  }

  World& world_;
  chatproto::detail::Random& random_ = world_.random;
  std::uint32_t const number_ = static_cast<std::uint32_t>(world_.senders.size());
  bool const talks_ = random_.percent(45);
  bool const stuck_ = random_.percent(world_.stuck);             // never reads
  bool const eager_ = !stuck_ && !random_.percent(world_.slow);  // reads at once
  Role role_ = Role::guest;
  bool has_secret_ = false;
  std::string room_;             // after all lines that it has sent
  std::vector<Said> said_;       // all lines
  std::uint32_t texts_ = 0;      // how many texts
  std::size_t begun_ = 0;        // how many lines its session got
  std::size_t answers_ = 0;      // how many replies it has seen
  Tick answered_ = 0;            // before its session got the last line whose reply the client has seen
  std::size_t stays_begun_ = 0;  // stays whose join it has seen answered
  std::size_t past_left_ = 0;    // how many texts of the past are still to come, after those in past_
  std::vector<history::TextId> past_;
};

}  // namespace simulation
