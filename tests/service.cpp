// SPDX-License-Identifier: BSL-1.0
#include <chatproto/service.hpp>

#include <chatproto/chat_service.hpp>
#include <chatproto/detail/server/near_misses.hpp>

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "catch.hpp"
#include "support.hpp"

using chatproto::LineSession;
using chatproto::Peer;
using chatproto::Service;

namespace {

/// The minimal service.
struct Echo {
  struct Session {
    Peer peer;
    void on_line(std::string_view line) const { peer.send(std::string(line) + '\n'); }
  };
  Session open(Peer peer) { return {std::move(peer)}; }
};
static_assert(Service<Echo>);
static_assert(Service<chatproto::ChatService>);

/// A service with all optional members, and a session that cannot be moved.
struct Full {
  struct Session {
    explicit Session(Peer p) : peer(std::move(p)) {}
    Session(Session const&) = delete;
    Session& operator=(Session const&) = delete;
    int on_line(std::string_view) { return 0; }  // the return value is ignored
    void on_bad_line(std::error_code) {}
    void flush() {}
    bool logged_in() const { return true; }
    Peer peer;
  };
  Session open(Peer const& peer) const { return Session(peer); }
};
static_assert(Service<Full> && Service<Full const>);

/// A service that asks for the client's address.
struct Located {
  using Session = Echo::Session;
  Session open(Peer peer, std::string const&) { return {std::move(peer)}; }
};
static_assert(Service<Located>);

/// A service that asks for all that is known of the client.
struct Informed {
  using Session = Echo::Session;
  Session open(Peer peer, chatproto::ClientInfo const&) { return {std::move(peer)}; }
};
static_assert(Service<Informed>);

// Types that are not services.
struct NoSession {
  int open(Peer);
};
struct NoOpen {
  using Session = Echo::Session;
};
struct OpensOther {
  using Session = Echo::Session;
  Session* open(Peer);
};
struct OpensWithoutPeer {
  using Session = Echo::Session;
  Session open();
};
struct PrivateOpen {
  using Session = Echo::Session;

 private:
  Session open(Peer);
};
struct Deaf {
  struct Session {};
  Session open(Peer);
};
struct TakesNumbers {
  struct Session {
    void on_line(int);
  };
  Session open(Peer);
};
struct Immortal {
  struct Session {
    void on_line(std::string_view);

   private:
    ~Session();
  };
  Session open(Peer);
};
struct ConstSession {
  using Session = Full::Session const;
  Session open(Peer);
};
static_assert(!Service<int> && !Service<NoSession> && !Service<NoOpen>);
static_assert(!Service<OpensOther> && !Service<OpensWithoutPeer> && !Service<PrivateOpen>);
static_assert(!Service<Deaf> && !Service<TakesNumbers> && !Service<Immortal> && !Service<ConstSession>);
static_assert(!Service<Echo const>);  // its open is not const
static_assert(LineSession<Echo::Session> && !LineSession<Deaf::Session> && !LineSession<Immortal::Session>);

// compile_fail has the near misses that a server rejects; these are accepted.
template <class Members>
struct With : Members {
  void on_line(std::string_view);
};
struct NamesOfItsOwn {
  std::string name;
  bool logged_in = false, loggedIn = false, flush = false;
  void resume();
  void bad_line(std::error_code);
  void onFlush(std::size_t);
  std::string is_logged_in();
  std::function<void()> on_flush, onResume;
};
struct NamesOfTypes {
  enum State { guest, logged_in };
  struct name {};
  using flush = int;
};
struct Overloaded {
  void on_bad_line(std::error_code);
  void on_bad_line(std::string_view);
  void flush();
  void flush(int);
  void on_resume();
  void on_resume(int) const;
  bool logged_in();
  bool logged_in() const;
  void logged_in(std::string_view);
  std::string& name();
  std::string const& name() const;
  void name(std::string);
};
struct Templates {
  template <class T>
  void on_line(T const&);
  void on_bad_line(auto);
  void flush(auto);
  template <class T = int>
  void on_resume();
  bool logged_in(auto) const;
  std::string name(auto);
};
struct OtherForms {
  int on_bad_line(std::error_code const&, int = 0) const noexcept;
  static bool flush();
  std::function<void()> on_resume;
  std::optional<int> logged_in() const;
  char const* name() const;
};
struct OnlyToSet {
  void name(std::string);
};
struct RightAndLike {
  void on_bad_line(std::error_code);
  void on_badline(std::error_code);
  bool logged_in() const;
  bool is_logged_in() const;
  void flush();
  void on_flush();
  void on_resume();
  void on_resumed();
};
class Private {
  void flush(int);
  std::string name();
  bool logged_in = false;
  bool is_logged_in();
};
struct Final final {
  void on_line(std::string_view);
  void on_bad_line(std::error_code);
  void on_resume();
};
template <class S>
concept Accepted = chatproto::detail::has_no_near_miss<S>();
static_assert(Accepted<With<NamesOfItsOwn>> && Accepted<With<NamesOfTypes>> && Accepted<With<Overloaded>>);
static_assert(Accepted<Templates> && Accepted<With<OtherForms>> && Accepted<With<OnlyToSet>>);
static_assert(Accepted<With<RightAndLike>> && Accepted<With<Private>> && Accepted<Final>);
static_assert(Accepted<Echo::Session> && Accepted<Full::Session> && Accepted<chatproto::ChatService::Session>);

}  // namespace

TEST_CASE("a service works without a server", "[service]") {
  auto const queue = std::make_shared<test::RecordingQueue>();
  Echo echo;
  auto session = echo.open(Peer(queue));
  session.on_line("ok:hi");
  CHECK(queue->take() == "ok:hi\n");
}
