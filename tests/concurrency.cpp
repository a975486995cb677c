// SPDX-License-Identifier: BSL-1.0
// Many clients send, receive, change rooms and disconnect at the same time, and history.hpp judges the outcome.
// CHATPROTO_SEED repeats their choices, but not their timing.
#include <chatproto/chat_service.hpp>
#include <chatproto/threading.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "client.hpp"
#include "history.hpp"
#include "socket_support.hpp"
#include "support.hpp"

namespace {

using history::Judge;
using history::LogicalClock;
using history::Receiver;
using history::Sender;
using history::Stay;
using history::Text;
using history::TextId;
using raw::Random;
using raw::Reading;
using raw::SessionClient;
using raw::Time;
using namespace std::string_literals;

// --- Senders and receivers -------------------------------------------------------------------------------------------

std::array const users = {"ann"s, "bob"s, "eve"s, "kim"s};

std::string const& user_of(std::uint32_t sender) { return users[sender * 2'654'435'761u / 65'536 % users.size()]; }

/// A client saw something that must not happen.
struct Violation : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// A sender of numbered texts, many in one write, that records what became of them.
template <class Wire>
class TestSender {
 public:
  TestSender(std::unique_ptr<Wire> wire, LogicalClock& clock, std::uint32_t number)
      : wire_(std::move(wire)), clock_(clock), number_(number) {
    record.user = user_of(number);
    line("slogin:" + record.user, true);
  }

  void join(std::string room) {
    room_ = std::move(room);
    line("join:" + room_, true);
  }
  void leave() { line("leave:", true); }
  void nonsense() { line("nonsense:", false); }
  void say(std::size_t size, std::string const& to = {}) {
    TextId const id{number_, static_cast<std::uint32_t>(record.texts.size())};
    record.texts.push_back({room_, to});
    line((to.empty() ? "sendall:" : "senduser:" + to + ":") + text_of(id, size), true, true);
  }
  void quit() {
    line("quit:", true);
    lines_ += "sendall:too late\n";  // no client may ever receive this
  }

  /// Writes all unsent lines at once.
  void send() {
    auto const now = clock_.next();
    for (; sent_ < record.texts.size(); ++sent_) record.texts[sent_].asked = now;
    wire_->write(std::exchange(lines_, {}));
  }

  /// Waits for all replies, or for the first `count`.
  void hear_replies(std::size_t count = static_cast<std::size_t>(-1)) {
    for (; count > 0 && !due_.empty(); --count) {
      auto const [ok, is_text] = due_.front();
      due_.pop_front();
      auto const reading = wire_->read();
      if (reading.kind != Reading::line || !reading.text.starts_with(ok ? "ok:" : "err:"))
        throw Violation("a sender must get " + (ok ? "ok"s : "err"s) + ", gets '" + reading.text + "'");
      if (is_text) record.texts[answered_++].ok = clock_.next();
    }
  }
  void hear_end() {
    if (wire_->read().kind != Reading::end) throw Violation("a sender does not see the end");
  }
  Wire& wire() { return *wire_; }
  std::uint32_t number() const { return number_; }

  Sender record;

 private:
  struct Due {
    bool ok, is_text;
  };

  void line(std::string_view line, bool ok, bool is_text = false) {
    lines_.append(line).append(1, '\n');
    due_.push_back({ok, is_text});
  }

  std::unique_ptr<Wire> wire_;
  LogicalClock& clock_;
  std::uint32_t number_;
  std::string room_, lines_;
  std::deque<Due> due_;
  std::size_t sent_ = 0, answered_ = 0;
};

/// A receiver that records what it receives and where.
template <class Wire>
class TestReceiver {
 public:
  enum Heard { delivery, ok, err, end, broken, silence };

  TestReceiver(std::unique_ptr<Wire> wire, LogicalClock& clock, std::string const& user, std::string const& room)
      : wire_(std::move(wire)), clock_(clock) {
    record.user = user;
    wire_->write("rlogin:" + user + "\n");
    expect(ok, hear());
    enter(room);
  }

