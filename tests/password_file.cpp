// SPDX-License-Identifier: BSL-1.0
#include <chatproto/password_file.hpp>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <chatproto/chat_service.hpp>
#include <chatproto/threading.hpp>

#include "catch.hpp"
#include "socket_support.hpp"
#include "support.hpp"

using namespace std::chrono_literals;
using namespace std::string_literals;
using chatproto::ClientInfo;
using chatproto::Credentials;
using chatproto::PasswordCost;
using chatproto::PasswordFile;
using chatproto::PasswordOptions;
using chatproto::Peer;
using chatproto::Secret;
using test::Lines;
using State = chatproto::detail::PendingLogin::State;

namespace {

PasswordCost const cheap{crypto_pwhash_OPSLIMIT_MIN, crypto_pwhash_MEMLIMIT_MIN};

/// A file that is removed in the end.
struct File {
  explicit File(std::string_view text) { write(text); }
  File(File const&) = delete;
  File& operator=(File const&) = delete;
  ~File() { std::filesystem::remove(path); }
  void write(std::string_view text) const { std::ofstream(path, std::ios::binary) << text; }

  std::string const path = [] {
    static std::atomic<int> number = 0;
    auto const name =
        "chatproto_passwords_" +
        std::to_string(static_cast<unsigned long long>(std::chrono::steady_clock::now().time_since_epoch().count()));
    return (std::filesystem::temp_directory_path() / (name + "_" + std::to_string(++number))).string();
  }();
};

std::string line(std::string_view name, std::string_view secret) {
  return PasswordFile::line(name, secret, cheap) + '\n';
}

PasswordOptions options(bool members_only = false) {
  PasswordOptions result{.members_only = members_only, .cost = cheap};
  result.guesses = 1000;
  result.guess_interval = 1h;
  return result;
}

/// Logs in, and returns "yes", or the reason against it. `from` is the client's address and port.
std::string asks(PasswordFile& file, std::string name, std::string_view secret, std::string from = "192.0.2.1:5",
                 std::string certificate = {}) {
  auto const queue = std::make_shared<test::RecordingQueue>();
  auto const login =
      std::make_shared<chatproto::detail::PendingLogin>(Peer(queue), std::make_shared<std::atomic<std::size_t>>(1));
  ClientInfo info{.address = std::move(from), .certificate = std::move(certificate)};
  file.check({.name = std::move(name), .secret = Secret(secret), .client = std::move(info)}, chatproto::Verdict(login));
  if (!test::eventually([&] { return login->state() != State::waiting; })) return "no verdict";
  if (login->state() == State::accepted) return "yes";
  return login->reason().empty() ? "no" : login->reason();
}

std::string error_of(auto const& call) {
  try {
    call();
    return "none";
  } catch (std::runtime_error const& error) {
    return error.what();
  }
}

}  // namespace

TEST_CASE("names in the file need their secret", "[password_file]") {
  File const text("# members\n\n" + line("bob", "bob's secret") + line("alice", "hers\xff: "));
  auto const members_only = GENERATE(false, true);
  PasswordFile file(text.path, options(members_only));
  CHECK(file.size() == 2);
  CHECK(asks(file, "bob", "bob's secret") == "yes");
  CHECK(asks(file, "bob", "bob's secre") == "no");
  CHECK(asks(file, "bob", "") == "no");
  CHECK(asks(file, "bob", "hers\xff: ") == "no");
  CHECK(asks(file, "alice", "hers\xff: ") == "yes");
  CHECK(asks(file, "Bob", "bob's secret") == "no");  // another name
  CHECK(asks(file, "carol", "any") == "no");
  CHECK(asks(file, "carol", "") == (members_only ? "no" : "yes"));
  CHECK(asks(file, "bob", "", "192.0.2.1:5", "bob") == "yes");
  CHECK(asks(file, "bob", "", "192.0.2.1:5", "alice") == "no");
  CHECK(asks(file, "carol", "", "192.0.2.1:5", "carol") == (members_only ? "no" : "yes"));
}

