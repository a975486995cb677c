// SPDX-License-Identifier: BSL-1.0
#include <chatproto/chat_service.hpp>

#include <atomic>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <type_traits>
#include <vector>

#include "catch.hpp"
#include "support.hpp"

using namespace std::string_literals;
using chatproto::ChatService;
using chatproto::Peer;
using test::Lines;
using Session = ChatService::Session;

static_assert(chatproto::Service<ChatService>);
static_assert(!std::is_copy_constructible_v<Session> && !std::is_move_constructible_v<Session>);

namespace {

/// A client without a socket between it and its session.
class Client {
 public:
  explicit Client(
      ChatService& service, std::string_view first_lines = {},
      std::shared_ptr<test::RecordingQueue> own_queue = std::make_shared<test::RecordingQueue>(std::size_t(1) << 30))
      : queue(std::move(own_queue)), session(service.open(Peer(queue))) {
    if (!first_lines.empty()) sends(first_lines);
  }

  /// Delivers all these lines in one read. Returns what the client has got since the last call.
  Lines sends(std::string_view lines) {
    feed(lines);
    session.flush();
    return gets();
  }

  /// The part of a read before the flush.
  void feed(std::string_view lines) {
    for (std::size_t end; (end = lines.find('\n')) != std::string_view::npos; lines.remove_prefix(end + 1))
      session.on_line(lines.substr(0, end));
  }

  Lines gets() { return test::gists(queue->take()); }
  bool closed() const { return !queue->is_open(); }

  std::shared_ptr<test::RecordingQueue> queue;
  Session session;
};

std::string name_of(std::size_t size) { return std::string(size, 'n'); }

/// The logs of rooms that several services share. It answers at once.
class SharedLog {
 public:
  /// A service's end.
  class End final : public chatproto::Backplane {
   public:
    explicit End(SharedLog& log) : log_(log) { log.ends_.push_back(this); }
    void start(Sink& sink) override { sink_ = &sink; }
    void stop() noexcept override { sink_ = nullptr; }
    void append(std::string_view room, Said const& said, std::shared_ptr<Waiter> waiter) override {
      log_.texts_.push_back({std::string(room), std::string(said.from), std::string(said.to), std::string(said.lines)});
      for (auto* const end : log_.ends_)
        if (end->sink_ != nullptr && end->followed_.count(std::string(room)) > 0) end->sink_->deliver(room, said);
      if (waiter) waiter->tell(Outcome::done);
    }
    void follow(std::string_view room, std::shared_ptr<Waiter> waiter) override {
      auto const [at, is_first] = followed_.try_emplace(std::string(room));
      if (is_first) look_back(room);
      ++at->second;
      waiter->tell(Outcome::done);
    }
    void unfollow(std::string_view room) noexcept override { --followed_.find(std::string(room))->second; }
    void at_end(std::string_view, std::shared_ptr<Waiter> waiter) override { waiter->tell(Outcome::done); }

   private:
    friend class SharedLog;
    void look_back(std::string_view room) {
      for (auto const& text : log_.texts_)
        if (text.room == room) sink_->past(room, {text.from, text.to, text.line, 1});
    }

    SharedLog& log_;
    Sink* sink_ = nullptr;
    std::map<std::string, int> followed_;  // how often
  };

  /// Delivers these lines to a client, and lets it wait for the log as often as it wants. Returns what it gets.
  static Lines answers(Client& client, std::string_view lines) {
    for (std::size_t end; (end = lines.find('\n')) != std::string_view::npos; lines.remove_prefix(end + 1)) {
      client.feed(lines.substr(0, end + 1));
      for (auto i = 0; i < 3; ++i) {
        client.session.flush();
        client.session.on_resume();
      }
    }
    return client.gets();
  }
  /// The ends learn what nobody follows any more.
  void sweep() {
    for (auto* const end : ends_)
      for (auto at = end->followed_.begin(); at != end->followed_.end();) {
        if (at->second > 0) {
          ++at;
          continue;
        }
        end->sink_->left(at->first);
        at = end->followed_.erase(at);
      }
  }
  /// All that the log had of the room but its last text is gone, and the ends have missed something.
  void lose(std::string const& room) {
    auto const last = texts_.back();
    texts_.assign(1, last);
    for (auto* const end : ends_) {
      if (end->followed_.count(room) == 0) continue;
      end->sink_->lost(room);
      end->look_back(room);
    }
  }

 private:
  struct Text {
    std::string room, from, to, line;
  };
  std::vector<Text> texts_;
  std::vector<End*> ends_;
};

/// A client in each role that a session can have.
struct Somebody {
  char const* what;
  char const* first_lines;
  Session::Role role;
};
Somebody const guest{"guest", "", Session::guest};
Somebody const sender_outside{"sender in no room", "slogin:eve\n", Session::sender};
Somebody const sender_inside{"sender in a room", "slogin:eve\njoin:cafe\n", Session::sender};
Somebody const newcomer{"newcomer", "rlogin:eve\n", Session::newcomer};
Somebody const receiver{"receiver", "rlogin:eve\njoin:cafe\n", Session::receiver};
Somebody const gone{"gone", "slogin:eve\nquit:\n", Session::gone};
Somebody const everybody[] = {guest, sender_outside, sender_inside, newcomer, receiver, gone};

}  // namespace

// Must match the documented table in docs/protocol.md.
TEST_CASE("the command table is the protocol", "[chat_service]") {
  std::map<std::string_view, unsigned> const documented = {
      {"pass", Session::guest},      {"history", Session::receiver},
      {"who", Session::sender},      {"slogin", Session::guest},
      {"rlogin", Session::guest},    {"join", Session::sender | Session::newcomer | Session::receiver},
      {"leave", Session::sender},    {"sendall", Session::sender},
      {"senduser", Session::sender}, {"quit", Session::sender | Session::receiver},
  };
  std::map<std::string_view, unsigned> implemented;
  for (auto const& command : Session::commands()) {
    CHECK(command.run != nullptr);
    CHECK(implemented.emplace(command.tag, command.roles).second);
  }
  CHECK(implemented == documented);
}