  /// Reads one line, or how the connection ended.
  Heard hear(Time time = test::patience) {
    auto const reading = wire_->read(time);
    if (reading.kind == Reading::end) return end;
    if (reading.kind == Reading::broken) return broken;
    if (reading.kind == Reading::silence) return silence;
    if (reading.text.starts_with("ok:")) return ok;
    if (reading.text.starts_with("err:")) return err;
    note(reading.text);
    return delivery;
  }
  /// Skips deliveries and returns what follows.
  Heard hear_out() {
    for (;;)
      if (auto const heard = hear(); heard != delivery) return heard;
  }

  /// Joins another room, and sends `nonsense` more lines in the same write.
  void enter(std::string const& room, std::size_t nonsense = 0) {
    auto const asked = clock_.next();
    auto lines = "join:" + room + "\n";
    for (std::size_t i = 0; i < nonsense; ++i) lines += "nonsense:\n";
    if (!record.stays.empty()) stay().left = asked;
    wire_->write(lines);
    expect_reply(ok, asked);
    if (!record.stays.empty()) stay().complete = true;
    record.stays.push_back({room, asked, clock_.next()});
    for (std::size_t i = 0; i < nonsense; ++i) expect_reply(err, asked);
  }
  void enter_again() {
    auto const asked = clock_.next();
    wire_->write("join:" + stay().room + "\n");
    expect_reply(ok, asked);
  }

  void quit() {
    stay().left = clock_.next();
    wire_->write("quit:\n");
    expect_reply(ok, stay().left);
    expect(end, hear_out());
    stay().complete = true;
  }
  void half_close() {
    stay().left = clock_.next();
    wire_->half_close();
  }
  /// After half_close(): reads the deliveries sent before, and the end.
  void hear_end() {
    expect(end, hear_out());
    stay().complete = true;
  }
  void vanish(bool reset) {
    stay().left = clock_.next();
    if (reset)
      wire_->reset();
    else
      wire_->close();
  }
  /// Records that the server disconnected this receiver.
  void was_cut() { stay().left = clock_.next(); }

  Receiver record;

 private:
  Stay& stay() { return record.stays.back(); }

  void expect(Heard must, Heard heard) {
    static constexpr std::array names = {"a delivery", "ok", "err", "the end", "an error", "nothing"};
    if (heard != must) throw Violation(record.user + " must see " + names[must] + ", sees " + names[heard]);
  }

  /// Expects the reply to a line that was sent after `asked`.
  void expect_reply(Heard must, history::Tick asked) {
    expect(must, hear_out());
    answered_ = asked;
  }

  void note(std::string_view line) {
    auto const wrong = [line] {
      std::string start(line.substr(0, 40));
      for (auto& c : start)
        if (c < ' ' || c > '~') c = '?';
      return Violation("a strange line: " + start);
    };
    if (record.stays.empty() || line.size() > 255) throw wrong();
    auto const start = "delivery:" + stay().room + ":";
    if (!line.starts_with(start)) throw wrong();
    line.remove_prefix(start.size());
    line.remove_suffix(1);
    auto const colon = line.find(':');
    auto const id = history::id_of(colon == line.npos ? line : line.substr(colon + 1));
    if (!id || line.substr(0, colon) != user_of(id->sender)) throw wrong();
    stay().got.push_back({*id, clock_.next(), answered_});
  }

  std::unique_ptr<Wire> wire_;
  LogicalClock& clock_;
  history::Tick answered_ = 0;
};

std::string lines_of(std::vector<std::string> const& faults) {
  std::string text;
  for (auto const& fault : faults) text += fault + '\n';
  return text;
}

#ifdef __linux__
/// Returns the number of descriptors once it is stable.
auto descriptors_at_rest() {
  auto count = test::descriptors();
  for (auto same = 0; same < 50; ++same) {
    std::this_thread::sleep_for(Time(2));
    if (auto const now = test::descriptors(); std::exchange(count, now) != now) same = 0;
  }
  return count;
}
#endif

/// Options of a server with three threads and queues that hold `queue_limit` bytes.
chatproto::ServerOptions options(std::size_t queue_limit) {
  auto options = test::patient();
  options.threads = 3;
  options.queue_limit = queue_limit;
  return options;
}
constexpr std::size_t plenty = 64 * 1024 * 1024;  // more than is sent

// --- Many clients ---------------------------------------------------------------------------------

struct Plan {
  std::size_t talkers, texts;  // texts of each talker
  std::size_t burst;           // the most lines in one write
  std::size_t rooms;
  std::size_t steady;    // receivers that stay in one room each
  std::size_t restless;  // receivers that do not
};

/// Many clients, each in its own thread. `connect` creates the client's end of a new connection.
template <class Wire>
class Crowd {
 public:
  using Connect = std::function<std::unique_ptr<Wire>()>;

