// SPDX-License-Identifier: BSL-1.0
// soak PORT --pid PID: loads a chat server on this host with clients of all kinds, follows every receiver, samples the
// server's process, and reports whether it kept its promises and did not grow. Linux only: epoll, /proc.
//
// One thread plays all clients, so what it has read was over before its next send. It keeps a window of each room's
// texts and no history, so a run may take days. CHATPROTO_SEED repeats the clients' choices, but not their timing.
#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <deque>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <iterator>
#include <limits>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <chatproto/message.hpp>

#include "../examples/descriptors.hpp"
#include "../examples/program.hpp"
#include "client.hpp"
#include "crowd.hpp"
#include "following.hpp"
#include "history.hpp"

namespace {

using following::Counts, following::Room, following::Stay, following::Text, following::Voice;
using history::TextId, history::Tick;
using Clock = std::chrono::steady_clock;
using std::uint32_t, std::uint64_t, std::size_t;
using namespace std::chrono_literals;

constexpr size_t room_count = 6, talker_count = 18, listener_count = 42, stuck_count = 3;
constexpr auto visit_time = 5ms;     // between two visitors
constexpr size_t window = 8;         // of a talker: texts without an ok so far
constexpr uint64_t room_lag = 256;   // most texts of a room since those that each receiver is known to have heard
constexpr auto patience = 60s;       // for what must happen
constexpr double share = 0.7;        // of the load that the server can carry
constexpr double growth_kib = 1024;  // allowed for memory besides a tenth of it: allocators vary
constexpr auto forever = std::numeric_limits<Tick>::max();
constexpr uint32_t nobody = 0xffffffff;  // the sender of texts that must never be heard

// Receivers are called ann, as the witnesses are, or bob. So bob must not get what bob sends, nor what is only for ann.
constexpr std::array<std::string_view, 8> names = {"bob", "carol", "dave", "eve", "frank", "grace", "heidi", "ivan"};

struct Options {
  std::uint16_t port = 0;
  int pid = 0;
  std::chrono::milliseconds seconds = 60s, calibration = 5s;
  uint32_t storm = 0;
  std::string signal, csv;
};

// --- The clients -----------------------------------------------------------------------------------------------------

struct Due {  // an expected reply
  enum What : std::uint8_t { ok, err, text, entered, fence, left };
  What what;
  Tick asked = 0;
  uint64_t room_said = 0;  // texts said in the room by then
  std::shared_ptr<Text> text_said = nullptr;
};

struct Client {
  enum class Kind : std::uint8_t { witness, listener, stuck, talker, visitor };
  enum class Then : std::uint8_t { stay, half_close, close, reset };
  Kind kind;
  int fd = -1;
  uint32_t events = 0;
  std::string input = {}, output = {};
  std::deque<Due> due = {};
  bool is_connected = false, is_reading = true;
  bool may_be_cut = false;                // it does not read, or did not
  bool is_ending = false;                 // the server is to close it
  Tick left = 0;                          // when it shut down sending
  Then then = Then::stay;                 // what it does once all its lines are written
  Clock::time_point next = Clock::now();  // when it acts next

  size_t name = 0;  // of a talker
  std::shared_ptr<Voice> voice = nullptr;
  bool is_bob = false;  // of a receiver
  Room* room = nullptr;
  Stay* stay = nullptr;
  Room* next_room = nullptr;  // which it asked to join
  Stay* next_stay = nullptr;
  uint64_t heard = 0, next_heard = 0;  // how many of the room's texts it has heard
};

struct Sample {
  double seconds, cpu, resident, descriptors, threads;
};

class Soak {
 public:
  explicit Soak(Options const& options) : options_(options) {
    for (size_t i = 0; i < room_count; ++i) rooms_.push_back({"r" + std::to_string(i), counts_, voices_});
  }
  ~Soak() {
    for (auto& client : clients_) close(client.fd);
  }

  int run();
  int storm();

 private:
  using Kind = Client::Kind;
  using Then = Client::Then;

  // --- Sockets -------------------------------------------------------------------------------------------------------

