// SPDX-License-Identifier: BSL-1.0
#include <chatproto/login.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <chatproto/chat_service.hpp>
#include <chatproto/observer.hpp>
#include <chatproto/server.hpp>
#include <chatproto/threading.hpp>

#include "catch.hpp"
#include "socket_support.hpp"
#include "support.hpp"

using namespace std::chrono_literals;
using namespace std::string_literals;
using chatproto::ChatOptions;
using chatproto::ChatService;
using chatproto::ClientInfo;
using chatproto::Credentials;
using chatproto::Peer;
using chatproto::Secret;
using chatproto::Verdict;
using test::Lines;
using test::patient;
using test::ServerThread;

#define POLICIES chatproto::ThreadPerClient, chatproto::ThreadPool, chatproto::StrandPool

static_assert(!std::is_copy_constructible_v<Verdict> && std::is_nothrow_move_constructible_v<Verdict>);
static_assert(!std::is_copy_constructible_v<Secret> && std::is_nothrow_move_constructible_v<Secret>);

namespace {

/// Keeps what it is asked, until a test decides. Any thread may use it.
class Desk {
 public:
  ChatOptions options() {
    return {.authenticate = [this](Credentials credentials, Verdict verdict) {
      if (credentials.name == "thrower") throw std::runtime_error("no desk");
      if (credentials.name == "quick") return verdict.accept();
      if (credentials.name == "dropped") return;
      std::lock_guard const lock(mutex_);
      asked_.emplace_back(std::move(credentials), std::move(verdict));
    }};
  }
  std::size_t size() {
    std::lock_guard const lock(mutex_);
    return asked_.size();
  }
  /// Waits for a question and takes it out.
  std::pair<Credentials, Verdict> next() {
    if (!test::eventually([this] { return size() > 0; })) throw std::runtime_error("nobody logs in");
    std::lock_guard const lock(mutex_);
    auto first = std::move(asked_.front());
    asked_.pop_front();
    return first;
  }

 private:
  std::mutex mutex_;
  std::list<std::pair<Credentials, Verdict>> asked_;
};

ClientInfo const loopback{.address = "127.0.0.1:5", .is_loopback = true};
ClientInfo const remote{.address = "192.0.2.1:5"};
ClientInfo const encrypted{.address = "192.0.2.1:5", .is_encrypted = true, .certificate = "bob"};

/// A client whose session a test calls as a link would.
struct Guest {
  explicit Guest(ChatService& service, ClientInfo info = loopback) : session(service.open(Peer(queue), info)) {}
  Lines sends(std::string_view line) {
    session.on_line(line);
    session.flush();
    return gets();
  }
  Lines resumes() {
    session.on_resume();
    session.flush();
    return gets();
  }
  Lines gets() { return test::gists(queue->take()); }
  bool closed() const { return !queue->is_open(); }

  std::shared_ptr<test::RecordingQueue> queue = std::make_shared<test::RecordingQueue>();
  ChatService::Session session;
};

/// Records failures and ends.
struct Ends final : chatproto::Observer {
  void threw(std::uint64_t, std::string_view what) override {
    std::lock_guard const lock(mutex);
    said.emplace_back(what);
  }
  void ended(std::uint64_t, chatproto::DisconnectReason reason, std::error_code const&) override {
    std::lock_guard const lock(mutex);
    reasons.push_back(reason);
  }
  std::mutex mutex;
  Lines said;
  std::vector<chatproto::DisconnectReason> reasons;
};

}  // namespace

TEST_CASE("a secret is moved, and wiped", "[login]") {
  Secret secret("two\0\xffwords"s);
  CHECK(secret.view() == "two\0\xffwords"s);
  auto moved = std::move(secret);
  CHECK(secret.empty());
  CHECK(moved.view().size() == 10);
  moved = Secret("other");
  CHECK(moved.view() == "other");
  CHECK(Secret().empty());
  auto text = "secret"s;
  Secret::wipe(text.data(), text.size());
  CHECK(text == std::string(6, '\0'));
}

