// SPDX-License-Identifier: BSL-1.0
// bench_load HOST PORT: loads a chat server with rooms full of clients, checks each delivery, and prints its
// measurements as one line of JSON. Linux only: epoll, /proc.
//
// The loop is closed: a sender waits when it has a window of unacknowledged texts, a room when its receivers lag. So
// the server's queues stay short. One thread does everything and compares each whole line with the expected one: some
// 25 ns for a delivery of 90 bytes. In the fan-outs this core is the limit (load_cpu_share is near 1), not the
// server's: there CPU per delivery is the figure to read, not deliveries per second.
#include <netdb.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <ctime>
#include <deque>
#include <exception>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <limits>
#include <optional>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <chatproto/message.hpp>

#include "../../examples/descriptors.hpp"
#include "../../examples/program.hpp"

namespace {

using Clock = std::chrono::steady_clock;
using std::uint32_t, std::uint64_t, std::size_t;

constexpr auto patience = std::chrono::seconds(10);        // for a server that has stopped answering
constexpr auto grace = std::chrono::milliseconds(150);     // for lines that should not come
constexpr auto slow_time = std::chrono::milliseconds(50);  // between two slow receivers
constexpr uint32_t logins_at_once = 100;                   // fewer than a listener's backlog
constexpr uint32_t clients_per_address = 25'000;           // fewer than the ports of one source address
constexpr size_t name_size = 6, head_size = 16;            // s00042; "00042 000000017 "
// delivery:ROOM:SENDER:TEXT and its LF
constexpr size_t room_at = 9, sender_at = room_at + name_size + 1, text_at = sender_at + name_size + 1;
constexpr size_t longest_text = chatproto::max_line - text_at - 1;

struct Options {
  std::string host, port;
  uint32_t senders = 1, receivers = 1, rooms = 1, slow = 0;
  uint32_t text = 64, window = 1, lag = 512;
  std::chrono::milliseconds seconds{2000}, warmup{500};
  uint64_t count = 0;
  bool idle = false, spin = false;
  int pid = 0;

  uint64_t clients() const { return uint64_t{rooms} * (uint64_t{senders} + receivers) + slow; }
};

std::system_error system_failure(char const* what) { return {errno, std::system_category(), what}; }

/// A histogram of times, with 0.8 % precision in constant memory: 64 buckets for each power of two.
class Histogram {
 public:
  void add(Clock::duration time) {
    auto const value = static_cast<uint64_t>(std::max<std::int64_t>(time.count(), 0));
    auto const width = static_cast<size_t>(std::bit_width(value));
    auto const shift = width > 7 ? width - 7 : 0;
    ++buckets_[shift * 64 + (value >> shift)];
    ++total_;
    most_ = std::max(most_, value);
  }
  bool empty() const { return total_ == 0; }

  /// In microseconds.
  double percentile(double percent) const {
    if (percent >= 100) return static_cast<double>(most_) / 1e3;
    auto rank = static_cast<uint64_t>(percent / 100 * static_cast<double>(total_));
    size_t i = 0;
    while (i + 1 < buckets_.size() && rank >= buckets_[i]) rank -= buckets_[i++];
    auto const shift = i < 128 ? 0 : i / 64 - 1;
    auto const middle = (i - shift * 64) << shift | uint64_t{1} << shift >> 1;
    return static_cast<double>(std::min(middle, most_)) / 1e3;
  }

 private:
  std::array<uint64_t, size_t{59} * 64> buckets_{};
  uint64_t total_ = 0, most_ = 0;
};

/// What the server's process has used.
struct Usage {
  double cpu_us = 0;
  double rss_kb = 0, peak_kb = 0;
};

/// Returns nothing if there is no such process. The clock has the same utime + stime as /proc/PID/stat, in finer steps
/// than 10 ms.
std::optional<Usage> usage_of(int pid) {
  Usage usage;
  clockid_t clock{};
  timespec time{};
  if (pid <= 0 || clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &time) != 0) return std::nullopt;
  usage.cpu_us = static_cast<double>(time.tv_sec) * 1e6 + static_cast<double>(time.tv_nsec) / 1e3;
  std::ifstream status("/proc/" + std::to_string(pid) + "/status");
  for (std::string key; status >> key; status.ignore(std::numeric_limits<std::streamsize>::max(), '\n')) {
    if (key == "VmRSS:") status >> usage.rss_kb;
    if (key == "VmHWM:") status >> usage.peak_kb;
  }
  return usage;
}