TEST_CASE("any message in any role gets the documented reply", "[chat_service]") {
  // o: ok; e: err; O, E: the same, and then the connection is closed; -: nothing
  struct {
    std::string line, by_role;  // in the order of everybody[]
  } const rows[] = {
      {"slogin:bob", "oeeEe-"},
      {"slogin:", "EeeEe-"},
      {"slogin:b b", "EeeEe-"},
      {"rlogin:bob", "oeeEe-"},
      {"rlogin:b-b", "EeeEe-"},
      {"join:bar", "Eoooo-"},
      {"join:cafe", "Eoooo-"},
      {"join:", "EeeEe-"},
      {"join:caf\xc3\xa9", "EeeEe-"},
      {"join:cafe:", "EeeEe-"},
      {"leave:", "EeoEe-"},
      {"leave:the rest is ignored", "EeoEe-"},
      {"sendall:hi", "EeoEe-"},
      {"sendall:", "EeoEe-"},
      {"senduser:bob:hi", "EeoEe-"},
      {"senduser:bob:", "EeoEe-"},
      {"senduser:bob", "EeeEe-"},
      {"senduser::hi", "EeeEe-"},
      {"senduser:b b:hi", "EeeEe-"},
      {"quit:", "EOOEO-"},
      {"quit:the rest is ignored", "EOOEO-"},
      {"ok:", "EeeEe-"},
      {"err:", "EeeEe-"},
      {"delivery:cafe:bob:hi", "EeeEe-"},
      {"empty:", "EeeEe-"},
      {"pass:secret", "EeeEe-"},  // a service that does not ask for it
      {"history:1", "EeeEe-"},    // one that keeps no history
      {"who:", "EeeEe-"},         // one that does not tell
      {"unknown:", "EeeEe-"},
      {"sendal:hi", "EeeEe-"},
      {"sendalll:hi", "EeeEe-"},
      {"", "EeeEe-"},
      {":", "EeeEe-"},
      {"no colon", "EeeEe-"},
      {"Join:bar", "EeeEe-"},
      {" join:bar", "EeeEe-"},
      {"join :bar", "EeeEe-"},
      {"\0\xff\xfe"s, "EeeEe-"},
      {"sendall:" + std::string(246, 'x'), "EeeEe-"},
      {"(too long)", "EeeEe-"},  // dropped by the reader
  };
  for (auto const& row : rows) {
    for (std::size_t i = 0; i < row.by_role.size(); ++i) {
      auto const& [what, first_lines, role] = everybody[i];
      CAPTURE(row.line, what);
      ChatService service;
      Client client(service, first_lines);
      REQUIRE(client.session.role() == role);
      if (row.line == "(too long)")
        client.session.on_bad_line(chatproto::Errc::line_too_long);
      else
        client.session.on_line(row.line);
      client.session.flush();
      auto const expected = row.by_role[i];
      if (expected == '-')
        CHECK(client.gets() == Lines{});
      else
        CHECK(client.gets() == Lines{expected == 'o' || expected == 'O' ? "ok" : "err"});
      auto const ended = expected == 'O' || expected == 'E' || expected == '-';
      CHECK(client.closed() == ended);
      CHECK((client.session.role() == Session::gone) == ended);
      if (expected == 'e') CHECK(client.session.role() == role);
    }
  }
}

TEST_CASE("a session knows whether its client has logged in", "[chat_service]") {
  ChatService service;
  for (auto const& each : everybody) {
    CAPTURE(each.what);
    CHECK(Client(service, each.first_lines).session.logged_in() ==
          (each.role != Session::guest && each.role != Session::newcomer));
  }
  CHECK_FALSE(Client(service, "slogin:no name\n").session.logged_in());  // refused and closed
}

TEST_CASE("a banned name cannot log in", "[chat_service]") {
  ChatService service;
  service.ban({"mallory", "eve"});
  for (auto const* login : {"slogin:mallory\n", "rlogin:eve\n"}) {
    Client client(service);
    CHECK(client.sends(login) == Lines{"err"});
    CHECK(client.closed());
  }
  Client bob(service, "slogin:bob\n");
  service.ban({"bob"});
  CHECK(bob.sends("join:cafe\n") == Lines{"ok"});  // only the server can disconnect it
  CHECK(Client(service).sends("slogin:eve\n") == Lines{"ok"});
  service.ban({});
  CHECK(Client(service).sends("slogin:bob\n") == Lines{"ok"});
}

TEST_CASE("a full room is entered by nobody, and a full chat gets no more rooms", "[chat_service]") {
  ChatService service({.max_rooms = 2, .max_members = 2});
  Client alice(service, "rlogin:alice\njoin:a\n"), bob(service, "slogin:bob\njoin:a\n");
  Client carol(service, "slogin:carol\n"), dave(service, "rlogin:dave\n");
  alice.gets();
  bob.gets();
  CHECK(carol.sends("join:a\njoin:b\njoin:a\njoin:c\nsendall:here\n") == Lines{"err", "ok", "err", "err", "ok"});
  CHECK(dave.sends("join:a\n") == Lines{"err"});
  CHECK(dave.closed());
  CHECK(bob.sends("join:a\nleave:\n") == Lines{"ok", "ok"});
  CHECK(carol.sends("join:a\n") == Lines{"ok"});
}

TEST_CASE("an err leaves everybody where they were", "[chat_service]") {
  ChatService service;
  Client alice(service, "rlogin:alice\njoin:cafe\n"), bob(service, "slogin:bob\njoin:cafe\n");
  auto const refused = "join:b r\nslogin:x\nrlogin:x\nsenduser:alice\nnonsense\nok:\nunknown:x\n"s;
  CHECK(bob.sends(refused) == Lines(7, "err"));
  CHECK(alice.sends(refused + "leave:\nsendall:x\nsenduser:bob:x\n") == Lines(10, "err"));
  CHECK(bob.sends("sendall:hi\n") == Lines{"ok"});
  CHECK(alice.gets() == Lines{"delivery:cafe:bob:hi"});
}

TEST_CASE("names are letters and digits, of any length that fits in a line", "[chat_service]") {
  ChatService service;
  for (auto const* name : {"a", "Z", "0", "aA0", "007"}) {
    Client client(service);
    CHECK(client.sends("slogin:"s + name + "\njoin:" + name + "\n") == Lines{"ok", "ok"});
  }
  Client longest(service);
  CHECK(longest.sends("rlogin:" + name_of(247) + "\njoin:" + name_of(249) + "\n") == Lines{"ok", "ok"});
}

TEST_CASE("sendall goes to the receivers in the room that have other names", "[chat_service]") {
  ChatService service;
  Client alice(service, "rlogin:alice\njoin:cafe\n"), bob(service, "rlogin:bob\njoin:cafe\n");
  Client bob_too(service, "rlogin:bob\njoin:cafe\n"), capital(service, "rlogin:Bob\njoin:cafe\n");
  Client away(service, "rlogin:away\njoin:Cafe\n"), newcomer_there(service, "rlogin:new\n");
  Client listening_sender(service, "slogin:carol\njoin:cafe\n"), sender(service, "slogin:bob\njoin:cafe\n");

  CHECK(sender.sends("sendall:hi\n") == Lines{"ok"});
  CHECK(alice.gets() == Lines{"delivery:cafe:bob:hi"});
  CHECK(capital.gets() == Lines{"delivery:cafe:bob:hi"});
  for (auto* nobody : {&bob, &bob_too, &away, &newcomer_there, &listening_sender}) CHECK(nobody->gets() == Lines{});
}

