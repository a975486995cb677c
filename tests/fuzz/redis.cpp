// SPDX-License-Identifier: BSL-1.0
// Whatever comes from Redis at the socket, or from what is no Redis: what is delivered stays in order, each waiter is
// told once, a wrong reply ends the connections, and no memory stays held. The target plays Redis. The input's first
// byte chooses options, each other one an event; some events take more.
#include "fuzz.hpp"

#include <array>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <asio/buffer.hpp>
#include <asio/error.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/write.hpp>

#include <chatproto/backplane.hpp>
#include <chatproto/detail/backplane/block.hpp>
#include <chatproto/detail/held_memory.hpp>
#include <chatproto/detail/redis/redis_scripts.hpp>
#include <chatproto/detail/redis/redis_shard.hpp>
#include <chatproto/redis_options.hpp>

using namespace chatproto::detail;
using asio::ip::tcp;
using chatproto::Backplane;

namespace {

constexpr std::string_view our_sender = "fake";  // of texts whose number is known

/// What no Redis says to our commands, so that nothing may be heard any more behind it.
constexpr std::string_view ends[] = {
    "*1000000000\r\n",
    "*2147483647\r\n",
    "*9223372036854775807\r\n",
    "*3\r\n*1000000000\r\n",
    "*1000\r\n*1000\r\n*1000\r\n",
    "$-2\r\n",
    "$9223372036854775808\r\n",
    "*-2\r\n",
    "HTTP/1.1 400 Bad Request\r\n\r\n",
    "\r\n",
};
/// The beginnings of replies that do not come.
constexpr std::string_view beginnings[] = {"*3\r\n$1\r\n1\r\n$1\r\n3\r\n", "$2147483647\r\n", "*1000\r\n+x"};
/// What it may say, though not to each of our commands.
constexpr std::string_view replies[] = {
    "$-1\r\n",
    "*-1\r\n",
    "*0\r\n",
    "$0\r\n\r\n",
    "+OK\r\n",
    ":0\r\n",
    ":-1\r\n",
    "-NOSCRIPT No matching script.\r\n",
    "-OOM command not allowed\r\n",
    "-READONLY You can't write against a read only replica.\r\n",
    "-NOREPLICAS Not enough good replicas to write.\r\n",
    "-ERR\r\n",
    "*2\r\n$6\r\nstored\r\n$1\r\n1\r\n",
    "*2\r\n$6\r\nstored\r\n$-1\r\n",
    "*2\r\n$7\r\nunknown\r\n$1\r\n0\r\n",
    "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n",
    "*3\r\n$-1\r\n$-1\r\n$-1\r\n",
    "*4\r\n$1\r\n1\r\n$20\r\n18446744073709551615\r\n$1\r\n0\r\n$-1\r\n",
    "*4\r\n:1\r\n:2\r\n:3\r\n*1\r\n+x\r\n",
};

std::string bulk(std::string_view text) {
  return '$' + std::to_string(text.size()) + "\r\n" + std::string(text) + "\r\n";
}
std::string array(std::vector<std::string> const& items) {
  auto all = '*' + std::to_string(items.size()) + "\r\n";
  for (auto const& item : items) all += item;
  return all;
}
std::uint64_t number_of(std::string_view text) {
  std::uint64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}
std::string block_of(LogPosition const& at) {
  auto const line = std::to_string(at.incarnation) + ' ' + std::to_string(at.number) + '\n';
  return encode_said({our_sender, {}, line, 1});
}

constexpr std::size_t most_past = 5;  // blocks

struct Sink : Backplane::Sink {
  void deliver(std::string_view room, Backplane::Said const& said) noexcept override {
    assert(!said.lines.empty() && said.lines.back() == '\n');
    if (said.from != our_sender) return;
    LogPosition const at = {number_of(said.lines), number_of(said.lines.substr(said.lines.find(' ') + 1))};
    auto const [last, is_first] = delivered.try_emplace(std::string(room), at);
    assert(is_first || at.number == (at.incarnation == last->second.incarnation ? last->second.number + 1 : 1));
    last->second = at;
  }
  void lost(std::string_view room) noexcept override { forget(room); }
  chatproto::HistoryLimits wanted_past() const noexcept override { return {.lines = most_past}; }
  void past(std::string_view room, Backplane::Said const& said) noexcept override { deliver(room, said); }
  void left(std::string_view room) noexcept override { forget(room); }
  /// The next text need not follow the last one.
  void forget(std::string_view room) { delivered.erase(std::string(room)); }