void write_number(char* to, size_t digits, uint32_t value) {
  for (; digits > 0; value /= 10) to[--digits] = static_cast<char>('0' + value % 10);
}
uint32_t read_number(char const* from, size_t digits) {  // of nonsense it returns any number, which will not match
  uint32_t value = 0;
  for (size_t i = 0; i < digits; ++i) value = value * 10 + static_cast<uint32_t>(from[i] - '0');
  return value;
}
std::string name(char kind, uint32_t number) {
  std::string result(name_size, kind);
  write_number(result.data() + 1, name_size - 1, number);
  return result;
}
/// Writes the sender, the text's number, and letters that differ from those of the next text.
void write_text(char* to, size_t size, uint32_t sender, uint32_t sequence) {
  write_number(to, 5, sender);
  write_number(to + 6, 9, sequence);
  to[5] = to[15] = ' ';
  for (size_t i = head_size; i < size; ++i) to[i] = static_cast<char>('a' + (i + sequence) % 26);
}

struct Client {
  enum class Role : std::uint8_t { sender, receiver, slow } role;
  enum class State : std::uint8_t { connecting, logging_in, joining, ready, gone } state = State::connecting;
  uint32_t room, number;
  int fd = -1;
  uint32_t events = 0;                  // EPOLLRDHUP alone: does not read
  std::string input = {}, output = {};  // an unfinished line; what the socket did not accept

  struct OnItsWay {
    Clock::time_point sent;
    uint32_t waiting;  // receivers that have not got it
  };
  uint32_t sent = 0, acked = 0;  // of a sender
  std::vector<OnItsWay> on_their_way = {};
  std::string lines = {};  // as the receivers should see them

  std::vector<uint32_t> due = {};                        // of a receiver: the next text from each sender of its room
  std::set<std::pair<uint32_t, uint32_t>> missing = {};  // sender and sequence of the texts passed over so far
  uint64_t position = 0;                                 // of the next delivery in its room
  std::vector<bool> heard = {};                          // of a slow receiver: whether it has got a text of that sender
};

struct Room {
  std::vector<Client*> senders = {};
  uint32_t receivers = 0, undelivered = 0, turn = 0;
  bool may_speak = false;
  std::vector<uint32_t> order = {};  // the sender of the text at a position, modulo its size; only with several senders
  uint64_t heard = 0;                // positions that some receiver has reached
};

class Load {
 public:
  explicit Load(Options const& options)
      : options_(options), ring_(std::bit_ceil(std::max(options.window, options.lag))), rooms_(options.rooms) {
    if (epoll_ < 0) throw system_failure("epoll");
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    if (auto const error = getaddrinfo(options.host.c_str(), options.port.c_str(), &hints, &addresses_); error != 0)
      throw std::runtime_error("cannot find the host " + options.host + ": " + gai_strerror(error));
    choose_address();
  }
  ~Load() {
    for (auto const& client : clients_)
      if (client.fd >= 0) close(client.fd);
    close(epoll_);
    freeaddrinfo(addresses_);
  }
  Load(Load const&) = delete;
  Load& operator=(Load const&) = delete;

  int measure();

 private:
  using Role = Client::Role;
  using State = Client::State;

  void choose_address();
  void log_in();
  void add(Role role, uint32_t room);
  void connect(Client& client);
  void renew_slow();
  void read_slow();
  void close_silently(Client& client) {
    close(std::exchange(client.fd, -1));
    client.state = State::gone;
    --ready_;
  }
  void report(std::optional<Usage> const& at_first, std::optional<Usage> const& joined,
              std::optional<Usage> const& last) const;

  // --- Sockets -------------------------------------------------------------------------------------------------------

  void turn();
  void read(Client& client);
  void flush(Client& client);
  void lose(Client& client, std::string const& why);
  void watch(Client& client, uint32_t events) const {
    if (client.events == events) return;
    epoll_event event{.events = events, .data = {.ptr = &client}};
    if (epoll_ctl(epoll_, client.events == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, client.fd, &event) != 0)
      throw system_failure("epoll_ctl");
    client.events = events;
  }
  /// Also returns when no client is left.
  template <class Done>
  void wait_until(Clock::time_point deadline, Done done) {
    while (ready_ > 0 && !done() && Clock::now() < deadline) turn();
  }

  [[noreturn]] void cannot_connect(std::string const& why) const {
    throw std::runtime_error("cannot connect to " + options_.host + ' ' + options_.port + ": " + why);
  }