TEST_CASE("what a client logs in with reaches the hook", "[login]") {
  Desk desk;
  ChatService service(desk.options());
  Guest bob(service, encrypted);
  CHECK(bob.sends("pass: any bytes\xff:\r") == Lines{"ok"});
  CHECK(bob.sends("slogin:bob").empty());
  CHECK(bob.queue->paused);
  CHECK(bob.session.role() == bob.session.waiting);
  CHECK(!bob.session.logged_in());
  auto [credentials, verdict] = desk.next();
  CHECK(credentials.name == "bob");
  CHECK(credentials.secret.view() == " any bytes\xff:\r");
  CHECK(credentials.client.address == "192.0.2.1:5");
  CHECK(credentials.client.certificate == "bob");
  CHECK(verdict.is_wanted());

  SECTION("accepted") {
    verdict.accept();
    CHECK(!bob.queue->paused);
    CHECK(bob.resumes() == Lines{"ok"});
    CHECK(bob.session.name() == "bob");
    CHECK(bob.session.role() == bob.session.sender);
    verdict.refuse();  // too late
    CHECK(bob.sends("join:cafe") == Lines{"ok"});
    CHECK(bob.sends("pass:again") == Lines{"err"});
    CHECK(!bob.closed());
  }
  SECTION("refused") {
    verdict.refuse();
    verdict.accept();  // too late
    bob.session.on_resume();
    bob.session.flush();
    CHECK(bob.queue->take() == "err:wrong name or secret\n");
    CHECK(bob.closed());
    CHECK(!bob.session.logged_in());
  }
  SECTION("refused with a reason") {
    verdict.refuse("come back tomorrow");
    bob.session.on_resume();
    bob.session.flush();
    CHECK(bob.queue->take() == "err:come back tomorrow\n");
  }
  SECTION("refused with a reason that no line can carry") {
    verdict.refuse(std::string(252, 'x'));
    bob.session.on_resume();
    bob.session.flush();
    CHECK(bob.queue->take() == "err:wrong name or secret\n");
  }
  SECTION("dropped without a decision") {
    { auto const gone = std::move(verdict); }
    CHECK(!verdict.is_wanted());
    CHECK(bob.resumes() == Lines{"err"});
    CHECK(bob.closed());
  }
  SECTION("replaced by another verdict") {
    Guest alice(service);
    alice.sends("rlogin:alice");
    verdict = desk.next().second;
    CHECK(bob.resumes() == Lines{"err"});
    CHECK(alice.resumes().empty());
    CHECK(alice.queue->paused);
    verdict.accept();
    CHECK(alice.resumes() == Lines{"ok"});
    CHECK(alice.session.role() == alice.session.newcomer);
  }
  SECTION("resumed too early") {
    bob.queue->paused = false;
    CHECK(bob.resumes().empty());
    CHECK(bob.queue->paused);
    CHECK(bob.session.role() == bob.session.waiting);
  }
  SECTION("a line although it waits") {  // from a service that does not pass on the pause
    CHECK(bob.sends("join:cafe") == Lines{"err"});
    CHECK(bob.closed());
    verdict.accept();
    CHECK(bob.resumes().empty());
    CHECK(!bob.session.logged_in());
  }
}

TEST_CASE("when a secret may come", "[login]") {
  Desk desk;
  auto options = desk.options();
  SECTION("twice") {
    ChatService service(options);
    Guest bob(service);
    CHECK(bob.sends("pass:one") == Lines{"ok"});
    CHECK(bob.sends("pass:two") == Lines{"err"});
    CHECK(bob.closed());
  }
  SECTION("empty") {
    ChatService service(options);
    Guest bob(service);
    CHECK(bob.sends("pass:") == Lines{"err"});
    CHECK(bob.closed());
  }
  SECTION("over a connection that others can read") {
    ChatService service(options);
    Guest bob(service, remote);
    CHECK(bob.sends("pass:one") == Lines{"err"});
    CHECK(bob.closed());
    Guest without(service, remote);
    CHECK(without.sends("slogin:bob").empty());  // the hook decides
    CHECK(desk.next().first.secret.empty());
  }
  SECTION("over one from which nothing is known") {
    ChatService service(options);
    auto const queue = std::make_shared<test::RecordingQueue>();
    auto session = std::make_unique<ChatService::Session>(service, Peer(queue));
    session->on_line("pass:one");
    session->flush();
    CHECK(test::gists(queue->take()) == Lines{"err"});
  }
  SECTION("over any connection, if told so") {
    options.insecure_passwords = true;
    ChatService service(options);
    Guest bob(service, remote);
    CHECK(bob.sends("pass:one") == Lines{"ok"});
  }
  SECTION("after a bad name, and anything else before the login") {
    ChatService service(options);
    Guest bob(service);
    bob.sends("pass:one");
    CHECK(bob.sends(GENERATE(as<std::string>{}, "slogin:b b", "join:cafe")) == Lines{"err"});
    CHECK(bob.closed());
    CHECK(desk.size() == 0);
  }
}

