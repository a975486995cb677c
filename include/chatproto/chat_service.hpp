// SPDX-License-Identifier: BSL-1.0
/// @file
/// The chat itself: rooms, senders and receivers. Every rule of the protocol is here, and no socket.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <chatproto/error.hpp>
#include <chatproto/message.hpp>
#include <chatproto/peer.hpp>
#include <chatproto/room_table.hpp>
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

  /// Says `text` to everybody in `room` whose name is not `from`, as a sender called `from` would. Returns to how many;
  /// none if there is no such room. For a bot, or whatever else speaks without a connection. From any thread; also
  /// before the server runs and when it has ended, when there is nobody. From a session too, but what a session keeps
  /// back until its flush then comes later; see `Session::say`.
  ///
  /// Errors, and then nothing was said: `Errc::invalid_name`; `Errc::invalid_payload`, `Errc::line_too_long` of the
  /// delivery; `std::errc::resource_unavailable_try_again` while the room makes its senders wait
  /// (`Overflow::block_sender`). Throws only `std::bad_alloc`, and then nothing was said either.
  std::size_t say(std::string_view room, std::string_view from, std::string_view text, std::error_code& ec) {
    if (!is_valid_name(room) || !is_valid_name(from)) {
      ec = Errc::invalid_name;
      return 0;
    }
    ec = check_text(text, delivery_size(room, from, {}) - 1);
    if (ec) return 0;
    auto const stay = rooms_.enter_existing(room);
    if (!stay) return 0;
    if (stay.room().makes_senders_wait()) {
      ec = std::make_error_code(std::errc::resource_unavailable_try_again);
      return 0;
    }
    std::string line;
    append_delivery(line, room, from, text);
    auto const receivers = stay.room().broadcast(from, line);
    count(1, receivers);
    return receivers;
  }
  /// As above; throws `std::system_error` too.
  std::size_t say(std::string_view room, std::string_view from, std::string_view text) {
    std::error_code ec;
    auto const receivers = say(room, from, text, ec);
    if (ec) throw std::system_error(ec, "chatproto::ChatService::say");
    return receivers;
  }

  /// How many rooms have somebody in them.
  std::size_t room_count() const { return rooms_.size(); }
  /// How many texts were said since the service was made: each `sendall` and `senduser` that is answered by `ok`, and
  /// each `say`, also of a session.
  std::uint64_t texts() const noexcept { return texts_.load(std::memory_order_relaxed); }
  /// How many deliveries these made: for each text, one for each of its receivers.
  std::uint64_t deliveries() const noexcept { return deliveries_.load(std::memory_order_relaxed); }
  /// Bytes of memory that the logs of all rooms hold: what receivers have still to read, and segments' free space.
  std::size_t queued_bytes() const { return rooms_.memory(); }

 private:
  /// Bytes of a delivery's line, terminator included.
  static std::size_t delivery_size(std::string_view room, std::string_view from, std::string_view text) noexcept {
    return tag::delivery.size() + room.size() + from.size() + text.size() + 4;
  }
  /// Appends that line. If it throws, nothing was appended.
  static void append_delivery(std::string& lines, std::string_view room, std::string_view from, std::string_view text) {
    auto const size = lines.size() + delivery_size(room, from, text);
    if (size > lines.capacity()) lines.reserve(std::max(size, 2 * lines.size()));
    lines.append(tag::delivery).append(1, ':').append(room).append(1, ':').append(from).append(1, ':');
    lines.append(text).append(1, '\n');
  }
  void count(std::uint64_t texts, std::size_t receivers) noexcept {
    texts_.fetch_add(texts, std::memory_order_relaxed);
    deliveries_.fetch_add(texts * receivers, std::memory_order_relaxed);
  }

  RoomTable rooms_;
  std::atomic<std::uint64_t> texts_ = 0, deliveries_ = 0;
};