TEST_CASE("a file that is wrong says where", "[password_file]") {
  auto const error = [](std::string const& text) {
    File const file(text);
    auto what = error_of([&] { PasswordFile(file.path, options()); });
    auto const name = "'" + file.path + "': ";
    return what.starts_with(name) ? what.substr(name.size()) : what;
  };
  auto const good = line("bob", "x");
  auto const hash = good.substr(4);
  CHECK(error(good) == "none");
  CHECK(error("") == "none");
  CHECK(error(good.substr(0, good.size() - 1) + "\r\n") == "none");
  CHECK(error("#x\nbob\n") == "line 2: not NAME:HASH (a name has letters and digits only)");
  CHECK(error(good + "b b:" + hash) == "line 2: not NAME:HASH (a name has letters and digits only)");
  CHECK(error(good + ":" + hash) == "line 2: not NAME:HASH (a name has letters and digits only)");
  CHECK(error("bob:secret\n") == "line 1: no argon2id hash");
  CHECK(error("bob:$argon2id$secret\n") == "line 1: no argon2id hash");
  CHECK(error("bob:" + std::string(200, '$') + "\n") == "line 1: no argon2id hash");
  CHECK(error("bob: " + hash) == "line 1: no argon2id hash");
  CHECK(error(good + good) == "line 2: the name is there twice");
  CHECK(error(PasswordFile::line("bob", "x", {2, crypto_pwhash_MEMLIMIT_MIN})) ==
        "line 1: a hash of another cost, whose time would tell that the name exists");
  CHECK(error_of([] { PasswordFile("/does/not/exist"); }).starts_with("'/does/not/exist': cannot be read: "));
}

TEST_CASE("a line needs a name and a secret that a client can send", "[password_file]") {
  CHECK(PasswordFile::line("bob", "x", cheap).starts_with("bob:$argon2id$"));
  CHECK(PasswordFile::line("bob", "x", cheap) != PasswordFile::line("bob", "x", cheap));  // a salt
  CHECK(error_of([] { PasswordFile::line("b b", "x", cheap); }).starts_with("'b b' is no name"));
  CHECK(error_of([] { PasswordFile::line("bob", "", cheap); }) == "the secret is empty");
  CHECK(error_of([] { PasswordFile::line("bob", "a\nb", cheap); }) == "no client can send this secret");
  CHECK(error_of([] { PasswordFile::line("bob", std::string(249, 'x'), cheap); }) == "none");
  CHECK(error_of([] { PasswordFile::line("bob", std::string(250, 'x'), cheap); }) == "no client can send this secret");
}

TEST_CASE("the file is read again", "[password_file]") {
  File const text(line("bob", "old"));
  PasswordFile file(text.path, options(true));
  CHECK(asks(file, "bob", "old") == "yes");
  text.write(line("bob", "new") + line("alice", "x"));
  CHECK(asks(file, "bob", "old") == "yes");
  file.reload();
  CHECK(asks(file, "bob", "old") == "no");
  CHECK(asks(file, "bob", "new") == "yes");
  CHECK(asks(file, "alice", "x") == "yes");
  text.write(line("bob", "newer") + "nonsense\n");
  CHECK_THROWS_AS(file.reload(), std::runtime_error);
  CHECK(asks(file, "bob", "new") == "yes");
  std::filesystem::remove(text.path);
  CHECK_THROWS_AS(file.reload(), std::runtime_error);
  CHECK(file.size() == 2);
}