TEST_CASE("only so many logins wait for a verdict", "[login]") {
  Desk desk;
  auto options = desk.options();
  options.max_pending_logins = 2;
  ChatService service(options);
  Guest one(service), three(service), four(service), five(service);
  auto two = std::make_unique<Guest>(service);
  CHECK(one.sends("slogin:one").empty());
  CHECK(two->sends("slogin:two").empty());
  CHECK(three.sends("slogin:three") == Lines{"err"});
  CHECK(three.closed());
  two.reset();  // gone, but its verdict is out
  CHECK(four.sends("slogin:four") == Lines{"err"});
  desk.next().second.accept();
  CHECK(one.resumes() == Lines{"ok"});
  CHECK(five.sends("slogin:five").empty());
  CHECK(desk.next().first.name == "two");
  CHECK(desk.next().first.name == "five");
}

TEST_CASE("a verdict outlives the client and the service", "[login]") {
  Desk desk;
  std::optional<ChatService> service(desk.options());
  std::optional<Guest> bob(*service);
  bob->sends("slogin:bob");
  auto verdict = desk.next().second;
  bob->queue->finish();
  CHECK(!verdict.is_wanted());
  bob.reset();
  service.reset();
  verdict.accept();
}

TEST_CASE("a service that asks nobody needs to know nothing of its clients", "[login]") {
  CHECK(!ChatService().wants_client_info());
  Desk desk;
  CHECK(ChatService(desk.options()).wants_client_info());
}

// --- In a server -----------------------------------------------------------------------------------------------------

TEMPLATE_TEST_CASE("lines sent along with the login wait for the verdict", "[login]", POLICIES) {
  Desk desk;
  ServerThread<TestType> server(patient(), desk.options());
  test::Client bob(server.port());
  bob.send("pass:x\nslogin:bob\njoin:cafe\nsendall:hey\nquit:\nsendall:too late\n");
  bob.end_output();
  CHECK(bob.next() == "ok");
  auto [credentials, verdict] = desk.next();
  CHECK(credentials.client.address.starts_with("127.0.0.1:"));
  CHECK(credentials.client.is_loopback);
  CHECK(server->service().room_count() == 0);
  std::thread([&settled = verdict] { settled.accept(); }).join();
  CHECK(bob.rest() == Lines{"ok", "ok", "ok", "ok", "(end)"});
  CHECK(server->service().texts() == 1);
}

TEMPLATE_TEST_CASE("a login that waits keeps nobody else waiting", "[login]", POLICIES) {
  Desk desk;
  auto options = patient();
  ServerThread<TestType> server(options, desk.options());
  test::Client bob(server.port());
  bob.send("pass:x\nslogin:bob\n");
  CHECK(bob.next() == "ok");
  auto verdict = desk.next().second;
  constexpr auto others = 1000;
  for (auto i = 0; i < others; ++i) test::client_of(server.port(), {"slogin:quick"});
  CHECK(test::client_of(server.port(), {"slogin:quick", "join:cafe", "sendall:hey"}).asks("quit:") == "ok");
  CHECK(verdict.is_wanted());
  CHECK(!bob.has_next(0ms));
  verdict.accept();
  CHECK(bob.next() == "ok");
}

