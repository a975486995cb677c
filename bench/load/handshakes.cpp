// SPDX-License-Identifier: BSL-1.0
#include <cerrno>
#include <memory>
#include <system_error>
#include <utility>
#include <vector>

#include "load.hpp"
#include "tls.hpp"

namespace load {
namespace {

using Clock = std::chrono::steady_clock;
using Step = tls::Stream::Step;

struct Client {
  enum class State : std::uint8_t { unused, connecting, shaking_hands, ending } state = State::unused;
  int fd = -1;
  uint32_t events = 0;
  std::unique_ptr<tls::Stream> stream = nullptr;
};

class Crowd {
 public:
  Crowd(Address const& address, uint32_t count, uint32_t at_once)
      : address_(address), clients_(std::min(count, at_once)), left_(count) {}
  ~Crowd() {
    for (auto const& client : clients_)
      if (client.fd >= 0) close(client.fd);
  }
  Crowd(Crowd const&) = delete;
  Crowd& operator=(Crowd const&) = delete;

  Handshakes run() {
    for (auto& client : clients_) start(client);
    auto last = Clock::now();
    while (under_way_ > 0 && Clock::now() < last + patience) {
      for (auto const& event : epoll_.wait(100)) {
        go_on(*static_cast<Client*>(event.data.ptr));
        last = Clock::now();
      }
    }
    if (under_way_ > 0) fail(under_way_ + left_, "the server does not answer");
    return result_;
  }

 private:
  static constexpr auto patience = std::chrono::seconds(20);  // a SYN that found no place is sent again after 1, 3, 7 s

  void start(Client& client) {
    while (left_ > 0) {
      --left_;
      client.fd = crowd::open_socket(address_.get()->sa_family, false);
      crowd::reset_at_close(client.fd);
      client.state = Client::State::connecting;
      client.events = 0;
      if (connect(client.fd, address_.get(), address_.size) == 0 || errno == EINPROGRESS) {
        ++under_way_;
        epoll_.watch(client, EPOLLOUT);
        return;
      }
      fail(1, std::generic_category().message(errno));
      close(std::exchange(client.fd, -1));
    }
  }

  void go_on(Client& client) {
    if (client.state == Client::State::connecting) {
      auto error = 0;
      socklen_t size = sizeof error;
      getsockopt(client.fd, SOL_SOCKET, SO_ERROR, &error, &size);
      if (error != 0) return finish(client, std::generic_category().message(error));
      client.stream = tls::open(client.fd);
      client.state = Client::State::shaking_hands;
    }
    if (client.state == Client::State::shaking_hands) {
      auto const step = client.stream->shake_hands();
      if (step == Step::failed) return finish(client, client.stream->why());
      if (step != Step::done) return epoll_.watch(client, step == Step::wants_to_write ? EPOLLOUT : EPOLLIN);
      client.stream->say_end();
      client.state = Client::State::ending;
      epoll_.watch(client, EPOLLIN);
    }
    // The server has finished its handshake too when it closes. If the handshake fails there, it sends an alert.
    std::array<char, 512> buffer;
    auto got = ssize_t{1};
    while (got > 0) got = client.stream->receive(buffer.data(), buffer.size());
    if (got < 0 && errno == EAGAIN) return;
    finish(client, got < 0 && errno == EPROTO ? client.stream->why() : "");
  }

  void finish(Client& client, std::string const& why) {
    why.empty() ? void(++result_.done) : fail(1, why);
    client.stream.reset();
    close(std::exchange(client.fd, -1));
    --under_way_;
    start(client);
  }

  void fail(uint64_t count, std::string const& why) {
    if (result_.failed == 0) result_.why = why;
    result_.failed += count;
  }

  Address const address_;
  crowd::Epoll epoll_;
  std::vector<Client> clients_;
  uint32_t left_, under_way_ = 0;
  Handshakes result_;
};

}  // namespace

Handshakes shake_hands(Address const& address, uint32_t count, uint32_t at_once) {
  return Crowd(address, count, at_once).run();
}

Result measure_handshakes(Options const& options) {
  auto const address = find_server(options.host, options.port);
  constexpr uint32_t first = 50;  // what a server sets up once is not measured
  Result result;
  result.at_first = usage_of(options.pids);
  auto const warmup = shake_hands(address, first, options.at_once);
  result.joined = usage_of(options.pids);
  auto const begin = Clock::now();
  auto const own_before = crowd::usage_of(getpid()).value_or(crowd::Usage{}).cpu;
  result.handshakes = warmup.failed > 0 ? warmup : shake_hands(address, options.handshakes, options.at_once);
  result.last = usage_of(options.pids);
  result.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  result.own_cpu = crowd::usage_of(getpid()).value_or(crowd::Usage{}).cpu - own_before;
  if (result.last && result.joined) result.server_cpu = result.last->cpu - result.joined->cpu;
  result.errors = result.handshakes.failed;
  return result;
}

}  // namespace load