TEST_CASE("senduser goes to the receivers of that name in the room, also if it is the sender's own", "[chat_service]") {
  ChatService service;
  Client alice(service, "rlogin:alice\njoin:cafe\n"), bob(service, "rlogin:bob\njoin:cafe\n");
  Client bob_too(service, "rlogin:bob\njoin:cafe\n"), bob_away(service, "rlogin:bob\njoin:bar\n");
  Client sender(service, "slogin:bob\njoin:cafe\n");

  CHECK(sender.sends("senduser:bob::a:b\nsenduser:nobody:x\nsenduser:Bob:x\n") == Lines(3, "ok"));
  CHECK(bob.gets() == Lines{"delivery:cafe:bob::a:b"});
  CHECK(bob_too.gets() == Lines{"delivery:cafe:bob::a:b"});
  CHECK(alice.gets() == Lines{});
  CHECK(bob_away.gets() == Lines{});
}

TEST_CASE("a text is delivered byte for byte", "[chat_service]") {
  ChatService service;
  Client alice(service, "rlogin:alice\njoin:cafe\n"), bob(service, "slogin:bob\njoin:cafe\n");
  std::string every_byte;
  for (auto byte = 0; byte < 256; ++byte)
    if (byte != '\n') every_byte += static_cast<char>(byte);
  for (auto const& text :
       {""s, ":"s, " both ends \t "s, "\ra\rb"s, "ends in CR\r"s, every_byte.substr(0, 128), every_byte.substr(128)}) {
    CAPTURE(text);
    bob.session.on_line("sendall:" + text);
    bob.session.on_line("senduser:alice:" + text);
    bob.session.flush();
    CHECK(bob.gets() == Lines{"ok", "ok"});
    CHECK(alice.gets() == Lines(2, "delivery:cafe:bob:" + text));
  }
}

TEST_CASE("a text is refused when its delivery would be longer than a line", "[chat_service]") {
  // delivery:ROOM:USER:TEXT LF, with names that make the sender's own line the shorter one.
  ChatService service;
  auto const room = name_of(50), user = name_of(60);
  Client alice(service, "rlogin:alice\njoin:" + room + "\n");
  Client sender(service, "slogin:" + user + "\njoin:" + room + "\n");
  auto const head = "delivery:" + room + ":" + user + ":";
  for (auto const size : {254u, 255u, 256u}) {
    CAPTURE(size);
    auto const text = std::string(size - head.size() - 1, 'x');
    auto const fits = size <= chatproto::max_line;
    CHECK(sender.sends("sendall:" + text + "\nsenduser:alice:" + text + "\n") == Lines(2, fits ? "ok" : "err"));
    CHECK(alice.gets() == (fits ? Lines(2, head + text) : Lines{}));
  }
}

TEST_CASE("with long names there is no room for any text", "[chat_service]") {
  ChatService service;
  Client sender(service, "slogin:" + name_of(247) + "\njoin:" + name_of(249) + "\n");
  CHECK(sender.sends("sendall:\nsenduser:a:\n") == Lines{"err", "err"});
}

TEST_CASE("a sender moves from room to room", "[chat_service]") {
  ChatService service;
  Client cafe(service, "rlogin:alice\njoin:cafe\n"), bar(service, "rlogin:alice\njoin:bar\n");
  Client bob(service, "slogin:bob\n");
  CHECK(bob.sends("sendall:0\njoin:cafe\nsendall:1\njoin:bar\nsendall:2\njoin:bar\nsendall:3\nleave:\nsendall:4\n") ==
        Lines{"err", "ok", "ok", "ok", "ok", "ok", "ok", "ok", "err"});
  CHECK(bob.sends("leave:\njoin:cafe\nsendall:5\njoin:b r\nsendall:6\n") == Lines{"err", "ok", "ok", "err", "ok"});
  CHECK(cafe.gets() == Lines{"delivery:cafe:bob:1", "delivery:cafe:bob:5", "delivery:cafe:bob:6"});
  CHECK(bar.gets() == Lines{"delivery:bar:bob:2", "delivery:bar:bob:3"});
}

TEST_CASE("a receiver moves from room to room", "[chat_service]") {
  ChatService service;
  Client alice(service, "rlogin:alice\njoin:cafe\n");
  Client in_cafe(service, "slogin:bob\njoin:cafe\n"), in_bar(service, "slogin:bob\njoin:bar\n");
  auto const everywhere = [&](std::string const& text) {
    in_cafe.sends("sendall:" + text + "\n");
    in_bar.sends("sendall:" + text + "\n");
  };
  everywhere("1");
  alice.feed("join:bar\n");
  everywhere("2");
  alice.feed("join:bar\n");
  everywhere("3");
  alice.feed("join:b r\n");
  everywhere("4");
  alice.feed("join:cafe\n");
  everywhere("5");
  alice.session.flush();
  auto const got = alice.gets();
  // The replies to a refusal and to a second join of the same room are held back until the flush; a change of room is
  // not.
  CHECK(got == Lines{"delivery:cafe:bob:1", "ok", "delivery:bar:bob:2", "delivery:bar:bob:3", "delivery:bar:bob:4",
                     "ok", "err", "ok", "delivery:cafe:bob:5"});
}

TEST_CASE("after quit, lines are ignored", "[chat_service]") {
  ChatService service;
  Client alice(service, "rlogin:alice\njoin:cafe\n"), bob(service, "slogin:bob\njoin:cafe\n");
  CHECK(bob.sends("sendall:1\nquit:\nsendall:2\nnonsense\nquit:\n") == Lines{"ok", "ok"});
  CHECK(bob.closed());
  CHECK(alice.sends("quit:\njoin:bar\n") == Lines{"delivery:cafe:bob:1", "ok"});
  CHECK(alice.closed());
  CHECK(service.room_count() == 0);
}

TEST_CASE("a client that has quit gets nothing more", "[chat_service]") {
  ChatService service;
  Client alice(service, "rlogin:alice\njoin:cafe\n"), bob(service, "slogin:bob\njoin:cafe\n");
  alice.sends("quit:\n");
  CHECK(bob.sends("sendall:1\n") == Lines{"ok"});
  CHECK(alice.gets() == Lines{});
}

TEST_CASE("a session closes a client whose first message it refuses", "[chat_service]") {
  ChatService service;
  Client no_login(service), no_join(service, "rlogin:alice\n");
  CHECK(no_login.sends("join:cafe\nslogin:bob\njoin:cafe\n") == Lines{"err"});
  CHECK(no_login.closed());
  CHECK(no_join.sends("join:b r\njoin:cafe\n") == Lines{"err"});
  CHECK(no_join.closed());
  CHECK(service.room_count() == 0);
}