  Crowd(Connect connect, Plan const& plan, std::uint64_t seed)
      : connect_(std::move(connect)), plan_(plan), seed_(seed) {}

  /// Runs all clients, and returns when they have ended.
  void mingle() {
    std::vector<std::thread> listeners, talkers;
    for (std::size_t i = 0; i < plan_.steady; ++i)
      listeners.emplace_back([this, i] { in_thread([this, i] { stay(i); }); });
    auto const all_there = test::eventually([this] { return settled_ == plan_.steady; });
    for (std::size_t i = 0; i < plan_.restless; ++i)
      listeners.emplace_back([this, i] { in_thread([this, i] { roam(i); }); });
    for (std::size_t i = 0; i < plan_.talkers; ++i)
      talkers.emplace_back([this, i] { in_thread([this, i] { talk(i); }); });
    for (auto& thread : talkers) thread.join();
    over_ = true;
    for (auto& thread : listeners) thread.join();
    if (!all_there) violations.push_back("not everybody came in");
  }

  // Valid when all clients have ended:
  history::History history;
  std::vector<std::string> violations;

 private:
  void in_thread(std::function<void()> const& act) {
    try {
      act();
    } catch (std::exception const& error) {
      std::lock_guard const lock(mutex_);
      violations.push_back(error.what());
    }
  }

  /// Runs `act` with `client`, and keeps the client's record even if that fails.
  void with(auto& client, auto act) {
    try {
      act();
    } catch (...) {
      keep(client);
      throw;
    }
    keep(client);
  }
  void keep(TestSender<Wire>& sender) {
    std::lock_guard const lock(mutex_);
    history.senders.emplace(sender.number(), std::move(sender.record));
  }
  void keep(TestReceiver<Wire>& receiver) {
    std::lock_guard const lock(mutex_);
    history.receivers.push_back(std::move(receiver.record));
  }

  std::string room(std::size_t number) const { return "room" + std::to_string(number); }
  std::string some_room(Random& random) const { return room(random.below(plan_.rooms)); }

  // Senders

