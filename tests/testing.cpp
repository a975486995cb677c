// SPDX-License-Identifier: BSL-1.0
#include <chatproto/testing.hpp>

#include <chatproto/chat_service.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "catch.hpp"

using namespace std::literals;
using chatproto::Peer;
using chatproto::testing::Event;
using chatproto::testing::find_failure;
using chatproto::testing::play;
using chatproto::testing::replay;
using chatproto::testing::Scenario;
using chatproto::testing::Step;
using chatproto::testing::View;

namespace {

std::string text_of(auto const& failure) {
  REQUIRE(failure.has_value());
  std::ostringstream out;
  out << *failure;
  return out.str();
}

/// The sums over the histories of many seeds.
struct Sums {
  std::size_t failures = 0, partial_reads = 0, stalls = 0, meanwhile = 0, waiting = 0, again = 0;
  std::vector<std::string> ends = {};  // why clients were disconnected, each once
  std::uint64_t digest = 0xcbf29ce484222325;

  bool ended(std::string_view why) const { return std::find(ends.begin(), ends.end(), why) != ends.end(); }
};
template <class S>
Sums play_many(Scenario<S> const& scenario, std::uint64_t seeds) {
  Sums sums;
  for (std::uint64_t seed = 1; seed <= seeds; ++seed) {
    auto const history = play(scenario, seed);
    sums.failures += history.broken.empty() ? 0u : 1u;
    sums.partial_reads += history.partial_reads;
    sums.stalls += history.stalls;
    for (auto const& step : history.steps) {
      sums.meanwhile += step.within > 0 ? 1u : 0u;
      sums.waiting += step.settles ? 0u : 1u;
    }
    for (auto const& client : history.clients) {
      auto const connections = client.lines(Event::Kind::connected).size();
      sums.again += connections > 1 ? 1u : 0u;
      for (auto const& why : client.lines(Event::Kind::disconnected))
        if (!sums.ended(why)) sums.ends.push_back(why);
    }
    for (auto const character : to_string(history))  // FNV-1a
      sums.digest = (sums.digest ^ static_cast<unsigned char>(character)) * 0x100000001b3;
  }
  return sums;
}

// --- Services with bugs that show in some orders only ----------------------------------------------------------------

/// One seat is for sale. Its session remembers what it has seen before the client decides.
template <bool correct>
struct BoxOffice {
  struct Session {
    BoxOffice& office;
    Peer peer;
    bool was_free = false;

    void on_line(std::string_view line) {
      if (line == "look") peer.send_line((was_free = !office.sold) ? "free" : "sold");
      if (line == "book") peer.send_line(book() ? "yours" : "sorry");
    }
    bool book() {
      if (correct) return std::exchange(was_free, false) && !std::exchange(office.sold, true);
      if (was_free) office.sold = true;
      return std::exchange(was_free, false);
    }
  };
  Session open(Peer peer) { return {*this, std::move(peer)}; }

  bool sold = false;
};
template <bool correct>
Scenario<BoxOffice<correct>> sale() {
  return {.clients = {{.name = "alice", .lines = {"look", "book"}},
                      {.name = "bob", .lines = {{"look", 2}, "book"}, .connections = 3},
                      {.name = "carol", .lines = {"look", "book"}}},
          .at_end = [](auto const& view) -> std::string {
            auto owners = 0;
            for (auto const& client : view.clients)
              for (auto const& line : client.received()) owners += line == "yours" ? 1 : 0;
            return owners > 1 ? "the seat was sold twice" : "";
          }};
}

/// Who has the stick may speak; the others wait for it. Who leaves should pass it on.
template <bool correct>
struct Stick {
  struct Session {
    Stick& stick;
    Peer peer;

    ~Session() {
      std::erase(stick.waiting, peer);
      if (correct) give();
    }
    void on_line(std::string_view line) {
      if (line == "give") give();
      if (line != "take" || stick.holder == peer) return;
      if (!stick.holder) {
        hold();
      } else {
        stick.waiting.push_back(peer);
        peer.pause();
      }
    }
    void on_resume() { hold(); }
    void hold() {
      stick.holder = peer;
      peer.send_line("speak");
    }
    void give() {
      if (stick.holder != peer) return;
      stick.holder.reset();
      if (stick.waiting.empty()) return;
      stick.holder = stick.waiting.front();
      stick.waiting.erase(stick.waiting.begin());
      stick.holder->resume();
    }
  };
  Session open(Peer peer) { return {*this, std::move(peer)}; }

