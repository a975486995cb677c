// SPDX-License-Identifier: BSL-1.0
// Many clients that send, receive, change rooms and disconnect at the same time, each in a thread; history.hpp judges
// what they saw. CHATPROTO_SEED repeats their choices, but not their timing. A client's end of a connection, `Wire`, is
// a class of client.hpp.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
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
#include "support.hpp"

namespace judged {

using history::LogicalClock;
using history::Receiver;
using history::Sender;
using history::Stay;
using history::TextId;
using raw::Random;
using raw::Reading;
using raw::Time;
using namespace std::string_literals;

// --- Senders and receivers -------------------------------------------------------------------------------------------

inline std::array const users = {"ann"s, "bob"s, "eve"s, "kim"s};

inline std::string const& user_of(std::uint32_t sender) {
  return users[sender * 2'654'435'761u / 65'536 % users.size()];
}

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

inline std::string lines_of(std::vector<std::string> const& faults) {
  std::string text;
  for (auto const& fault : faults) text += fault + '\n';
  return text;
}

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
  history::Judge const judge(crowd.history);
  INFO(lines_of(judge.faults()));
  CHECK(judge.faults().empty());
  CHECK(judge.owed() > 0);
}

inline constexpr std::size_t share = raw::instrumented ? 8 : 1;  // divides the work

// Many rooms whose members keep changing; and one room in which all send at once.
inline constexpr Plan lively = {6, 6'000 / share, 16, 4, 4, 8};
inline constexpr Plan dense = {6, 6'000 / share, 3, 1, 5, 1};

}  // namespace judged
