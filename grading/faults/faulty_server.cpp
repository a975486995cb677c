// SPDX-License-Identifier: BSL-1.0
// faulty_server PORT FAULT: the student's server with one fault that a student might make. --list prints the faults.
//
// The faults have the names of those in tests/conformance/faulty_server.py, which says what the suite must find.
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <sstream>
#include <string_view>
#include <vector>

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "student_server.hpp"

namespace {

using student::Client;
using student::Guard;
using student::MessageQueue;
using student::Room;
using student::Server;
using Reaches = std::function<bool(Client const&)>;

// --- Lines ---

/// One byte more or less: the \n, or the NUL at the end of a C string, was counted or forgotten.
template <std::size_t line, std::size_t delivery>
struct Limits : Client {
  Limits(Server& server, int connection) : Client(server, connection) {
    longest_ = line;
    longest_delivery_ = delivery;
  }
};

struct KeepsCr : Client {
  using Client::Client;
  std::string without_end(std::string const& line) override { return line.substr(0, line.size() - 1); }
};

struct StripsEveryCr : Client {
  using Client::Client;
  std::string without_end(std::string const& line) override {
    std::string text = line;
    std::erase(text, '\r');
    return text.substr(0, text.size() - 1);
  }
};

struct AnswersInCrlf : Client {
  using Client::Client;
  void send(std::string const& line) override { Client::send(line + "\r"); }
};

/// "A read() brings whole lines."
struct EachReadIsALine : Client {
  using Client::Client;
  void read_lines() override {
    for (std::string data; !closing_ && !(data = read()).empty();) {
      std::istringstream lines(data);
      for (std::string line; !closing_ && std::getline(lines, line);)
        line.size() < longest_ ? on_line(without_end(line + "\n")) : bad_line("the line is too long");
    }
  }
};

/// "A read() brings one line."
struct OneLineOfEachRead : Client {
  using Client::Client;
  std::string read() override {
    std::string data = Client::read();
    if (std::size_t const end = data.find('\n'); end != data.npos) data.resize(end + 1);
    return data;
  }
};

/// The end of the input ends a line, as it does for getline().
struct CarriesOutAPartialLine : Client {
  using Client::Client;
  std::string read() override {
    std::string data = Client::read();
    if (data.empty() && in_line_) data = "\n";
    in_line_ = !data.empty() && data.back() != '\n';
    return data;
  }
  bool in_line_ = false;
};

/// Empties the buffer when it is full, and does not remember that the line goes on.
struct ErrForEachPart : Client {
  using Client::Client;
  void read_lines() override {
    std::string buffer;
    for (std::string data; !closing_ && !(data = read()).empty();) {
      buffer += data;
      for (std::size_t end; !closing_ && (end = buffer.find('\n')) != buffer.npos; buffer.erase(0, end + 1))
        end < longest_ ? on_line(without_end(buffer.substr(0, end + 1))) : bad_line("the line is too long");
      if (buffer.size() < longest_ || closing_) continue;
      bad_line("the line is too long");
      buffer.clear();
    }
  }
};

/// Like fgets(line, 256, in): the last part of a long line looks like a line.
struct CarriesOutTheTail : Client {
  using Client::Client;
  void read_lines() override {
    std::string buffer;
    for (std::string data; !closing_ && !(data = read()).empty();) {
      buffer += data;
      while (!closing_ && (buffer.size() >= longest_ || buffer.find('\n') != buffer.npos)) {
        std::string const part = buffer.substr(0, std::min(buffer.find('\n'), longest_ - 1) + 1);
        buffer.erase(0, part.size());
        part.back() == '\n' ? on_line(without_end(part)) : bad_line("the line is too long");
      }
    }
  }
};

struct ClosesOnABadLine : Client {
  using Client::Client;
  void bad_line(std::string const& why) override { refuse(why); }
};

struct SilentOnUnknownTags : Client {
  using Client::Client;
  void unknown(std::string const& /*tag*/) override {}
};

/// Goes through a C string up to the length of the line. Nothing catches what at() throws.
struct DiesOnNul : Client {
  using Client::Client;
  void on_line(std::string const& line) override {
    std::string const text = line.c_str();
    std::string same;
    for (std::size_t i = 0; i < line.size(); ++i) same += text.at(i);
    Client::on_line(same);
  }
};

struct TextEndsAtNul : Client {
  using Client::Client;
  void sendall(std::string const& text) override { Client::sendall(text.c_str()); }
};

struct TextIsUtf8 : Client {
  using Client::Client;
  void on_line(std::string const& line) override {
    auto const byte = [&](std::size_t i) { return static_cast<unsigned char>(i < line.size() ? line[i] : 0); };
    std::string text;
    for (std::size_t i = 0, n = 1; i < line.size(); i += n) {
      std::size_t const length = byte(i) < 0x80 ? 1 : byte(i) < 0xc0 ? 0 : byte(i) < 0xe0 ? 2 : byte(i) < 0xf0 ? 3 : 4;
      for (n = 1; n < length && (byte(i + n) & 0xc0) == 0x80;) ++n;
      text += n == length ? line.substr(i, n) : "?";
    }
    Client::on_line(text);
  }
};

struct TextEndsAtAColon : Client {
  using Client::Client;
  void sendall(std::string const& text) override { Client::sendall(text.substr(0, text.find(':'))); }
};

struct StripsBlanks : Client {
  using Client::Client;
  void sendall(std::string const& text) override {
    std::size_t const begin = text.find_first_not_of(" \t\r");
    std::size_t const end = text.find_last_not_of(" \t\r");
    Client::sendall(begin == text.npos ? "" : text.substr(begin, end + 1 - begin));
  }
};

/// Keeps the lines that have come on a stack.
struct MixesUpOrder : Client {
  using Client::Client;
  std::string read() override {
    std::string const data = Client::read();
    if (data.empty() || data.back() != '\n') return data;
    std::string mixed;
    std::istringstream lines(data);
    for (std::string line; std::getline(lines, line);) mixed.insert(0, line + "\n");
    return mixed;
  }
};

// --- Names and login ---

struct WrongTag : Client {
  using Client::Client;
  void reply(std::string const& tag, std::string const& text) override {
    Client::reply(tag == "ok" ? "okay" : tag, text);
  }
};

struct JoinsWithoutLogin : Client {
  using Client::Client;
  void log_in(std::string const& tag, std::string const& payload) override {
    if (tag != "join") return Client::log_in(tag, payload);
    role_ = Role::sender;
    name_ = "nobody";
    join(payload);
  }
};

struct AnyNameWillDo : Client {
  using Client::Client;
  bool is_name(std::string const& text) const override { return !text.empty(); }
};

struct ANameOnlyOnce : Client {
  using Client::Client;
  void log_in(std::string const& tag, std::string const& payload) override {
    Guard const guard(lock);
    if (names.count(payload) != 0) return refuse("there is somebody of that name");
    Client::log_in(tag, payload);
    if (role_ != Role::none) names.insert(name_);
  }
  void forget() override {
    Client::forget();
    Guard const guard(lock);
    names.erase(name_);
    name_.clear();
  }
  static inline std::set<std::string> names;
  static inline pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
};

struct RoomsWithoutCase : Client {
  using Client::Client;
  void join(std::string const& room) override {
    std::string lower = room;
    for (char& c : lower)
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    Client::join(lower);
  }
};

// --- Senders ---

struct ToTheOwnName : Client {
  using Client::Client;
  void sendall(std::string const& text) override {
    deliver(text, [](Client const&) { return true; });
  }
};

struct SenduserNotToTheOwnName : Client {
  using Client::Client;
  void deliver(std::string const& text, Reaches const& reaches) override {
    Client::deliver(text, [&](Client const& receiver) { return receiver.name() != name_ && reaches(receiver); });
  }
};

struct NoEmptyText : Client {
  using Client::Client;
  void sendall(std::string const& text) override {
    text.empty() ? reply("err", "say something") : Client::sendall(text);
  }
};

struct ErrInTwoLines : Client {
  using Client::Client;
  void reply(std::string const& tag, std::string const& text) override {
    Client::reply(tag, tag == "err" ? text + "\nsee the manual" : text);
  }
};

struct NoReplyToQuit : Client {
  using Client::Client;
  void quit() override {
    forget();
    closing_ = true;
  }
};

/// "Without this the port stays in use for a minute."
struct ResetsAfterQuit : Client {
  using Client::Client;
  void hang_up() override {
    linger const at_once{1, 0};
    setsockopt(connection_, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  }
};

/// Asks whether the client has gone before it uses lines that have come together. It waits so that the end is there by
/// then.
struct LosesTheLastLine : Client {
  using Client::Client;
  std::string read() override {
    std::string const data = Client::read();
    pollfd one{connection_, POLLRDHUP, 0};
    auto const several = std::count(data.begin(), data.end(), '\n') > 1;
    return several && data.ends_with('\n') && poll(&one, 1, 2000) > 0 ? std::string() : data;
  }
};

/// "0 bytes: nothing has come yet."
struct StaysOpen : Client {
  using Client::Client;
  std::string read() override {
    std::string data;
    while ((data = Client::read()).empty() && role_ != Role::none) usleep(10000);
    return data;
  }
};

// --- Receivers ---

/// join() adds the receiver to the new room; only its end removes it, from all of them.
struct KeepsTheOldRoom : Client {
  using Client::Client;
  void join(std::string const& room) override {
    if (role_ == Role::receiver && is_name(room)) room_ = nullptr;
    Client::join(room);
  }
  void forget() override {
    server_.each_room([this](Room& room) { room.remove(*this); });
    room_ = nullptr;
  }
};

/// Leaves the room before it looks at the new one's name.
struct ForgetsTheRoom : Client {
  using Client::Client;
  void join(std::string const& room) override {
    if (!is_name(room)) forget();
    Client::join(room);
  }
};

/// Does not check whether the client is a sender.
struct ReceiversMaySend : Client {
  using Client::Client;
  void on_message(std::string const& tag, std::string const& payload) override {
    tag == "sendall" && room_ != nullptr ? sendall(payload) : Client::on_message(tag, payload);
  }
};

struct AnyFirstMessage : Client {
  using Client::Client;
  void refuse(std::string const& why) override { role_ == Role::receiver ? reply("err", why) : Client::refuse(why); }
};

// --- Promises ---

struct ToEveryRoom : Client {
  using Client::Client;
  void deliver(std::string const& text, Reaches const& reaches) override {
    if (room_ != nullptr) {
      std::string const line = "delivery:" + room_->name() + ":" + name_ + ":" + text;
      server_.each_room([&](Room& room) {
        if (&room != room_ && line.size() < longest_delivery_) room.deliver(line, reaches);
      });
    }
    Client::deliver(text, reaches);
  }
};

struct DeliversTwice : Client {
  using Client::Client;
  void send(std::string const& line) override {
    Client::send(line);
    if (line.starts_with("delivery:")) Client::send(line);
  }
};

/// An array of 300 texts begins anew when it is full.
struct LosesALaterText : Client {
  using Client::Client;
  void sendall(std::string const& text) override { ++texts_ == 301 ? reply("ok") : Client::sendall(text); }
  int texts_ = 0;
};

struct TellsHistory : Room {
  using Room::Room;
  void add(Client& receiver) override {
    Room::add(receiver);
    Guard const guard(lock_);
    for (std::string const& line : said_) receiver.send(line);
  }
  void deliver(std::string const& line, Reaches const& reaches) override {
    Room::deliver(line, reaches);
    Guard const guard(lock_);
    said_.push_back(line);
  }
  std::vector<std::string> said_;
};

struct PatientQueue : MessageQueue {
  /// Like pop(), but waits for a second at most.
  bool pop_soon(std::string& line) {
    timespec until{};
    clock_gettime(CLOCK_REALTIME, &until);
    ++until.tv_sec;
    if (sem_timedwait(&waiting_, &until) != 0) return false;
    sem_post(&waiting_);  // for pop(), now or after finish()
    return !empty() && pop(line);
  }
  bool empty() {
    Guard const guard(lock_);
    return lines_.empty();
  }
};

/// An answered text waits for the next one, which overtakes it.
struct AnswersTooEarly : Client {
  using Client::Client;
  std::unique_ptr<MessageQueue> make_queue() override { return std::make_unique<PatientQueue>(); }
  void write_lines() override {
    auto& queue = static_cast<PatientQueue&>(*queue_);
    for (std::string line, next; queue.pop(line); write_all(line))
      if (line.starts_with("delivery:") && queue.pop_soon(next)) write_all(next);
  }
};

/// Whoever has a line for a receiver writes what the socket takes; the receiver's thread writes the rest. No fault.
class WritesWhatFits : public Client {
 public:
  WritesWhatFits(Server& server, int connection) : Client(server, connection) { pthread_mutex_init(&turn_, nullptr); }
  ~WritesWhatFits() override { pthread_mutex_destroy(&turn_); }
  void send(std::string const& line) override {
    if (role_ != Role::receiver) return Client::send(line);
    Guard const guard(turn_);
    append(line + "\n");
    write_some();
  }
  std::string read() override {
    pollfd one{connection_, POLLIN, 0};
    while (role_ == Role::receiver && poll(&one, 1, 5) == 0) write_rest();
    return Client::read();
  }
  void hang_up() override {
    while (write_rest()) usleep(5000);
    Client::hang_up();
  }