  // --- Texts ---------------------------------------------------------------------------------------------------------

  void say(Client& client, std::string_view line) {
    client.output.append(line).append(1, '\n');
    flush(client);
  }
  void speak(Room& room);
  void hear(Client& client, std::string_view line);
  bool hear_the_expected(Client& receiver, std::string_view& input);
  void judge(Client& receiver, std::string_view line);
  void accept(Client& receiver, Client& sender, uint32_t local);
  void record(Client const& sender, uint32_t sequence) {
    if (!recording_) return;
    ++deliveries_;
    latency_.add(now_ - sender.on_their_way[sequence & (ring_ - 1)].sent);
  }
  /// Checks that all receivers of a room get the texts of several senders in the same order.
  void compare_order(Client& receiver, uint32_t local) {
    auto& room = rooms_[receiver.room];
    if (room.order.empty()) return;
    auto& there = room.order[receiver.position & (ring_ - 1)];  // the lag is no greater than the ring
    if (receiver.position == room.heard) {
      there = local;
      ++room.heard;
    } else if (there != local) {
      ++misordered_;
    }
    ++receiver.position;
  }
  void let_speak(uint32_t room) {
    if (!std::exchange(rooms_[room].may_speak, true)) may_speak_.push_back(&rooms_[room]);
  }
  void complain_of(Client const& client, std::string const& what) {
    if (errors_++ < 3) program::complain("bench_load: " + name_of(client) + ": " + program::visible(what));
  }
  static std::string name_of(Client const& client) {
    return name(client.role == Role::sender ? 's' : client.role == Role::receiver ? 'r' : 'z', client.number);
  }
  size_t line_size() const { return text_at + options_.text + 1; }
  char* line(Client& sender, uint32_t sequence) const {
    return sender.lines.data() + (sequence & (ring_ - 1)) * line_size();
  }
  uint64_t lost() const;

  Options const options_;
  uint32_t const ring_;  // most texts of one sender that can be on their way; a power of two
  addrinfo* addresses_ = nullptr;
  addrinfo const* address_ = nullptr;  // the one that answers
  int epoll_ = epoll_create1(EPOLL_CLOEXEC);
  std::deque<Client> clients_;
  std::vector<Room> rooms_;
  std::vector<Room*> may_speak_;
  std::vector<char> buffer_ = std::vector<char>(size_t{256} * 1024);
  Clock::time_point now_ = Clock::now(), last_read_ = now_;

  std::array<uint32_t, 3> numbers_{};  // how many clients, by role
  std::deque<Client*> slow_;           // oldest first
  Client* retiring_ = nullptr;         // a slow receiver whose rest is being read
  Clock::time_point next_slow_ = Clock::time_point::max();

  bool speaking_ = false, recording_ = false;
  uint64_t limit_ = std::numeric_limits<uint64_t>::max();  // of all texts
  uint64_t sent_ = 0, unacked_ = 0, undelivered_ = 0, written_off_ = 0;
  uint32_t under_way_ = 0, ready_ = 0;
  uint64_t misordered_ = 0, corrupt_ = 0, errors_ = 0, slow_cut_ = 0;

  // During the measurement:
  uint64_t deliveries_ = 0, messages_ = 0;
  double elapsed_ = 0, cpu_us_ = 0, own_cpu_us_ = 0;
  Histogram latency_, ack_;
};

// --- Sockets ---------------------------------------------------------------------------------------------------------