TEMPLATE_TEST_CASE("a hook that throws costs one client", "[login]", POLICIES) {
  Desk desk;
  Ends ends;
  auto options = patient();
  options.observer = &ends;
  {
    ServerThread<TestType> server(options, desk.options());
    auto quick = test::client_of(server.port(), {"slogin:quick"});
    test::Client thrower(server.port());
    thrower.send("slogin:thrower\n");
    CHECK_FALSE(thrower.next() == "ok");
    test::Client dropped(server.port());
    dropped.send("slogin:dropped\n");
    CHECK(dropped.rest() == Lines{"err", "(end)"});
    CHECK(quick.asks("join:cafe") == "ok");
  }
  CHECK(ends.said == Lines{"no desk"});
}

TEMPLATE_TEST_CASE("the login deadline ends a client whose verdict does not come", "[login]", POLICIES) {
  Desk desk;
  Ends ends;
  auto options = patient();
  options.observer = &ends;
  options.login_deadline = 50ms;
  {
    ServerThread<TestType> server(options, desk.options());
    test::Client bob(server.port());
    bob.send("slogin:bob\njoin:cafe\n");
    CHECK(bob.rest() == Lines{"(end)"});
    auto verdict = desk.next().second;
    CHECK(!verdict.is_wanted());
    bob.close();
    CHECK(test::eventually([&] { return server->stats().clients == 0; }));
    verdict.accept();
    CHECK(server->service().room_count() == 0);
  }
  CHECK(ends.reasons == std::vector{chatproto::DisconnectReason::login_deadline});
}

TEMPLATE_TEST_CASE("a verdict on a client that has gone does nothing", "[login]", POLICIES) {
  Desk desk;
  ServerThread<TestType> server(patient(), desk.options());
  {
    test::Client bob(server.port());
    bob.send("slogin:bob\njoin:cafe\n");
    CHECK(test::eventually([&] { return desk.size() == 1; }));
    bob.reset();
  }
  auto verdict = desk.next().second;
#ifdef __linux__
  CHECK(test::eventually([&] { return !verdict.is_wanted(); }));
#endif
  verdict.accept();
  CHECK(test::eventually([&] { return server->stats().clients == 0; }));
  CHECK(test::eventually([&] { return server->service().room_count() == 0; }));
  CHECK(test::client_of(server.port(), {"slogin:quick"}).asks("quit:") == "ok");
}

TEMPLATE_TEST_CASE("verdicts of any thread, while clients go and the server stops", "[login]", POLICIES) {
  std::vector<Verdict> late;
  {
    std::mutex mutex;
    std::list<Verdict> verdicts;
    auto stop = false;
    std::vector<std::thread> deciders;
    {
      ServerThread<TestType> server(patient(), ChatOptions{.authenticate = [&](Credentials, Verdict verdict) {
                                      std::lock_guard const lock(mutex);
                                      verdicts.push_back(std::move(verdict));
                                    }});
      for (auto number = 0; number < 2; ++number)
        deciders.emplace_back([&] {
          for (auto yes = true;; yes = !yes) {
            std::list<Verdict> one;
            {
              std::lock_guard const lock(mutex);
              if (stop) return;
              if (!verdicts.empty()) one.splice(one.begin(), verdicts, verdicts.begin());
            }
            if (one.empty())
              std::this_thread::yield();
            else if (yes)
              one.front().accept();
          }
        });
      for (auto round = 0; round < 100; ++round) {
        test::Client client(server.port());
        client.send("slogin:bob\nquit:\n");
        if (round % 3 == 0) continue;
        auto const rest = client.rest();
        CHECK((rest == Lines{"ok", "ok", "(end)"} || rest == Lines{"err", "(end)"}));
      }
      {
        std::lock_guard const lock(mutex);
        stop = true;
      }
      for (auto& decider : deciders) decider.join();
      test::Client last(server.port());
      last.send("slogin:last\n");
      CHECK(test::eventually([&] {
        std::lock_guard const lock(mutex);
        return !verdicts.empty();
      }));
    }
    for (auto& verdict : verdicts) late.push_back(std::move(verdict));
  }
  for (auto& verdict : late) verdict.accept();  // the server is gone
}