  std::map<std::string, LogPosition> delivered;  // last, by room
};

struct Waiter : Backplane::Waiter {
  int told = 0;
  void tell(Backplane::Outcome) noexcept override { ++told; }
};

/// A connection, as Redis sees it.
struct Link {
  using Words = std::vector<std::string>;

  explicit Link(tcp::socket its_socket) : socket(std::move(its_socket)) {
    socket.non_blocking(true);
    socket.set_option(asio::socket_base::linger(true, 0));  // otherwise the ports run out
    socket.set_option(tcp::no_delay(true));
  }

  /// Returns whether anything has come.
  bool read() {
    std::array<char, 16 * 1024> buffer;
    std::error_code ec;
    auto const size = is_closed ? 0 : socket.read_some(asio::buffer(buffer), ec);
    is_closed = is_closed || (ec && ec != asio::error::would_block);
    input.append(buffer.data(), size);
    while (auto command = take()) commands.push_back(*std::move(command));
    return size > 0;
  }
  std::optional<Words> take() {
    std::string_view rest = input;
    auto const number = [&rest] {  // in a line, behind a character
      auto const line = rest.substr(0, rest.find("\r\n"));
      rest.remove_prefix(std::min(rest.size(), line.size() + 2));
      return number_of(line.substr(std::min<std::size_t>(1, line.size())));
    };
    if (input.empty()) return {};
    Words words(number());
    for (auto& word : words) {
      auto const size = rest.empty() ? 0 : number();
      if (rest.size() < size + 2) return {};
      word = rest.substr(0, size);
      rest.remove_prefix(size + 2);
    }
    input.erase(0, input.size() - rest.size());
    if (words[0] == "SUBSCRIBE") subscribes = true;
    return words;
  }
  void write(std::string_view bytes) {
    std::error_code ec;  // what does not fit is lost, so there must not be much
    asio::write(socket, asio::buffer(bytes), ec);
    if (ec) is_closed = true;
  }

  tcp::socket socket;
  std::string input;
  std::deque<Words> commands;  // without a reply
  bool subscribes = false;
  bool is_whole = true;    // no reply is begun only
  bool is_closed = false;  // by the other end
};

/// Where the shard connects to; once, because it has a thread for looking up names.
struct Net {
  asio::io_context context{1};
  tcp::acceptor acceptor{context, {asio::ip::address_v4::loopback(), 0}};
  Net() { acceptor.non_blocking(true); }
};

/// A shard, and its Redis.
class Scene {
 public:
  Scene(Net& net, unsigned choices) : net_(net) {
    options_.servers = {{"127.0.0.1", net.acceptor.local_endpoint().port()}};
    if (choices % 2 != 0) options_.password = "secret";
    options_.replicas = choices / 2 % 2;
    options_.times.refuse = std::chrono::hours(1);  // also for connecting: the clock does not decide
    options_.times.give_up = std::chrono::seconds(5);
    options_.times.reconnect = std::chrono::milliseconds(2500);
    if (choices / 4 % 2 == 0) options_.times.refuse = std::chrono::minutes(1);
    options_.retry = std::chrono::hours(1);
    options_.room_time = std::chrono::seconds(3);
    shard_ = std::make_unique<RedisShard>(net.context, options_.servers[0], options_, "node", sink_);
    connect();
    if (choices / 8 % 2 != 0) return;  // the input decides about the handshake too
    answer_all();
  }
  ~Scene() {
    shard_.reset();
    pump();
    for (auto const& one : waiters_) assert(one->told == 1 && one.use_count() == 1);
  }