 protected:
  virtual void append(std::string const& line) { waiting_ += line; }
  virtual bool write_some() { return write_from(waiting_); }
  virtual void remove(std::string& bytes, std::size_t written) { bytes.erase(0, written); }

  /// Returns whether some of it is left.
  bool write_from(std::string& bytes) {
    ssize_t const n = ::send(connection_, bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (n > 0)
      remove(bytes, static_cast<std::size_t>(n));
    else if (n < 0 && errno != EAGAIN)
      bytes.clear();  // the client has gone
    return !bytes.empty();
  }
  std::string waiting_;

 private:
  bool write_rest() {
    Guard const guard(turn_);
    return write_some();
  }
  pthread_mutex_t turn_{};
};

/// Replies do not wait for deliveries, not even for the one that is half written.
struct AReplyWithinADelivery : WritesWhatFits {
  using WritesWhatFits::WritesWhatFits;
  void append(std::string const& line) override { (line.starts_with("delivery:") ? waiting_ : replies_) += line; }
  bool write_some() override { return write_from(replies_) || write_from(waiting_); }
  std::string replies_;
};

/// "What has been begun has been written."
struct DropsTheRestOfALine : WritesWhatFits {
  using WritesWhatFits::WritesWhatFits;
  void remove(std::string& bytes, std::size_t written) override { bytes.erase(0, bytes.find('\n', written - 1) + 1); }
};

/// "What has not been written whole must be written."
struct RepeatsAHalfWrittenLine : WritesWhatFits {
  using WritesWhatFits::WritesWhatFits;
  void remove(std::string& bytes, std::size_t written) override { bytes.erase(0, bytes.rfind('\n', written - 1) + 1); }
};

struct OneAtATime : Client {
  using Client::Client;
  void run() override {
    Guard const guard(turn);
    Client::run();
  }
  static inline pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
};

// --- The server ---

struct Fault {
  char const* name;
  int (*serve)(int argc, char** argv);
};

constexpr Fault faults[] = {
    {"accepts-256-bytes", student::serve<Limits<256, 255>>},
    {"refuses-255-bytes", student::serve<Limits<254, 255>>},
    {"keeps-cr", student::serve<KeepsCr>},
    {"strips-every-cr", student::serve<StripsEveryCr>},
    {"answers-in-crlf", student::serve<AnswersInCrlf>},
    {"each-read-is-a-line", student::serve<EachReadIsALine>},
    {"one-line-of-each-read", student::serve<OneLineOfEachRead>},
    {"carries-out-a-partial-line", student::serve<CarriesOutAPartialLine>},
    {"an-err-for-each-part-of-a-long-line", student::serve<ErrForEachPart>},
    {"carries-out-the-tail-of-a-long-line", student::serve<CarriesOutTheTail>},
    {"closes-on-a-bad-line", student::serve<ClosesOnABadLine>},
    {"silent-on-unknown-tags", student::serve<SilentOnUnknownTags>},
    {"dies-on-nul", student::serve<DiesOnNul>},
    {"text-ends-at-nul", student::serve<TextEndsAtNul>},
    {"text-is-utf8", student::serve<TextIsUtf8>},
    {"text-ends-at-a-colon", student::serve<TextEndsAtAColon>},
    {"strips-blanks", student::serve<StripsBlanks>},
    {"mixes-up-order", student::serve<MixesUpOrder>},
    {"wrong-tag-in-a-reply", student::serve<WrongTag>},
    {"joins-without-login", student::serve<JoinsWithoutLogin>},
    {"any-name-will-do", student::serve<AnyNameWillDo>},
    {"a-name-only-once", student::serve<ANameOnlyOnce>},
    {"rooms-without-case", student::serve<RoomsWithoutCase>},
    {"to-the-own-name", student::serve<ToTheOwnName>},
    {"senduser-not-to-the-own-name", student::serve<SenduserNotToTheOwnName>},
    {"no-empty-text", student::serve<NoEmptyText>},
    {"delivers-256-bytes", student::serve<Limits<255, 256>>},
    {"err-in-two-lines", student::serve<ErrInTwoLines>},
    {"no-reply-to-quit", student::serve<NoReplyToQuit>},
    {"resets-after-quit", student::serve<ResetsAfterQuit>},
    {"loses-the-last-line-before-the-end", student::serve<LosesTheLastLine>},
    {"stays-open-at-the-end-of-input", student::serve<StaysOpen>},
    {"keeps-a-receiver-in-the-old-room", student::serve<KeepsTheOldRoom>},
    {"forgets-the-room-at-a-bad-join", student::serve<ForgetsTheRoom>},
    {"receivers-may-send", student::serve<ReceiversMaySend>},
    {"any-first-message-of-a-receiver", student::serve<AnyFirstMessage>},
    {"to-every-room", student::serve<ToEveryRoom>},
    {"delivers-twice", student::serve<DeliversTwice>},
    {"loses-the-301st-text", student::serve<LosesALaterText>},
    {"tells-what-was-said-before", student::serve<Client, TellsHistory>},
    {"answers-too-early", student::serve<AnswersTooEarly>},
    {"a-reply-within-a-delivery", student::serve<AReplyWithinADelivery>},
    {"drops-the-rest-of-a-line", student::serve<DropsTheRestOfALine>},
    {"repeats-a-half-written-line", student::serve<RepeatsAHalfWrittenLine>},
    {"one-at-a-time", student::serve<OneAtATime>},
};

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], "--list") == 0) {
    for (Fault const& fault : faults) std::puts(fault.name);
    return 0;
  }
  if (argc != 3) {
    std::fprintf(stderr, "usage: faulty_server PORT FAULT, or faulty_server --list\n");
    return 1;
  }
  for (Fault const& fault : faults)
    if (std::strcmp(argv[2], fault.name) == 0) return fault.serve(2, argv);
  std::fprintf(stderr, "'%s' is no fault; faulty_server --list prints them\n", argv[2]);
  return 1;
}
