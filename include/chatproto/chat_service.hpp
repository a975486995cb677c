// SPDX-License-Identifier: BSL-1.0
/// @file
/// `ChatService`: rooms, senders and receivers.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <chatproto/backplane.hpp>
#include <chatproto/error.hpp>
#include <chatproto/history_store.hpp>
#include <chatproto/login.hpp>
#include <chatproto/message.hpp>
#include <chatproto/peer.hpp>
#include <chatproto/room_table.hpp>
#include <chatproto/service.hpp>

namespace chatproto {

/// The options of a `ChatService`.
struct ChatOptions {
  /// Decides who may log in; see docs/protocol.md, section 8. If empty, anybody may log in under any name, and `pass:`
  /// is an unknown message. Otherwise it is called for each login with a valid name, and must cause one call of the
  /// verdict's `accept` or `refuse`, now or later, in any thread. The client waits for that, within the login deadline.
  ///
  /// It is called on the client's executor, by several threads at once, and must not block: other clients would wait.
  /// If it throws, the client is disconnected. It may be called as long as the service lives.
  std::function<void(Credentials, Verdict)> authenticate = {};
  /// How many logins may wait for a verdict at once, also of clients that have gone meanwhile; others are refused.
  std::size_t max_pending_logins = 1024;
  /// Whether to accept secrets over a connection that is neither encrypted nor from this machine.
  bool insecure_passwords = false;
  std::size_t max_rooms = 0;    ///< The maximum number of rooms; 0: no limit.
  std::size_t max_members = 0;  ///< The maximum number of senders and receivers in a room; 0: no limit.
  /// What rooms keep of what was said, for receivers that ask for it (`history:`); see docs/protocol.md, section 10. By
  /// default nothing, and `history:` is an unknown message. With a backplane, a room that receivers of this service are
  /// in keeps it here too, and begins with what the backplane still has.
  HistoryLimits history = {};
  /// Where these outlive the service, if they do. A store belongs to one service. Not with a backplane.
  std::shared_ptr<HistoryStore> history_store = {};
  /// Whether senders may ask who is in their room (`who:`); see docs/protocol.md, section 11. Otherwise that is an
  /// unknown message. Not with a backplane.
  bool presence = false;
  /// Where the rooms have their logs, if they span several servers; see docs/cluster.md. If empty, they are this
  /// service's own. A backplane belongs to one service. The limits above count this service's rooms and clients only.
  /// It cannot be used with `Overflow::block_sender`: the session of each client would throw `std::logic_error`.
  std::shared_ptr<Backplane> backplane = {};
};

/// The chat service, which is the default service of `Server`.
///
/// Thread safety: distinct objects: safe. Shared objects: safe; but only its own client uses a session.
class ChatService {
 public:
  class Session;

  /// Constructs a chat with the histories of the store, if there is one, and otherwise without rooms. Throws what
  /// `HistoryStore::load` and `Backplane::start` throw, and `std::invalid_argument` if there is a store and no history,
  /// or an option that cannot be used with a backplane.
  explicit ChatService(ChatOptions options = {})
      : options_(std::move(options)), rooms_(options_.max_rooms, options_.max_members, options_.history) {
    if (options_.history_store) {
      if (!options_.history) throw std::invalid_argument("chatproto::ChatOptions: a store needs a history");
      rooms_.use(*options_.history_store);
    }
    if (!options_.backplane) return;
    if (options_.history_store || options_.presence)
      throw std::invalid_argument("chatproto::ChatOptions: a store and presence cannot be used with a backplane");
    options_.backplane->start(from_backplane_);
  }
  ~ChatService() {
    if (options_.backplane) options_.backplane->stop();
  }
  ChatService(ChatService const&) = delete;
  ChatService& operator=(ChatService const&) = delete;

  /// Returns a session for the client that `peer` refers to. The service must outlive the session.
  Session open(Peer peer);
  /// As above, and keeps what is known of the client for `ChatOptions::authenticate`, if there is one. (The other
  /// `open` takes the client for one from anywhere, not encrypted.)
  Session open(Peer peer, ClientInfo info);
  /// Returns whether the second `open` is of use.
  bool wants_client_info() const noexcept { return asks_for_logins(); }

  /// Sends `text` to every receiver in `room` whose name is not `from`, as a sender called `from` would. Returns the
  /// number of receivers; 0 if there is no such room. For bots and other sources without a connection. Any thread may
  /// call it, also before the server runs and after it has ended. A session may too, but what it holds back until its
  /// flush then comes later; see `Session::say`.
  ///
  /// Errors: `Errc::invalid_name`; `Errc::invalid_payload` or `Errc::line_too_long` for the delivery;
  /// `std::errc::resource_unavailable_try_again` while the room makes its senders wait (`Overflow::block_sender`).
  /// Throws only `std::bad_alloc`. In all these cases nothing was sent.
  ///
  /// With a backplane, the text goes to the receivers of all servers, and comes to those of this server, whose number
  /// is returned, a moment later. The caller is not told whether the backplane has taken it.
  std::size_t say(std::string_view room, std::string_view from, std::string_view text, std::error_code& ec) {
    if (!is_valid_name(room) || !is_valid_name(from)) {
      ec = Errc::invalid_name;
      return 0;
    }
    ec = check_text(text, delivery_size(room, from, {}) - 1);
    if (ec) return 0;
    auto const stay = rooms_.enter_existing(room);
    if (options_.backplane) {
      std::string line;
      append_delivery(line, room, from, text);
      options_.backplane->append(room, {from, {}, line, 1}, nullptr);
      count_texts(1);
      return stay ? stay.room().size() : 0;
    }
    if (!stay) return 0;
    if (stay.room().makes_senders_wait()) {
      ec = std::make_error_code(std::errc::resource_unavailable_try_again);
      return 0;
    }
    std::string line;
    append_delivery(line, room, from, text);
    auto const receivers = stay.room().broadcast(from, line);
    count_texts(1);
    count_deliveries(1, receivers);
    return receivers;
  }
  /// As above; also throws `std::system_error`.
  std::size_t say(std::string_view room, std::string_view from, std::string_view text) {
    std::error_code ec;
    auto const receivers = say(room, from, text, ec);
    if (ec) throw std::system_error(ec, "chatproto::ChatService::say");
    return receivers;
  }