  std::optional<Peer> holder;
  std::vector<Peer> waiting;
};
template <bool correct>
Scenario<Stick<correct>> round_of_talks() {
  return {.clients = {{.name = "alice", .lines = {"take", "give"}, .connections = 2},
                      {.name = "bob", .lines = {"take", "give"}, .connections = 2}},
          .at_end = [](auto const& view) -> std::string {
            auto const holds = [&](auto const& client) { return client.connected && !client.paused; };
            auto const waits = [](auto const& client) { return client.paused; };
            auto const none = std::none_of(view.clients.begin(), view.clients.end(), holds);
            for (auto const& client : view.clients)
              if (waits(client) && none) return client.name + " waits for ever";
            return "";
          }};
}

/// Counts, and sends what it has counted after the lines of a read. Its session counts from a number that is old by
/// then.
template <bool correct>
struct Counter {
  struct Session {
    Counter& counter;
    Peer peer;
    int mine = 0, lines = 0;

    void on_line(std::string_view) {
      if (lines++ == 0) mine = counter.count;
    }
    void flush() {
      if (correct) mine = counter.count;
      for (; lines > 0; --lines) peer.send_line(std::to_string(++mine));
      counter.count = std::max(counter.count, mine);
    }
  };
  Session open(Peer peer) { return {*this, std::move(peer)}; }

  int count = 0;
};
template <bool correct>
Scenario<Counter<correct>> counting() {
  return {.clients = {{.name = "alice", .lines = {"next"}}, {.name = "bob", .lines = {"next"}}},
          .after_step = [](auto const& view) -> std::string {
            std::vector<std::string> numbers;
            for (auto const& client : view.clients)
              for (auto& number : client.received()) numbers.push_back(std::move(number));
            std::sort(numbers.begin(), numbers.end());
            auto const twice = std::adjacent_find(numbers.begin(), numbers.end());
            return twice == numbers.end() ? "" : "two clients got " + *twice;
          }};
}

/// Does what each line asks for.
struct Puppet {
  struct Session {
    Puppet& puppet;
    Peer peer;
    std::string address;
    bool in = false;

    void on_line(std::string_view line) {
      in = true;
      if (line == "where") peer.send_line(address + ' ' + std::to_string(peer.id()));
      if (line == "much") peer.send_line(std::string(1000, '.'));
      if (line == "close") peer.close();
      if (line == "throw") throw std::runtime_error("no more");
      if (line == "spin") spin();
      if (line == "later") later();
      if (line == "time") peer.send_line(std::to_string((Clock::now() - puppet.start) / 1ms));
    }
    void on_bad_line(std::error_code ec) { peer.send_line(ec.message()); }
    bool logged_in() const { return in; }
    std::string_view name() const { return address; }

    void spin() {
      peer.post([this] { spin(); });
    }
    void later() {
      for (auto const delay : {200ms, 100ms})
        chatproto::testing::post_after(peer, delay, [this, delay] {
          peer.send_line(std::to_string(delay / 1ms) + " ms later it is " +
                         std::to_string((Clock::now() - puppet.start) / 1ms));
        });
    }
  };
  using Clock = chatproto::testing::Clock;
  Session open(Peer peer, std::string address) { return {*this, std::move(peer), std::move(address)}; }

