// SPDX-License-Identifier: BSL-1.0
#include "generate.hpp"

#include <algorithm>
#include <charconv>
#include <initializer_list>
#include <iterator>
#include <optional>

namespace conformance {
namespace {

constexpr std::string_view prefix = "generated-";

/// SplitMix64, because the distributions of the standard library differ from one library to another.
class Random {
 public:
  Random(std::uint64_t seed, std::uint64_t number) : state_(seed) { state_ = next() + number; }

  /// Returns a number below the limit.
  std::size_t below(std::size_t limit) {
    return static_cast<std::size_t>(((next() >> 32U) * static_cast<std::uint64_t>(limit)) >> 32U);
  }

  bool percent(std::size_t chance) { return below(100) < chance; }

  template <class Range>
  auto of(Range const& range) {
    return *(std::begin(range) + static_cast<std::ptrdiff_t>(below(std::size(range))));
  }

  template <class Value>
  Value of(std::initializer_list<Value> values) {
    return *(values.begin() + below(values.size()));
  }

 private:
  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15U);
    z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27U)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31U);
  }

  std::uint64_t state_;
};

using namespace std::string_view_literals;

/// A random walk. The operands of `+` are evaluated in any order: at most one of them asks for a random number.
class Walker {
 public:
  Walker(std::uint64_t seed, unsigned number, Features const& features) : random_(seed, number), may_(features) {
    std::string const of = std::to_string(number) + " of seed " + std::to_string(seed);
    walk_.name = std::string(prefix) + std::to_string(seed) + "-" + std::to_string(number);
    walk_.title = "Generated scene " + of;
    constexpr std::string_view users[] = {"alice", "Alice", "alice2", "al", "bob", "carol", "quit", "42", "Z"};
    while (users_.size() < 3)
      if (std::string const user(random_.of(users)); std::find(users_.begin(), users_.end(), user) == users_.end())
        users_.push_back(user);
    if (may_.long_lines && random_.percent(8)) users_.back() += std::string(100 + random_.below(100), 'n');
    rooms_.emplace_back(room_word);
    for (int i = 0; i < 2; ++i) rooms_.push_back(std::string(room_word) + random_.of("aAb0"sv));
    if (may_.long_lines && random_.percent(8)) rooms_.back() += std::string(100 + random_.below(80), 'r');
  }

  Walk walk() {
    add_client(true);
    add_client(true);
    add_client(false);
    std::size_t const most = 15 + random_.below(31);
    for (std::size_t tries = 0; walk_.actions.size() < most && tries < 10 * most; ++tries) act();
    return walk_;
  }

 private:
  using Is = Model::Is;
  using Then = Action::Then;

  void act() {
    std::vector<std::size_t> here, senders;
    for (std::size_t i = 0; i < walk_.clients.size(); ++i) {
      // A client that does not log in at once stays silent: a server may close it while a slow scene goes on.
      if (model_.of(i).is == Is::gone || model_.of(i).is == Is::connected) continue;
      here.push_back(i);
      if (model_.of(i).is == Is::sender && !model_.of(i).room.empty()) senders.push_back(i);
    }
    if (here.size() < 2 || (here.size() < 6 && random_.percent(15))) return add_client(random_.percent(50));
    if (may_.together && senders.size() > 1 && random_.percent(15)) return act_together(senders);
    std::size_t const client = random_.of(senders.empty() || random_.percent(45) ? here : senders);
    switch (model_.of(client).is) {
      case Is::absent: return begin(client);
      case Is::sender: return go_on(client, random_.percent(4));
      case Is::receiver: return go_on(client, random_.percent(8));
      case Is::connected:
      case Is::gone: break;
    }
  }

  void add(Action const& action) {
    if (model_.act(action)) walk_.actions.push_back(action);
  }

  void add_client(bool receiver) {
    walk_.clients.push_back({receiver, random_.percent(25)});
    model_.add(walk_.clients.back());
    begin(walk_.clients.size() - 1);
  }

  /// Returns how a client ends without quit.
  Then end() {
    if (may_.half_close && (!may_.vanish || random_.percent(50))) return Then::shutdown;
    return random_.percent(50) ? Then::close : Then::reset;
  }

  [[nodiscard]] bool may_end() const { return may_.half_close || may_.vanish; }