  /// Refuses logins under these names from now on, and under no others. Any thread may call it; see `Server::ban`.
  void ban(std::set<std::string, std::less<>> names) {
    auto banned = std::make_shared<std::set<std::string, std::less<>> const>(std::move(names));
    std::lock_guard const lock(banned_mutex_);
    has_banned_ = !banned->empty();
    banned_ = std::move(banned);
  }

  /// Returns the number of rooms that clients are in.
  std::size_t room_count() const { return rooms_.size(); }
  /// Returns the number of texts sent so far: each `sendall` and `senduser` answered by `ok`, and each `say`, also of
  /// sessions.
  std::uint64_t texts() const noexcept { return texts_.load(std::memory_order_relaxed); }
  /// Returns the number of their deliveries: one for each receiver of each text.
  std::uint64_t deliveries() const noexcept { return deliveries_.load(std::memory_order_relaxed); }
  /// Returns the bytes of memory of all rooms' histories.
  std::size_t history_bytes() const noexcept { return rooms_.history_memory(); }
  /// Returns the bytes of memory of all logs that receivers have still to read: their texts, the segments' free space,
  /// and the history, if the room keeps one.
  std::size_t queued_bytes() const { return rooms_.memory(); }

 private:
  /// Returns the length of a delivery's line, including the terminator.
  static std::size_t delivery_size(std::string_view room, std::string_view from, std::string_view text) noexcept {
    return tag::delivery.size() + room.size() + from.size() + text.size() + 4;
  }
  /// Appends a delivery's line. If it throws, nothing was appended.
  static void append_delivery(std::string& lines, std::string_view room, std::string_view from, std::string_view text) {
    auto const size = lines.size() + delivery_size(room, from, text);
    if (size > lines.capacity()) lines.reserve(std::max(size, 2 * lines.size()));
    lines.append(tag::delivery).append(1, ':').append(room).append(1, ':').append(from).append(1, ':');
    lines.append(text).append(1, '\n');
  }
  void count_texts(std::uint64_t texts) noexcept { texts_.fetch_add(texts, std::memory_order_relaxed); }
  void count_deliveries(std::uint64_t texts, std::size_t receivers) noexcept {
    deliveries_.fetch_add(texts * receivers, std::memory_order_relaxed);
  }

  /// Gets what comes from the backplane.
  struct Deliveries final : Backplane::Sink {
    explicit Deliveries(ChatService& its_service) noexcept : service(its_service) {}
    void deliver(std::string_view name, Backplane::Said const& said) noexcept override {
      try {
        auto const stay = enter(name);
        if (!stay) return;
        auto& room = stay.room();
        service.count_deliveries(
            said.texts, said.to.empty() ? room.broadcast(said.from, said.lines) : room.send_to(said.to, said.lines));
      } catch (...) {  // out of memory: nobody has got it
        lost(name);
      }
    }
    void lost(std::string_view name) noexcept override {
      if (auto const stay = service.rooms_.enter_existing(name))
        stay.room().disconnect_all(MessageQueue::State::room_lost);
    }
    HistoryLimits wanted_past() const noexcept override { return service.options_.history; }
    void past(std::string_view name, Backplane::Said const& said) noexcept override {
      try {
        auto const is_for_one = !said.to.empty();
        if (auto const stay = enter(name))
          stay.room().restore(said.lines, {is_for_one ? said.to : said.from, is_for_one});
      } catch (...) {  // out of memory
        left(name);
      }
    }
    void left(std::string_view name) noexcept override { service.rooms_.forget_history(name); }
    /// A room that keeps a history is there while it is followed, even if nobody has come yet or is left.
    RoomTable::Membership enter(std::string_view name) {
      auto stay = service.rooms_.enter_existing(name);
      if (!stay && service.options_.history) stay = service.rooms_.enter(name);
      return stay;
    }

    ChatService& service;
  };

  bool asks_for_logins() const noexcept { return static_cast<bool>(options_.authenticate); }
  /// Returns a login that waits for its verdict, or null if too many do.
  std::shared_ptr<detail::PendingLogin> begin_login(Peer const& peer) {
    auto pending = std::make_shared<detail::PendingLogin>(peer, pending_logins_);
    if (pending_logins_->fetch_add(1, std::memory_order_relaxed) < options_.max_pending_logins) return pending;
    pending_logins_->fetch_sub(1, std::memory_order_relaxed);
    return nullptr;
  }

  bool is_banned(std::string_view name) const {
    if (!has_banned_) return false;
    std::lock_guard const lock(banned_mutex_);
    return banned_->contains(name);
  }

  ChatOptions const options_;
  std::shared_ptr<std::atomic<std::size_t>> const pending_logins_ = std::make_shared<std::atomic<std::size_t>>(0);
  mutable std::mutex banned_mutex_;  // guards banned_
  std::shared_ptr<std::set<std::string, std::less<>> const> banned_;
  std::atomic<bool> has_banned_ = false;
  RoomTable rooms_;
  std::atomic<std::uint64_t> texts_ = 0, deliveries_ = 0;
  Deliveries from_backplane_{*this};
};

}  // namespace chatproto

#include <chatproto/chat_session.hpp>  // the definition of ChatService::Session