TEST_CASE("the deliveries of one read are sent together, and so are its replies", "[chat_service]") {
  ChatService service;
  Client alice(service, "rlogin:alice\njoin:cafe\n"), carol(service, "rlogin:carol\njoin:cafe\n");
  Client bob(service, "slogin:bob\njoin:cafe\n");
  bob.feed("sendall:1\nnonsense\nsendall:2\n");
  CHECK(alice.gets() == Lines{});
  CHECK(bob.gets() == Lines{});

  bob.session.flush();
  CHECK(alice.queue->take_blocks() == Lines{"delivery:cafe:bob:1\ndelivery:cafe:bob:2\n"});
  CHECK(carol.queue->take_blocks() == Lines{"delivery:cafe:bob:1\ndelivery:cafe:bob:2\n"});
  auto const replies = bob.queue->take_blocks();
  REQUIRE(replies.size() == 1);
  CHECK(test::gists(replies[0]) == Lines{"ok", "err", "ok"});

  bob.session.flush();  // nothing more to write
  CHECK(bob.queue->take_blocks().empty());
  CHECK(alice.queue->take_blocks().empty());
}

TEST_CASE("a receiver's reply comes after the texts that were sent to it before", "[chat_service]") {
  ChatService service;
  Client alice(service, "rlogin:alice\njoin:cafe\n"), bob(service, "slogin:bob\njoin:cafe\nsendall:1\n");
  CHECK(alice.sends("join:cafe\n") == Lines{"delivery:cafe:bob:1", "ok"});
  bob.sends("sendall:2\n");
  CHECK(alice.sends("nonsense\n") == Lines{"delivery:cafe:bob:2", "err"});
  bob.sends("sendall:3\n");
  CHECK(alice.sends("join:bar\nnonsense\n") == Lines{"delivery:cafe:bob:3", "ok", "err"});
}

TEST_CASE("a receiver far behind reads on before it gets a reply, and nothing is copied for it", "[chat_service]") {
  ChatService service({.history = {.lines = 10}});
  Client bob(service, "slogin:bob\njoin:cafe\n");
  Client alice(service, "rlogin:alice\njoin:cafe\n", std::make_shared<test::RecordingQueue>(1600));
  Client carol(service, "slogin:carol\njoin:bar\n");
  alice.gets();
  std::string const much(150, 'x');
  bob.sends("sendall:" + much + "\n");

  struct Case {
    std::string lines;
    Lines replies;
    bool leaves = false;
  };
  auto const [lines, replies, leaves] = GENERATE(values<Case>({{"history:5\n", {"ok"}},
                                                               {"nonsense\njoin:cafe\n", {"err", "ok"}},
                                                               {"nonsense\njoin:bar\n", {"err", "ok"}, true},
                                                               {"nonsense\nquit:\n", {"err", "ok"}, true},
                                                               {"join:bar\n", {"ok"}, true},
                                                               {"quit:\n", {"ok"}, true}}));
  CAPTURE(lines);
  alice.feed(lines);
  alice.session.flush();
  REQUIRE(alice.queue->paused);
  CHECK(alice.queue->queued_bytes() == 0);
  auto const ends = GENERATE(false, true);  // no more lines will come, and it is closed after this
  if (ends) alice.session.on_input_end();
  bob.sends("sendall:later\n");
  carol.sends("sendall:elsewhere\n");
  alice.session.on_resume();  // too early
  alice.session.flush();
  REQUIRE(alice.queue->paused);
  CHECK(alice.queue->queued_bytes() == 0);

  CHECK(alice.gets() == Lines{"delivery:cafe:bob:" + much});
  REQUIRE_FALSE(alice.queue->paused);
  auto const by_task = GENERATE(false, true);  // a task may come before the resume
  if (!by_task) alice.session.on_resume();
  alice.session.flush();
  if (by_task) alice.session.on_resume();
  CHECK_FALSE(alice.queue->paused);
  auto expected = replies;
  if (!leaves) expected.push_back("delivery:cafe:bob:later");
  CHECK(alice.gets() == expected);
  CHECK(alice.closed() == (lines.find("quit") != lines.npos));

  bob.sends("sendall:last\n");
  carol.sends("sendall:last\n");
  auto const room = lines.find("bar") != lines.npos ? "bar:carol" : "cafe:bob";
  CHECK(alice.gets() == (alice.closed() ? Lines() : Lines{"delivery:"s + room + ":last"}));
}

TEST_CASE("an ok says that the text stands in the log", "[chat_service]") {
  ChatService service;
  Client alice(service, "rlogin:alice\njoin:cafe\n"), bob(service, "slogin:bob\njoin:cafe\n");
  Lines woken;
  alice.gets();
  bob.gets();
  alice.queue->on_wake = [&] { woken.push_back("delivery"); };
  bob.queue->on_wake = [&] { woken.push_back("reply"); };
  auto const* const lines = GENERATE("sendall:1\n", "senduser:alice:1\n", "sendall:1\nleave:\n",
                                     "sendall:1\njoin:bar\n", "sendall:1\nquit:\n", "sendall:1\nsenduser:alice:2\n");
  CAPTURE(lines);
  bob.sends(lines);
  CHECK(woken == Lines{"delivery", "reply"});
}

TEST_CASE("sendall and senduser keep their order", "[chat_service]") {
  ChatService service;
  Client alice(service, "rlogin:alice\njoin:cafe\n"), bob(service, "slogin:bob\njoin:cafe\n");
  bob.sends("sendall:1\nsenduser:alice:2\nsendall:3\nsenduser:alice:4\nsenduser:carol:5\n");
  CHECK(alice.gets() ==
        Lines{"delivery:cafe:bob:1", "delivery:cafe:bob:2", "delivery:cafe:bob:3", "delivery:cafe:bob:4"});
}

TEST_CASE("very many texts of one read are sent in parts", "[chat_service]") {
  constexpr std::size_t texts = 2000, block_size = 32 * 1024;
  ChatService service;
  Client alice(service, "rlogin:alice\njoin:cafe\n"), bob(service, "slogin:bob\njoin:cafe\n");
  std::string lines, deliveries;
  for (std::size_t i = 0; i < texts; ++i) {
    auto const text = std::to_string(i) + ' ' + std::string(i % 50, 'x');
    lines += "sendall:" + text + "\n";
    deliveries += "delivery:cafe:bob:" + text + "\n";
  }
  bob.feed(lines);
  auto heard = alice.queue->take();
  CHECK(heard.size() > deliveries.size() - block_size);
  CHECK(heard.size() < deliveries.size());
  bob.session.flush();
  CHECK(bob.gets() == Lines(texts, "ok"));
  heard += alice.queue->take();
  CHECK((heard == deliveries));
}

