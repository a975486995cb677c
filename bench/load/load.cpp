// SPDX-License-Identifier: BSL-1.0
#include "load.hpp"

#include <netdb.h>
#include <sched.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <deque>
#include <limits>
#include <memory>
#include <set>
#include <stdexcept>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "../../examples/program.hpp"
#include "tls.hpp"
#include "websocket.hpp"

namespace load {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto patience = std::chrono::seconds(10);        // for a server that has stopped answering
constexpr auto grace = std::chrono::milliseconds(150);     // for lines that should not come
constexpr auto slow_time = std::chrono::milliseconds(50);  // between two slow receivers
constexpr uint32_t logins_at_once = 100;                   // fewer than a listener's backlog
constexpr uint32_t clients_per_address = 25'000;           // fewer than the ports of one source address
constexpr size_t head_size = 16;                           // "00042 000000017 "
constexpr size_t kept_size = 256;                          // for an unfinished line
static_assert(kept_size >= chatproto::max_line);

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

[[noreturn]] void cannot_connect(std::string const& host, std::string const& port, std::string const& why) {
  throw std::runtime_error("cannot connect to " + host + ' ' + port + ": " + why);
}

struct Client {
  enum class Role : std::uint8_t { sender, receiver, slow } role;
  enum class State : std::uint8_t {
    connecting,
    shaking_hands,
    upgrading,
    logging_in,
    joining,
    ready,
    gone
  } state = State::connecting;
  uint32_t room, number;
  uint32_t server = 0;  // its place in Load::addresses_
  int fd = -1;
  uint32_t events = 0;                            // EPOLLRDHUP alone: does not read
  std::unique_ptr<tls::Stream> stream = nullptr;  // of a client that is connected over TLS
  websocket::Frames frames = {};                  // of one that is connected by WebSocket
  std::string input = {}, output = {};            // an unfinished line; what the socket did not accept

  struct OnItsWay {
    Clock::time_point sent;
    uint32_t waiting;  // receivers that have not got it
  };
  uint32_t sent = 0, acked = 0;  // of a sender
  Clock::time_point next = {};   // when it says its next text, if there is an interval
  std::vector<OnItsWay> on_their_way = {};
  std::string lines = {};  // as the receivers should see them

  std::vector<uint32_t> due = {};                        // of a receiver: the next text from each sender of its room
  std::set<std::pair<uint32_t, uint32_t>> missing = {};  // sender and sequence of the texts passed over so far
  uint64_t position = 0;                                 // of the next delivery in its room
  std::vector<bool> heard = {};                          // of a slow receiver: whether it has got a text of that sender
};

struct Room {
  std::vector<Client*> senders = {};
  uint32_t receivers = 0, undelivered = 0, turn = 0, connected = 0;
  bool may_speak = false;
  std::vector<uint32_t> order = {};  // the sender of the text at a position, modulo its size; only with several senders
  uint64_t heard = 0;                // positions that some receiver has reached
};

class Load {
 public:
  explicit Load(Options const& options)
      : options_(options), ring_(std::bit_ceil(std::max(options.window, options.lag))), rooms_(options.rooms) {
    addresses_.push_back(find_server(options.host, options.port));
    for (auto const& port : options.also) addresses_.push_back(find_server(options.host, port));
  }
  ~Load() {
    for (auto const& client : clients_)
      if (client.fd >= 0) close(client.fd);
  }

  Result run();

 private:
  using Role = Client::Role;
  using State = Client::State;

  void log_in();
  void add(Role role, uint32_t room);
  void connect(Client& client);
  void renew_slow();
  void read_slow();
  void close_silently(Client& client) {
    close(std::exchange(client.fd, -1));
    client.stream.reset();
    client.state = State::gone;
    --ready_;
  }

  // --- Sockets -------------------------------------------------------------------------------------------------------