/// One client's part in the chat: sections 1 to 5 of the protocol.
///
/// Deliveries and replies are kept back until `flush()`, so that those of one read cost the room one append. Then the
/// deliveries go first: an `ok` says that the text stands in the room's log. While the room makes its senders wait
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
    bool leaves = false;                             ///< whether it may take the client out of its room
  };

  /// See `ChatService::open`.
  Session(ChatService& service, Peer peer) : service_(service), me_(std::move(peer)) {}
  Session(Session const&) = delete;
  Session& operator=(Session const&) = delete;
  ~Session() {
    try {
      flush_deliveries();
    } catch (...) {  // no memory: none of them was answered
    }
    leave_room();
  }

  /// Carries out one line, which comes without its terminator.
  void on_line(std::string_view line) {
    catch_up();
    if (role_ == gone) return;
    std::error_code ec;
    auto const message = parse(line, ec);
    if (ec) return refuse(ec.message());
    auto const* const command = find(message.tag);
    if (command == nullptr) return refuse("unknown message");
    if (admits(command->roles) && !is_put_off(*command, message.payload)) (this->*command->run)(message.payload);
  }

  /// A line that was dropped, for the reason `ec`.
  void on_bad_line(std::error_code ec) {
    catch_up();
    if (role_ != gone) refuse(ec.message());
  }

  /// The client was resumed: goes on with what was put off, or waits again if somebody has resumed it too early.
  void on_resume() {
    if (me_.waits()) return peer().pause();
    catch_up();
  }
  /// Sends what was kept back: first the deliveries, then the replies; and closes the client, if that is its end.
  void flush() {
    flush_deliveries();
    if (me_.waits()) return peer().pause();
    catch_up();
    send_replies();
    kept_.reset();
    if (role_ == gone) peer().close();
  }

  /// Whether the client has logged in.
  bool logged_in() const noexcept { return !me_.name().empty(); }
  /// What the client is now.
  Role role() const noexcept { return role_; }
  /// The user's name; empty before the login.
  std::string_view name() const noexcept { return me_.name(); }

  /// All commands.
  static auto const& commands() noexcept;

  // For a service with commands of its own. Its session has one of these. It hands on every line that is not its own,
  // and `on_bad_line`, `on_resume`, `flush` and `logged_in`. It answers its own lines by what follows, so that all
  // replies keep their order.

  /// Whether the client has one of these roles (bits of `Role`). Refuses it if not, unless it is gone.
  bool admits(unsigned roles) {
    catch_up();
    if ((roles & role_) != 0) return true;
    if (role_ != gone) refuse(role_ == guest ? "log in first" : "not allowed now");
    return false;
  }
  /// Replies `ok:` and a text that fits a line.
  void ok(std::string_view text) { reply(tag::ok, text); }
  /// Replies `err:` and a text that fits a line. Ends a client that is still a `guest` or a `newcomer`.
  void refuse(std::string_view reason) {
    reply(tag::err, reason);
    if ((role_ & (guest | newcomer)) != 0) end();
  }
  /// Says something to the client's room, as `sendall` does but without a reply. False: it is in no room, or the text
  /// is too long for a delivery. Precondition: the client has logged in.
  bool say(std::string_view text) {
    catch_up();
    return keep_delivery(text).empty();
  }

 private:
  /// A command that is carried out when the client no longer waits.
  struct PutOff {
    void (Session::*run)(std::string_view payload);
    std::string payload;
  };
  /// What is kept back until `flush()`. A client that says nothing has none.
  struct Kept {
    std::string deliveries;   // for the room, not yet broadcast
    std::string replies;      // for the client, not yet sent
    std::uint16_t texts = 0;  // how many are in deliveries; `block_size` bounds them
    std::unique_ptr<PutOff> put_off;
  };

  /// With so many bytes of deliveries the block is said at once, so that it stays small against a queue's limit.
  static constexpr std::size_t block_size = 32 * 1024;

  static Command const* find(std::string_view tag) noexcept;

  Peer const& peer() const noexcept { return me_.peer(); }
  Kept& kept() {
    if (!kept_) kept_ = std::make_unique<Kept>();
    return *kept_;
  }
  void reply(std::string_view tag, std::string_view text) {
    kept().replies.append(tag).append(1, ':').append(text).append(1, '\n');
  }
  /// A client that waits for its room's members cannot leave the room yet. Puts off a command that would; true if so.
  bool is_put_off(Command const& command, std::string_view payload) {
    if (!me_.is_in_room() || !command.leaves) return false;
    flush_deliveries();  // what was said before belongs to this room
    if (!me_.waits()) return false;
    kept().put_off.reset(new PutOff{command.run, std::string(payload)});
    return true;
  }
  /// Carries out the command that was put off, if there is one.
  void catch_up() {
    if (!kept_) return;
    if (auto const command = std::exchange(kept_->put_off, nullptr)) (this->*command->run)(command->payload);
  }
  /// Sends the replies, after what was said to the client before. False: it was closed.
  bool send_replies() {
    if (!kept_ || kept_->replies.empty()) return true;
    return me_.send(std::exchange(kept_->replies, {})) == PushResult::queued;
  }
  void end() {
    leave_room();
    role_ = gone;
  }

  void login(std::string_view name, Role role) {
    if (!is_valid_name(name)) return refuse("invalid user name (letters and digits only)");
    me_.name(std::string(name));
    role_ = role;
    ok("");
  }
  void slogin(std::string_view name) { login(name, sender); }
  void rlogin(std::string_view name) { login(name, newcomer); }

  void join(std::string_view name) {
    if (!is_valid_name(name)) return refuse("invalid room name (letters and digits only)");
    if (me_.is_in_room() && me_.room_name() == name) return ok("already there");
    flush_deliveries();  // what was said before belongs to the other room
    me_.enter(service_.rooms_, name);
    ok("joined");
    if (role_ == sender) return;
    // The ok is queued first, so that no delivery overtakes it. It is written when this client's executor is free
    // again; the receiver is a member by then, and misses nothing.
    if (!send_replies()) return end();  // it was closed meanwhile, and is to see nothing of this room
    me_.listen();
    role_ = receiver;
  }

  void leave(std::string_view) {
    if (!me_.is_in_room()) return refuse("not in a room");
    leave_room();
    ok("left");
  }

  void leave_room() {
    flush_deliveries();  // what was said before belongs to this room
    me_.leave();
  }

  void sendall(std::string_view text) {
    auto const reason = keep_delivery(text);
    if (!reason.empty()) return refuse(reason);
    ok("sent");
  }

  void senduser(std::string_view user_and_text) {
    auto const colon = user_and_text.find(':');
    if (colon == std::string_view::npos) return refuse("no text (senduser:USER:TEXT)");
    auto const user = user_and_text.substr(0, colon);
    if (!is_valid_name(user)) return refuse("invalid user name (letters and digits only)");
    flush_deliveries();  // order
    std::string line;
    if (auto const reason = append_delivery(line, user_and_text.substr(colon + 1)); !reason.empty())
      return refuse(reason);
    have_said(1, me_.room().send_to(user, line));
    ok("sent");
  }

  void quit(std::string_view) {
    ok("bye");
    end();
  }

  /// Appends the delivery of `text` to `lines`; returns nothing, or the reason why not.
  std::string append_delivery(std::string& lines, std::string_view text) {
    if (!me_.is_in_room()) return "join a room first";
    auto const& room = me_.room_name();
    auto const& user = me_.name();
    auto const size = delivery_size(room, user, text);
    if (size > max_line)
      return "text too long for a delivery, by " + std::to_string(size - max_line) + " (counted in bytes)";
    ChatService::append_delivery(lines, room, user, text);
    return {};
  }

  /// Keeps the delivery of `text` for the next block, and says the block if it is full. Returns as `append_delivery`.
  std::string keep_delivery(std::string_view text) {
    auto reason = append_delivery(kept().deliveries, text);
    if (!reason.empty()) return reason;
    ++kept_->texts;
    if (kept_->deliveries.size() >= block_size) flush_deliveries();
    return reason;
  }

  void flush_deliveries() {
    if (!kept_ || kept_->deliveries.empty()) return;
    auto const lines = std::exchange(kept_->deliveries, {});
    auto const texts = std::exchange(kept_->texts, std::uint16_t());
    have_said(texts, me_.room().broadcast(me_.name(), lines));
  }

  /// After so many texts were said to so many receivers: counts them, and pauses the client if it must wait.
  void have_said(std::uint64_t texts, std::size_t receivers) {
    service_.count(texts, receivers);
    if (peer().is_open() && me_.room().must_wait(me_)) peer().pause();
  }

  ChatService& service_;
  Participant me_;  // its name is empty before the login
  std::unique_ptr<Kept> kept_;
  Role role_ = guest;
};

inline auto const& ChatService::Session::commands() noexcept {
  static constexpr Command table[] = {
      {tag::sendall, sender, &Session::sendall},
      {tag::senduser, sender, &Session::senduser},
      {tag::slogin, guest, &Session::slogin},
      {tag::rlogin, guest, &Session::rlogin},
      {tag::join, sender | newcomer | receiver, &Session::join, true},
      {tag::leave, sender, &Session::leave, true},
      {tag::quit, sender | receiver, &Session::quit, true},
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
