// SPDX-License-Identifier: BSL-1.0
// Clients do at random what is allowed and what is not, and each must see exactly what the model in model.hpp says. To
// repeat a failure, set CHATPROTO_SEED, and CHATPROTO_STEPS to go as far.
#include <chatproto/chat_service.hpp>
#include <chatproto/threading.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "client.hpp"
#include "model.hpp"
#include "socket_support.hpp"
#include "support.hpp"

namespace {

using model::Sight;
using raw::Clock;
using raw::Random;
using raw::Reading;
using raw::Time;
using Role = model::Chat::Role;
using namespace std::string_view_literals;

/// The real clients. `connect` creates one, a `Wire`; `room_count` counts the rooms of their chat.
template <class Wire>
class World {
 public:
  World(std::function<std::unique_ptr<Wire>()> connect, std::function<std::size_t()> room_count)
      : connect_(std::move(connect)), room_count_(std::move(room_count)) {}

  void connect(int client) { clients_[client] = connect_(); }
  void write(int client, std::string_view bytes) { clients_.at(client)->write(bytes); }
  void half_close(int client) { clients_.at(client)->half_close(); }
  void reset(int client) {
    clients_.at(client)->reset();
    clients_.erase(client);
  }
  Reading read(int client, Time time = test::patience) { return clients_.at(client)->read(time); }
  std::size_t room_count() const { return room_count_(); }

 private:
  std::function<std::unique_ptr<Wire>()> connect_;
  std::function<std::size_t()> room_count_;
  std::map<int, std::unique_ptr<Wire>> clients_;
};

World<raw::SessionClient> world_of(chatproto::ChatService& service) {
  return {[&service] { return std::make_unique<raw::SessionClient>(service); },
          [&service] { return service.room_count(); }};
}

template <class Policy>
World<raw::Client> world_of(test::ServerThread<Policy>& server) {
  return {[&server] { return std::make_unique<raw::Client>(server.port()); },
          [&server] { return server->service().room_count(); }};
}

// --- What the clients send ------------------------------------------------------------------------

/// Makes lines. Most of them make sense for their sender, and many are close to a limit.
class Babble {
 public:
  explicit Babble(Random& random) : random_(random) {}

  /// Makes some lines, the last perhaps unfinished, for a client in this role.
  std::string lines(Role role) {
    std::string lines;
    auto const die = random_.below(100);
    auto const count = die < 65 ? 1 : die < 95 ? random_.between(2, 5) : random_.between(6, 40);
    for (std::size_t i = 0; i < count; ++i) lines.append(line(role)).append(random_.percent(80) ? "\n" : "\r\n");
    return lines;
  }

 private:
  std::string line(Role& role) {
    auto const started = role == Role::sender || role == Role::receiver;
    return random_.percent(started ? 20 : 8) ? any_line() : fitting_line(role);
  }

  std::string fitting_line(Role& role) {
    switch (role) {
      case Role::guest:
        role = random_.percent(50) ? Role::sender : Role::newcomer;
        return (role == Role::sender ? "slogin:" : "rlogin:") + user();
      case Role::newcomer: role = Role::receiver; return "join:" + room();
      case Role::sender: {
        auto const die = random_.below(100);
        if (die < 12) return "join:" + room();
        if (die < 15) return "leave:" + text();
        if (die < 16) return "quit:" + text();
        if (die < 60) return "senduser:" + user().append(1, ':').append(text());
        return "sendall:" + text();
      }
      default: {
        auto const die = random_.below(100);
        if (die < 1) return "quit:";
        if (die < 30) return "history:" + std::to_string(random_.below(40));
        return die < 85 ? "join:" + room() : any_line();
      }
    }
  }

