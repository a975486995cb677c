// SPDX-License-Identifier: BSL-1.0
#include "student_server.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <utility>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

namespace student {
namespace {

double now() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
}

void limit(int connection, int option, int seconds) {
  timeval time{};
  time.tv_sec = seconds;
  setsockopt(connection, SOL_SOCKET, option, &time, sizeof time);
}

}  // namespace

// --- Queue and room ---

MessageQueue::MessageQueue() {
  pthread_mutex_init(&lock_, nullptr);
  sem_init(&waiting_, 0, 0);
}

MessageQueue::~MessageQueue() {
  sem_destroy(&waiting_);
  pthread_mutex_destroy(&lock_);
}

bool MessageQueue::push(std::string const& line) {
  {
    Guard const guard(lock_);
    if (lines_.size() == most) return false;
    lines_.push_back(line);
  }
  sem_post(&waiting_);
  return true;
}

bool MessageQueue::pop(std::string& line) {
  while (sem_wait(&waiting_) != 0 && errno == EINTR) {
  }
  Guard const guard(lock_);
  if (lines_.empty()) return false;
  line = std::move(lines_.front());
  lines_.pop_front();
  return true;
}

void MessageQueue::finish() { sem_post(&waiting_); }

Room::Room(std::string name) : name_(std::move(name)) { pthread_mutex_init(&lock_, nullptr); }

Room::~Room() { pthread_mutex_destroy(&lock_); }

void Room::add(Client& receiver) {
  Guard const guard(lock_);
  receivers_.insert(&receiver);
  receiver.reply("ok");
}

void Room::remove(Client& receiver) {
  Guard const guard(lock_);
  receivers_.erase(&receiver);
}

void Room::deliver(std::string const& line, std::function<bool(Client const&)> const& reaches) {
  Guard const guard(lock_);
  for (Client* receiver : receivers_)
    if (reaches(*receiver)) receiver->send(line);
}

// --- Server ---

Server::Server(MakeClient make_client, MakeRoom make_room)
    : make_client_(std::move(make_client)), make_room_(std::move(make_room)) {
  if (!make_room_) make_room_ = [](std::string const& name) { return std::make_unique<Room>(name); };
  pthread_mutex_init(&lock_, nullptr);
}

Server::~Server() { pthread_mutex_destroy(&lock_); }

Room& Server::room(std::string const& name) {
  Guard const guard(lock_);
  std::unique_ptr<Room>& room = rooms_[name];
  if (!room) room = make_room_(name);
  return *room;
}

void Server::each_room(std::function<void(Room&)> const& call) {
  Guard const guard(lock_);
  for (auto& [name, room] : rooms_) call(*room);
}

void* Server::client_thread(void* client) {
  std::unique_ptr<Client> const owned(static_cast<Client*>(client));
  owned->run();
  return nullptr;
}

int Server::serve(std::string const& port) {
  char* end = nullptr;
  long const number = std::strtol(port.c_str(), &end, 10);
  if (port.empty() || *end != '\0' || number < 0 || number > 65535) {
    std::fprintf(stderr, "'%s' is no port\n", port.c_str());
    return 1;
  }
  int const listener = socket(AF_INET, SOCK_STREAM, 0);
  int const yes = 1;
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(number));
  address.sin_addr.s_addr = htonl(INADDR_ANY);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  if (listener < 0 || bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
      listen(listener, 128) != 0) {
    std::fprintf(stderr, "cannot listen on port %s: %s\n", port.c_str(), std::strerror(errno));
    return 1;
  }
  std::signal(SIGPIPE, SIG_IGN);
  pthread_attr_t detached;
  pthread_attr_init(&detached);
  pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
  for (;;) {
    int const connection = accept(listener, nullptr, nullptr);
    if (connection < 0) {
      if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) usleep(10000);
      continue;
    }
    setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    limit(connection, SO_SNDTIMEO, 30);  // a client that takes nothing for so long has gone
    std::unique_ptr<Client> client = make_client_(*this, connection);
    pthread_t thread{};
    if (pthread_create(&thread, &detached, client_thread, client.get()) == 0) static_cast<void>(client.release());
  }
}

// --- Client: bytes and lines ---

Client::Client(Server& server, int connection)
    : server_(server), connection_(connection), login_until_(now() + server.login_deadline) {}

Client::~Client() { close(connection_); }

void Client::run() {
  read_lines();
  forget();
  if (queue_) {
    queue_->finish();
    pthread_join(writer_, nullptr);
  }
  hang_up();
}

void Client::hang_up() {
  shutdown(connection_, SHUT_WR);
  if (!closing_) return;
  limit(connection_, SO_RCVTIMEO, 2);  // an immediate close could destroy the last bytes on their way
  char ignored[4096];
  while (::read(connection_, ignored, sizeof ignored) > 0) {
  }
}

void Client::forget() {
  if (role_ == Role::receiver && room_ != nullptr) room_->remove(*this);
  room_ = nullptr;
}

std::unique_ptr<MessageQueue> Client::make_queue() { return std::make_unique<MessageQueue>(); }

void* Client::writer_thread(void* client) {
  static_cast<Client*>(client)->write_lines();
  return nullptr;
}

void Client::write_lines() {
  std::string line;
  while (queue_->pop(line)) write_all(line);
}

void Client::write_all(std::string const& bytes) {
  for (std::size_t done = 0; done < bytes.size();) {
    ssize_t const n = ::write(connection_, bytes.data() + done, bytes.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      shutdown(connection_, SHUT_RDWR);  // the reader will notice
      return;
    }
    done += static_cast<std::size_t>(n);
  }
}