  RedisShard::Rules& rules() { return shard_->rules(); }
  Sink& sink() { return sink_; }
  std::shared_ptr<Waiter> waiter() { return waiters_.emplace_back(std::make_shared<Waiter>()); }
  Link& link(unsigned which) { return *links_[which % 2]; }
  Link* subscriber() {
    for (auto const& link : links_)
      if (link->subscribes) return link.get();
    return nullptr;
  }
  bool is_closed() const { return links_[0]->is_closed || links_[1]->is_closed; }
  /// From now on, until the next connection, something else than Redis answers.
  void lie() { is_right_ = false; }

  /// Connects again, without the wait, if the connections are closed. `life`: of Redis' data.
  void reconnect(unsigned life) {
    if (!is_closed()) return;
    life_ = life;
    is_right_ = true;
    connect();
  }
  /// Lets the shard do what it can without new bytes.
  void pump() {
    for (auto goes_on = true; goes_on;) {
      net_.context.restart();
      goes_on = net_.context.poll() > 0;
      if (shard_ && shard_->agreement() == RedisShard::Agreement::same) shard_->enter();
      for (auto const& link : links_)
        if (link && link->read()) goes_on = true;
    }
  }
  /// Answers the first command of a connection as Redis would. `publishes`: what the command publishes comes.
  void answer(Link& link, bool publishes) {
    if (link.commands.empty()) return;
    auto const words = std::move(link.commands.front());
    link.commands.pop_front();
    link.write(reply_to(words, publishes));
  }
  void answer_all() {
    pump();
    auto const must_stay = is_right_ && !is_closed();
    for (int i = 0; i < 100 && !(links_[0]->commands.empty() && links_[1]->commands.empty()); ++i) {
      for (auto const& link : links_) answer(*link, true);
      pump();
    }
    assert(!must_stay || (rules().is_connected() && !is_closed()));
  }
  /// Something comes as if it was published.
  void publish(std::string_view channel, std::string_view payload) {
    if (auto* const link = subscriber()) link->write(array({bulk("message"), bulk(channel), bulk(payload)}));
  }
  void publish(std::string_view room, LogPosition const& at) {
    publish("{chat:" + std::string(room) + '}',
            std::to_string(at.incarnation) + ' ' + std::to_string(at.number) + '\n' + block_of(at));
  }
  std::string look_reply(Link::Words const& words, LogPosition const& end, std::size_t blocks) const {
    auto const known = LogPosition{number_of(words[5]), number_of(words[6])};
    std::vector<std::string> items = {bulk(std::to_string(end.incarnation)), bulk(std::to_string(end.number)),
                                      bulk(end.number == 0 ? "1" : "0")};
    if (words[10] != "0") {
      blocks = std::min({blocks, most_past, static_cast<std::size_t>(end.number)});
      for (auto number = end.number - blocks; number < end.number;)
        items.push_back(bulk(block_of({end.incarnation, ++number})));
    } else if (known.incarnation == end.incarnation) {
      for (auto at = known; blocks > 0; --blocks) {
        ++at.number;
        items.push_back(bulk(block_of(at)));
      }
    }
    return array(items);
  }

 private:
  void connect() {
    shard_->act(RedisShard::Clock::now() + std::chrono::hours(2));
    for (auto& link : links_) {
      tcp::socket socket(net_.context);
      for (std::error_code ec = asio::error::would_block; ec; net_.acceptor.accept(socket, ec))
        if (net_.context.run_one() == 0) net_.context.restart();
      link = std::make_unique<Link>(std::move(socket));
    }
    pump();
  }
  std::string reply_to(Link::Words const& words, bool publishes) {
    auto const& command = words[0];
    if (command == "AUTH") return "+OK\r\n";
    if (command == "INFO")
      return bulk("redis_version:7.0.15\r\nrun_id:" + std::to_string(life_) +
                  "\r\nrole:master\r\nslave0:ip=127.0.0.1,port=1,state=online,offset=0,lag=0\r\nmaster_replid:1\r\n");
    if (command == "SUBSCRIBE") return array({bulk("subscribe"), bulk(words[1]), ":1\r\n"});
    if (command == "UNSUBSCRIBE") return array({bulk("unsubscribe"), bulk(words[1]), ":1\r\n"});
    if (command == "SCRIPT")
      return bulk(std::string(40, words[2] == append_script ? 'a' : words[2] == look_script ? 'c' : 'b'));
    if (command == "EVALSHA" && !words[1].empty()) {
      auto const room = words[3].substr(6, words[3].find('}') - 6);
      auto& log = logs_[room];
      switch (words[1][0]) {
        case 'a':
          ++log.number;
          if (publishes) publish(room, log);
          return array({bulk("stored"), bulk(std::to_string(log.incarnation))});
        case 'b':
          if (publishes) publish(words[5], words[6]);
          return ":1\r\n";
        case 'c': return look_reply(words, log, log.number - std::min(log.number, number_of(words[6])));
      }
    }
    return ":1\r\n";
  }