  std::string any_line() {
    static constexpr std::array tags = {"slogin"sv,   "rlogin"sv,   "join"sv,    "join"sv, "leave"sv, "sendall"sv,
                                        "senduser"sv, "senduser"sv, "quit"sv,    "ok"sv,   "err"sv,   "empty"sv,
                                        "delivery"sv, "quits"sv,    "history"sv, "who"sv};
    static constexpr std::array odd = {""sv,      ":"sv,       "x"sv,          "join"sv,      "join room"sv,
                                       ":join"sv, "Join:r"sv,  "join1:r"sv,    " join:r"sv,   "join :r"sv,
                                       "\r"sv,    "j\0in:r"sv, "\xff\xfe:r"sv, "sendall;x"sv, "quit"sv};
    auto const die = random_.below(100);
    if (die < 20) return std::string(random_.one_of(odd));
    if (die < 26) return std::string(random_.between(255, 600), 'x');
    if (die < 32) return bytes(random_.between(0, 300));
    if (die < 33) return "sendall:" + std::string(random_.between(250, 200'000), 'y');
    auto payload = random_.percent(50) ? name() : text();
    if (random_.percent(20)) payload += ":" + text();
    return std::string(random_.one_of(tags)) + ":" + payload;
  }

  std::string user() { return random_.percent(95) ? std::string(random_.one_of(users)) : name(); }
  std::string room() { return random_.percent(95) ? std::string(random_.one_of(rooms)) : name(); }
  std::string name() {
    static constexpr std::array odd = {""sv,    " "sv, "a b"sv, " a"sv, "a "sv, "a:b"sv, "\xc3\xa4"sv, "a\r"sv,
                                       "a\0"sv, "_"sv, "@"sv,   "["sv,  "`"sv,  "{"sv,   "/"sv,        ":"sv};
    auto const die = random_.below(100);
    if (die < 30) return std::string(random_.one_of(users));
    if (die < 60) return std::string(random_.one_of(rooms));
    if (die < 80) return std::string(random_.one_of(odd));
    return std::string(random_.between(200, 260), 'N');
  }

  std::string text() {
    auto const die = random_.below(100);
    if (die < 10) return "";
    if (die < 70) return bytes(random_.between(1, 20));
    return bytes(random_.between(210, 250));  // on both sides of the limits of a line and of a delivery
  }

  std::string bytes(std::size_t size) {
    std::string bytes(size, '\0');
    auto const printable = random_.percent(60);
    for (auto& byte : bytes) {
      byte = static_cast<char>(printable ? random_.between(' ', '~') : random_.below(256));
      if (byte == '\n') byte = ':';
    }
    return bytes;
  }

  static constexpr std::array users = {"ann"sv, "bob"sv, "Bob"sv, "b"sv, "0"sv};
  static constexpr std::array rooms = {"cafe"sv, "cafe"sv, "cafe"sv, "Cafe"sv, "ann"sv};

  Random& random_;
};

// --- The walk -------------------------------------------------------------------------------------

std::string shown(std::string_view bytes) {
  static constexpr auto digits = "0123456789abcdef";
  std::string text = "\"";
  for (auto const byte : bytes.substr(0, 400)) {
    auto const value = static_cast<unsigned char>(byte);
    if (byte == '\n')
      text += "\\n";
    else if (value < ' ' || value > '~' || byte == '\\')
      text.append("\\x").append(1, digits[value / 16]).append(1, digits[value % 16]);
    else
      text += byte;
  }
  return text + (bytes.size() > 400 ? "\"... of " + std::to_string(bytes.size()) : "\"");
}

std::string shown(Reading const& reading) {
  switch (reading.kind) {
    case Reading::line: return shown(reading.text);
    case Reading::end: return "the end of input, after " + shown(reading.text);
    case Reading::broken: return "an error: " + reading.text;
    case Reading::silence: return "nothing, after " + shown(reading.text);
  }
  return {};
}

std::string shown(Sight const& sight) {
  switch (sight.kind) {
    case Sight::ok: return sight.line.empty() ? "ok:..." : shown(sight.line);
    case Sight::err: return "err:...";
    case Sight::delivery: return shown(sight.line);
    case Sight::end: return "the end of input";
  }
  return {};
}

bool agree(Sight const& sight, Reading const& reading) {
  if (sight.kind == Sight::end) return reading.kind == Reading::end && reading.text.empty();
  if (reading.kind != Reading::line || reading.text.size() > 255) return false;
  if (!sight.line.empty()) return reading.text == sight.line;
  return reading.text.starts_with(sight.kind == Sight::ok ? "ok:" : "err:") &&
         reading.text.find('\r') == std::string::npos;
}

/// One walk through a `World`, from one seed. One client acts at a time and then reads, so that its lines have been
/// carried out. The others read now or later: they see the same in the same order.
template <class Place>
class Walk {
 public:
  Walk(Place& world, std::uint64_t seed, chatproto::ChatOptions const& options = {})
      : world_(world), random_(seed), model_(false, options.history.lines, options.presence) {}

  /// Takes `steps` steps, but for no longer than `time`. Returns the first fault, or an empty string.
  std::string go(std::size_t steps, Time time) {
    auto const end = Clock::now() + time;
    while (fault_.empty() && step_ < steps && Clock::now() < end) {
      ++step_;
      auto const client = static_cast<int>(random_.below(crowd));
      act(client);
      look_around(client);
    }
    take_leave();
    return fault_;
  }

 private:
  static constexpr std::size_t crowd = 12;

  void act(int client) {
    if (!model_.knows(client)) {
      note(client, "connects");
      model_.connect(client);
      world_.connect(client);
      if (random_.percent(50)) return;
    }
    if (model_.role(client) == Role::receiver && random_.percent(70)) return;  // it only listens
    auto const die = random_.below(100);
    if (die < 2) {
      note(client, "resets");
      model_.vanish(client);
      return world_.reset(client);
    }
    if (die < 98) say(client, cut_off(client, babble_.lines(model_.role(client))));
    if (die < 96) return;
    note(client, "half-closes");
    model_.end_of_input(client);
    world_.half_close(client);
  }

  /// Prepends the bytes held back before, and sometimes holds back the end of the result.
  std::string cut_off(int client, std::string bytes) {
    auto& held_back = held_back_[client];
    bytes.insert(0, std::exchange(held_back, {}));
    if (random_.percent(10)) {
      auto const size = random_.below(bytes.size() + 1);
      held_back = bytes.substr(size);
      bytes.resize(size);
    }
    return bytes;
  }

  void say(int client, std::string_view bytes) {
    note(client, "says", bytes);
    model_.bytes(client, bytes);
    auto const die = random_.below(100);
    auto const longest = die < 60 ? bytes.size() : die < 90 ? bytes.size() / 2 + 1 : 3;
    for (std::size_t pieces = 0; !bytes.empty(); ++pieces) {
      auto const size = pieces < 200 ? std::min(bytes.size(), random_.between(1, longest)) : bytes.size();
      world_.write(client, bytes.substr(0, die < 60 ? bytes.size() : size));
      bytes.remove_prefix(die < 60 ? bytes.size() : size);
    }
  }

  void look_around(int actor) {
    if (model_.knows(actor)) look(actor);
    for (auto client = 0; client < static_cast<int>(crowd); ++client)
      if (model_.knows(client) && random_.percent(50)) look(client);
    if (fault_.empty() && !test::eventually([this] { return world_.room_count() == model_.rooms(); }))
      fault("there must be " + std::to_string(model_.rooms()) + " rooms, there are " +
            std::to_string(world_.room_count()));
  }

  /// Reads what the client must see now, and checks that nothing else has come.
  void look(int client) {
    for (auto const& sight : model_.sights(client)) {
      if (!fault_.empty()) return;
      auto const reading = world_.read(client);
      if (!agree(sight, reading))
        return fault(std::to_string(client) + " must see " + shown(sight) + ", sees " + shown(reading));
      if (sight.kind == Sight::end) {
        model_.vanish(client);
        held_back_[client].clear();
        return world_.reset(client);
      }
    }
    // What came too early shows here, anything else before the next thing that must come.
    auto const more = world_.read(client, Time(0));
    if (more.kind != Reading::silence || !more.text.empty())
      fault(std::to_string(client) + " must see nothing more, sees " + shown(more));
  }

  /// All clients send a line and quit: anything else that had come would be seen before the reply.
  void take_leave() {
    for (auto const* const last_word : {"\nprobe:\n", "quit:\n"}) {
      for (auto client = 0; client < static_cast<int>(crowd); ++client) {
        if (!fault_.empty() || !model_.knows(client)) continue;
        say(client, last_word);
        look_around(client);
      }
    }
    for (auto client = 0; client < static_cast<int>(crowd); ++client)
      if (fault_.empty() && model_.knows(client)) fault(std::to_string(client) + " stays");
  }

  void note(int client, std::string_view what, std::string_view bytes = {}) {
    trail_.push_back({step_, client, what, std::string(bytes)});
    if (trail_.size() > 12) trail_.pop_front();
  }

  void fault(std::string const& what) {
    fault_ = "at step " + std::to_string(step_) + ": " + what + "; before:";
    for (auto const& [step, client, did, bytes] : trail_) {
      fault_ += "\n  " + std::to_string(step) + ": " + std::to_string(client) + " ";
      fault_ += std::string(did) + (bytes.empty() ? "" : " " + shown(bytes));
    }
  }

  struct Step {
    std::size_t number;
    int client;
    std::string_view did;
    std::string bytes;
  };

  Place& world_;
  Random random_;
  Babble babble_{random_};
  model::Chat model_;
  std::map<int, std::string> held_back_;
  std::deque<Step> trail_;
  std::size_t step_ = 0;
  std::string fault_;
};

/// Walks `steps` steps or for `time`; if CHATPROTO_STEPS is set, that many steps.
template <class Place>
void walk(Place& world, chatproto::ChatOptions const& options, std::size_t steps, Time time) {
  auto const seed = raw::seed();
  auto const wanted = static_cast<std::size_t>(raw::setting("CHATPROTO_STEPS", 0));
  INFO("CHATPROTO_SEED=" << seed);
  auto const fault =
      Walk(world, seed, options).go(wanted == 0 ? steps : wanted, wanted == 0 ? time : std::chrono::hours(1));
  INFO(fault);
  CHECK(fault.empty());
  CHECK(world.room_count() == 0);
}

/// With nothing that is optional, and with all of it.
chatproto::ChatOptions plain_or_full() {
  if (GENERATE(false, true)) return {.history = {.lines = 20}, .presence = true};
  return {};
}

TEST_CASE("sessions do what the model does", "[walk]") {
  auto const options = plain_or_full();
  chatproto::ChatService service(options);
  auto world = world_of(service);
  walk(world, options, 150'000, std::chrono::seconds(2));
}

TEMPLATE_TEST_CASE("a server does what the model does", "[walk]", chatproto::ThreadPerClient, chatproto::ThreadPool,
                   chatproto::StrandPool) {
  auto options = test::patient();
  options.threads = 3;
  auto const chat = plain_or_full();
  test::ServerThread<TestType> server(options, chat);
  auto world = world_of(server);
  walk(world, chat, 30'000, std::chrono::seconds(2));
}

// --- Tests of the walk ----------------------------------------------------------------------------

enum class Spoil { lost, twice, changed, late };

/// A world that spoils the 500th line that begins with `prefix`, or the first one after it that can be spoilt.
class SpoiltWorld : public World<raw::SessionClient> {
 public:
  SpoiltWorld(chatproto::ChatService& service, std::string_view prefix, Spoil spoil)
      : World(world_of(service)), prefix_(prefix), spoil_(spoil) {}

  Reading read(int client, Time = Time(0)) {  // a line is there at once or never
    auto& again = again_[client];
    auto reading = again ? *std::exchange(again, {}) : World::read(client, Time(0));
    if (!reading.text.starts_with(prefix_) || ++lines_ < 500 || spoilt_) return reading;
    spoilt_ = true;
    if (spoil_ == Spoil::lost) return World::read(client, Time(0));
    if (spoil_ == Spoil::twice) again = reading;
    if (spoil_ == Spoil::changed) reading.text[reading.text.size() - 2] ^= 1;
    if (spoil_ == Spoil::late) {
      auto next = World::read(client, Time(0));
      spoilt_ = next.kind == Reading::line && !next.text.starts_with(prefix_);
      if (spoilt_) std::swap(reading, next);
      if (next.kind != Reading::silence) again = next;
    }
    return reading;
  }

 private:
  std::string_view prefix_;
  Spoil spoil_;
  std::size_t lines_ = 0;
  bool spoilt_ = false;
  std::map<int, std::optional<Reading>> again_;
};

TEST_CASE("the walk finds a fault", "[walk]") {
  auto const finds = [](std::string_view prefix, Spoil spoil) {
    chatproto::ChatService service;
    SpoiltWorld world(service, prefix, spoil);
    return !Walk(world, 7).go(10'000, std::chrono::hours(1)).empty();
  };
  for (auto const* const prefix : {"delivery:", "ok:", "err:"}) {
    INFO(prefix);
    CHECK(finds(prefix, Spoil::lost));
    CHECK(finds(prefix, Spoil::twice));
  }
  CHECK(finds("delivery:", Spoil::changed));
  CHECK(finds("delivery:", Spoil::late));
  CHECK_FALSE(finds("no line begins so", Spoil::lost));
}

}  // namespace
