// SPDX-License-Identifier: BSL-1.0
// A link with a scripted service, its host and the other end of its connection, for the tests of links and layers.
#pragma once

#include <chatproto/detail/server/link.hpp>

#include <chatproto/layer.hpp>
#include <chatproto/server_options.hpp>

#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <asio/buffer.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/socket_base.hpp>

#include "catch.hpp"
#include "support.hpp"

namespace link_scene {

using chatproto::Peer;
using chatproto::PushResult;
using test::block;
using test::Lines;
using tcp = asio::ip::tcp;

inline constexpr auto never = std::chrono::steady_clock::time_point::max();

/// Options with which nothing happens for lack of space or time unless the test says so.
struct Options : chatproto::ServerOptions {
  Options() {
    queue_limit = 1'000'000'000;
    login_deadline = write_deadline = linger = std::chrono::hours(1);
    memory_limit = queue_limit;
  }
};

/// A service whose sessions do what the test wants, and record what happens to them.
struct Scripted {
  std::function<void(Peer const&, std::string_view)> on_line = [](auto&&...) {};
  std::function<void(Peer const&)> on_open = [](auto&&) {};
  std::function<void()> on_flush = [] {};
  Lines seen;  ///< lines, and "(open)", "(too long)", "(resumed)", "(flush)", "(gone)"
  bool logged_in = true;

  struct Session {
    Session(Scripted& s, Peer p) : service(s), peer(std::move(p)) {
      service.on_open(peer);
      service.seen.push_back("(open)");
    }
    Session(Session const&) = delete;
    Session& operator=(Session const&) = delete;
    ~Session() { service.seen.push_back("(gone)"); }
    void on_line(std::string_view line) {
      service.seen.emplace_back(line);
      service.on_line(peer, line);
    }
    void on_bad_line(std::error_code ec) {
      service.seen.push_back(ec == chatproto::Errc::line_too_long ? "(too long)" : "(?)");
    }
    void on_resume() { service.seen.push_back("(resumed)"); }
    void flush() {
      service.seen.push_back("(flush)");
      service.on_flush();
    }
    bool logged_in() const { return service.logged_in; }

    Scripted& service;
    Peer peer;
  };
  Session open(Peer peer) { return {*this, std::move(peer)}; }
};

/// A service with only the required members.
struct Echo {
  struct Session {
    Peer peer;
    void on_line(std::string_view line) const { peer.send(std::string(line) + '\n'); }
  };
  Session open(Peer peer) { return {std::move(peer)}; }
};

/// A service that keeps what it is told of its client.
template <class Told>
struct Asking {
  struct Session {
    void on_line(std::string_view) const {}
  };
  Session open(Peer const&, Told what) {
    told = std::move(what);
    return {};
  }
  Told told;
};

/// One link, its host, and the other end of its connection. Everything runs in the test's thread, when the test asks
/// for it.
template <class Service = Scripted>
class Scene {
  asio::io_context io_{1};

 public:
  using executor_type = asio::io_context::executor_type;
  using Link = chatproto::detail::Link<Scene>;

  /// `is_proxied`: the client comes through a proxy.
  explicit Scene(Options options = {}, bool is_proxied = false,
                 std::shared_ptr<chatproto::LayerFactory> layers = nullptr)
      : options_(options), events_(options.observer), layers_(std::move(layers)) {
    tcp::acceptor acceptor(io_, tcp::endpoint(asio::ip::address_v4::loopback(), 0));
    remote.open(tcp::v4());
    remote.set_option(asio::socket_base::receive_buffer_size(8 * 1024));
    remote.connect(acceptor.local_endpoint());
    remote.non_blocking(true);
    typename Link::Socket local(io_.get_executor());
    acceptor.accept(local);
    local.set_option(asio::socket_base::send_buffer_size(64 * 1024));  // else the system may let it grow
    std::unique_ptr<chatproto::detail::ClientOrigin> origin;
    if (is_proxied) origin.reset(new chatproto::detail::ClientOrigin{local.remote_endpoint(), true});
    link_ = std::make_shared<Link>(*this, std::move(local), events_.accepted(), layers_ != nullptr, std::move(origin));
    watch_ = link_;
  }
  ~Scene() {
    if (link_) link_->abort();
    io_.restart();
    io_.run();
  }

  // What a link requires of its host.
  chatproto::ServerOptions const& options() const { return options_; }
  Service& service() { return service_; }
  void remove(Link& link) {
    CHECK(&link == link_.get());
    link_.reset();
  }
  void watch_deadlines() { ++deadlines; }
  void handshake_ended(Link&) { ++handshakes; }
  void await_client() { ++awaited; }
  void client_is_done() { --awaited; }
  std::optional<chatproto::RefusalReason> admit(chatproto::detail::ClientOrigin& origin) {
    seen_origin = origin.endpoint;
    return refusal;
  }
  bool is_banned(asio::ip::address const& address, std::string_view name) const {
    return !banned.empty() && (name == banned || address.to_string() == banned);
  }
  bool has_memory() const { return chatproto::detail::HeldMemory::total() <= options_.memory_limit; }
  void watch_memory() { ++waits_for_memory; }
  void end_throttle_in(std::chrono::steady_clock::duration time, std::weak_ptr<Link> client) {
    CHECK(&*client.lock() == link_.get());
    throttles.push_back(time);
  }
  chatproto::detail::Events& events() { return events_; }