TEST_CASE("a session that is destroyed leaves its room", "[chat_service]") {
  ChatService service;
  auto const* const first_lines =
      GENERATE("slogin:eve\njoin:cafe\n", "rlogin:eve\njoin:cafe\n", "rlogin:eve\njoin:bar\njoin:cafe\n");
  CAPTURE(first_lines);
  Client bob(service, "slogin:bob\njoin:other\n");
  auto eve = std::make_unique<Client>(service, first_lines);
  CHECK(service.room_count() == 2);
  auto const queue = eve->queue;
  queue->take();
  eve.reset();
  CHECK(service.room_count() == 1);
  CHECK(bob.sends("join:cafe\nsendall:hi\n") == Lines{"ok", "ok"});
  CHECK(queue->take().empty());
}

TEST_CASE("a room is removed when its last member leaves it, in whatever way", "[chat_service]") {
  ChatService service;
  CHECK(service.room_count() == 0);
  Client alice(service, "rlogin:alice\n"), bob(service, "slogin:bob\n");
  CHECK(service.room_count() == 0);
  alice.sends("join:cafe\n");
  bob.sends("join:cafe\n");
  CHECK(service.room_count() == 1);
  bob.sends("join:bar\n");
  CHECK(service.room_count() == 2);
  bob.sends("leave:\n");
  alice.sends("join:caf\njoin:b r\n");
  CHECK(service.room_count() == 1);
  alice.sends("quit:\n");
  CHECK(service.room_count() == 0);
}

TEST_CASE("a service with its own commands keeps its replies and texts in the chat's order", "[chat_service]") {
  ChatService service;
  Client alice(service, "rlogin:alice\njoin:cafe\n"), bob(service, "slogin:bob\n");
  CHECK_FALSE(bob.session.say("in no room"));
  bob.feed("join:cafe\nsendall:a\n");
  CHECK(bob.session.say("b"));
  bob.session.ok("7");
  CHECK_FALSE(bob.session.say(std::string(chatproto::max_line, 'x')));
  bob.session.refuse("no");
  bob.feed("sendall:c\n");
  CHECK(bob.queue->take().empty());
  CHECK(alice.gets().empty());
  bob.session.flush();
  CHECK(alice.queue->take() == "delivery:cafe:bob:a\ndelivery:cafe:bob:b\ndelivery:cafe:bob:c\n");
  CHECK(bob.queue->take() == "ok:joined\nok:sent\nok:7\nerr:no\nok:sent\n");
  CHECK_FALSE(bob.closed());
  Client stranger(service);
  stranger.session.refuse("not you");
  stranger.session.flush();
  CHECK(stranger.queue->take() == "err:not you\n");
  CHECK(stranger.closed());
}

TEST_CASE("texts and deliveries are counted", "[chat_service]") {
  ChatService service;
  Client alice(service, "rlogin:alice\njoin:cafe\n"), carol(service, "rlogin:carol\njoin:cafe\n");
  Client bob(service, "slogin:bob\njoin:cafe\nsendall:a\nsendall:b\nsenduser:alice:c\nsendall:" +
                          std::string(chatproto::max_line, 'x') + "\nsenduser:nobody:d\n");
  CHECK(service.texts() == 4);
  CHECK(service.deliveries() == 5);
  CHECK(bob.session.name() == "bob");
  CHECK(Client(service).session.name().empty());
}

TEST_CASE("a program sends a text to a room without a connection", "[chat_service]") {
  ChatService service;
  CHECK(service.say("cafe", "clock", "noon") == 0);
  CHECK(service.room_count() == 0);
  Client alice(service, "rlogin:alice\njoin:cafe\n"), clock(service, "rlogin:clock\njoin:cafe\n");
  Client eve(service, "rlogin:eve\njoin:bar\n");
  alice.gets();
  clock.gets();
  eve.gets();
  CHECK(service.say("cafe", "clock", "noon: 12") == 1);
  CHECK(service.say("cafe", "bob", "") == 2);
  CHECK(alice.gets() == Lines{"delivery:cafe:clock:noon: 12", "delivery:cafe:bob:"});
  CHECK(clock.gets() == Lines{"delivery:cafe:bob:"});
  CHECK(eve.gets().empty());
  CHECK(service.texts() == 2);
  CHECK(service.deliveries() == 3);

  std::error_code ec;
  auto const refused = [&](std::string_view room, std::string_view from, std::string_view text) {
    ec.clear();
    CHECK(service.say(room, from, text, ec) == 0);
    CHECK_THROWS_AS(service.say(room, from, text), std::system_error);
    return ec;
  };
  CHECK(refused("no room", "clock", "noon") == chatproto::Errc::invalid_name);
  CHECK(refused("cafe", "", "noon") == chatproto::Errc::invalid_name);
  CHECK(refused("cafe", "clock", "noon\nsendall:x") == chatproto::Errc::invalid_payload);
  CHECK(refused("cafe", "clock", "noon\r") == chatproto::Errc::invalid_payload);
  CHECK(refused("cafe", "clock", std::string(chatproto::max_line, 'x')) == chatproto::Errc::line_too_long);
  auto const longest = std::string(chatproto::max_line - "delivery:cafe:clock:\n"s.size(), 'x');
  CHECK(service.say("cafe", "clock", longest, ec) == 1);
  CHECK(!ec);
  CHECK(alice.gets() == Lines{"delivery:cafe:clock:" + longest});
  CHECK(service.texts() == 3);
}

TEST_CASE("while senders wait for a room, a program cannot send texts to it", "[chat_service]") {
  ChatService service;
  Client alice(service, "rlogin:alice\njoin:cafe\n",
               std::make_shared<test::RecordingQueue>(30u, chatproto::Overflow::block_sender));
  Client carol(service, "rlogin:carol\njoin:cafe\n");
  alice.gets();
  carol.gets();
  CHECK(service.say("cafe", "clock", "one") == 2);
  CHECK(service.say("cafe", "clock", "two") == 2);  // this one makes alice fall behind
  std::error_code ec;
  CHECK(service.say("cafe", "clock", "three", ec) == 0);
  CHECK(ec == std::errc::resource_unavailable_try_again);
  CHECK(alice.gets() == Lines{"delivery:cafe:clock:one", "delivery:cafe:clock:two"});
  CHECK(service.say("cafe", "clock", "three", ec) == 2);
  CHECK(!ec);
  CHECK(carol.gets() == Lines{"delivery:cafe:clock:one", "delivery:cafe:clock:two", "delivery:cafe:clock:three"});
}

