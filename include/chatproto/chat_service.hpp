// SPDX-License-Identifier: BSL-1.0
/// @file
/// The chat itself: rooms, senders and receivers. Every rule of the protocol is here, and no socket.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <chatproto/message.hpp>
#include <chatproto/peer.hpp>
#include <chatproto/room.hpp>
#include <chatproto/service.hpp>

namespace chatproto {

/// The chat service: what `Server` serves unless told otherwise.
///
/// Thread safety: distinct objects: safe. Shared objects: safe; each session is used by its own client only.
class ChatService {
 public:
  class Session;

  /// The session of a client who is reached through `peer`. The service must outlive it.
  Session open(Peer peer);

  /// How many rooms have somebody in them.
  std::size_t room_count() const { return rooms_.size(); }
  /// How many texts were said since the service was made: each sendall and senduser that is answered by `ok`, and each `say`.
  std::uint64_t texts() const noexcept { return texts_.load(std::memory_order_relaxed); }
  /// In how many queues they were put, each text counted for each.
  std::uint64_t deliveries() const noexcept { return deliveries_.load(std::memory_order_relaxed); }

 private:
  RoomTable rooms_;
  std::atomic<std::uint64_t> texts_ = 0, deliveries_ = 0;
};

/// One client's part in the chat: sections 1 to 5 of the protocol.
///
/// Deliveries and replies are kept back until `flush()`, so that those of one read cost each receiver one push. Then the
/// deliveries go first: an `ok` says that the text stands in every queue. While one of these queues blocks its senders
/// (`Overflow::block_sender`), the client is paused, and its replies are kept back.
///
/// Thread safety: distinct objects: safe; shared objects: unsafe.
class ChatService::Session {
 public:
  /// What a client may be; one bit each, so that a command can name several.
  enum Role : unsigned {
    guest = 1,     ///< not logged in
    sender = 2,    ///< logged in by `slogin`
    newcomer = 4,  ///< logged in by `rlogin`, in no room yet
    receiver = 8,  ///< a newcomer that has joined
    gone = 16,     ///< told to quit, or refused: further lines are ignored
  };

  /// One row of the protocol: a tag, who may send it, what it does with its payload.
  struct Command {
    std::string_view tag;                            ///< of the message
    unsigned roles;                                  ///< who may send it: bits of `Role`
    void (Session::*run)(std::string_view payload);  ///< carries it out
  };

  /// See `ChatService::open`.
  Session(ChatService& service, Peer peer) : service_(service), peer_(std::move(peer)) {}
  Session(Session const&) = delete;
  Session& operator=(Session const&) = delete;
  ~Session() {
    try {
      flush_deliveries();
    } catch (...) {  // no memory: none of them was answered
      deliveries_.clear();
    }
    leave_room();
  }

  /// Carries out one line, which comes without its terminator.
  void on_line(std::string_view line) {
    if (role_ == gone) return;
    std::error_code ec;
    auto const message = parse(line, ec);
    if (ec) return refuse(ec.message());
    auto const* const command = find(message.tag);
    if (command == nullptr) return refuse("unknown message");
    if (admits(command->roles)) (this->*command->run)(message.payload);
  }

  /// A line that was dropped, for the reason `ec`.
  void on_bad_line(std::error_code ec) {
    if (role_ != gone) refuse(ec.message());
  }

  /// Sends what was kept back: first the deliveries, then the replies; and closes the client, if that is its end.
  void flush() {
    flush_deliveries();
    if (auto const hold = hold_.lock()) return peer_.pause();
    if (!replies_.empty()) peer_.send(std::exchange(replies_, {}));
    if (role_ == gone) peer_.close();
  }

  /// Whether the client has logged in.
  bool logged_in() const noexcept { return member_.has_value(); }
  /// What the client is now.
  Role role() const noexcept { return role_; }
  /// The user's name; empty before the login.
  std::string_view name() const noexcept { return member_ ? std::string_view(member_->name()) : std::string_view(); }

  /// All commands.
  static auto const& commands() noexcept;

  // For a service with commands of its own, whose session has one of these: it hands on every line that is not its own
  // (and `on_bad_line`, `flush`, `logged_in`), and answers its own by these, which keep their place among the chat's replies.

  /// Whether the client has one of these roles (bits of `Role`); if not, it is refused, unless it is gone.
  bool admits(unsigned roles) {
    if ((roles & role_) != 0) return true;
    if (role_ != gone) refuse(role_ == guest ? "log in first" : "not allowed now");
    return false;
  }
  /// Replies `ok:` and a text that fits a line.
  void ok(std::string_view text) { reply(tag::ok, text); }
  /// Replies `err:` and a text that fits a line. It ends a client who was still to introduce itself.
  void refuse(std::string_view reason) {
    reply(tag::err, reason);
    if ((role_ & (guest | newcomer)) != 0) end();
  }
  /// Says something to the client's room, as `sendall` does but without a reply; false: it is in no room, or the text is too
  /// long for a delivery. The client has logged in.
  bool say(std::string_view text) {
    if (!append_delivery(deliveries_, text).empty()) return false;
    ++texts_;
    if (deliveries_.size() >= block_size) flush_deliveries();
    return true;
  }

 private:
  /// Deliveries beyond so many bytes are not kept back: one block stays small against a queue's limit.
  static constexpr std::size_t block_size = 32 * 1024;

  static Command const* find(std::string_view tag) noexcept;