  Clock::time_point const start = Clock::now();
};
/// One client that sends these lines.
Scenario<Puppet> puppet(std::vector<chatproto::testing::Choice> lines) {
  return {.clients = {{.name = "alice", .lines = std::move(lines), .connections = 3}}};
}
Step connects() { return {Step::Kind::connect, 0}; }
Step sends(std::vector<std::string> lines) { return {Step::Kind::send, 0, std::move(lines)}; }
Step pass(std::size_t milliseconds) { return {.kind = Step::Kind::pass_time, .amount = milliseconds}; }

/// Texts of two senders to two receivers in one room, where senders wait for receivers. All receivers that stay must
/// get what was answered by ok, in one order.
Scenario<chatproto::ChatService> chat() {
  auto const talks = [](auto& random, auto const& me) {
    auto const number = std::to_string(me.sent().size());
    return std::optional("sendall:" + me.name + number + std::string(random.percent(10) ? 150 : 0, '.'));
  };
  return {.clients = {{.name = "ann", .first = {"slogin:ann", "join:cafe"}, .next = talks},
                      {.name = "bob", .first = {"slogin:bob", "join:cafe"}, .next = talks},
                      {.name = "eve", .first = {"rlogin:eve", "join:cafe"}},
                      {.name = "dan", .first = {"rlogin:dan", "join:cafe"}, .connections = 2}},
          .at_end = [](auto const& view) -> std::string {
            auto const texts = [&](std::size_t client) {
              auto lines = view.clients[client].received();
              std::erase_if(lines, [](auto const& line) { return !line.starts_with("delivery:"); });
              return lines;
            };
            auto const eve = texts(2), dan = texts(3);
            std::size_t place = 0;
            for (auto const& text : dan) {
              auto const at = std::find(eve.begin(), eve.end(), text);
              if (at == eve.end()) continue;
              if (at < eve.begin() + static_cast<std::ptrdiff_t>(place))
                return "eve and dan got " + text + " in two orders";
              place = static_cast<std::size_t>(at - eve.begin()) + 1;
            }
            for (auto const& client : view.clients)
              if (client.paused) return client.name + " waits for ever";
            return "";
          },
          .options = {.queue_limit = 300, .overflow = chatproto::Overflow::block_sender},
          .steps = 120};
}

}  // namespace

TEST_CASE("a service that trusts what it saw before is found, and its history is short", "[testing]") {
  auto const failure = find_failure(sale<false>(), 20);
  CHECK(text_of(failure) == R"(seed 2, shrunk from 9 steps to 5
  1 bob connects
  2 carol connects
  3 bob sends "look"
      bob receives "free"
  4 carol sends "look", "book"
      carol receives "free"
      carol receives "yours"
  5 bob sends "book"
      bob receives "yours"
    broken: the seat was sold twice
)");
  CHECK_FALSE(find_failure(sale<true>(), 200).has_value());
}

TEST_CASE("a service that forgets those who leave is found", "[testing]") {
  auto const failure = find_failure(round_of_talks<false>(), 20);
  CHECK(text_of(failure) == R"(seed 3, shrunk from 27 steps to 5
  1 alice connects
  2 alice sends "take"
      alice receives "speak"
  3 alice resets the connection
  4 alice connects again
  5 alice sends "take"
    broken: alice waits for ever
)");
  CHECK_FALSE(find_failure(round_of_talks<true>(), 200).has_value());
}

TEST_CASE("a service that fails only if two sessions are busy at once is found", "[testing]") {
  auto const failure = find_failure(counting<false>(), 20);
  CHECK(text_of(failure) == R"(seed 1, shrunk from 21 steps to 4
  1 bob connects
  2 alice connects
  3 bob sends "next"
      bob receives "1"
  4 meanwhile alice sends "next"
      alice receives "1"
    broken: two clients got 1
)");
  CHECK_FALSE(find_failure(counting<true>(), 50).has_value());
}

TEST_CASE("a history is the same when it is played again", "[testing]") {
  auto const scenario = counting<false>();
  auto const failure = find_failure(scenario, 20);
  REQUIRE(failure.has_value());
  auto const whole = play(scenario, failure->seed);
  CHECK(whole.steps.size() == failure->steps);
  CHECK(to_string(replay(scenario, whole.steps)) == to_string(whole));
  CHECK(to_string(replay(scenario, failure->history.steps)) == to_string(failure->history));
  CHECK(replay(scenario, failure->history.steps).steps == failure->history.steps);
  CHECK(to_string(play(scenario, failure->seed + 1)) != to_string(whole));
}

TEST_CASE("replayed histories are those of their seeds", "[testing]") {
  auto const same = [](auto const& scenario) {
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
      auto const history = play(scenario, seed);
      CHECK(to_string(replay(scenario, history.steps)) == to_string(history));
    }
  };
  same(sale<true>());
  same(round_of_talks<true>());
  same(chat());
}