TEST_CASE("an address has so many guesses", "[password_file]") {
  File const text(line("bob", "secret"));
  auto few = options();
  few.guesses = 3;
  Lines refused;
  std::mutex mutex;
  few.refused = [&](std::string_view name, std::string_view address) {
    std::lock_guard const lock(mutex);
    refused.push_back(std::string(name) + ' ' + std::string(address));
  };
  PasswordFile file(text.path, few);
  auto const late = "too many wrong secrets from your address; wait a while"s;
  struct {
    std::string used, same, other;
  } const addresses[] = {{"192.0.2.1:5", "192.0.2.1:6", "192.0.2.2:5"},
                         {"127.0.0.1:5", "127.0.0.1:6", "127.0.0.2:5"},
                         {"[2001:db8::1]:5", "[2001:db8:0:0:ffff::2]:6", "[2001:db8:0:1::1]:5"}};
  for (auto const& [used, same, other] : addresses) {
    CHECK(asks(file, "bob", "secret", used) == "yes");  // costs nothing
    for (auto const* name : {"bob", "nobody", "bob"}) CHECK(asks(file, name, "guess", used) == "no");
    CHECK(asks(file, "bob", "guess", used) == late);
    CHECK(asks(file, "nobody", "guess", used) == late);
    CHECK(asks(file, "bob", "secret", same) == late);
    CHECK(asks(file, "bob", "secret", other) == "yes");
    CHECK(asks(file, "carol", "", same) == "yes");
    CHECK(asks(file, "bob", "", same) == "no");
  }
  CHECK(refused.size() == 21);
  CHECK(refused.front() == "bob 192.0.2.1:5");
}

TEST_CASE("a full queue refuses", "[password_file]") {
  File const text(line("bob", "secret"));
  auto none = options();
  none.queue_limit = 0;
  PasswordFile file(text.path, none);
  CHECK(asks(file, "bob", "secret") == "too many logins at once; try again later");
  CHECK(asks(file, "carol", "") == "yes");
}

TEST_CASE("what waits when the file goes is refused, and what nobody wants is not checked", "[password_file]") {
  File const text(line("bob", "secret"));
  std::vector<std::shared_ptr<chatproto::detail::PendingLogin>> logins;
  auto const under_way = std::make_shared<std::atomic<std::size_t>>(0);
  {
    PasswordFile file(text.path, options());
    for (auto i = 0; i < 100; ++i) {
      auto const queue = std::make_shared<test::RecordingQueue>();
      ++*under_way;
      logins.push_back(std::make_shared<chatproto::detail::PendingLogin>(Peer(queue), under_way));
      if (i % 2 == 0) queue->close();
      file.check({.name = "bob", .secret = Secret("secret"), .client = {}}, chatproto::Verdict(logins.back()));
    }
  }
  CHECK(*under_way == 0);
  for (std::size_t i = 0; i < logins.size(); ++i) {
    CHECK(logins[i]->state() != State::waiting);
    if (i % 2 == 0) CHECK(logins[i]->state() == State::refused);
  }
}

TEMPLATE_TEST_CASE("a chat with registered names", "[password_file]", chatproto::ThreadPerClient, chatproto::ThreadPool,
                   chatproto::StrandPool) {
  File const text(line("bob", "secret"));
  PasswordFile file(text.path, options());
  test::ServerThread<TestType> server(test::patient(),
                                      chatproto::ChatOptions{.authenticate = [&](auto credentials, auto verdict) {
                                        file.check(std::move(credentials), std::move(verdict));
                                      }});
  auto alice = test::receiver(server.port(), "alice", "cafe");
  auto bob = test::client_of(server.port(), {"pass:secret", "slogin:bob", "join:cafe", "sendall:hey"});
  CHECK(alice.next() == "delivery:cafe:bob:hey");
  for (auto const* lines : {"pass:wrong\nslogin:bob\njoin:cafe\n", "pass:any\nslogin:nobody\njoin:cafe\n"}) {
    test::Client other(server.port());
    other.send(lines);
    CHECK(other.next_line() == "ok:");
    CHECK(other.next_line() == "err:wrong name or secret");
    CHECK(other.next() == "(end)");
  }
  test::Client without(server.port());
  without.send("rlogin:bob\n");
  CHECK(without.next_line() == "err:wrong name or secret");
}