  /// A client that is not logged in.
  void begin(std::size_t client) {
    std::string const login = (walk_.clients[client].receiver ? "rlogin:" : "slogin:") + random_.of(users_);
    Input input{client, {}};
    Then then = Then::stay;
    if (std::size_t const kind = random_.below(100); kind < 4 && may_end()) {
      then = end();
      if (random_.percent(60)) input.lines.push_back(login.substr(0, 1 + random_.below(login.size())));
    } else if (kind < 7) {  // only connects
    } else if (kind < 10 && may_.bad_names) {
      input.lines.push_back(line(login.substr(0, 7) + bad_name()));
    } else if (kind < 13 && may_.long_lines) {
      input.lines.push_back(line(login + std::string(too_long(), 'x')));
    } else if (kind < 17 && may_.bad_lines) {
      input.lines.push_back(line(random_.percent(50) ? bad_line() : "join:" + room()));
    } else {
      input.lines.push_back(line(login));
      if (may_.several && random_.percent(25)) input.lines.push_back(line("join:" + room()));
    }
    if (may_.several && !input.lines.empty() && then == Then::stay && random_.percent(8))
      for (std::size_t more = 1 + random_.below(3); more > 0; --more) input.lines.push_back(line(message(client)));
    add({{input}, then});
  }

  /// A client that is logged in.
  void go_on(std::size_t client, bool ends) {
    Input input{client, {}};
    Then then = Then::stay;
    std::size_t lines = may_.several && random_.percent(15) ? 2 + random_.below(4) : 1;
    if (ends && may_end()) {
      then = end();
      lines = random_.below(may_.several ? 3 : 2);
    }
    // The first message of a receiver should mostly be a join.
    bool const joins = model_.of(client).room.empty() && random_.percent(85);
    for (std::size_t i = 0; i < lines; ++i)
      input.lines.push_back(line(i == 0 && joins ? "join:" + room() : message(client)));
    if (then != Then::stay && random_.percent(30)) {
      std::string const part = message(client);
      if (part.size() < max_line - 1 && !part.empty()) input.lines.push_back(part);
    }
    add({{input}, then});
  }

  /// Several senders speak, mostly of one room.
  void act_together(std::vector<std::size_t> senders) {
    if (std::string const& where = model_.of(random_.of(senders)).room; random_.percent(80))
      std::erase_if(senders, [&](std::size_t sender) { return model_.of(sender).room != where; });
    if (senders.size() < 2) return;
    Action action;
    std::size_t const count = std::min<std::size_t>(senders.size(), 2 + random_.below(3));
    for (std::size_t i = 0; i < count; ++i) {
      auto const one = senders.begin() + static_cast<std::ptrdiff_t>(random_.below(senders.size()));
      action.inputs.push_back({*one, {}});
      senders.erase(one);
      std::size_t const lines = may_.several ? 1 + random_.below(5) : 1;
      for (std::size_t k = 0; k < lines; ++k)
        action.inputs.back().lines.push_back(
            line(random_.percent(85) ? "sendall:" + unique() : message(action.inputs.back().client)));
    }
    add(action);
  }

  std::string line(std::string const& text) {
    return text + (may_.crlf && !text.ends_with('\r') && random_.percent(10) ? "\r\n" : "\n");
  }

  std::string message(std::size_t client) {
    std::size_t const kind = random_.below(100);
    if (kind < 5 && may_.bad_lines) return bad_line();
    if (kind < 8 && may_.bad_lines) return wrong_tag();
    if (kind < 11 && may_.long_lines) return long_line();
    if (kind < 14 && may_.bad_names) return "join:" + bad_name();
    if (walk_.clients[client].receiver) {
      if (kind < 30 && may_.bad_lines) return random_.percent(50) ? wrong_tag() : "sendall:" + text(client);
      if (kind < 38 && may_.receiver_quit) return "quit:" + ignored();
      return "join:" + room();
    }
    if (kind < 30 && may_.senduser) return senduser(client);
    if (kind < 38) return "join:" + room();
    if (kind < 43 && may_.leave) return "leave:" + ignored();
    if (kind < 46) return "quit:" + ignored();
    return "sendall:" + text(client);
  }

  std::string ignored() { return random_.percent(70) ? std::string() : unique(); }

  std::string senduser(std::size_t client) {
    std::string user = random_.of(users_);
    if (random_.percent(10)) user += "x";
    if (may_.bad_names && random_.percent(8)) return "senduser:" + user;  // no second colon
    if (may_.bad_names && random_.percent(8)) user = bad_name();
    return "senduser:" + user + ":" + text(client);
  }

  /// Most clients should meet.
  std::string room() { return random_.percent(60) ? rooms_.front() : random_.of(rooms_); }

  std::string unique() { return std::string(1, 't').append(std::to_string(++texts_)); }  // GCC 12 -O3 warns of `+`

  std::string text(std::size_t client) {
    std::size_t const kind = random_.below(100);
    if (kind < 8 && may_.empty) return {};
    if (kind < 16 && may_.bytes) return std::string(random_.of({" "sv, "  "sv, "\t"sv})) + unique() + " ";
    if (kind < 24 && may_.bytes)
      return std::string(random_.of({":"sv, "::"sv, "quit:"sv, "delivery:a:b:"sv, "ok:"sv})) + unique() + ":";
    if (kind < 36 && may_.bytes) return odd_bytes() + unique();
    if (kind < 44 && may_.long_lines) return up_to_limit(model_.of(client));
    if (kind < 52) return "two words " + unique();
    if (kind < 56) return "{*} \\n ' \" % & <b> " + unique();
    return unique();
  }