  void turn();
  void shake_hands(Client& client);
  /// The connection is there.
  void begin(Client& client) {
    if (!options_.websocket) return greet(client);
    client.state = State::upgrading;
    client.output = websocket::request;
    flush(client);
  }
  void greet(Client& client) {
    client.state = State::logging_in;
    say(client, (client.role == Role::sender ? "slogin:" : "rlogin:") + name_of(client));
  }
  void read(Client& client);
  bool read_some(Client& client);
  void unpack(Client& client, std::string_view input);
  void take(Client& client, std::string_view piece);
  void flush(Client& client);
  void lose(Client& client, std::string const& why);
  /// Also returns when no client is left.
  template <class Done>
  void wait_until(Clock::time_point deadline, Done done) {
    while (ready_ > 0 && !done() && Clock::now() < deadline) turn();
  }

  void sit_out_storm();

  // --- Texts ---------------------------------------------------------------------------------------------------------

  void say(Client& client, std::string_view line) {
    if (options_.websocket) websocket::append_header(client.output, line.size() + 1);
    client.output.append(line).append(1, '\n');
    flush(client);
  }
  void speak(Room& room);
  /// How many texts the sender should have sent by now and has not.
  uint32_t due_of(Client const& sender) const {
    return now_ < sender.next ? 0 : static_cast<uint32_t>((now_ - sender.next) / options_.interval + 1);
  }
  void hear(Client& client, std::string_view line);
  bool hear_the_expected(Client& receiver, std::string_view& input);
  void judge(Client& receiver, std::string_view line);
  void accept(Client& receiver, Client& sender, uint32_t local);
  void record(Client const& sender, uint32_t sequence) {
    if (!recording_) return;
    ++result_.deliveries;
    result_.latency.add(now_ - sender.on_their_way[sequence & (ring_ - 1)].sent);
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
      ++result_.misordered;
    }
    ++receiver.position;
  }
  void let_speak(uint32_t room) {
    if (!std::exchange(rooms_[room].may_speak, true)) may_speak_.push_back(&rooms_[room]);
  }
  void complain_of(Client const& client, std::string const& what) {
    if (result_.errors++ < 3) program::complain("bench_load: " + name_of(client) + ": " + program::visible(what));
  }
  static std::string why_of(Client const& client) {
    return client.stream ? client.stream->why() : std::generic_category().message(errno);
  }
  static std::string name_of(Client const& client) {
    return name(client.role == Role::sender ? 's' : client.role == Role::receiver ? 'r' : 'z', client.number);
  }
  std::string const& port_of(Client const& client) const {
    return client.server == 0 ? options_.port : options_.also[client.server - 1];
  }
  size_t line_size() const { return text_at + options_.text + 1; }
  char* line(Client& sender, uint32_t sequence) const {
    return sender.lines.data() + (sequence & (ring_ - 1)) * line_size();
  }
  uint64_t lost() const;

  Options const options_;
  uint32_t const ring_;             // most texts of one sender that can be on their way; a power of two
  std::vector<Address> addresses_;  // of the servers
  crowd::Epoll epoll_;
  std::deque<Client> clients_;
  std::vector<Room> rooms_;
  std::vector<Room*> may_speak_;
  std::vector<char> buffer_ = std::vector<char>(kept_size + size_t{256} * 1024);
  Clock::time_point now_ = Clock::now(), last_read_ = now_;

  std::array<uint32_t, 3> numbers_{};  // how many clients, by role
  std::deque<Client*> slow_;           // oldest first
  Client* retiring_ = nullptr;         // a slow receiver whose rest is being read
  Clock::time_point next_slow_ = Clock::time_point::max();

  bool speaking_ = false, recording_ = false;
  uint64_t limit_ = std::numeric_limits<uint64_t>::max();  // of all texts
  uint64_t sent_ = 0, unacked_ = 0, undelivered_ = 0, written_off_ = 0;
  uint32_t under_way_ = 0, ready_ = 0;
  Result result_;
};

// --- Sockets ---------------------------------------------------------------------------------------------------------