  void talk(std::size_t index) {
    Random random(seed_ + 1000 + index);
    std::size_t said = 0;
    for (std::uint32_t life = 0; said < plan_.texts; ++life) {
      TestSender<Wire> sender(connect_(), clock_, static_cast<std::uint32_t>(index * 10'000) + life);
      sender.join(some_room(random));
      with(sender, [&] {
        talk(sender, random, plan_.texts - said);
        said += sender.record.texts.size();
      });
    }
  }

  void talk(TestSender<Wire>& sender, Random& random, std::size_t texts) {
    for (auto bursts = random.between(1, 100); bursts > 0; --bursts) {
      if (sender.record.texts.size() >= texts) break;
      burst(sender, random);
      sender.send();
      sender.hear_replies();
    }
    burst(sender, random);
    switch (random.below(5)) {
      case 0:
        sender.quit();
        sender.send();
        sender.hear_replies();
        return sender.hear_end();
      case 1:
        sender.send();
        sender.wire().half_close();
        sender.hear_replies();
        return sender.hear_end();
      case 2: sender.send(); return sender.wire().reset();
      case 3: sender.send(); return sender.wire().close();
      default:
        sender.send();
        sender.hear_replies(1);
        return sender.wire().reset();
    }
  }

  void burst(TestSender<Wire>& sender, Random& random) {
    for (auto lines = random.between(1, plan_.burst); lines > 0; --lines) {
      auto const size = random.percent(20) ? random.between(24, 220) : random.between(24, 40);
      auto const die = random.below(100);
      if (die < 80)
        sender.say(size);
      else if (die < 94)
        sender.say(size, random.one_of(users));
      else if (die < 96)
        sender.nonsense();
      else if (die < 98)
        sender.join(some_room(random));
      else {
        if (die < 99)
          sender.leave();
        else
          sender.join("alone" + std::to_string(random.below(10)));  // a room that lasts a moment
        sender.join(some_room(random));
      }
    }
  }

  // Receivers

  void stay(std::size_t index) {
    TestReceiver<Wire> receiver(connect_(), clock_, "steady", room(index % plan_.rooms));
    ++settled_;
    with(receiver, [&] {
      while (!over_) listen(receiver, Time(10));
      if (index % 2 == 0) return receiver.quit();
      receiver.half_close();
      receiver.hear_end();
    });
  }

  void roam(std::size_t index) {
    Random random(seed_ + 2000 + index);
    while (!over_) {
      TestReceiver<Wire> receiver(connect_(), clock_, random.one_of(users), some_room(random));
      with(receiver, [&] { roam(receiver, random); });
    }
  }

  /// Waits for a delivery. Returns false if none came.
  bool listen(TestReceiver<Wire>& receiver, Time time) {
    auto const heard = receiver.hear(time);
    if (heard != receiver.delivery && heard != receiver.silence) throw Violation("a receiver hears no delivery");
    return heard == receiver.delivery;
  }

  void roam(TestReceiver<Wire>& receiver, Random& random) {
    for (;;) {
      for (auto lines = random.between(1, 150); lines > 0 && !over_; --lines)
        if (!listen(receiver, Time(random.below(4)))) break;
      auto const die = over_ ? 99 : random.below(100);
      if (die < 70)
        receiver.enter(some_room(random), random.percent(50) ? random.below(300) : 0);
      else if (die < 75)
        receiver.enter_again();
      else if (die < 80)
        std::this_thread::sleep_for(Time(random.below(5)));
      else if (die < 85)
        return receiver.vanish(false);
      else if (die < 90)
        return receiver.vanish(true);
      else if (die < 95)
        return receiver.quit();
      else {
        receiver.half_close();
        return receiver.hear_end();
      }
    }
  }

  Connect const connect_;
  Plan const plan_;
  std::uint64_t const seed_;
  LogicalClock clock_;
  std::mutex mutex_;
  std::atomic<std::size_t> settled_ = 0;
  std::atomic<bool> over_ = false;
};

template <class Wire>
void judge_crowd(typename Crowd<Wire>::Connect connect, Plan const& plan) {
  auto const seed = raw::seed();
  INFO("CHATPROTO_SEED=" << seed);
  Crowd<Wire> crowd(std::move(connect), plan, seed);
  crowd.mingle();
  INFO(lines_of(crowd.violations));
  CHECK(crowd.violations.empty());
  Judge const judge(crowd.history);
  INFO(lines_of(judge.faults()));
  CHECK(judge.faults().empty());
  CHECK(judge.owed() > 0);
}

constexpr std::size_t share = raw::instrumented ? 8 : 1;  // divides the work

// Many rooms whose members keep changing; and one room in which all send at once.
constexpr Plan lively = {6, 6'000 / share, 16, 4, 4, 8};
constexpr Plan dense = {6, 6'000 / share, 3, 1, 5, 1};

TEST_CASE("sessions in many threads keep the promises", "[concurrency]") {
  chatproto::ChatService service;
  auto const connect = [&service] { return std::make_unique<SessionClient>(service); };
  judge_crowd<SessionClient>(connect, lively);
  judge_crowd<SessionClient>(connect, dense);
  CHECK(service.room_count() == 0);
}

TEMPLATE_TEST_CASE("a server keeps its promises to a crowd", "[concurrency]", chatproto::ThreadPerClient,
                   chatproto::ThreadPool, chatproto::StrandPool) {
  test::ServerThread<TestType> server(options(plenty));
  auto const connect = [&server] { return std::make_unique<raw::Client>(server.port()); };
  for (auto i = 0; i < 8; ++i) {  // a thread keeps what it creates for its first client
    auto const first = connect();
    first->write("slogin:first\n");
    CHECK(first->read().kind == Reading::line);
  }
#ifdef __linux__
  auto const at_rest = descriptors_at_rest();
#endif
  judge_crowd<raw::Client>(connect, lively);
  judge_crowd<raw::Client>(connect, dense);
  CHECK(test::eventually([&server] { return server->service().room_count() == 0; }));
#ifdef __linux__
  CHECK(test::eventually([&] { return test::descriptors() <= at_rest; }));
#endif
}

// --- Receivers that do not read -------------------------------------------------------------------

/// One sender, one room, and receivers that read when told to: all in step, in one thread.
template <class Policy>
class Flood {
 public:
  using TestReceiver = ::TestReceiver<raw::Client>;
  using TestSender = ::TestSender<raw::Client>;

  explicit Flood(std::size_t queue_limit) : server_(options(queue_limit)) {}

  std::unique_ptr<TestReceiver> receiver(std::string const& user) {
    return std::make_unique<TestReceiver>(connect(), clock_, user, "room");
  }
  std::unique_ptr<TestSender> sender(std::uint32_t number) {
    auto sender = std::make_unique<TestSender>(connect(), clock_, number);
    sender->join("room");
    return sender;
  }
  std::size_t room_count() { return server_->service().room_count(); }

  /// Waits until the server has removed the receiver of this name from the room, which shows when a text to it reaches
  /// nobody. Until then each text takes a place in its queue, so there are few: each pause is twice the last one.
  bool sees_end_of(std::string const& user, TestSender& sender) {
    for (auto pause = Time(1); pause < test::patience; pause *= 2) {
      auto const before = server_->service().deliveries();
      sender.say(24, user);
      sender.send();
      sender.hear_replies();
      if (server_->service().deliveries() == before) return true;
      std::this_thread::sleep_for(pause);
    }
    return false;
  }

 private:
  std::unique_ptr<raw::Client> connect() { return std::make_unique<raw::Client>(server_.port()); }

  test::ServerThread<Policy> server_;
  LogicalClock clock_;
};

// A flood goes in rounds. One round is less than the queue of a receiver that reads can hold; all rounds are more than
// the system's own buffers can.
constexpr std::size_t text_size = 230;
constexpr std::size_t per_round = 200;  // texts
constexpr std::size_t rounds = 9'000'000 / text_size / per_round;

template <class TestReceiver>
bool hear_round(TestReceiver& receiver) {
  for (std::size_t i = 0; i < per_round; ++i)
    if (receiver.hear() != receiver.delivery) return false;
  return true;
}

template <class TestSender>
void say_round(TestSender& sender) {
  for (std::size_t i = 0; i < per_round; ++i) {
    sender.say(text_size);
    if (i % 20 == 0) sender.send();
  }
  sender.send();
  sender.hear_replies();
}

TEMPLATE_TEST_CASE("receivers that do not read harm only themselves", "[concurrency]", chatproto::ThreadPerClient,
                   chatproto::ThreadPool, chatproto::StrandPool) {
  // Ten rounds never fill a queue, however little the system's buffers hold: a text counts at most 255 bytes.
  Flood<TestType> scene(1024 * 1024);
  using TestReceiver = typename Flood<TestType>::TestReceiver;
  std::vector<std::unique_ptr<TestReceiver>> readers, stuck;
  for (auto i = 0; i < (raw::instrumented ? 3 : 10); ++i) readers.push_back(scene.receiver("reader"));
  for (auto i = 0; i < 3; ++i) stuck.push_back(scene.receiver("stuck"));
  auto slow = scene.receiver("slow");
  auto resets = scene.receiver("resets");
  auto half_closes = scene.receiver("halfcloses");
  auto sender = scene.sender(1);

  auto slow_reads = true, all_read = true;
  for (std::size_t i = 0; i < rounds; ++i) {
    say_round(*sender);
    for (auto& receiver : readers) all_read = all_read && hear_round(*receiver);
    for (auto lines = 0; lines < 20 && slow_reads; ++lines) slow_reads = slow->hear() == slow->delivery;
    if (i == 9) {  // much is on its way to them, but less than their queues hold
      half_closes->half_close();
      resets->vanish(true);
      // Until the server has read the end of input, this is a receiver that does not read, and may be disconnected like
      // any other.
      REQUIRE(scene.sees_end_of("halfcloses", *sender));
    }
  }
  CHECK(all_read);
  for (auto& receiver : readers) receiver->quit();

  history::History history;
  auto const keep = [&history](TestReceiver& receiver) { history.receivers.push_back(std::move(receiver.record)); };
  for (auto& receiver : readers) keep(*receiver);
  for (auto* const receiver : {stuck[0].get(), stuck[1].get(), stuck[2].get(), slow.get()}) {
    // What it has not read yet is a prefix of all texts, without a gap.
    if (receiver != slow.get() || slow_reads) {
      auto const end = receiver->hear_out();
      CHECK((end == receiver->end || end == receiver->broken));
    }
    receiver->was_cut();
    CHECK(receiver->record.stays.back().got.size() < rounds * per_round);
    CHECK(receiver->record.stays.back().got.size() > 0);
    keep(*receiver);
  }
  keep(*resets);
  // A receiver that has only shut down its sending side gets what was queued for it, however late it reads.
  half_closes->hear_end();
  CHECK(half_closes->record.stays.back().got.size() >= per_round);
  keep(*half_closes);

  sender->quit();
  sender->send();
  sender->hear_replies();
  sender->hear_end();
  history.senders.emplace(1, std::move(sender->record));
  Judge const judge(history);
  INFO(lines_of(judge.faults()));
  CHECK(judge.faults().empty());
  CHECK(judge.owed() >= readers.size() * rounds * per_round);
  CHECK(test::eventually([&scene] { return scene.room_count() == 0; }));
}

TEMPLATE_TEST_CASE("receivers that read late get everything that their queues can hold", "[concurrency]",
                   chatproto::ThreadPerClient, chatproto::ThreadPool, chatproto::StrandPool) {
  auto const seed = raw::seed();
  INFO("CHATPROTO_SEED=" << seed);
  Flood<TestType> scene(plenty);
  using TestReceiver = typename Flood<TestType>::TestReceiver;
  std::vector<std::unique_ptr<TestReceiver>> receivers;
  for (auto i = 0; i < 4; ++i) receivers.push_back(scene.receiver("late"));
  auto sender = scene.sender(1);

  // In the first half of the flood no receiver reads. Then they do, unevenly, while it goes on, so that their queues
  // fill and empty many times; one of them has shut down its sending side.
  for (std::size_t i = 0; i < rounds / 2; ++i) say_round(*sender);
  receivers.front()->half_close();
  std::vector<std::future<void>> readers;
  for (std::size_t i = 0; i < receivers.size(); ++i) {
    readers.push_back(
        std::async(std::launch::async, [&receiver = *receivers[i], i, random = Random(seed + i)]() mutable {
          if (i == 0) return receiver.hear_end();
          for (auto lines = rounds * per_round; lines > 0; --lines) {
            if (receiver.hear() != receiver.delivery) throw Violation("a late receiver hears no delivery");
            if (random.below(2'000) == 0) std::this_thread::sleep_for(Time(random.below(4)));
          }
          receiver.quit();
        }));
  }
  for (auto i = rounds / 2; i < rounds; ++i) say_round(*sender);
  for (auto& reader : readers) reader.get();

  history::History history;
  history.senders.emplace(1, std::move(sender->record));
  for (auto& receiver : receivers) history.receivers.push_back(std::move(receiver->record));
  Judge const judge(history);
  INFO(lines_of(judge.faults()));
  CHECK(judge.faults().empty());
  CHECK(judge.owed() >= rounds / 2 * per_round * history.receivers.size());
}

// --- Tests of the judge ---------------------------------------------------------------------------

/// A small valid history, to be spoilt: two senders, two receivers that stay, one that is disconnected, one that moves.
class Story {
 public:
  Story() {
    history.senders = {{1, {"ann", {}}}, {2, {"bob", {}}}};
    history.receivers = {{"eve", {{"r", 1, 2, 1000, true}}},
                         {"kim", {{"r", 3, 4, 1000, true}}},
                         {"cut", {{"r", 5, 6, 1000, false}}},
                         {"ann", {{"r", 7, 8, 45, true}, {"s", 46, 47, 1000, true}}}};
    // Each text: its sender and room, when it was sent, when its ok came.
    say(1, "r", 10, 12);
    say(2, "r", 20, 29);
    say(1, "r", 21, 28);  // at the same time
    say(2, "r", 40, 42);
    say(1, "r", 50, 52);
    say(2, "s", 60, 62);
    for (std::size_t receiver = 0; receiver < 2; ++receiver)
      hear(receiver, 0, {{1, 0}, {1, 1}, {2, 0}, {2, 1}, {1, 2}});
    hear(2, 0, {{1, 0}, {1, 1}, {2, 0}});
    hear(3, 0, {{2, 0}, {2, 1}});
    hear(3, 1, {{2, 2}});
  }

  std::vector<std::string> faults() const { return Judge(history).faults(); }

  void say(std::uint32_t sender, std::string const& room, history::Tick asked, history::Tick ok,
           std::string const& to = {}) {
    history.senders.at(sender).texts.push_back({room, to, asked, ok});
  }
  void hear(std::size_t receiver, std::size_t stay, std::vector<TextId> const& ids) {
    auto& got = history.receivers.at(receiver).stays.at(stay).got;
    got.clear();
    for (auto const id : ids) got.push_back({id, 900});
  }

  history::History history;
};

TEST_CASE("the judge accepts what the protocol allows", "[concurrency]") {
  Story story;
  SECTION("as it is") {
  }
  SECTION("a text that came while a receiver left was not heard") {
    story.history.receivers[0].stays[0].left = 51;
    story.hear(0, 0, {{1, 0}, {1, 1}, {2, 0}, {2, 1}});
  }
  SECTION("a text that came while a receiver entered was not heard") {
    story.history.receivers[0].stays[0].entered = 11;
    story.hear(0, 0, {{1, 1}, {2, 0}, {2, 1}, {1, 2}});
  }
  SECTION("a text that never got its ok was heard by all who heard more") {
    story.history.senders.at(1).texts[2].ok = 0;
    story.hear(0, 0, {{1, 0}, {1, 1}, {2, 0}, {2, 1}});
  }
  SECTION("the other order of what was said at the same time") {
    for (std::size_t receiver = 0; receiver < 2; ++receiver)
      story.hear(receiver, 0, {{1, 0}, {2, 0}, {1, 1}, {2, 1}, {1, 2}});
    story.hear(2, 0, {{1, 0}, {2, 0}});
  }
  SECTION("a text and a reply to a line that was sent before its ok came, in the other order") {
    story.history.receivers[0].stays[0].got[4].answered = 51;
  }
  SECTION("who was cut heard nothing at all") {
    story.hear(2, 0, {});
  }
  SECTION("a text for one user, the sender's own name") {
    story.history.senders.at(1).texts[2] = {"r", "ann", 30, 31};
    story.hear(3, 0, {{2, 0}, {1, 2}, {2, 1}});
    for (std::size_t receiver = 0; receiver < 2; ++receiver) story.hear(receiver, 0, {{1, 0}, {1, 1}, {2, 0}, {2, 1}});
  }
  auto const faults = story.faults();
  INFO(lines_of(faults));
  CHECK(faults.empty());
}

TEST_CASE("the judge finds what the protocol forbids", "[concurrency]") {
  Story story;
  auto expected = "";
  SECTION("a text is lost, the first, one in the middle or the last") {
    auto const lost = GENERATE(0, 2, 4);
    auto& got = story.history.receivers[0].stays[0].got;
    got.erase(got.begin() + lost);
    expected = "did not get";
  }
  SECTION("a text is lost when a receiver moves") {
    story.hear(3, 0, {{2, 0}});
    expected = "did not get text 2.1";
  }
  SECTION("a text comes twice") {
    story.hear(0, 0, {{1, 0}, {1, 1}, {2, 0}, {2, 0}, {2, 1}, {1, 2}});
    expected = "twice";
  }
  SECTION("a text comes again, in a later stay") {
    story.history.receivers[0].stays[0].left = 51;
    story.history.receivers[0].stays.push_back({"r", 55, 56, 1000, true});
    story.hear(0, 1, {{2, 1}});
    expected = "twice";
  }
  SECTION("a text that nobody said, of a sender or of nobody") {
    auto const invented = GENERATE(TextId{1, 3}, TextId{3, 0});
    story.hear(3, 1, {{2, 2}, invented});
    expected = "nobody said";
  }
  SECTION("a text of another room") {
    story.hear(3, 1, {{2, 2}, {1, 2}});
    expected = "said in r";
  }
  SECTION("a receiver hears its own name's text") {
    story.hear(3, 0, {{1, 1}, {2, 0}, {2, 1}});
    expected = "not for it";
  }
  SECTION("a text for another user") {
    story.history.senders.at(2).texts[1].to = "eve";
    expected = "not for it";
  }
  SECTION("a text was over before the receiver came") {
    story.history.receivers[0].stays[0] = {"r", 13, 14, 1000, true};
    story.hear(0, 0, {{1, 0}, {1, 1}, {2, 0}, {2, 1}, {1, 2}});
    expected = "over before it came";
  }
  SECTION("a text is heard before it is said") {
    story.history.receivers[0].stays[0].got[4].at = 49;
    expected = "before it was said";
  }
  SECTION("a text is overtaken by the reply to a line that was sent when it had its ok") {
    story.history.receivers[0].stays[0].got[4].answered = 53;
    expected = "after a reply";
  }
  SECTION("two receivers hear two orders") {
    story.hear(1, 0, {{1, 0}, {2, 0}, {1, 1}, {2, 1}, {1, 2}});
    expected = "no order";
  }
  SECTION("three receivers, no two of whom disagree, hear three orders") {
    story.history.senders = {
        {1, {"ann", {{"r", "", 10, 20}}}}, {2, {"bob", {{"r", "", 10, 20}}}}, {3, {"kim", {{"r", "", 10, 20}}}}};
    story.history.receivers = {
        {"ann", {{"r", 1, 2, 1000, true}}}, {"bob", {{"r", 1, 2, 1000, true}}}, {"kim", {{"r", 1, 2, 1000, true}}}};
    story.hear(0, 0, {{2, 0}, {3, 0}});
    story.hear(1, 0, {{3, 0}, {1, 0}});
    story.hear(2, 0, {{1, 0}, {2, 0}});
    expected = "no order";
  }
  SECTION("a sender's texts change places, for everybody") {
    for (std::size_t receiver = 0; receiver < 2; ++receiver)
      story.hear(receiver, 0, {{1, 1}, {1, 0}, {2, 0}, {2, 1}, {1, 2}});
    story.hear(2, 0, {});
    story.history.senders.at(1).texts[1].asked = 10;
    expected = "no order";
  }
  SECTION("a text comes before one that had its ok, for everybody") {
    for (std::size_t receiver = 0; receiver < 2; ++receiver)
      story.hear(receiver, 0, {{2, 0}, {1, 0}, {1, 1}, {2, 1}, {1, 2}});
    story.hear(2, 0, {});
    expected = "no order";
  }
  SECTION("a text comes before one that another had heard, which never got its ok") {
    story.history.senders.at(1).texts[2].ok = 0;
    story.history.receivers[0].stays[0].got[4].at = 55;
    story.say(2, "r", 56, 57);
    story.hear(1, 0, {{1, 0}, {1, 1}, {2, 0}, {2, 1}, {2, 3}, {1, 2}});
    story.history.receivers[0].stays[0].left = 56;
    expected = "no order";
  }
  SECTION("who was cut has a gap") {
    story.hear(2, 0, {{1, 0}, {2, 0}});
    expected = "no order";
  }
  SECTION("who was cut has not the first") {
    story.hear(2, 0, {{1, 1}});
    expected = "no order";
  }
  SECTION("a text that never got its ok was heard by some only") {
    story.history.senders.at(1).texts[1].ok = 0;
    story.hear(1, 0, {{1, 0}, {2, 0}, {2, 1}, {1, 2}});
    expected = "has a gap: text 1.1";
  }
  auto const faults = story.faults();
  INFO(lines_of(faults));
  REQUIRE_FALSE(faults.empty());
  CHECK(faults[0].find(expected) != std::string::npos);
}

TEST_CASE("a text's bytes identify it", "[concurrency]") {
  TextId const id{70'001, 512};
  for (std::size_t size : {24u, 25u, 100u, 230u}) {
    auto text = history::text_of(id, size);
    CHECK(text.size() == size);
    CHECK(history::id_of(text) == id);
    CHECK_FALSE(history::id_of(text + "x"));
    CHECK_FALSE(history::id_of(text.substr(0, size - 1)));
    text[size - 1] ^= 1;
    CHECK_FALSE(history::id_of(text));
  }
  CHECK_FALSE(history::id_of(""));
  CHECK_FALSE(history::id_of("1.2"));
  CHECK_FALSE(history::id_of("too late"));
}

}  // namespace
