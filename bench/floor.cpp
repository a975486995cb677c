// SPDX-License-Identifier: BSL-1.0
// bench_floor PORT: the least that a chat server of this protocol must do; a yardstick, not a server. Linux only.
//
// Microseconds change with the machine, the kernel and other load. The ratio of a server to the floor, measured in
// turns with it, hardly does, and shows how much can still be gained.
//
// One thread and epoll. The deliveries that a round of events brings for a room are encoded once and sent to each
// receiver in one write, whoever sent them; then each sender gets its replies in one write. Left out: all checks (each
// line is answered by `ok:`; a CR is data), `senduser`, `leave`, the rule that no user gets its own texts, time limits,
// an orderly shutdown, and queues. It waits for slow readers, and exits when a client does not read at all. So it fits
// only closed loops, such as bench_load's.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <iostream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <unordered_map>
#include <vector>

namespace {

using std::size_t, std::string_view;

struct Room {
  std::vector<int> receivers = {};
  std::string batch = {};  // the deliveries of this round
};

struct Client {
  int fd = -1;
  bool receives = false, quits = false;
  Room* room = nullptr;
  size_t unanswered = 0;
  std::string name = {}, head = {}, rest = {};  // head: delivery:ROOM:SENDER:, rest: a line without its end
};

class Floor {
 public:
  explicit Floor(std::uint16_t port) {
    for (size_t i = 0; i < buffer_.size(); ++i) oks_ += ok;
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    auto const one = 1;
    timeval const patience{.tv_sec = 5, .tv_usec = 0};
    auto const set = [this](int level, int name, auto const& value) {  // accepted sockets inherit it
      must(setsockopt(listener_, level, name, &value, sizeof value), "setsockopt");
    };
    set(SOL_SOCKET, SO_REUSEADDR, one);
    set(SOL_SOCKET, SO_SNDTIMEO, patience);
    set(IPPROTO_TCP, TCP_NODELAY, one);
    must(bind(listener_, reinterpret_cast<sockaddr const*>(&address), sizeof address), "bind");
    must(listen(listener_, SOMAXCONN), "listen");
    watch(listener_, nullptr);
  }

  [[noreturn]] void run() {
    for (std::array<epoll_event, 128> events;;) {
      auto const count = epoll_wait(epoll_, events.data(), events.size(), -1);
      for (int i = 0; i < count; ++i) {
        auto* const client = static_cast<Client*>(events[static_cast<size_t>(i)].data.ptr);
        client == nullptr ? accept() : read(*client);
      }
      for (auto* const room : spoken_in_) {
        for (auto const fd : room->receivers) send(fd, room->batch);
        room->batch.clear();
      }
      spoken_in_.clear();
      for (auto* const sender : heard_) answer(*sender);
      heard_.clear();
    }
  }

 private:
  static constexpr string_view ok = "ok:\n";

  static int must(int result, char const* what) {
    if (result < 0) throw std::system_error(errno, std::system_category(), what);
    return result;
  }
  void watch(int fd, Client* client) const {
    epoll_event event{.events = EPOLLIN, .data = {.ptr = client}};
    must(epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event), "epoll_ctl");
  }

  void accept() {
    auto const fd = must(accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC), "accept");
    auto const index = static_cast<size_t>(fd);
    if (clients_.size() <= index) clients_.resize(index + 1);
    clients_[index] = {.fd = fd, .room = &lobby_};
    watch(fd, &clients_[index]);
  }

  void read(Client& client) {
    auto const kept = client.rest.copy(buffer_.data(), buffer_.size());
    auto const got = recv(client.fd, buffer_.data() + kept, buffer_.size() - kept, 0);
    if (got <= 0) {
      std::erase(client.room->receivers, client.fd);
      close(client.fd);
      return;
    }
    string_view input(buffer_.data(), kept + static_cast<size_t>(got));
    for (size_t end = 0; (end = input.find('\n')) != input.npos; input.remove_prefix(end + 1))
      hear(client, input.substr(0, end + 1));
    client.rest = input;
    if (!client.receives) heard_.push_back(&client);
    if (client.receives) answer(client);  // before its first delivery
  }

  void hear(Client& client, string_view line) {
    ++client.unanswered;
    if (constexpr string_view tag = "sendall:"; line.starts_with(tag)) {
      if (client.room->batch.empty()) spoken_in_.push_back(client.room);
      client.room->batch.append(client.head).append(line, tag.size());
      return;
    }
    auto const payload = line.substr(line.find(':') + 1, line.size() - line.find(':') - 2);
    if (line.starts_with("slogin:") || line.starts_with("rlogin:")) {
      client.receives = line.starts_with('r');
      client.name = payload;
    } else if (line.starts_with("join:")) {
      std::erase(client.room->receivers, client.fd);
      client.room = &rooms_[std::string(payload)];
      if (client.receives) client.room->receivers.push_back(client.fd);
      if (!client.receives) client.head.assign("delivery:").append(payload).append(":").append(client.name).append(":");
    } else if (line.starts_with("quit:")) {
      client.quits = true;
    }
  }

  void answer(Client& client) const {
    send(client.fd, string_view(oks_).substr(0, client.unanswered * ok.size()));
    client.unanswered = 0;
    if (client.quits) shutdown(client.fd, SHUT_WR);
  }

  static void send(int fd, string_view bytes) {
    while (!bytes.empty()) {
      auto const size = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (size < 0 && errno == EINTR) continue;
      if (size < 0 && errno == EAGAIN) throw std::runtime_error("a client does not read, and this is only a yardstick");
      if (size < 0) return;  // the client has disconnected, as the next read will show
      bytes.remove_prefix(static_cast<size_t>(size));
    }
  }

  int epoll_ = must(epoll_create1(EPOLL_CLOEXEC), "epoll");
  int listener_ = must(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
  std::vector<char> buffer_ = std::vector<char>(size_t{64} * 1024);
  std::string oks_;             // for as many lines as the buffer can hold
  std::deque<Client> clients_;  // indexed by socket
  std::unordered_map<std::string, Room> rooms_;
  Room lobby_;  // of the clients without a room
  std::vector<Room*> spoken_in_;
  std::vector<Client*> heard_;
};

}  // namespace

int main(int argc, char** argv) {
  string_view const text = argc == 2 ? argv[1] : "";
  std::uint16_t port = 0;
  if (auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
      error != std::errc() || end != text.data() + text.size() || port == 0) {
    std::cerr << "usage: bench_floor PORT\n";
    return 1;
  }
  try {
    Floor(port).run();
  } catch (std::exception const& error) {
    std::cerr << "bench_floor: " << error.what() << '\n';
    return 1;
  }
}