  void reply(std::string_view tag, std::string_view text) {
    replies_.append(tag).append(1, ':').append(text).append(1, '\n');
  }
  void end() {
    leave_room();
    role_ = gone;
  }

  void login(std::string_view name, Role role) {
    if (!is_valid_name(name)) return refuse("invalid user name (letters and digits only)");
    member_.emplace(std::string(name), peer_);
    role_ = role;
    ok("");
  }
  void slogin(std::string_view name) { login(name, sender); }
  void rlogin(std::string_view name) { login(name, newcomer); }

  void join(std::string_view name) {
    if (!is_valid_name(name)) return refuse("invalid room name (letters and digits only)");
    if (stay_ && stay_.name() == name) return ok("already there");
    auto next = service_.rooms_.enter(name);
    leave_room();
    stay_ = std::move(next);
    ok("joined");
    if (role_ == sender) return;
    // The ok is queued first, so that no delivery overtakes it; nothing is written before this client's executor
    // is free again, so the receiver is registered by then and misses nothing. What it said is in all queues, also if it must wait.
    peer_.send(std::exchange(replies_, {}));
    stay_.room().add(*member_);
    listening_ = true;
    role_ = receiver;
  }

  void leave(std::string_view) {
    if (!stay_) return refuse("not in a room");
    leave_room();
    ok("left");
  }

  void leave_room() {
    if (!stay_) return;
    flush_deliveries();  // what was said before belongs to this room
    if (std::exchange(listening_, false)) stay_.room().remove(*member_);
    stay_ = {};
  }

  void sendall(std::string_view text) {
    if (auto const reason = append_delivery(deliveries_, text); !reason.empty()) return refuse(reason);
    ++texts_;
    ok("sent");
    if (deliveries_.size() >= block_size) flush_deliveries();
  }

  void senduser(std::string_view user_and_text) {
    auto const colon = user_and_text.find(':');
    if (colon == std::string_view::npos) return refuse("no text (senduser:USER:TEXT)");
    auto const user = user_and_text.substr(0, colon);
    if (!is_valid_name(user)) return refuse("invalid user name (letters and digits only)");
    std::string line;
    if (auto const reason = append_delivery(line, user_and_text.substr(colon + 1)); !reason.empty())
      return refuse(reason);
    flush_deliveries();  // order
    auto const block = std::make_shared<std::string const>(std::move(line));
    send(1, [&](Backpressure& pressure) { return stay_.room().send_to(user, block, &pressure); });
    ok("sent");
  }

  void quit(std::string_view) {
    ok("bye");
    end();
  }

  /// Appends the delivery of `text` to `lines`; returns nothing, or the reason why not.
  std::string append_delivery(std::string& lines, std::string_view text) {
    if (!stay_) return "join a room first";
    auto const& room = stay_.name();
    auto const& user = member_->name();
    auto const size = tag::delivery.size() + room.size() + user.size() + text.size() + 4;
    if (size > max_line)
      return "text too long for a delivery, by " + std::to_string(size - max_line) + " (counted in bytes)";
    if (lines.empty()) lines.reserve(size);
    lines.append(tag::delivery).append(1, ':').append(room).append(1, ':').append(user).append(1, ':');
    lines.append(text).append(1, '\n');
    return {};
  }

  void flush_deliveries() {
    if (deliveries_.empty()) return;
    auto const block = std::make_shared<std::string const>(std::exchange(deliveries_, {}));
    send(std::exchange(texts_, std::uint16_t()),
         [&](Backpressure& pressure) { return stay_.room().broadcast(member_->name(), block, &pressure); });
  }

  /// Sends so many texts by `call`, and waits if a queue says so.
  void send(std::uint64_t texts, auto const& call) {
    auto pressure = peer_.pressure(hold_.lock());
    auto const receivers = call(pressure);
    if (pressure.hold()) {
      hold_ = pressure.hold();
      peer_.pause();
    }
    service_.texts_.fetch_add(texts, std::memory_order_relaxed);
    service_.deliveries_.fetch_add(texts * receivers, std::memory_order_relaxed);
  }

  ChatService& service_;
  Peer peer_;
  std::optional<Room::Member> member_;  // once logged in
  RoomTable::Stay stay_;
  Role role_ = guest;
  bool listening_ = false;          // known to the room
  std::uint16_t texts_ = 0;         // in deliveries_, which is full before they are too many
  std::string deliveries_;          // for the room, not yet broadcast
  std::string replies_;             // for the client, not yet sent
  std::weak_ptr<void const> hold_;  // what the client waits for
};

inline auto const& ChatService::Session::commands() noexcept {
  static constexpr Command table[] = {
      {tag::sendall, sender, &Session::sendall},
      {tag::senduser, sender, &Session::senduser},
      {tag::slogin, guest, &Session::slogin},
      {tag::rlogin, guest, &Session::rlogin},
      {tag::join, sender | newcomer | receiver, &Session::join},
      {tag::leave, sender, &Session::leave},
      {tag::quit, sender | receiver, &Session::quit},
  };
  return table;
}

inline ChatService::Session::Command const* ChatService::Session::find(std::string_view tag) noexcept {
  for (auto const& command : commands())
    if (command.tag == tag) return &command;
  return nullptr;
}

inline ChatService::Session ChatService::open(Peer peer) { return {*this, std::move(peer)}; }

}  // namespace chatproto