TEST_CASE("histories contain all that a network does", "[testing]") {
  auto const sums = play_many(sale<true>(), 200);
  CHECK(sums.failures == 0);
  CHECK(sums.partial_reads > 0);
  CHECK(sums.stalls > 0);
  CHECK(sums.meanwhile > 0);
  CHECK(sums.waiting > 0);
  CHECK(sums.again > 0);
  for (auto const* why : {"reset", "closed", "write_deadline"}) CHECK(sums.ended(why));
}

// Two numbers for each compiler on each system: if one differs only there, something depends on it; if the numbers
// differ everywhere, the choices of seeds have changed.
TEST_CASE("a seed gives the same history everywhere", "[testing]") {
  CHECK(play_many(sale<false>(), 100).digest == 0xc7d5f39fb292ac1c);
  CHECK(play_many(chat(), 30).digest == 0xcd01a140fd4dfda1);
}

TEST_CASE("a simulated chat keeps its promises", "[testing]") {
  CHECK(play_many(chat(), 50).stalls > 0);
  if (auto const failure = find_failure(chat(), 100)) FAIL(text_of(failure));
}

TEST_CASE("a simulated server has the limits of a real one", "[testing]") {
  auto scenario = puppet({"much", "where"});
  scenario.options.queue_limit = 500;
  CHECK(play_many(scenario, 100).ended("overflow"));

  scenario = puppet({});
  auto history = replay(scenario, {connects(), pass(9'999)});  // the login deadline is 10 s
  CHECK(history.clients.at(0).events.size() == 1);
  history = replay(scenario, {connects(), pass(10'000)});
  CHECK(history.clients.at(0).events.size() == 2);

  scenario.options.line_limit = 5;
  history = replay(scenario, {connects(), sends({"much!", "much"})});
  CHECK(history.clients.at(0).received().size() == 2);
  CHECK(history.clients.at(0).received().front() == "line too long");

  scenario.options.line_limit = 100;
  scenario.options.rate = 1;
  scenario.options.rate_burst = 1;
  history = replay(scenario, {connects(), sends({"time", "time", "time"}), pass(1000)});
  CHECK(history.clients.at(0).received() == std::vector{"0"s, "1000"s, "2000"s});
}

TEST_CASE("a session that throws is a failure, unless it may throw", "[testing]") {
  auto scenario = puppet({"where", "throw"});
  CHECK(text_of(find_failure(scenario, 20)).ends_with(R"( to 2
  1 alice connects
  2 alice sends "throw"
      alice is disconnected: failed
    broken: the session of alice threw: no more
)"));
  scenario.may_throw = true;
  CHECK_FALSE(find_failure(scenario, 100).has_value());
  CHECK(play_many(scenario, 50).ended("failed"));
}

TEST_CASE("a service that is never idle is a failure", "[testing]") {
  CHECK(text_of(find_failure(puppet({"where", "spin"}), 20)).ends_with(R"( to 2
  1 alice connects
  2 alice sends "spin"
    broken: it never ends
)"));
}

TEST_CASE("a service can get the time and its timers from the simulation", "[testing]") {
  auto const history = replay(
      puppet({}), {connects(), sends({"time", "later"}), pass(100), pass(99), pass(1), sends({"time", "later"})});
  CHECK(history.clients.at(0).received() ==
        std::vector{"0"s, "100 ms later it is 100"s, "200 ms later it is 200"s, "200"s});
  CHECK(replay(puppet({}), {connects(), sends({"time"})}).clients.at(0).received() == std::vector{"0"s});
}

TEST_CASE("a simulated client has an address and a number", "[testing]") {
  auto const reset = Step{Step::Kind::reset, 0};
  auto const history = replay(puppet({}), {connects(), sends({"where"}), reset, connects(), sends({"where"})});
  CHECK(history.clients.at(0).received() == std::vector{"127.0.0.1:50001 1"s, "127.0.0.1:50002 2"s});
}

TEST_CASE("steps that are not possible are left out", "[testing]") {
  auto const nobody = Step{Step::Kind::connect, 7};
  auto const reads = Step{Step::Kind::server_reads, 0};
  auto const within = Step{.kind = Step::Kind::reset, .client = 0, .within = 9};
  auto const history = replay(puppet({}), {nobody, reads, sends({"where"}), connects(), connects(), within, within});
  CHECK(to_string(history) == R"(  1 alice connects
  2 alice resets the connection
)");
}

TEST_CASE("a history shows every byte and every kind of step", "[testing]") {
  auto const waits = [](Step step) {
    step.settles = false;
    return step;
  };
  auto const does = [](Step::Kind kind, std::size_t amount = 0) {
    return Step{.kind = kind, .client = 0, .amount = amount, .settles = false};
  };
  using Kind = Step::Kind;
  auto const history =
      replay(puppet({}), {waits(connects()), waits(sends({"time", "\"\\\xc3\t"})), does(Kind::server_reads, 2),
                          does(Kind::stop_reading), does(Kind::server_reads), does(Kind::server_writes),
                          does(Kind::read, 1), does(Kind::server_writes), does(Kind::read), does(Kind::server_writes),
                          does(Kind::end_input), does(Kind::server_sees_end), pass(20)});
  CHECK(to_string(history) == R"(  1 alice connects; all else waits
  2 alice sends "time", "\"\\\xc3\x09"; all else waits
  3 the server reads up to 2 bytes from alice; all else waits
  4 alice stops reading; all else waits
  5 the server reads from alice; all else waits
  6 the server writes to alice; all else waits
  7 alice reads 1 bytes; all else waits
  8 the server writes to alice; all else waits
  9 alice reads again; all else waits
 10 the server writes to alice; all else waits
      alice receives "0"
 11 alice shuts down the sending side; all else waits
 12 the server sees the end of what alice sends; all else waits
 13 20 ms pass
      alice is disconnected: closed
)");
}

TEST_CASE("what is wrong with a scenario is said", "[testing]") {
  auto scenario = puppet({"time"});
  scenario.clients.clear();
  CHECK_THROWS_AS(play(scenario, 1), std::invalid_argument);
  scenario = puppet({"time"});
  scenario.times = {-1ms};
  CHECK_THROWS_AS(play(scenario, 1), std::invalid_argument);
  scenario = puppet({"two\nlines"});
  CHECK(text_of(find_failure(scenario, 20)).ends_with("broken: the line \"two\\x0alines\" contains a line feed\n"));

  struct Made : BoxOffice<true> {
    explicit Made(int) {}
  };
  Scenario<Made> made{.clients = {{.name = "alice", .lines = {"look"}}}};
  CHECK_THROWS_AS(play(made, 1), std::invalid_argument);
  made.make = [] { return std::make_unique<Made>(1); };
  CHECK(play(made, 1).broken.empty());
}

TEST_CASE("a trace has each step before it is tried", "[testing]") {
  std::ostringstream trace;
  auto scenario = puppet({"throw"});
  scenario.trace = &trace;
  REQUIRE(play(scenario, 1).broken != "");
  CHECK(trace.str().starts_with("seed 1\n  1 alice "));
  CHECK(trace.str().find(" alice sends \"throw\"") != std::string::npos);
}

TEST_CASE("shrinking leaves what is needed", "[testing]") {
  struct Item {
    std::size_t client;
    int value;
    bool plain;
    bool simplify() { return !std::exchange(plain, true); }
    bool join(Item const&) { return false; }
  };
  std::vector<Item> items;
  for (auto i = 0; i < 100; ++i) items.push_back({static_cast<std::size_t>(i % 3), i, false});
  auto replays = 0;
  auto const shrink = [&](std::size_t most) {
    replays = 0;
    auto const fails = [&](std::vector<Item> const& list) -> std::optional<std::vector<Item>> {
      ++replays;
      auto const has = [&](auto const& is) { return std::any_of(list.begin(), list.end(), is); };
      auto const fail = has([](auto& item) { return item.value == 30 && !item.plain; }) &&
                        has([](auto& item) { return item.value == 77; });
      return fail ? std::optional(list) : std::nullopt;
    };
    return chatproto::detail::shrink(items, 3, fails, most);
  };
  auto const rest = shrink(1000);
  REQUIRE(rest.size() == 2);
  CHECK((rest[0].value == 30 && !rest[0].plain));
  CHECK((rest[1].value == 77 && rest[1].plain));
  CHECK(shrink(5).size() > 2);
  CHECK(replays == 5);
}