std::string Client::read() {
  char bytes[4096];
  for (;;) {
    if (role_ == Role::none) {
      pollfd one{connection_, POLLIN, 0};
      int const left = static_cast<int>((login_until_ - now()) * 1000) + 1;
      if (left <= 0 || poll(&one, 1, left) == 0) return {};
    }
    ssize_t const n = ::read(connection_, bytes, sizeof bytes);
    if (n >= 0) return {bytes, static_cast<std::size_t>(n)};
    if (errno != EINTR) return {};
  }
}

void Client::read_lines() {
  std::string buffer;
  bool too_long = false;  // the rest of a long line is still to come
  while (!closing_) {
    std::string const data = read();
    if (data.empty()) return;
    buffer += data;
    for (std::size_t end; !closing_ && (end = buffer.find('\n')) != buffer.npos;) {
      std::string const line = buffer.substr(0, end + 1);
      buffer.erase(0, end + 1);
      if (too_long)
        too_long = false;
      else if (line.size() > longest_)
        bad_line("the line is too long");
      else
        on_line(without_end(line));
    }
    if (buffer.size() >= longest_ && !closing_) {
      if (!too_long) bad_line("the line is too long");
      too_long = true;
      buffer.clear();
    }
  }
}

std::string Client::without_end(std::string const& line) {
  bool const cr = line.size() > 1 && line[line.size() - 2] == '\r';
  return line.substr(0, line.size() - (cr ? 2 : 1));
}

void Client::send(std::string const& line) {
  if (!queue_)
    write_all(line + "\n");
  else if (!queue_->push(line + "\n"))
    shutdown(connection_, SHUT_RDWR);  // disconnected: it does not get the rest
}

void Client::reply(std::string const& tag, std::string const& text) { send(tag + ":" + text); }

// --- Client: messages ---

void Client::on_line(std::string const& line) {
  std::size_t const colon = line.find(':');
  std::string const tag = line.substr(0, colon);
  if (colon == line.npos || tag.empty() || tag.find_first_not_of("abcdefghijklmnopqrstuvwxyz") != tag.npos)
    return bad_line("this is no message");
  on_message(tag, line.substr(colon + 1));
}

void Client::on_message(std::string const& tag, std::string const& payload) {
  if (role_ == Role::none)
    log_in(tag, payload);
  else if (role_ == Role::receiver && room_ == nullptr && tag != "join")
    refuse("join a room first");
  else if (tag == "join")
    join(payload);
  else if (tag == "quit")
    quit();
  else if (role_ == Role::sender && tag == "leave")
    leave(payload);
  else if (role_ == Role::sender && tag == "sendall")
    sendall(payload);
  else if (role_ == Role::sender && tag == "senduser")
    senduser(payload);
  else
    unknown(tag);
}

void Client::bad_line(std::string const& why) {
  if (role_ == Role::none || (role_ == Role::receiver && room_ == nullptr))
    refuse(why);
  else
    reply("err", why);
}

void Client::unknown(std::string const& /*tag*/) { reply("err", "not a command for you"); }

void Client::refuse(std::string const& why) {
  reply("err", why);
  closing_ = true;
}

void Client::log_in(std::string const& tag, std::string const& payload) {
  if ((tag != "slogin" && tag != "rlogin") || !is_name(payload))
    return refuse("log in with slogin:NAME or rlogin:NAME");
  name_ = payload;
  role_ = tag == "slogin" ? Role::sender : Role::receiver;
  if (role_ == Role::receiver) {
    queue_ = make_queue();
    if (pthread_create(&writer_, nullptr, writer_thread, this) != 0) {
      queue_.reset();
      return refuse("the server is full");
    }
  }
  reply("ok");
}

bool Client::is_name(std::string const& text) const {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
  });
}

void Client::join(std::string const& room) {
  if (!is_name(room)) {
    if (role_ == Role::receiver && room_ == nullptr) return refuse("this is no name for a room");
    return reply("err", "this is no name for a room");
  }
  Room& next = server_.room(room);
  if (role_ == Role::sender) {
    room_ = &next;
    return reply("ok");
  }
  if (room_ != nullptr && room_ != &next) room_->remove(*this);
  room_ = &next;
  next.add(*this);
}

void Client::leave(std::string const& /*payload*/) {
  if (room_ == nullptr) return reply("err", "you are in no room");
  room_ = nullptr;
  reply("ok");
}

void Client::quit() {
  forget();  // nothing is delivered after this ok
  reply("ok");
  closing_ = true;
}

void Client::sendall(std::string const& text) {
  deliver(text, [this](Client const& receiver) { return receiver.name() != name_; });
}

void Client::senduser(std::string const& payload) {
  std::size_t const colon = payload.find(':');
  std::string const user = payload.substr(0, colon);
  if (colon == payload.npos || !is_name(user)) return reply("err", "write senduser:NAME:TEXT");
  deliver(payload.substr(colon + 1), [&](Client const& receiver) { return receiver.name() == user; });
}

void Client::deliver(std::string const& text, std::function<bool(Client const&)> const& reaches) {
  if (room_ == nullptr) return reply("err", "you are in no room");
  std::string const line = "delivery:" + room_->name() + ":" + name_ + ":" + text;
  if (line.size() + 1 > longest_delivery_) return reply("err", "the text is too long");
  room_->deliver(line, reaches);
  reply("ok");
}

int serve(int argc, char** argv, Server& server) {
  if (argc < 2 || argc > 3) {
    std::fprintf(stderr, "usage: %s PORT [LOGIN_DEADLINE]\n", argv[0]);
    return 1;
  }
  if (argc == 3) server.login_deadline = std::strtod(argv[2], nullptr);
  return server.serve(argv[1]);
}

}  // namespace student