  Service& begin() {
    link_->start(layers_.get());
    return service_;
  }
  /// Runs handlers until `condition` holds. Returns false if it never does.
  bool run_until(auto const& condition) {
    return test::eventually([&] {
      io_.restart();
      io_.poll();
      return condition();
    });
  }
  /// Runs the handlers that are ready. Returns false if there were none.
  bool run_posted() {
    io_.restart();
    return io_.poll() > 0;
  }
  bool ended() const { return !link_; }
  bool ends() {
    return run_until([&] { return ended() && watch_.expired(); });
  }

  void far_sends(std::string_view bytes) {
    while (!bytes.empty()) {
      std::error_code ec;
      auto const size = remote.write_some(asio::buffer(bytes), ec);
      if (ec && ec != asio::error::would_block) throw std::system_error(ec);
      bytes.remove_prefix(size);
      run_posted();
    }
  }
  /// Returns the next bytes that the far end receives, at most `most`, or "(end)" or "(reset)" when no more come.
  std::string far_reads(std::size_t most = 1'000'000) {
    std::string bytes(most, '\0');
    std::error_code ec;
    std::size_t size = 0;
    auto const came = run_until([&] {
      size = remote.read_some(asio::buffer(bytes), ec);
      return ec != asio::error::would_block;
    });
    if (!came) return "(nothing)";
    bytes.resize(size);
    return !ec ? bytes : ec == asio::error::eof ? "(end)" : "(reset)";
  }
  /// Like far_reads(), but the link does not learn of it.
  std::string far_reads_unseen() {
    std::string bytes(1'000'000, '\0');
    std::error_code ec;
    bytes.resize(remote.read_some(asio::buffer(bytes), ec));
    return bytes;
  }
  /// Returns all bytes that the far end receives, followed by "(end)" or "(reset)".
  std::string far_reads_all() {
    std::string all;
    for (;;) {
      auto const bytes = far_reads();
      all += bytes;
      if (bytes == "(end)" || bytes == "(reset)" || bytes == "(nothing)") return all;
    }
  }
  /// Sends blocks of `size` bytes until the far end accepts no more. Returns all that was sent. The link must be logged
  /// in.
  std::string stall(std::size_t size = 10'000) {
    std::string all;
    auto const before = deadlines;  // there is one more as soon as the link stalls
    for (auto c = 'a'; deadlines == before; c = c == 'z' ? 'a' : static_cast<char>(c + 1)) {
      all.append(size, c);
      push(std::string(size, c));
      run_posted();
    }
    return all;
  }

  /// Sends blocks of all sizes, several in a batch, some of them while the link is stalled. Returns all that was sent.
  std::string push_all_sizes() {
    std::string all;
    auto letter = 'a';
    for (auto round = 0; round < 20; ++round) {
      for (auto const size : {1u, 1u, 10u, 1000u, 0u, 16'383u, 16'384u, 16'385u, 65'535u, 65'536u, 65'537u, 3u, 30'000u,
                              40'000u, 300'000u, 7u}) {
        std::string bytes(size, letter);
        letter = letter == 'z' ? 'a' : static_cast<char>(letter + 1);
        all += bytes;
        push(std::move(bytes));
      }
      if (round % 2 == 0) run_posted();
    }
    return all;
  }

  asio::io_context& context() { return io_; }
  Link& link() { return *link_; }
  std::weak_ptr<Link> const& watch() const { return watch_; }
  Peer peer() { return Peer(link_); }
  PushResult push(std::string bytes) { return link_->push(block(std::move(bytes))); }  ///< any bytes

  tcp::socket remote{io_};
  int waits_for_memory = 0;
  int deadlines = 0;                                ///< how often the link has reported a deadline
  std::optional<chatproto::RefusalReason> refusal;  ///< what `admit` returns
  tcp::endpoint seen_origin;                        ///< what it was asked about
  std::string banned = {};                          ///< this address or name is banned
  int awaited = 0;                                  ///< those that the link has reported and not taken back
  int handshakes = 0;                               ///< how often the link has reported the end of a handshake
  std::vector<std::chrono::steady_clock::duration> throttles;  ///< for how long the link wanted to wait

 private:
  Options options_;
  chatproto::detail::Events events_;
  std::shared_ptr<chatproto::LayerFactory> layers_;
  Service service_;
  std::shared_ptr<Link> link_;
  std::weak_ptr<Link> watch_;
};

inline bool has_seen(Scripted const& service, std::string_view what) {
  return std::find(service.seen.begin(), service.seen.end(), what) != service.seen.end();
}

inline void send_ok(Peer const& peer, std::string_view) { peer.send("ok:\n"); }

}  // namespace link_scene