TEST_CASE("where queues block senders, a sender gets its ok when the others have read", "[chat_service]") {
  ChatService service;
  auto const narrow = [] { return std::make_shared<test::RecordingQueue>(30u, chatproto::Overflow::block_sender); };
  std::optional<Client> alice(std::in_place, service, "rlogin:alice\njoin:cafe\n", narrow()),
      anna(std::in_place, service, "rlogin:anna\njoin:cafe\n", narrow());
  Client carol(service, "rlogin:carol\njoin:cafe\n");
  Client bob(service, "slogin:bob\njoin:cafe\n", narrow());
  auto resumed = 0;
  bob.queue->on_resume = [&] { ++resumed; };
  CHECK(bob.sends("sendall:a\n") == Lines{"ok"});  // it still fits
  CHECK(bob.sends("sendall:b\nsenduser:alice:c\nnonsense\n").empty());
  CHECK(bob.queue->paused);
  CHECK(carol.gets() == Lines{"delivery:cafe:bob:a", "delivery:cafe:bob:b"});  // carol gets both immediately
  SECTION("all who listen") {
    CHECK(alice->gets() == Lines{"delivery:cafe:bob:a", "delivery:cafe:bob:b", "delivery:cafe:bob:c"});
    CHECK(resumed == 0);
    bob.queue->paused = false;
    CHECK(bob.sends("").empty());  // a resume that comes too early pauses the sender again
    CHECK(bob.queue->paused);
    CHECK(anna->gets() == Lines{"delivery:cafe:bob:a", "delivery:cafe:bob:b"});
    CHECK(resumed == 1);
    CHECK(bob.sends("sendall:d\n") == Lines{"ok", "ok", "err", "ok"});
    CHECK_FALSE(bob.queue->paused);
  }
  SECTION("or are gone") {
    alice.reset();
    anna.reset();
    CHECK(resumed == 1);
    CHECK(bob.sends("") == Lines{"ok", "ok", "err"});
  }
  SECTION("and so does what leaves the room") {
    auto const line = GENERATE("leave:", "join:bar", "quit:");
    bob.feed(line + std::string("\n"));
    bob.session.flush();
    CHECK(bob.gets().empty());
    CHECK_FALSE(bob.closed());
    alice->gets();
    anna->gets();
    CHECK(resumed == 1);
    CHECK(bob.sends("") == Lines{"ok", "ok", "err", "ok"});
    CHECK(bob.closed() == (line == std::string("quit:")));
    CHECK(carol.gets().empty());
  }
}

TEST_CASE("no delivery overtakes the ok of a receiver that has sent a text, waits, and moves", "[chat_service]") {
  ChatService service;
  Client alice(service, "rlogin:alice\njoin:cafe\n",
               std::make_shared<test::RecordingQueue>(10u, chatproto::Overflow::block_sender));
  Client eve(service, "rlogin:eve\njoin:cafe\n"), bob(service, "slogin:bob\njoin:bar\n");
  CHECK(eve.session.say("hi"));
  eve.feed("join:bar\n");
  eve.session.flush();
  CHECK(eve.queue->paused);
  CHECK(bob.sends("sendall:too early\n") == Lines{"ok"});
  CHECK(alice.gets() == Lines{"delivery:cafe:eve:hi"});
  eve.session.flush();
  CHECK(bob.sends("sendall:welcome\n") == Lines{"ok"});
  CHECK(eve.gets() == Lines{"ok", "delivery:bar:bob:welcome"});
}

TEST_CASE("a read with very many texts is interrupted as soon as a queue is full", "[chat_service]") {
  ChatService service;
  Client alice(service, "rlogin:alice\njoin:cafe\n",
               std::make_shared<test::RecordingQueue>(1000u, chatproto::Overflow::block_sender));
  Client bob(service, "slogin:bob\njoin:cafe\n");
  auto lines = 0;
  for (; !bob.queue->paused; ++lines) bob.feed("sendall:" + std::string(200, 'x') + '\n');
  CHECK(lines < 200);  // of 217 bytes, up to about 32 KiB
  CHECK(bob.gets().empty());
}

TEST_CASE("a receiver that is disconnected does not harm the others", "[chat_service]") {
  ChatService service;
  auto const stuck_queue = std::make_shared<test::RecordingQueue>(1000);
  auto stuck = service.open(Peer(stuck_queue));
  stuck.on_line("rlogin:stuck");
  stuck.on_line("join:cafe");
  stuck_queue->take();
  Client alice(service, "rlogin:alice\njoin:cafe\n"), bob(service, "slogin:bob\njoin:cafe\n");
  auto const text = std::string(200, 'x');
  for (auto i = 0; i < 400; ++i) {  // more than the receiver's hard limit
    REQUIRE(bob.sends("sendall:" + text + "\n") == Lines{"ok"});
    REQUIRE(alice.gets() == Lines{"delivery:cafe:bob:" + text});
  }
  CHECK_FALSE(stuck_queue->is_open());
}

TEST_CASE("a receiver is in no room before its ok is queued", "[chat_service]") {
  ChatService service;
  Client alice(service, "rlogin:alice\n"), bob(service, "slogin:bob\njoin:cafe\n");
  std::future<Lines> said;
  auto over = false;
  alice.queue->on_wake = [&] {  // by her ok; her queue is locked, so nothing can be delivered to her now
    if (said.valid()) return;
    said = std::async(std::launch::async, [&] { return bob.sends("sendall:too early\n"); });
    over = said.wait_for(test::patience) == std::future_status::ready;
  };
  alice.feed("join:cafe\n");
  CHECK(over);
  CHECK(said.get() == Lines{"ok"});
  CHECK(alice.gets() == Lines{"ok"});
}

TEST_CASE("a receiver misses nothing after its ok, and nothing overtakes it", "[chat_service]") {
  ChatService service;
  std::atomic<bool> stop = false;
  std::thread talk([&] {
    Client bob(service, "slogin:bob\njoin:cafe\n");
    for (auto i = 0; !stop; ++i) {
      bob.sends("sendall:" + std::to_string(i) + "\n");
      if (i % 64 == 0) std::this_thread::yield();
    }
  });
  auto complete = true, first_is_ok = true, gap_free = true;
  for (auto round = 0; round < 200; ++round) {
    Client alice(service, "rlogin:alice\n");
    alice.feed("join:cafe\n");
    Lines got;
    complete = test::eventually([&] {
      for (auto& line : alice.gets()) got.push_back(std::move(line));
      return got.size() >= 5;
    });
    if (!complete) break;
    first_is_ok = first_is_ok && got[0] == "ok";
    auto const number = [&](std::size_t i) { return std::stol(got[i].substr(got[i].rfind(':') + 1)); };
    for (std::size_t i = 2; i < got.size(); ++i) gap_free = gap_free && number(i) == number(i - 1) + 1;
  }
  stop = true;
  talk.join();
  CHECK(complete);
  CHECK(first_is_ok);
  CHECK(gap_free);
}