/// The clients of a room are dealt out to the servers in turn.
void Load::connect(Client& client) {
  client.server = static_cast<uint32_t>((client.room + rooms_[client.room].connected++) % addresses_.size());
  auto const& address = addresses_[client.server];
  client.fd = crowd::open_socket(address.get()->sa_family, client.role == Role::slow);
  crowd::reset_at_close(client.fd);  // else many runs would use up the ports
  auto source = *reinterpret_cast<sockaddr_in const*>(&address.bytes);
  auto const index = static_cast<uint32_t>(clients_.size() - 1) / clients_per_address;
  if (index > 0 && source.sin_family == AF_INET && ntohl(source.sin_addr.s_addr) >> 24 == 127) {
    source.sin_addr.s_addr = htonl(0x7f000001 + index);
    source.sin_port = 0;
    crowd::set_option(client.fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
    if (bind(client.fd, reinterpret_cast<sockaddr const*>(&source), sizeof source) != 0) throw crowd::failure("bind");
  }
  if (::connect(client.fd, address.get(), address.size) != 0 && errno != EINPROGRESS)
    lose(client, std::generic_category().message(errno));
  epoll_.watch(client, EPOLLOUT);
  ++under_way_;
}

/// Handles one round of events, then sends the texts that senders may send.
void Load::turn() {
  for (auto const& event : epoll_.wait(options_.spin ? 0 : options_.interval.count() > 0 ? 1 : 10)) {
    auto& client = *static_cast<Client*>(event.data.ptr);
    auto const what = event.events;
    if (client.state == State::connecting) {
      auto error = 0;
      socklen_t size = sizeof error;
      getsockopt(client.fd, SOL_SOCKET, SO_ERROR, &error, &size);
      if (error != 0) lose(client, std::generic_category().message(error));
      if (options_.tls) {
        client.stream = tls::open(client.fd);
        shake_hands(client);
      } else {
        begin(client);
      }
      continue;
    }
    if (client.state == State::shaking_hands) {
      shake_hands(client);
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
    if (options_.interval.count() == 0) continue;
    room->may_speak = true;  // as soon as the time has come
    may_speak_.push_back(room);
  }
}

void Load::shake_hands(Client& client) {
  using Step = tls::Stream::Step;
  client.state = State::shaking_hands;
  auto const step = client.stream->shake_hands();
  if (step == Step::failed) return lose(client, client.stream->why());
  if (step == Step::done) return begin(client);
  epoll_.watch(client, step == Step::wants_to_write ? EPOLLOUT : EPOLLIN);
}

void Load::read(Client& client) {
  while (read_some(client) && client.stream && client.stream->has_pending()) continue;
}

/// Returns whether it has read anything and may read more.
bool Load::read_some(Client& client) {
  auto* const to = buffer_.data() + kept_size;
  auto const size = buffer_.size() - kept_size;
  auto const got = client.stream ? client.stream->receive(to, size) : recv(client.fd, to, size, 0);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return false;
  if (got <= 0) {
    lose(client, got == 0 ? "the server has closed" : why_of(client));
    return false;
  }
  last_read_ = now_ = Clock::now();
  std::string_view const input(to, static_cast<size_t>(got));
  options_.websocket ? unpack(client, input) : take(client, input);
  return client.state != State::gone;
}

/// Takes what came by WebSocket.
void Load::unpack(Client& client, std::string_view input) {
  if (client.state == State::upgrading) {
    client.input += input;
    if (client.input.find("\r\n\r\n") == client.input.npos) return;
    if (!websocket::is_accepted(client.input)) return lose(client, "the server says " + client.input);
    client.input.clear();
    return greet(client);
  }
  while (!input.empty()) {
    auto const piece = client.frames.next(input);
    if (auto const* const why = client.frames.why()) return lose(client, why);
    take(client, piece);
  }
}

/// Takes the lines of a piece of the buffer. The unfinished line before it is copied to where it belongs: all that is
/// there was taken before.
void Load::take(Client& client, std::string_view piece) {
  auto const kept = client.input.size();
  auto* const begin = buffer_.data() + (piece.data() - buffer_.data()) - kept;
  std::copy(client.input.begin(), client.input.end(), begin);
  std::string_view input(begin, kept + piece.size());
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
    ++result_.corrupt;
  }
}

void Load::flush(Client& client) {
  size_t done = 0;
  while (done < client.output.size()) {
    auto const* const from = client.output.data() + done;
    auto const size = client.stream ? client.stream->send(from, client.output.size() - done)
                                    : send(client.fd, from, client.output.size() - done, MSG_NOSIGNAL);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0 && errno != EAGAIN) return lose(client, why_of(client));
    if (size < 0) break;
    done += static_cast<size_t>(size);
  }
  client.output.erase(0, done);
  epoll_.watch(client, client.output.empty() ? EPOLLIN : EPOLLIN | EPOLLOUT);
}