  std::string odd_bytes() {
    std::string bytes;
    for (std::size_t left = 1 + random_.below(6); left > 0; --left) {
      char const byte = static_cast<char>(static_cast<unsigned char>(random_.below(256)));
      if (byte != '\n') bytes += byte;
    }
    if (random_.percent(25)) bytes += "caf\xc3\xa9 \xf0\x9f\x99\x82 ";
    if (random_.percent(25)) bytes.insert(0, 1, '\0');
    if (random_.percent(25)) bytes += '\r';  // something else follows
    return bytes;
  }

  /// Returns a text whose delivery has 253 to 257 bytes.
  std::string up_to_limit(Model::State const& state) {
    std::size_t const around = "delivery:::\n"sv.size() + state.room.size() + state.name.size();
    std::string const number = unique();
    std::size_t const size = max_line - 2 + random_.below(5) - std::min<std::size_t>(around, max_line - 2);
    return number + std::string(size - std::min(size, number.size()), 'x');
  }

  std::size_t too_long() { return random_.of({256U, 257U, 300U, 511U, 512U, 1000U, 5000U}); }

  std::string long_line() {
    std::size_t const kind = random_.below(4);
    if (kind == 0) {  // exactly 255 or 256 bytes with its \n
      std::string const begin = random_.percent(50) && may_.leave ? "leave:" : "sendall:";
      return begin + std::string(max_line - 1 - begin.size() + random_.below(2), 'y');
    }
    if (kind == 1) return "join:" + rooms_.back() + std::string(too_long(), 'x');
    // If it were cut into lines of the longest size, the end would be a message.
    return std::string(random_.of({254U, 255U, 256U, 510U, 511U, 512U}), 'x') + "sendall:" + unique();
  }

  std::string bad_line() {
    return std::string(random_.of({""sv, "nothing"sv, ":x"sv, "JOIN:x"sv, "Sendall:x"sv, "send all:x"sv, " join:x"sv,
                                   "join :x"sv, "s1:x"sv, "\xff\xfe:x"sv, "quit"sv, "sendall"sv, " "sv, "\0:"sv}));
  }

  std::string wrong_tag() {
    return std::string(random_.of({"frob:"sv, "ok:x"sv, "err:x"sv, "delivery:theroom0:bob:x"sv, "empty:"sv,
                                   "slogin:bob"sv, "rlogin:bob"sv, "send:x"sv, "sendalls:x"sv, "joi:theroom0"sv}));
  }

  std::string bad_name() {
    return std::string(random_.of({""sv, " "sv, "two words"sv, "theroom0 "sv, " theroom0"sv, "theroom0-"sv,
                                   "theroom0_1"sv, "theroom0\t"sv, "caf\xc3\xa9"sv, "\xff"sv, "*"sv, "{"sv, "a.b"sv}));
  }

  Random random_;
  Features const& may_;
  Walk walk_;
  Model model_;
  std::vector<std::string> users_, rooms_;
  int texts_ = 0;
};

struct Name {
  std::uint64_t seed = 0;
  unsigned number = 0;
};

/// Returns the parts of generated-SEED-NUMBER, or nothing if the name has another form.
std::optional<Name> parse_name(std::string_view text) {
  Name name;
  if (!text.starts_with(prefix)) return {};
  text.remove_prefix(prefix.size());
  auto const [dash, bad_seed] = std::from_chars(text.data(), text.data() + text.size(), name.seed);
  if (bad_seed != std::errc() || dash == text.data() + text.size() || *dash != '-') return {};
  auto const [end, bad_number] = std::from_chars(dash + 1, text.data() + text.size(), name.number);
  if (bad_number != std::errc() || end != text.data() + text.size() || name.number == 0) return {};
  return name;
}

WalkScene generate(Name const& name, Features const& features) {
  return scene_of(Walker(name.seed, name.number, features).walk());
}

}  // namespace

bool names_generated(std::string const& name) { return name.starts_with(prefix); }

std::vector<WalkScene> generate(std::string const& name, Generation const& generation) {
  if (auto const one = parse_name(name)) return {generate(*one, generation.features)};
  Text const pattern = pattern_of(name);
  std::vector<WalkScene> scenes;
  for (unsigned number = 1; number <= generation.count; ++number) {
    std::string const known = std::string(prefix) + std::to_string(generation.seed) + "-" + std::to_string(number);
    if (pattern.matches(known, {})) scenes.push_back(generate({generation.seed, number}, generation.features));
  }
  if (scenes.empty())
    throw BadScene(name +
                   ": no generated scene is called so: generated-SEED-NUMBER, or a pattern with --generate COUNT");
  return scenes;
}

}  // namespace conformance