  Net& net_;
  chatproto::RedisOptions options_;
  Sink sink_;
  std::vector<std::shared_ptr<Waiter>> waiters_;
  std::array<std::unique_ptr<Link>, 2> links_;
  struct Log : LogPosition {
    Log() : LogPosition{1, 0} {}
  };
  std::map<std::string, Log> logs_;
  unsigned life_ = 0;
  bool is_right_ = true;
  std::unique_ptr<RedisShard> shard_;
};

}  // namespace

int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  static Net net;
  auto rest = as_text(data, size);
  auto const byte = [&rest] { return take_byte(rest); };
  auto const text = [&rest] {
    auto const part = take_text(rest);
    // Only the target knows the numbers of what it says.
    return part.find(our_sender) == std::string_view::npos ? part : std::string_view();
  };
  auto const position = [&byte] {
    auto const at = byte();
    return LogPosition{at % 4, at / 4};
  };
  {
    Scene scene(net, byte());
    auto& rules = scene.rules();
    while (!rest.empty()) {
      auto const event = byte();
      std::string_view const room = event % 2 == 0 ? "a" : "b";
      auto& link = scene.link(event);
      auto const kind = event / 2 % 17;
      if (kind >= 7 && kind <= 15) scene.lie();
      switch (kind) {
        case 0: rules.append(room, encode_said({"ann", {}, "x\n", 1}), scene.waiter()); break;
        case 1:
          scene.sink().forget(room);
          rules.follow(room, scene.waiter());
          break;
        case 2: rules.unfollow(room); break;
        case 3: rules.at_end(room, scene.waiter()); break;
        case 4:
          for (auto ticks = byte() % 64; ticks > 0; --ticks) rules.tick(RedisShard::Rules::tick_period);
          break;
        case 5: scene.answer(link, byte() % 4 != 0); break;
        case 6: scene.answer_all(); break;
        case 7: {                                                                 // a look finds something else
          if (link.commands.empty() || link.commands.front().size() < 12) break;  // it is no look
          auto const end = position();
          link.write(scene.look_reply(link.commands.front(), end, byte() % 8));
          link.commands.pop_front();
          break;
        }
        case 8:
        case 9:
          if (!link.commands.empty()) link.commands.pop_front();
          link.write(replies[byte() % std::size(replies)]);
          break;
        case 10:
          link.write(text());
          link.is_whole = false;
          break;
        case 11:
          link.write(ends[byte() % std::size(ends)]);
          scene.pump();
          assert(link.is_closed || !link.is_whole);
          break;
        case 12: scene.publish(room, position()); break;
        case 13:
          scene.publish(byte() % 4 == 0 ? "chat:node:node" : event % 2 == 0 ? "{chat:a}" : "{chat:}", text());
          break;
        case 14: {
          std::error_code ignored;
          link.socket.shutdown(tcp::socket::shutdown_send, ignored);
          break;
        }
        case 15:
          link.write(beginnings[byte() % std::size(beginnings)]);
          link.is_whole = false;
          break;
        default: scene.reconnect(byte() % 2);
      }
      scene.pump();
    }
  }
  assert(HeldMemory::total() == 0);
  return 0;
}