/// Stops waiting for what a disconnected client should have got.
void Load::lose(Client& client, std::string const& why) {
  if (client.state == State::connecting) cannot_connect(options_.host, port_of(client), why);
  if (client.state != State::ready) throw std::runtime_error(name_of(client) + " cannot log in: " + why);
  close_silently(client);
  if (client.role == Role::slow) {
    ++result_.slow_cut;
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
    if (options_.interval.count() == 0 || sender.next == Clock::time_point{}) sender.next = now_;
    auto const least = std::min(std::max(options_.window / 2, 1u), options_.lag);
    auto const free = std::min(options_.window - (sender.sent - sender.acked), options_.lag - room.undelivered);
    auto const count = std::min<uint64_t>(
        options_.interval.count() > 0 ? std::min(free, due_of(sender)) : free - free % least, limit_ - sent_);
    constexpr std::string_view command = "sendall:";
    if (options_.websocket && count > 0)
      websocket::append_header(sender.output, count * (command.size() + options_.text + 1));
    for (uint64_t k = 0; k < count; ++k) {
      auto* const text = line(sender, sender.sent) + text_at;
      write_text(text, options_.text, sender.number, sender.sent);
      sender.output.append(command).append(text, options_.text + 1);
      sender.on_their_way[sender.sent++ & (ring_ - 1)] = {sender.next, room.receivers};
      sender.next += options_.interval;
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
    epoll_.watch(client, EPOLLRDHUP);
    return;
  }
  auto const is_refusal = line.starts_with("err:");
  if (is_refusal) complain_of(client, "the server says " + std::string(line));
  if (client.role != Role::sender) {
    if (!is_refusal) judge(client, line);
    return;
  }
  if ((!is_refusal && !line.starts_with("ok:")) || client.acked == client.sent) {
    ++result_.corrupt;
    return;
  }
  if (!is_refusal && recording_) {
    ++result_.messages;
    result_.ack.add(now_ - client.on_their_way[client.acked & (ring_ - 1)].sent);
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
    ++result_.corrupt;
    return;
  }
  auto const number = read_number(text.data(), 5);
  auto const sequence = read_number(text.data() + 6, 9);
  auto const local = number - receiver.room * options_.senders;
  write_text(text.data(), text.size(), number, sequence);
  if (local >= room.senders.size() || delivery.sender != name('s', number) || sequence >= room.senders[local]->sent ||
      text != delivery.text) {
    ++result_.corrupt;
    return;
  }
  if (receiver.role == Role::slow) {  // it may have been disconnected, but what it got has no gap
    auto const due = std::exchange(receiver.due[local], sequence + 1);
    if (receiver.heard[local] ? sequence != due : sequence > due) ++result_.misordered;
    receiver.heard[local] = true;
    return;
  }
  if (sequence < receiver.due[local]) {  // a second time, or too late
    ++result_.misordered;
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

Result Load::run() {
  auto const own_cpu = [] { return crowd::usage_of(getpid()).value_or(crowd::Usage{}).cpu; };
  auto const cpu = [&] { return usage_of(options_.pids).value_or(crowd::Usage{}).cpu; };
  auto const engine_cpu = [&] { return usage_of(options_.engine_pids).value_or(crowd::Usage{}).cpu; };
  result_.at_first = usage_of(options_.pids);
  log_in();
  auto& joined = result_.joined = usage_of(options_.pids);
  auto const all_arrived = [&] { return unacked_ == 0 && undelivered_ == 0; };
  if (options_.idle) {
    wait_until(Clock::now() + std::chrono::milliseconds(200), [] { return false; });
    if (auto const later = usage_of(options_.pids); joined && later) joined->resident_kib = later->resident_kib;
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
    auto const engine_before = engine_cpu();
    auto const own_before = own_cpu();
    if (options_.count > 0) {
      limit_ = sent_ + options_.count;
      for (uint32_t room = 0; room < options_.rooms; ++room) let_speak(room);
      last_read_ = begin;
      wait_until(Clock::time_point::max(),
                 [&] { return (sent_ == limit_ && all_arrived()) || Clock::now() > last_read_ + patience; });
    } else if (options_.storm > 0) {
      sit_out_storm();
    } else {
      wait_until(begin + options_.seconds, [] { return false; });
    }
    result_.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    result_.server_cpu = cpu() - cpu_before;
    result_.engine_cpu = engine_cpu() - engine_before;
    result_.own_cpu = own_cpu() - own_before;
    recording_ = speaking_ = false;
    if (options_.count == 0) wait_until(Clock::now() + patience, all_arrived);
  }
  result_.last = usage_of(options_.pids);
  read_slow();
  wait_until(Clock::now() + grace, [] { return false; });
  for (auto const& client : clients_)
    if (client.state == State::ready && (!client.input.empty() || !client.frames.is_between()))
      ++result_.corrupt;  // an unfinished line or frame
  result_.lost = lost();
  result_.unacknowledged = unacked_;
  result_.slow_joined = numbers_[static_cast<size_t>(Role::slow)];
  return result_;
}

/// Lets the clients talk until a crowd of others has shaken hands. The crowd has a thread of its own, which
/// gives way to this one, so that what is measured is the server's delay and not this program's.
void Load::sit_out_storm() {
  std::atomic<bool> is_over = false;
  std::jthread const storm([&] {
    sched_param const none{};
    sched_setscheduler(0, SCHED_BATCH, &none);  // 0: this thread
    try {
      result_.handshakes = load::shake_hands(addresses_[0], options_.storm, options_.storm);
    } catch (std::exception const& error) {
      result_.handshakes = {.failed = options_.storm, .why = error.what()};
    }
    is_over = true;
  });
  wait_until(Clock::time_point::max(), [&] { return is_over.load(); });
  wait_until(Clock::now() + grace, [] { return false; });  // for what was delayed
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
    epoll_.watch(oldest, EPOLLIN);
    retiring_ = &oldest;
  }
  add(Role::slow, oldest.room);
}

void Load::read_slow() {
  wait_until(Clock::now() + patience, [&] { return under_way_ == 0; });
  for (auto& client : clients_)
    if (client.role == Role::slow && client.state == State::ready) epoll_.watch(client, EPOLLIN);
  last_read_ = Clock::now();
  auto const is_cut = [](Client const& client) { return client.role != Role::slow || client.state == State::gone; };
  wait_until(Clock::now() + patience, [&] {
    return Clock::now() > last_read_ + std::chrono::milliseconds(500) || std::ranges::all_of(clients_, is_cut);
  });
}

}  // namespace

/// A host may have several addresses, as localhost has, and the server may listen on only one of them.
Address find_server(std::string const& host, std::string const& port) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  if (auto const error = getaddrinfo(host.c_str(), port.c_str(), &hints, &found); error != 0)
    throw std::runtime_error("cannot find the host " + host + ": " + gai_strerror(error));
  std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> const all(found, &freeaddrinfo);
  auto error = 0;
  for (auto const* each = found; each != nullptr; each = each->ai_next) {
    auto const fd = socket(each->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    auto const is_there = fd >= 0 && connect(fd, each->ai_addr, each->ai_addrlen) == 0;
    error = errno;
    if (fd >= 0) close(fd);
    if (!is_there) continue;
    Address address{.size = each->ai_addrlen};
    std::memcpy(&address.bytes, each->ai_addr, each->ai_addrlen);
    return address;
  }
  cannot_connect(host, port, std::generic_category().message(error));
}

std::optional<crowd::Usage> usage_of(std::vector<int> const& pids) {
  auto total = std::optional<crowd::Usage>();
  for (auto const pid : pids) {
    auto const one = crowd::usage_of(pid);
    if (!one) return std::nullopt;
    if (!total) total.emplace();
    total->cpu += one->cpu;
    total->resident_kib += one->resident_kib;
    total->peak_kib += one->peak_kib;
  }
  return total;
}

Result run(Options const& options) {
  return options.handshakes > 0 ? measure_handshakes(options) : Load(options).run();
}

}  // namespace load