TEST_CASE("a receiver asks for what was said before it came", "[chat_service]") {
  ChatService service({.history = {.lines = 4}});
  Client alice(service, "rlogin:alice\njoin:cafe\n"), bob(service, "slogin:bob\njoin:cafe\n");
  alice.gets();
  CHECK(alice.sends("history:10\n") == Lines{"ok"});
  bob.sends("sendall:1\nsenduser:carol:2\nsenduser:dave:3\n");
  Client carol(service, "rlogin:carol\njoin:cafe\n"), bobs_ears(service, "rlogin:bob\njoin:cafe\n");
  bob.sends("sendall:4\n");
  CHECK(carol.gets() == Lines{"delivery:cafe:bob:4"});
  CHECK(carol.sends("history:10\n") == Lines{"ok", "delivery:cafe:bob:1", "delivery:cafe:bob:2"});
  CHECK(carol.sends("history:1\n") == Lines{"ok", "delivery:cafe:bob:2"});
  carol.sends("history:0\nhistory:2\n");
  carol.feed("history:0\nhistory:3\n");
  carol.session.flush();
  CHECK(carol.queue->take() == "ok:0\nok:2\ndelivery:cafe:bob:1\ndelivery:cafe:bob:2\n");
  bobs_ears.gets();
  CHECK(bobs_ears.sends("history:10\n") == Lines{"ok"});  // as if they had been there: nothing was for them
  // The room keeps four texts, whoever they are for.
  bob.sends("sendall:5\n");
  CHECK(carol.sends("history:10\n") == Lines{"delivery:cafe:bob:5", "ok", "delivery:cafe:bob:2"});
  CHECK(carol.sends("join:bar\nhistory:10\njoin:cafe\nhistory:10\n") ==
        Lines{"ok", "ok", "ok", "ok", "delivery:cafe:bob:2", "delivery:cafe:bob:4", "delivery:cafe:bob:5"});
}

TEST_CASE("a room that everybody has left keeps its history", "[chat_service]") {
  ChatService service({.history = {.lines = 10}});
  Client(service, "slogin:bob\njoin:cafe\nsendall:1\n");
  CHECK(service.room_count() == 0);
  CHECK(service.history_bytes() > 0);
  CHECK(service.say("cafe", "clock", "2") == 0);
  CHECK(service.say("bar", "clock", "nobody was ever there") == 0);
  Client alice(service, "rlogin:alice\njoin:cafe\n");
  alice.gets();
  CHECK(alice.sends("history:10\n") == Lines{"ok", "delivery:cafe:bob:1", "delivery:cafe:clock:2"});
  CHECK(service.room_count() == 1);
  Client eve(service, "rlogin:eve\njoin:bar\n");
  eve.gets();
  CHECK(eve.sends("history:10\n") == Lines{"ok"});
}

TEST_CASE("a receiver asks for what was said at another server before it came", "[chat_service]") {
  SharedLog log;
  ChatService one({.history = {.lines = 3}, .backplane = std::make_shared<SharedLog::End>(log)});
  ChatService two({.history = {.lines = 3}, .backplane = std::make_shared<SharedLog::End>(log)});
  Client bob(one), alice(two);
  log.answers(bob, "slogin:bob\njoin:cafe\nsendall:1\nsendall:2\nsenduser:carol:3\nsenduser:alice:4\n");
  CHECK(log.answers(alice, "rlogin:alice\njoin:cafe\n") == Lines{"ok", "ok"});
  CHECK(two.history_bytes() > 0);
  CHECK(one.history_bytes() == 0);  // nobody listens there
  CHECK(log.answers(alice, "history:10\n") == Lines{"ok", "delivery:cafe:bob:2", "delivery:cafe:bob:4"});
  log.answers(bob, "sendall:5\n");
  CHECK(alice.gets() == Lines{"delivery:cafe:bob:5"});
  Client carol(two);
  CHECK(log.answers(carol, "rlogin:carol\njoin:cafe\nhistory:10\nhistory:1\n") ==
        Lines{"ok", "ok", "ok", "delivery:cafe:bob:3", "delivery:cafe:bob:5", "ok", "delivery:cafe:bob:5"});
  SECTION("what is said while nobody listens there is no gap") {
    log.answers(alice, "quit:\n");
    log.answers(carol, "quit:\n");
    log.sweep();
    CHECK(two.history_bytes() == 0);
    log.answers(bob, "sendall:6\n");
    Client dave(two);
    CHECK(log.answers(dave, "rlogin:dave\njoin:cafe\nhistory:10\n") ==
          Lines{"ok", "ok", "ok", "delivery:cafe:bob:5", "delivery:cafe:bob:6"});
  }
  SECTION("what is said between two who listen is no gap") {
    log.answers(alice, "quit:\n");
    log.answers(carol, "quit:\n");
    log.answers(bob, "sendall:6\n");  // the room is still followed
    Client dave(two);
    CHECK(log.answers(dave, "rlogin:dave\njoin:cafe\nhistory:10\n") ==
          Lines{"ok", "ok", "ok", "delivery:cafe:bob:5", "delivery:cafe:bob:6"});
  }
  SECTION("a room that was lost begins anew, and tells nobody what was said before as if it was new") {
    log.lose("cafe");
    CHECK(alice.closed());
    CHECK(carol.closed());
    CHECK(alice.gets().empty());
    Client dave(two);
    CHECK(log.answers(dave, "rlogin:dave\njoin:cafe\nhistory:10\n") == Lines{"ok", "ok", "ok", "delivery:cafe:bob:5"});
  }
}

TEST_CASE("what cannot be used with a backplane is refused", "[chat_service]") {
  struct Store : chatproto::HistoryStore {
    void load(std::function<void(std::string_view, Said const&)> const&) override {}
    void append(std::string_view, Said const&) noexcept override {}
  };
  SharedLog log;
  chatproto::ChatOptions options{.history = {.lines = 3}, .backplane = std::make_shared<SharedLog::End>(log)};
  CHECK_NOTHROW(ChatService(options));
  options.presence = true;
  CHECK_THROWS_AS(ChatService(options), std::invalid_argument);
  options.presence = false;
  options.history_store = std::make_shared<Store>();
  CHECK_THROWS_AS(ChatService(options), std::invalid_argument);
}