/// A host may have several addresses, as localhost has, and the server may listen on only one of them.
void Load::choose_address() {
  for (auto const* each = addresses_; each != nullptr; each = each->ai_next) {
    auto const fd = socket(each->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    auto const is_there = fd >= 0 && ::connect(fd, each->ai_addr, each->ai_addrlen) == 0;
    auto const error = errno;
    if (fd >= 0) close(fd);
    if (is_there) {
      address_ = each;
      return;
    }
    if (each->ai_next == nullptr) cannot_connect(std::generic_category().message(error));
  }
}

void Load::connect(Client& client) {
  client.fd = socket(address_->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (client.fd < 0) throw system_failure("socket");
  auto const one = 1;
  setsockopt(client.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  linger const reset{.l_onoff = 1, .l_linger = 0};  // leaves no TIME_WAIT, else many runs would use up the ports
  setsockopt(client.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
  if (client.role == Role::slow) {
    // As over Ethernet: on loopback both kernels would buffer megabytes that are never read.
    auto const segment = 1448, space = 16 * 1024;
    setsockopt(client.fd, IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof segment);
    setsockopt(client.fd, SOL_SOCKET, SO_RCVBUF, &space, sizeof space);
  }
  auto source = *reinterpret_cast<sockaddr_in const*>(address_->ai_addr);
  auto const index = static_cast<uint32_t>(clients_.size() - 1) / clients_per_address;
  if (index > 0 && source.sin_family == AF_INET && ntohl(source.sin_addr.s_addr) >> 24 == 127) {
    source.sin_addr.s_addr = htonl(0x7f000001 + index);
    source.sin_port = 0;
    setsockopt(client.fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    if (bind(client.fd, reinterpret_cast<sockaddr const*>(&source), sizeof source) != 0) throw system_failure("bind");
  }
  if (::connect(client.fd, address_->ai_addr, address_->ai_addrlen) != 0 && errno != EINPROGRESS)
    lose(client, std::generic_category().message(errno));
  watch(client, EPOLLOUT);
  ++under_way_;
}

/// Handles one round of events, then sends the texts that senders may send.
void Load::turn() {
  std::array<epoll_event, 256> events;
  auto const count = epoll_wait(epoll_, events.data(), events.size(), options_.spin ? 0 : 10);
  for (int i = 0; i < count; ++i) {
    auto& client = *static_cast<Client*>(events[static_cast<size_t>(i)].data.ptr);
    auto const what = events[static_cast<size_t>(i)].events;
    if (client.state == State::connecting) {
      auto error = 0;
      socklen_t size = sizeof error;
      getsockopt(client.fd, SOL_SOCKET, SO_ERROR, &error, &size);
      if (error != 0) lose(client, std::generic_category().message(error));
      client.state = State::logging_in;
      say(client, (client.role == Role::sender ? "slogin:" : "rlogin:") + name_of(client));
      continue;
    }
    if (client.events == EPOLLRDHUP) {
      lose(client, "closed");
      continue;
    }
    if ((what & EPOLLOUT) != 0) flush(client);
    if ((what & ~uint32_t{EPOLLOUT}) != 0 && client.state != State::gone) read(client);
  }
  if (!speaking_) return;
  auto const rooms = std::exchange(may_speak_, {});
  now_ = Clock::now();
  if (now_ >= next_slow_) renew_slow();
  for (auto* const room : rooms) {
    room->may_speak = false;
    speak(*room);
  }
}

void Load::read(Client& client) {
  auto const kept = client.input.size();
  std::copy(client.input.begin(), client.input.end(), buffer_.begin());
  auto const got = recv(client.fd, buffer_.data() + kept, buffer_.size() - kept, 0);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) return lose(client, got == 0 ? "the server has closed" : std::generic_category().message(errno));
  last_read_ = now_ = Clock::now();
  std::string_view input(buffer_.data(), kept + static_cast<size_t>(got));
  for (;;) {
    if (client.role == Role::receiver && hear_the_expected(client, input)) continue;
    auto const end = input.find('\n');
    if (end == input.npos) break;
    hear(client, input.substr(0, end));
    input.remove_prefix(end + 1);
  }
  if (input.size() <= chatproto::max_line) {
    client.input = input;
  } else {
    client.input.clear();
    ++corrupt_;
  }
}

void Load::flush(Client& client) {
  size_t done = 0;
  while (done < client.output.size()) {
    auto const size = send(client.fd, client.output.data() + done, client.output.size() - done, MSG_NOSIGNAL);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0 && errno != EAGAIN) return lose(client, std::generic_category().message(errno));
    if (size < 0) break;
    done += static_cast<size_t>(size);
  }
  client.output.erase(0, done);
  watch(client, client.output.empty() ? EPOLLIN : EPOLLIN | EPOLLOUT);
}

/// Stops waiting for what a disconnected client should have got.
void Load::lose(Client& client, std::string const& why) {
  if (client.state == State::connecting) cannot_connect(why);
  if (client.state != State::ready) throw std::runtime_error(name_of(client) + " cannot log in: " + why);
  close_silently(client);
  if (client.role == Role::slow) {
    ++slow_cut_;
    return;
  }
  complain_of(client, why);
  auto& room = rooms_[client.room];
  if (client.role == Role::sender) {
    unacked_ -= client.sent - client.acked;
    client.acked = client.sent;
    return;
  }
  --room.receivers;
  for (uint32_t i = 0; i < client.due.size(); ++i) {
    while (client.due[i] < room.senders[i]->sent) {
      accept(client, *room.senders[i], i);
      ++written_off_;
    }
  }
}

// --- Texts -----------------------------------------------------------------------------------------------------------

/// Sends as many texts as window and lag allow, but at least half a window, so that a sender with a large window does
/// not send its texts one by one.
void Load::speak(Room& room) {
  auto const first = room.turn++;  // starts with another sender each time
  for (size_t i = 0; i < room.senders.size(); ++i) {
    auto& sender = *room.senders[(first + i) % room.senders.size()];
    if (sender.state == State::gone || !sender.output.empty()) continue;
    auto const least = std::min(std::max(options_.window / 2, 1u), options_.lag);
    auto const free = std::min(options_.window - (sender.sent - sender.acked), options_.lag - room.undelivered);
    auto const count = std::min<uint64_t>(free - free % least, limit_ - sent_);
    for (uint64_t k = 0; k < count; ++k) {
      auto* const text = line(sender, sender.sent) + text_at;
      write_text(text, options_.text, sender.number, sender.sent);
      sender.output.append("sendall:").append(text, options_.text + 1);
      sender.on_their_way[sender.sent++ & (ring_ - 1)] = {now_, room.receivers};
      if (room.receivers > 0) ++room.undelivered, ++undelivered_;
    }
    sent_ += count;
    unacked_ += count;
    if (count > 0) flush(sender);
  }
}

void Load::hear(Client& client, std::string_view line) {
  if (client.state == State::joining && line.starts_with("delivery:")) return judge(client, line);
  if (client.state == State::logging_in || client.state == State::joining) {
    if (!line.starts_with("ok:")) return lose(client, "the server says " + std::string(line));
    if (client.state == State::logging_in) {
      client.state = State::joining;
      return say(client, "join:" + name('c', client.room));
    }
    client.state = State::ready;
    ++ready_;
    --under_way_;
    if (client.role != Role::slow) return;
    for (uint32_t i = 0; i < client.due.size(); ++i)  // it is in the room for all texts from now on
      if (!client.heard[i]) client.due[i] = rooms_[client.room].senders[i]->sent;
    watch(client, EPOLLRDHUP);
    return;
  }
  auto const is_refusal = line.starts_with("err:");
  if (is_refusal) complain_of(client, "the server says " + std::string(line));
  if (client.role != Role::sender) {
    if (!is_refusal) judge(client, line);
    return;
  }
  if ((!is_refusal && !line.starts_with("ok:")) || client.acked == client.sent) {
    ++corrupt_;
    return;
  }
  if (!is_refusal && recording_) {
    ++messages_;
    ack_.add(now_ - client.on_their_way[client.acked & (ring_ - 1)].sent);
  }
  ++client.acked;
  --unacked_;
  let_speak(client.room);
}

/// The usual case, made fast: the next text of one of the room's senders, compared byte by byte.
bool Load::hear_the_expected(Client& receiver, std::string_view& input) {
  if (input.size() < line_size()) return false;
  auto const local = read_number(input.data() + sender_at + 1, name_size - 1) - receiver.room * options_.senders;
  auto const& senders = rooms_[receiver.room].senders;
  if (local >= senders.size()) return false;
  auto& sender = *senders[local];
  auto const sequence = receiver.due[local];
  if (sequence == sender.sent || std::memcmp(input.data(), line(sender, sequence), line_size()) != 0) return false;
  record(sender, sequence);
  compare_order(receiver, local);
  accept(receiver, sender, local);
  input.remove_prefix(line_size());
  return true;
}

/// Classifies any other line.
void Load::judge(Client& receiver, std::string_view line) {
  std::error_code ec;
  auto const message = chatproto::parse(line, ec);
  auto const delivery = ec ? chatproto::Delivery{} : chatproto::parse_delivery(message, ec);
  auto& room = rooms_[receiver.room];
  auto text = std::string(delivery.text);
  if (ec || text.size() != options_.text || delivery.room != name('c', receiver.room)) {
    ++corrupt_;
    return;
  }
  auto const number = read_number(text.data(), 5);
  auto const sequence = read_number(text.data() + 6, 9);
  auto const local = number - receiver.room * options_.senders;
  write_text(text.data(), text.size(), number, sequence);
  if (local >= room.senders.size() || delivery.sender != name('s', number) || sequence >= room.senders[local]->sent ||
      text != delivery.text) {
    ++corrupt_;
    return;
  }
  if (receiver.role == Role::slow) {  // it may have been disconnected, but what it got has no gap
    auto const due = std::exchange(receiver.due[local], sequence + 1);
    if (receiver.heard[local] ? sequence != due : sequence > due) ++misordered_;
    receiver.heard[local] = true;
    return;
  }
  if (sequence < receiver.due[local]) {  // a second time, or too late
    ++misordered_;
    receiver.missing.erase({local, sequence});
    return;
  }
  for (; receiver.due[local] < sequence; accept(receiver, *room.senders[local], local)) {
    receiver.missing.insert({local, receiver.due[local]});
    room.order.clear();  // positions have no meaning any more
  }
  record(*room.senders[local], sequence);
  compare_order(receiver, local);
  accept(receiver, *room.senders[local], local);
}

/// Advances past a text that the receiver has got or will not get.
void Load::accept(Client& receiver, Client& sender, uint32_t local) {
  auto& waiting = sender.on_their_way[receiver.due[local]++ & (ring_ - 1)].waiting;
  if (--waiting > 0) return;  // other receivers still wait for it
  --rooms_[sender.room].undelivered;
  --undelivered_;
  let_speak(sender.room);
}

uint64_t Load::lost() const {
  auto result = written_off_;
  for (auto const& client : clients_) {
    result += client.missing.size();
    for (uint32_t i = 0; i < client.due.size() && client.state == State::ready; ++i)
      result += rooms_[client.room].senders[i]->sent - client.due[i];
  }
  return result;
}

// --- The run ---------------------------------------------------------------------------------------------------------

void Load::log_in() {
  std::vector<std::pair<Role, uint32_t>> wanted;  // roles and rooms
  for (uint32_t room = 0; room < options_.rooms; ++room) {
    wanted.insert(wanted.end(), options_.receivers, {Role::receiver, room});
    wanted.insert(wanted.end(), options_.senders, {Role::sender, room});
  }
  for (uint32_t room = 0; wanted.size() < options_.clients(); room = (room + 1 < options_.rooms ? room + 1 : 0))
    wanted.emplace_back(Role::slow, room);

  auto const working = [&] { return Clock::now() < last_read_ + patience; };
  last_read_ = Clock::now();
  while (ready_ < wanted.size()) {
    if (!working()) throw std::runtime_error("the server does not answer");
    if (under_way_ == logins_at_once || clients_.size() == wanted.size()) {
      turn();
      continue;
    }
    auto const [role, room] = wanted[clients_.size()];
    add(role, room);
  }
  if (!options_.idle && options_.senders > 1)
    for (auto& room : rooms_) room.order.resize(ring_);
}

void Load::add(Role role, uint32_t room) {
  auto& client =
      clients_.emplace_back(Client{.role = role, .room = room, .number = numbers_[static_cast<size_t>(role)]++});
  if (role == Role::receiver) client.due.resize(options_.senders);
  if (role == Role::receiver) ++rooms_[room].receivers;
  if (role == Role::slow) {
    client.due.resize(options_.senders, std::numeric_limits<uint32_t>::max());  // until it has joined
    client.heard.resize(options_.senders);
    slow_.push_back(&client);
  }
  if (role == Role::sender) {
    rooms_[room].senders.push_back(&client);
    client.on_their_way.resize(options_.idle ? 0 : ring_);
    auto const line =
        "delivery:" + name('c', room) + ':' + name_of(client) + ':' + std::string(options_.text, ' ') + '\n';
    for (size_t i = 0; i < client.on_their_way.size(); ++i) client.lines += line;
  }
  connect(client);
}

int Load::measure() {
  auto const own_cpu = [] { return usage_of(getpid()).value_or(Usage{}).cpu_us; };
  auto const cpu = [&] { return usage_of(options_.pid).value_or(Usage{}).cpu_us; };
  auto const at_first = usage_of(options_.pid);
  log_in();
  auto joined = usage_of(options_.pid);
  auto const all_arrived = [&] { return unacked_ == 0 && undelivered_ == 0; };
  if (options_.idle) {
    wait_until(Clock::now() + std::chrono::milliseconds(200), [] { return false; });
    if (auto const later = usage_of(options_.pid); joined && later) joined->rss_kb = later->rss_kb;
  } else {
    speaking_ = true;
    if (options_.slow > 0) next_slow_ = Clock::now() + slow_time;
    for (uint32_t room = 0; room < options_.rooms; ++room) let_speak(room);
    wait_until(Clock::now() + options_.warmup, [] { return false; });

    if (options_.count > 0) {  // the warm-up is not counted
      speaking_ = false;
      wait_until(Clock::now() + patience, all_arrived);
      speaking_ = true;
    }
    recording_ = true;
    auto const begin = Clock::now();
    auto const cpu_before = cpu();
    auto const own_before = own_cpu();
    if (options_.count > 0) {
      limit_ = sent_ + options_.count;
      for (uint32_t room = 0; room < options_.rooms; ++room) let_speak(room);
      last_read_ = begin;
      wait_until(Clock::time_point::max(),
                 [&] { return (sent_ == limit_ && all_arrived()) || Clock::now() > last_read_ + patience; });
    } else {
      wait_until(begin + options_.seconds, [] { return false; });
    }
    elapsed_ = std::chrono::duration<double>(Clock::now() - begin).count();
    cpu_us_ = cpu() - cpu_before;
    own_cpu_us_ = own_cpu() - own_before;
    recording_ = speaking_ = false;
    if (options_.count == 0) wait_until(Clock::now() + patience, all_arrived);
  }
  auto const last = usage_of(options_.pid);
  read_slow();
  wait_until(Clock::now() + grace, [] { return false; });
  for (auto const& client : clients_)
    if (client.state == State::ready && !client.input.empty()) ++corrupt_;  // an unfinished line
  report(at_first, joined, last);
  return lost() + misordered_ + corrupt_ + errors_ + unacked_ == 0 ? 0 : 1;
}

/// Replaces the oldest slow receiver by a new one, so that the server always has one to deal with. Whether it was
/// disconnected shows only when its rest is read, as the end of the stream comes after everything that waits.
void Load::renew_slow() {
  next_slow_ = now_ + slow_time;
  if (retiring_ != nullptr && retiring_->state == State::ready) close_silently(*retiring_);  // was not disconnected
  retiring_ = nullptr;
  auto& oldest = *slow_.front();
  if (oldest.state != State::ready && oldest.state != State::gone) return;  // has not joined yet
  slow_.pop_front();
  if (oldest.state == State::ready) {
    watch(oldest, EPOLLIN);
    retiring_ = &oldest;
  }
  add(Role::slow, oldest.room);
}

void Load::read_slow() {
  wait_until(Clock::now() + patience, [&] { return under_way_ == 0; });
  for (auto& client : clients_)
    if (client.role == Role::slow && client.state == State::ready) watch(client, EPOLLIN);
  last_read_ = Clock::now();
  auto const is_cut = [](Client const& client) { return client.role != Role::slow || client.state == State::gone; };
  wait_until(Clock::now() + patience, [&] {
    return Clock::now() > last_read_ + std::chrono::milliseconds(500) || std::ranges::all_of(clients_, is_cut);
  });
}

void Load::report(std::optional<Usage> const& at_first, std::optional<Usage> const& joined,
                  std::optional<Usage> const& last) const {
  auto const known = at_first && joined && last;
  auto const clients = static_cast<double>(options_.clients());
  std::ostringstream out;
  out << std::setprecision(6);
  auto const field = [&](char const* key, auto const& value) {
    out << (out.tellp() == 0 ? "{\"" : ", \"") << key << "\": " << value;
  };
  auto const measured = [&](char const* key, bool is_known, double value) {  // null if it is not known
    std::ostringstream text;
    text << std::setprecision(6) << value;
    field(key, is_known ? text.str() : "null");
  };
  field("rooms", options_.rooms);
  field("senders", options_.senders);
  field("receivers", options_.receivers);
  field("slow", options_.slow);
  field("clients", options_.clients());
  field("text", options_.text);
  field("window", options_.window);
  field("lag", options_.lag);
  field("count", options_.count);
  field("warmup", std::chrono::duration<double>(options_.warmup).count());
  field("idle", options_.idle ? "true" : "false");
  field("spin", options_.spin ? "true" : "false");
  field("seconds", elapsed_);
  field("deliveries", deliveries_);
  field("messages", messages_);
  auto const deliveries = static_cast<double>(deliveries_);
  auto const messages = static_cast<double>(messages_);
  measured("deliveries_per_second", elapsed_ > 0, deliveries / elapsed_);
  measured("messages_per_second", elapsed_ > 0, messages / elapsed_);
  measured("cpu_us_per_delivery", known && deliveries_ > 0, cpu_us_ / deliveries);
  measured("cpu_us_per_message", known && messages_ > 0, cpu_us_ / messages);
  measured("server_cpu_share", known && elapsed_ > 0, cpu_us_ / 1e6 / elapsed_);
  measured("load_cpu_share", elapsed_ > 0, own_cpu_us_ / 1e6 / elapsed_);
  out << ", \"latency_us\": [";
  if (!latency_.empty())
    for (auto const percent : {1., 5., 10., 25., 50., 75., 90., 95., 99., 99.9, 100.})
      out << (percent == 1 ? "[" : ", [") << percent << ", " << latency_.percentile(percent) << ']';
  out << ']';
  measured("ack_us_p50", !ack_.empty(), ack_.percentile(50));
  measured("ack_us_p99", !ack_.empty(), ack_.percentile(99));
  measured("rss_bytes_per_client", known, known ? (joined->rss_kb - at_first->rss_kb) * 1024 / clients : 0);
  measured("login_cpu_us", known, known ? (joined->cpu_us - at_first->cpu_us) / clients : 0);
  measured("peak_rss_growth_kb", known, known ? std::max(last->peak_kb - joined->rss_kb, 0.) : 0);
  field("lost", lost());
  field("misordered", misordered_);
  field("corrupt", corrupt_);
  field("errors", errors_);
  field("unacknowledged", unacked_);
  field("slow_joined", numbers_[static_cast<size_t>(Role::slow)]);
  field("slow_cut", slow_cut_);
  program::print_or_fail(out.str() + '}');
}

void check_descriptors(Options const& options) {
  constexpr uint64_t others = 16;
  auto const descriptors = program::raise_descriptor_limit();
  if (options.clients() + others > descriptors)
    throw std::runtime_error(std::to_string(options.clients()) + " clients do not fit: this process may have " +
                             std::to_string(descriptors) + " descriptors (ulimit -Hn)");
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Loads a chat server, checks each delivery and prints what it measured, as JSON.", "bench_load");
  auto const number = [&app](char const* option, auto& value, uint64_t least, uint64_t most, char const* description) {
    app.add_option(option, value, description)->check(program::decimal(least, most))->capture_default_str();
  };
  app.add_option("HOST", options.host, "Name or address of the server")->required();
  app.add_option("PORT", options.port, "Its TCP port")->required()->check(program::decimal(1, 65535));
  number("--rooms", options.rooms, 1, 99'999, "Rooms");
  number("--senders", options.senders, 0, 99'999, "Senders in each room");
  number("--receivers", options.receivers, 0, 99'999, "Receivers in each room");
  number("--slow", options.slow, 0, 99'999,
         "Further receivers, in all, that join and then never read; one is replaced every 50 ms");
  number("--text", options.text, 20, longest_text, "Bytes of a text");
  number("--window", options.window, 1, 65'536, "Maximum number of unacknowledged texts of a sender");
  number("--lag", options.lag, 1, 65'536, "Maximum number of texts of a room that some receiver does not yet have");
  program::add_seconds(app, "--seconds", options.seconds, "Time to measure");
  program::add_seconds(app, "--warmup", options.warmup, "Time to send before measuring");
  number("--count", options.count, 1, 1'000'000'000,
         "Measure this number of texts, of all senders together, instead of a time");
  app.add_flag("--idle", options.idle, "Only connect, log in and join; send no texts");
  app.add_flag("--spin", options.spin, "Poll instead of sleeping, for the least latency");
  number("--pid", options.pid, 1, std::numeric_limits<int>::max(), "The server's process, for its CPU time and memory");
  try {
    app.parse(argc, argv);
    if (options.clients() == 0 || (!options.idle && (options.senders == 0 || options.receivers == 0)))
      throw CLI::ValidationError("there must be senders and receivers, or --idle and either");
    if (uint64_t{options.rooms} * std::max(options.senders, options.receivers) > 99'999)
      throw CLI::ValidationError("there can be 99999 senders and as many receivers at most");
    if (options.seconds < std::chrono::milliseconds(50)) throw CLI::ValidationError("--seconds must be at least 0.05");
    if (options.pid != 0 && !usage_of(options.pid))
      throw CLI::ValidationError("there is no process " + std::to_string(options.pid));
  } catch (CLI::Success const& help) {
    return app.exit(help);
  } catch (CLI::ParseError const& error) {
    program::complain("bench_load: " + program::visible(error.what()) + " (see --help)");
    return 2;
  }
  try {
    check_descriptors(options);
    return Load(options).measure();
  } catch (std::exception const& error) {
    program::complain("bench_load: " + program::visible(error.what()));
    return 1;
  }
}