  Client& connect(Kind kind, std::string first_lines, std::deque<Due> due = {}) {
    auto& client = clients_.emplace_back(Client{.kind = kind});
    client.output = std::move(first_lines);
    client.due = std::move(due);
    client.fd = crowd::open_socket(AF_INET, kind == Kind::stuck);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(options_.port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ++counts_.connections;
    if (::connect(client.fd, reinterpret_cast<sockaddr const*>(&address), sizeof address) != 0 && errno != EINPROGRESS)
      throw crowd::failure("connect");
    watch(client);
    return client;
  }
  void watch(Client& client) const {
    if (client.fd < 0) return;
    auto const writes = !client.is_connected || !client.output.empty();
    auto const events = (client.is_reading ? uint32_t{EPOLLIN} : 0u) | (writes ? uint32_t{EPOLLOUT} : 0u);
    epoll_.watch(client, events | EPOLLERR);  // which is reported anyway; so it never watches for 0
  }
  void say(Client& client, std::string_view lines) {
    client.output += lines;
    if (client.is_connected) flush(client);
  }
  void flush(Client& client) {
    if (client.fd < 0) return;
    client.is_connected = true;
    auto const size = send(client.fd, client.output.data(), client.output.size(), MSG_NOSIGNAL);
    if (size > 0) client.output.erase(0, static_cast<size_t>(size));
    if (size < 0 && errno != EAGAIN && errno != EINTR) client.output.clear();  // the next read will tell
    if (!client.output.empty() || client.then == Then::stay) return watch(client);
    if (client.then != Then::half_close) return vanish(client, client.then == Then::reset);
    client.then = Then::stay;
    client.is_ending = true;
    client.left = ++tick_;
    shutdown(client.fd, SHUT_WR);
    watch(client);
  }
  void read(Client& client) {
    std::array<char, 64 * 1024> buffer;
    auto const size = recv(client.fd, buffer.data(), buffer.size(), 0);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (size <= 0) return lose(client, size == 0 ? "was closed" : "was broken");
    client.input.append(buffer.data(), static_cast<size_t>(size));
    std::string_view input = client.input;
    for (size_t lf; (lf = input.find('\n')) != input.npos && client.fd >= 0; input.remove_prefix(lf + 1))
      take(client, input.substr(0, lf));
    client.input.erase(0, client.input.size() - input.size());
  }
  void stop(Client& client) {
    close(std::exchange(client.fd, -1));
    for (auto const& due : client.due)
      if (due.what == Due::text) due.text_said->voice->room.abandon(due.text_said->id);
    for (auto* const stay : {client.stay, client.next_stay})
      if (stay != nullptr) stay->is_over = true;
    client.stay = client.next_stay = nullptr;
  }
  /// The server has closed the connection.
  void lose(Client& client, char const* how) {
    if (is_over_) {
      if (!client.input.empty() && !client.may_be_cut) ++counts_.corrupt;
      auto const fence = client.left != 0 ? client.left : forever;
      if (client.stay != nullptr && !client.may_be_cut) client.room->hear(*client.stay, {{}, fence});
    } else if (client.may_be_cut) {
      if (!client.is_ending || !client.due.empty()) ++counts_.cut;
    } else if (!client.is_ending || !client.due.empty() || !client.input.empty()) {
      complain_of(client, how);
    } else if (client.left != 0 && client.stay != nullptr) {
      client.room->hear(*client.stay, {{}, client.left});
    }
    stop(client);
  }
  void vanish(Client& client, bool reset) {
    if (reset) crowd::reset_at_close(client.fd);
    stop(client);
  }
  /// Sets what to do once all is written.
  void finally(Client& client, Then then) {
    client.then = then;
    if (client.is_connected) flush(client);
  }
  void complain_of(Client const& client, std::string const& what) {
    constexpr std::array kinds = {"a witness", "a listener", "a stuck listener", "a talker", "a visitor"};
    if (++counts_.unexpected <= 5)
      program::complain("soak: " + std::string(kinds[static_cast<size_t>(client.kind)]) + ' ' + program::visible(what));
  }

  // --- What clients receive ------------------------------------------------------------------------------------------

  void take(Client& client, std::string_view line) {
    if (line.size() + 1 > chatproto::max_line) ++counts_.corrupt;
    if (line.starts_with("delivery:")) return take_delivery(client, line.substr(9));
    auto const is_ok = line.starts_with("ok:"), is_err = line.starts_with("err:");
    if (client.due.empty() || (client.due.front().what == Due::err ? !is_err : !is_ok))
      return complain_of(client, "did not expect " + std::string(line));
    auto const due = std::move(client.due.front());
    client.due.pop_front();
    switch (due.what) {
      case Due::ok:
      case Due::err: return;
      case Due::text:
        due.text_said->ok = ++tick_;
        ++counts_.texts;
        return;
      case Due::entered:
        leave(client, due.asked);
        client.room = std::exchange(client.next_room, nullptr);
        client.stay = std::exchange(client.next_stay, nullptr);
        client.stay->entered = ++tick_;
        client.heard = due.room_said;
        return;
      case Due::fence:
        client.heard = due.room_said;
        if (client.kind == Kind::witness)
          client.room->witness_was_fenced(due.asked);
        else
          client.room->hear(*client.stay, {{}, due.asked});
        return;
      case Due::left: leave(client, due.asked);
    }
  }
  void leave(Client& client, Tick asked) {
    if (client.stay == nullptr) return;
    client.room->hear(*client.stay, {{}, asked});
    std::exchange(client.stay, nullptr)->is_over = true;
  }
  void take_delivery(Client& client, std::string_view line) {
    auto const room_end = line.find(':'), user_end = line.find(':', room_end + 1);
    auto const id = user_end == line.npos ? std::nullopt : history::id_of(line.substr(user_end + 1));
    if (!id || line.substr(room_end + 1, user_end - room_end - 1) != names[id->sender % names.size()]) {
      ++counts_.corrupt;
      return;
    }
    auto const room = line.substr(0, room_end);
    if (client.kind == Kind::witness && room == client.room->name)
      client.room->witness_hears(*id);
    else if (client.stay != nullptr && room == client.room->name)
      client.room->hear(*client.stay, {*id, 0});
    else if (client.next_stay != nullptr && room == client.next_room->name)
      client.next_room->hear(*client.next_stay, {*id, 0});
    else if (client.kind == Kind::visitor)
      ++visitors_heard_;
    else
      ++counts_.corrupt;
  }

  // --- What clients do -----------------------------------------------------------------------------------------------

  Room& some_room() { return rooms_[random_.below(rooms_.size())]; }
  std::chrono::milliseconds some_time(size_t least, size_t most) {
    return std::chrono::milliseconds(random_.between(least, most));
  }

  /// Returns a new voice with the client's name.
  std::shared_ptr<Voice> new_voice(Client const& talker, Room& room) {
    voices_ += static_cast<uint32_t>(names.size());
    return std::make_shared<Voice>(Voice{room, voices_ - static_cast<uint32_t>(names.size() - talker.name)});
  }
  void talker_joins(Client& talker) {
    auto& room = some_room();
    talker.voice = new_voice(talker, room);
    talker.due.push_back({Due::ok});
    say(talker, "join:" + room.name + '\n');
  }
  std::string some_text(TextId id) {
    return history::text_of(id, random_.percent(10) ? random_.between(32, 220) : random_.between(32, 64));
  }
  void talk(Client& talker, size_t count) {
    std::string lines;
    for (; count > 0; --count) {
      auto& voice = *talker.voice;
      auto const text =
          std::make_shared<Text>(Text{{voice.number, voice.next++}, talker.name != 0, ++tick_, 0, talker.voice});
      talker.due.push_back({Due::text, 0, 0, text});
      ++voice.room.said;
      auto const die = random_.below(100);
      if (die >= 20) {
        lines += "sendall:";
      } else if (die >= 5) {
        lines += "senduser:ann:";
        text->for_bobs = false;
      } else {
        lines += "senduser:nobody:";
      }
      if (die >= 5) voice.room.unheard.emplace(text->id, text);
      lines += some_text(text->id) + '\n';
    }
    say(talker, lines);
  }
  /// A line that the server must not carry out.
  std::string unheard_of() { return "sendall:" + some_text({nobody, static_cast<uint32_t>(random_.below(1000))}); }

  void listener_joins(Client& listener) {
    do listener.next_room = &some_room();  // to join its own room would not begin a stay
    while (listener.next_room == listener.room);
    listener.next_stay = &listener.next_room->stays.emplace_back(
        Stay{.is_bob = listener.is_bob, .asked = ++tick_, .place = listener.next_room->end()});
    listener.next_heard = listener.next_room->said;
    listener.due.push_back({Due::entered, tick_, listener.next_heard});
    say(listener, "join:" + listener.next_room->name + '\n');
  }
  void fence(Client& receiver) {
    receiver.due.push_back({Due::fence, ++tick_, receiver.room->said});
    say(receiver, "join:" + receiver.room->name + '\n');
  }
  void quit(Client& client, std::string const& more = {}) {
    client.due.push_back({Due::left, ++tick_});
    client.is_ending = true;
    say(client, "quit:\n" + more);
  }
  void nonsense(Client& client) {
    std::string lines;
    for (auto count = random_.between(1, 20); count > 0; --count) {
      client.due.push_back({Due::err});
      lines += random_.one_of(std::array<std::string, 6>{"nonsense:\n", "\n", "delivery:r1:ann:x\n", "join:no room\n",
                                                         "join\r\n", std::string(1000, 'x') + '\n'});
    }
    say(client, lines);
  }

  void add(Kind kind);
  void visit();
  void act(Client& client);
  void end(Client& client);
  void speak();
  void turn();
  void wait_until(char const* what, auto const& done) {
    auto const deadline = Clock::now() + patience;
    while (!done()) {
      if (Clock::now() > deadline) throw std::runtime_error(std::string("waited in vain until ") + what);
      turn();
    }
  }
  size_t count(Kind kind) const {
    return static_cast<size_t>(std::ranges::count_if(clients_, [kind](auto const& each) { return each.kind == kind; }));
  }

  Sample sample() const;
  Sample sample_at_rest();
  void run_for(std::chrono::milliseconds time, auto const& each_turn);
  void note(Sample const& now);
  void end_all();
  int end_by_signal();
  bool report(double capacity, Sample const& base, Sample const& last) const;

  Options const options_;
  raw::Random random_{raw::seed()};
  crowd::Epoll epoll_;
  std::list<Client> clients_;
  std::deque<Room> rooms_;
  Counts counts_;
  uint32_t voices_ = 0;
  Tick tick_ = 0;

  bool is_over_ = false;                                   // the server was told to stop
  bool is_open_ = false;                                   // clients may connect and leave
  double rate_ = std::numeric_limits<double>::infinity();  // texts per second
  double tokens_ = 0;                                      // texts that may be sent now
  Clock::time_point last_speech_ = Clock::now(), next_scan_ = last_speech_, next_visit_ = last_speech_;
  uint64_t visitors_heard_ = 0;

  std::ofstream csv_;
  Clock::time_point begin_;
  std::vector<Sample> samples_;
  Counts at_begin_;
};

void Soak::add(Kind kind) {
  auto& client = connect(kind, "");
  client.due.push_back({Due::ok});
  if (kind == Kind::talker) {
    client.name = random_.below(names.size());
    say(client, "slogin:" + std::string(names[client.name]) + '\n');
    return talker_joins(client);
  }
  client.is_bob = kind != Kind::witness && random_.percent(40);
  say(client, client.is_bob ? "rlogin:bob\n" : "rlogin:ann\n");
  client.next = Clock::now() + some_time(0, 1000);
  if (kind != Kind::witness) return listener_joins(client);
  client.room = &rooms_[count(Kind::witness) - 1];
  client.due.push_back({Due::ok});
  say(client, "join:" + client.room->name + '\n');
}

/// A client that connects for a moment, and is not followed.
void Soak::visit() {
  auto const die = random_.below(10);
  auto const then = random_.percent(50) ? Then::reset : Then::close;
  if (die < 2) return vanish(connect(Kind::visitor, {}), true);
  auto& client = connect(Kind::visitor, {});
  client.is_ending = true;
  auto const say_all = [&](std::initializer_list<Due::What> due, std::string_view lines) {
    for (auto const what : due) client.due.push_back({what});
    say(client, lines);
  };
  switch (die) {
    case 2:
      say_all({}, "slogin:bob\njoin:r1\n" + unheard_of());
      return finally(client, then);  // in the middle of a line
    case 3: say_all({}, "rlogin:bob\njoin:r1\njoin:r"); return finally(client, then);
    case 4:  // sometimes it waits for the login deadline
      say_all({}, "slogin:bob");
      return random_.percent(90) ? finally(client, then) : void();
    case 5: return say_all({Due::err}, std::string(1000, 'x') + "\nslogin:bob\n");
    case 6: return say_all({Due::err}, unheard_of() + '\n');
    case 7:
      return say_all({Due::ok, Due::ok, Due::ok, Due::left},
                     "slogin:eve\njoin:r1\nleave:\nquit:\n" + unheard_of() + '\n');
    case 8: return say_all({Due::ok, Due::ok, Due::left}, "rlogin:eve\njoin:r1\nquit:\njoin:r2\n");
    default:
      say_all({Due::ok, Due::ok, Due::err}, "slogin:bob\r\njoin:r1\r\nsendall:" + std::string(240, 'x') + '\n');
      finally(client, Then::half_close);
  }
}

void Soak::end(Client& client) {
  switch (random_.below(5)) {
    case 0: return quit(client, client.kind == Kind::talker ? unheard_of() + '\n' : "");
    case 1: return finally(client, Then::half_close);
    case 2: return vanish(client, true);
    case 3: return vanish(client, false);
    default:
      if (client.kind == Kind::talker) client.output += unheard_of();
      client.output += client.kind == Kind::talker ? "" : "join:r";
      finally(client, random_.percent(50) ? Then::reset : Then::close);
  }
}

void Soak::act(Client& client) {
  auto const now = Clock::now();
  auto const die = random_.below(100);
  auto const pause = [&](size_t least, size_t most) {
    client.may_be_cut = true;
    client.is_reading = false;
    client.next = now + some_time(least, most);
    watch(client);
  };
  if (!client.is_reading) {
    client.is_reading = true;
    client.next = now + 1s;
    return watch(client);
  }
  if (client.is_ending || !client.is_connected) return;
  client.next = now + some_time(200, 1000);
  if (client.kind == Kind::talker) {
    if (die < 40) return talker_joins(client);
    if (die < 60) return nonsense(client);
    if (die < 75) return end(client);
    client.due.insert(client.due.end(), {{Due::ok}, {Due::err}});
    say(client, "leave:\n" + unheard_of() + '\n');
    return talker_joins(client);
  }
  if (!client.due.empty()) return;
  if (client.kind == Kind::witness) return fence(client);
  if (client.kind == Kind::stuck) return client.may_be_cut ? end(client) : pause(5000, 15000);
  if (die < 40) return fence(client);
  if (die < 65) return listener_joins(client);
  if (die < 80) return nonsense(client);
  if (die < 85) return pause(300, 3000);
  end(client);
}

/// Lets talkers send what may be sent now: no more than every reading receiver can take, so that none is disconnected.
void Soak::speak() {
  auto const now = Clock::now();
  auto const passed = std::chrono::duration<double>(now - std::exchange(last_speech_, now)).count();
  auto const limited = rate_ < std::numeric_limits<double>::infinity();
  tokens_ = limited ? std::min(tokens_ + passed * rate_, rate_ / 10) : std::numeric_limits<double>::max();
  std::map<Room const*, uint64_t> lags;
  std::vector<Client*> talkers;
  for (auto& client : clients_) {
    if (client.fd < 0 || !client.is_connected) continue;
    if (client.kind == Kind::talker && !client.is_ending && client.due.size() < window) talkers.push_back(&client);
    if (client.may_be_cut) continue;
    for (auto const& [room, heard] : {std::pair(client.room, client.heard), {client.next_room, client.next_heard}}) {
      if (room == nullptr) continue;
      auto const lag = room->said - heard;
      lags[room] = std::max(lags[room], lag);
      if (lag > room_lag / 4 && client.due.empty() && !client.is_ending) fence(client);
    }
  }
  auto const first = talkers.empty() ? 0 : random_.below(talkers.size());
  for (size_t i = 0; i < talkers.size() && tokens_ >= 1; ++i) {
    auto& talker = *talkers[(first + i) % talkers.size()];
    auto const texts = random_.percent(70) ? 1 : random_.between(2, 8);
    auto& lag = lags[&talker.voice->room];
    if (lag + texts > room_lag) continue;
    lag += texts;
    tokens_ -= static_cast<double>(texts);
    talk(talker, texts);
  }
}

void Soak::turn() {
  for (auto const& event : epoll_.wait(2)) {
    auto& client = *static_cast<Client*>(event.data.ptr);
    auto const what = event.events;
    if (client.fd >= 0 && (what & EPOLLOUT) != 0) flush(client);
    if (client.fd >= 0 && (what & ~uint32_t{EPOLLOUT}) != 0) {
      client.is_reading = true;  // it was disconnected
      read(client);
    }
  }
  auto const now = Clock::now();
  if (now >= next_scan_) {
    next_scan_ = now + 10ms;
    std::erase_if(clients_, [](auto const& client) { return client.fd < 0; });
    if (!is_open_) return;
    for (auto const& [kind, wanted] :
         {std::pair(Kind::talker, talker_count), {Kind::listener, listener_count}, {Kind::stuck, stuck_count}})
      for (auto missing = wanted - std::min(wanted, count(kind)); missing > 0; --missing) add(kind);
    for (auto& client : clients_)
      if (client.kind != Kind::visitor && client.fd >= 0 && now >= client.next) act(client);
    for (next_visit_ = std::max(next_visit_, now - 1s); next_visit_ < now; next_visit_ += visit_time) visit();
  }
  if (is_open_ || is_over_) speak();
}

// --- The run ---------------------------------------------------------------------------------------------------------

Sample Soak::sample() const {
  auto const usage = crowd::usage_of(options_.pid);
  if (!usage || usage->resident_kib == 0) throw std::runtime_error("the server has ended");
  using Files = std::filesystem::directory_iterator;
  auto const descriptors = std::distance(Files("/proc/" + std::to_string(options_.pid) + "/fd"), Files());
  using Seconds = std::chrono::duration<double>;
  return {Seconds(Clock::now() - begin_).count(), Seconds(usage->cpu).count(), usage->resident_kib,
          static_cast<double>(descriptors), usage->threads};
}

void Soak::run_for(std::chrono::milliseconds time, auto const& each_turn) {
  for (auto const end = Clock::now() + time; Clock::now() < end; each_turn()) turn();
}

void Soak::note(Sample const& now) {
  samples_.push_back(now);
  if (!csv_.is_open()) return;
  csv_ << now.seconds << ',' << now.cpu << ',' << now.resident << ',' << now.descriptors << ',' << now.threads << ','
       << clients_.size();
  for (auto const count : {counts_.connections, counts_.texts, counts_.deliveries, counts_.cut, counts_.lost,
                           counts_.duplicated, counts_.misordered, counts_.corrupt, counts_.unexpected})
    csv_ << ',' << count;
  csv_ << std::endl;
}

/// Samples once the server has created what it keeps for the first clients of each thread.
Sample Soak::sample_at_rest() {
  for (auto i = 0; i < 50; ++i) quit(connect(Kind::visitor, "slogin:bob\n", {{Due::ok}}));
  wait_until("the first clients have gone", [this] { return clients_.empty(); });
  auto least = sample();
  run_for(1s, [&] {
    if (auto const now = sample(); now.descriptors <= least.descriptors) least = now;
  });
  return least;
}

int Soak::run() {
  if (!options_.csv.empty()) {
    csv_.open(options_.csv);
    csv_ << "seconds,cpu_seconds,resident_kib,descriptors,threads,clients,connections,texts,deliveries,cut,"
            "lost,duplicated,misordered,corrupt,unexpected\n";
    if (!csv_) throw std::runtime_error("cannot write " + options_.csv);
  }
  auto const base = sample_at_rest();
  for (size_t i = 0; i < room_count; ++i) add(Kind::witness);
  wait_until("the witnesses are in",
             [this] { return std::ranges::all_of(clients_, [](auto const& each) { return each.due.empty(); }); });

  is_open_ = true;
  next_visit_ = Clock::now();
  if (!options_.signal.empty()) {
    run_for(options_.seconds, [] {});
    return end_by_signal();
  }
  run_for(options_.calibration / 3, [] {});
  auto const before = counts_.texts;
  auto const measured_from = Clock::now();
  run_for(options_.calibration * 2 / 3, [] {});
  auto const capacity =
      static_cast<double>(counts_.texts - before) / std::chrono::duration<double>(Clock::now() - measured_from).count();
  rate_ = share * capacity;

  begin_ = Clock::now();
  at_begin_ = counts_;
  auto const between = std::max<std::chrono::milliseconds>(options_.seconds / 300, 100ms);
  auto next = begin_;
  run_for(options_.seconds, [&] {
    if (Clock::now() < next) return;
    next += between;
    note(sample());
    if (counts_.wrong() > 10'000) throw std::runtime_error("too much is wrong");
  });
  end_all();
  auto last = sample();
  for (auto const deadline = Clock::now() + patience; Clock::now() < deadline; last = sample()) {
    if (last.descriptors <= base.descriptors && last.threads <= base.threads) break;
    std::this_thread::sleep_for(10ms);
  }
  note(last);
  samples_.pop_back();
  return report(capacity, base, last) ? 0 : 1;
}

/// Sends the server the signal while all talkers send as fast as they can. Every text with an ok must come before the
/// end.
int Soak::end_by_signal() {
  is_open_ = false;
  for (auto& client : clients_) {
    client.is_reading = true;
    watch(client);
    if (client.kind == Kind::visitor && client.fd >= 0) vanish(client, true);
  }
  is_over_ = true;
  auto const before = counts_;
  if (kill(options_.pid, options_.signal == "INT" ? SIGINT : SIGTERM) != 0) throw crowd::failure("kill");
  wait_until("all were closed", [this] { return clients_.empty(); });
  for (auto& room : rooms_) {
    room.witness_was_fenced(forever);
    for (auto const& stay : room.stays) counts_.lost += stay.heard.size();
  }
  std::ostringstream out;
  out << counts_.texts << " texts had their ok, " << counts_.texts - before.texts
      << " of them after the signal, and came in " << counts_.deliveries << " deliveries: " << counts_.lost << " lost, "
      << counts_.wrong() - counts_.lost << " wrong";
  program::print_or_fail(out.str());
  return counts_.wrong() == 0 && counts_.texts > 0 ? 0 : 1;
}

/// All clients quit, the witnesses last; then every text with an ok must have come.
void Soak::end_all() {
  is_open_ = false;
  auto const all = [this](auto const& holds) { return [this, holds] { return std::ranges::all_of(clients_, holds); }; };
  wait_until("all texts had their ok",
             all([](Client const& each) { return each.kind != Kind::talker || each.due.empty() || each.fd < 0; }));
  for (auto& client : clients_) {
    client.is_reading = true;
    watch(client);
    if (client.fd < 0) continue;
    if (client.kind == Kind::visitor)
      vanish(client, true);
    else if (client.kind != Kind::witness && !client.is_ending)
      quit(client);
  }
  wait_until("all have gone", all([](Client const& each) { return each.kind == Kind::witness; }));
  for (auto& client : clients_) fence(client);
  wait_until("the witnesses have heard all", all([](Client const& each) { return each.due.empty(); }));
  for (auto& client : clients_) quit(client);
  wait_until("the witnesses have gone", [this] { return clients_.empty(); });
  for (auto& room : rooms_)
    for (auto const& stay : room.stays) counts_.lost += stay.heard.size();
}

bool Soak::report(double capacity, Sample const& base, Sample const& last) const {
  auto const median = [this](size_t third, double Sample::*what) {
    std::vector<double> values;
    for (auto i = samples_.size() * third / 3; i < samples_.size() * (third + 1) / 3; ++i)
      values.push_back(samples_[i].*what);
    std::ranges::nth_element(values, values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2));
    return values[values.size() / 2];
  };
  auto const growth = median(2, &Sample::resident) - median(1, &Sample::resident);
  auto const most_growth = growth_kib + median(1, &Sample::resident) / 10;
  auto const third = [this](uint64_t Counts::*what) {
    return static_cast<double>(counts_.*what - at_begin_.*what) / 3;
  };
  auto const time = samples_.back().seconds;
  std::ostringstream out;
  out << std::fixed << std::setprecision(0);
  out << "at " << 100 * share << " % of the " << capacity << " texts a second that it carried, for " << time
      << " s, its CPU " << 100 * (samples_.back().cpu - samples_.front().cpu) / (time - samples_.front().seconds)
      << " %\n\n";
  auto const line = [&](char const* name, auto... values) {
    out << "  " << std::left << std::setw(16) << name << std::right;
    ((out << std::setw(12) << values), ...);
    out << '\n';
  };
  line("connections", counts_.connections);
  line("texts", counts_.texts);
  line("deliveries", counts_.deliveries);
  line("cut", counts_.cut);
  line("lost", counts_.lost);
  line("duplicated", counts_.duplicated);
  line("misordered", counts_.misordered);
  line("corrupt", counts_.corrupt);
  line("unexpected", counts_.unexpected);
  out << '\n';
  line("", "at first", "least", "median", "most", "at the end");
  auto flat = true;
  for (auto const& [name, what] : {std::pair("resident KiB", &Sample::resident),
                                   {"descriptors", &Sample::descriptors},
                                   {"threads", &Sample::threads}}) {
    auto const [least, most] = std::ranges::minmax(samples_, {}, what);
    auto samples = samples_;
    std::ranges::nth_element(samples, samples.begin() + static_cast<std::ptrdiff_t>(samples.size() / 2), {}, what);
    line(name, base.*what, least.*what, samples[samples.size() / 2].*what, most.*what, last.*what);
    if (what != &Sample::resident) flat = flat && last.*what <= base.*what;
  }
  out << "\nMemory: " << std::showpos << growth << std::noshowpos << " KiB from the middle third to the last; "
      << most_growth << " may be, which is " << most_growth * 1024 / third(&Counts::connections)
      << " bytes for a connection, or " << std::setprecision(1) << most_growth * 1024 / third(&Counts::texts)
      << " for a text\n";
  auto const settled = options_.seconds >= 60s;  // whether memory has reached its usual level
  auto const good = counts_.wrong() == 0 && flat && (growth <= most_growth || !settled);
  if (counts_.wrong() != 0) out << "WRONG: a promise was broken\n";
  if (!flat) out << "WRONG: descriptors or threads are not back where they were\n";
  if (growth > most_growth) out << (settled ? "WRONG: memory grows\n" : "(That is not judged: it was too short)\n");
  program::print_or_fail(out.str());
  return good;
}

/// All clients connect at once, receive a text, reset their connections, and connect again at once.
int Soak::storm() {
  program::raise_descriptor_limit();
  for (auto const* when : {"they came", "they came back"}) {
    auto const begin = Clock::now();
    for (uint32_t i = 0; i < options_.storm; ++i)
      connect(Kind::visitor, "rlogin:ann\njoin:r1\n", {{Due::ok}, {Due::ok}});
    wait_until("all were in", [this] {
      return counts_.unexpected > 0 || std::ranges::all_of(clients_, [](auto const& each) { return each.due.empty(); });
    });
    auto const time = std::chrono::duration<double>(Clock::now() - begin).count();
    connect(Kind::visitor, "slogin:bob\njoin:r1\nsendall:" + some_text({0, 0}) + '\n',
            {{Due::ok}, {Due::ok}, {Due::ok}});
    visitors_heard_ = 0;
    wait_until("all heard a text", [this] { return counts_.unexpected > 0 || visitors_heard_ == options_.storm; });
    if (counts_.wrong() > 0) return 1;
    std::ostringstream out;
    out << options_.storm << " clients were in " << std::setprecision(2) << time << " s after " << when;
    program::print_or_fail(out.str());
    for (auto& client : clients_) vanish(client, true);
    clients_.clear();
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Loads a chat server on this host with all kinds of clients, and reports whether it kept its promises.",
               "soak");
  app.add_option("PORT", options.port, "TCP port of the server")->check(program::decimal(1, 65535))->required();
  app.add_option("--pid", options.pid, "Process id of the server")->check(program::decimal(1, 4'194'304));
  program::add_seconds(app, "--seconds", options.seconds, "Time under load");
  program::add_seconds(app, "--calibration", options.calibration,
                       "Time to measure how many texts the server can carry");
  app.add_option("--csv", options.csv, "File for the samples");
  app.add_option("--end", options.signal, "Signal to send to the server at the end, under load")
      ->check(CLI::IsMember({"TERM", "INT"}));
  app.add_option("--storm", options.storm,
                 "Instead of the load: clients that all connect at once, reset their connections and connect again")
      ->check(program::decimal(1, 100'000));
  return program::run(app, argc, argv, [&] {
    if (options.storm == 0 && options.pid == 0) throw std::runtime_error("--pid or --storm is needed");
    if (options.seconds < 1s || options.calibration < 1s) throw std::runtime_error("the times are too short");
    Soak soak(options);
    return options.storm > 0 ? soak.storm() : soak.run();
  });
}