TEST_CASE("only a receiver in a room asks for the history, with a number", "[chat_service]") {
  for (auto const& [what, first_lines, role] : everybody) {
    CAPTURE(what);
    ChatService service({.history = {.lines = 1}});
    Client client(service, first_lines);
    CHECK(client.sends("history:1\n") ==
          (role == Session::gone ? Lines{} : Lines{role == Session::receiver ? "ok" : "err"}));
    CHECK(client.closed() == (role == Session::gone || role == Session::guest || role == Session::newcomer));
  }
  ChatService service({.history = {.lines = 1}});
  Client alice(service, "rlogin:alice\njoin:cafe\n");
  alice.gets();
  for (auto const* number :
       {"", "-1", "+1", " 1", "1 ", "1:", "x", "0x1", "1.5", "4294967296", "99999999999999999999"}) {
    CAPTURE(number);
    CHECK(alice.sends("history:"s + number + "\n") == Lines{"err"});
  }
  CHECK(alice.sends("history:4294967295\nhistory:007\n") == Lines{"ok", "ok"});
}

TEST_CASE("history and what comes live follow each other, without a gap and without a double", "[chat_service]") {
  ChatService service({.history = {.lines = 100'000, .bytes = 256 * 1024}});
  std::atomic<int> said = 0;
  std::atomic<bool> stop = false;
  std::thread talk([&] {
    Client bob(service, "slogin:bob\njoin:cafe\n");
    for (auto i = 0; i < 5000 && !stop; ++i) {
      bob.sends("sendall:" + std::to_string(i) + "\n");
      said = i + 1;
      if (i % 16 == 0) std::this_thread::yield();
    }
  });
  auto in_order = true, complete = true;
  for (auto round = 0; round < 100 && in_order && complete; ++round) {
    Client alice(service);
    alice.feed("rlogin:alice\njoin:cafe\nhistory:1000000\n");
    alice.session.flush();
    auto const until = said.load();  // her own view of the room must have got so far
    Lines before, live;
    std::size_t to_come = 0;
    auto replies = 0;
    complete = test::eventually([&] {
      auto const got = alice.queue->take();
      for (std::size_t from = 0, end; from < got.size(); from = end + 1) {
        end = got.find('\n', from);
        auto const one = got.substr(from, end - from);
        if (one.starts_with("ok:")) {
          if (++replies == 3) to_come = std::stoul(one.substr(3));
        } else if (to_come > 0) {
          --to_come;
          before.push_back(one);
        } else {
          live.push_back(one);
        }
      }
      return replies == 3 && before.size() + live.size() >= static_cast<std::size_t>(until);
    });
    before.insert(before.end(), live.begin(), live.end());
    for (std::size_t i = 0; i < before.size(); ++i)
      in_order = in_order && before[i] == "delivery:cafe:bob:" + std::to_string(i);
  }
  stop = true;
  talk.join();
  CHECK(complete);
  CHECK(in_order);
}

TEST_CASE("histories stay within their memory, and a room with little keeps it", "[chat_service]") {
  constexpr std::size_t most = 1024 * 1024;
  ChatService service({.history = {.lines = 1000, .memory = most}});
  Client bob(service, "slogin:bob\njoin:cafe\nsendall:something\n"), alice(service, "rlogin:alice\njoin:cafe\n");
  std::vector<std::unique_ptr<Client>> clients;
  auto const texts = [](std::size_t count) {
    std::string all;
    for (std::size_t i = 0; i < count; ++i) all += "sendall:" + std::string(200, 'x') + "\n";
    return all;
  };
  SECTION("rooms that somebody is in") {
    for (auto i = 0; i < 100; ++i) {
      auto const name = std::to_string(i);
      clients.push_back(std::make_unique<Client>(service, "slogin:eve\njoin:" + name + "\n" + texts(500)));
      CHECK(service.history_bytes() <= most + clients.size() * 2048);  // the last texts of each are always kept
    }
  }
  SECTION("rooms that nobody is in") {
    for (auto i = 0; i < 500; ++i) {
      Client(service, "slogin:eve\njoin:" + std::to_string(i) + "\n" + texts(500));
      CHECK(service.history_bytes() <= most / 2 + 128 * 1024);
    }
    CHECK(service.history_bytes() > most / 4);
  }
  SECTION("very many rooms of a few texts") {
    for (auto i = 0; i < 20'000; ++i) Client(service, "slogin:eve\njoin:" + std::to_string(i) + "\nsendall:x\n");
    CHECK(service.history_bytes() <= most / 2);
  }
  Client carol(service, "rlogin:carol\njoin:cafe\n");
  carol.gets();
  CHECK(carol.sends("history:10\n") == Lines{"ok", "delivery:cafe:bob:something"});
}

TEST_CASE("a sender asks who is in its room", "[chat_service]") {
  ChatService service({.presence = true});
  Client bob(service, "slogin:bob\njoin:cafe\n");
  auto const who = [&bob] {
    bob.queue->take();
    bob.feed("who:\n");
    bob.session.flush();
    return bob.queue->take();
  };
  CHECK(who() == "ok:0\n");
  Client zoe(service, "rlogin:zoe\njoin:cafe\n"), alice(service, "rlogin:alice\njoin:cafe\n");
  Client alice_too(service, "rlogin:alice\njoin:cafe\n"), away(service, "rlogin:away\njoin:bar\n");
  CHECK(who() == "ok:3 alice zoe\n");
  CHECK(bob.sends("who:the rest is ignored\n") == Lines{"ok"});
  std::vector<std::unique_ptr<Client>> many;
  for (auto i = 1000; i < 6000; ++i)
    many.push_back(std::make_unique<Client>(service, "rlogin:u" + std::to_string(i) + "\njoin:cafe\n"));
  auto const line = who();
  CHECK(line.starts_with("ok:5003 "));
  CHECK(line.ends_with(" ...\n"));
  CHECK(line.size() <= chatproto::max_line);
  CHECK(line.size() > chatproto::max_line - 20);
  many.clear();
  CHECK(who() == "ok:3 alice zoe\n");
  Client longest(service, "rlogin:" + name_of(247) + "\njoin:cafe\n");
  CHECK(who() == "ok:4 alice zoe ...\n");
  bob.sends("join:bar\n");
  auto const names = GENERATE(std::size_t(235), 237u, 242u, 243u, 244u, 245u);
  Client fits(service, "rlogin:" + name_of(names) + "\njoin:bar\n");
  CHECK(who() == "ok:2 away" + (names <= 244 ? ' ' + name_of(names) : " ...") + '\n');
}

TEST_CASE("only a sender in a room asks who is there", "[chat_service]") {
  for (auto const& [what, first_lines, role] : everybody) {
    CAPTURE(what);
    ChatService service({.presence = true});
    Client client(service, first_lines);
    auto const is_inside = what == std::string_view(sender_inside.what);
    CHECK(client.sends("who:\n") == (role == Session::gone ? Lines{} : Lines{is_inside ? "ok" : "err"}));
    CHECK(client.closed() == (role == Session::gone || role == Session::guest || role == Session::newcomer));
  }
}
