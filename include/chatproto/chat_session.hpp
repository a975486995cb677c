// SPDX-License-Identifier: BSL-1.0
/// @file
/// `ChatService::Session`: one client of the chat. Contains the rules of the protocol, and no socket.
#pragma once

#include <chatproto/chat_service.hpp>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <chatproto/backplane.hpp>
#include <chatproto/detail/backplane/request.hpp>
#include <chatproto/login.hpp>
#include <chatproto/message.hpp>
#include <chatproto/peer.hpp>
#include <chatproto/room_table.hpp>
#include <chatproto/service.hpp>

namespace chatproto {

/// One client's session in the chat: sections 1 to 5, 8, 10 and 11 of the protocol.
///
/// Holds back deliveries and replies until `flush()`, so that those of one read cost the room one append. The
/// deliveries go first, because an `ok` says that the text is in the room's log. While the room makes its senders wait
/// (`Overflow::block_sender`), the client is paused, and its replies are held back.
///
/// So it is while the session waits for the backplane, if there is one (`ChatOptions::backplane`): until what it has
/// said stands in the room's log; and before a receiver enters or leaves a room, or gets any other reply, until
/// everything that stands in the room's log has been delivered here.
///
/// And so it is while the client has much to read before a reply, or before the session leaves the room for it
/// (`Participant::try_send`, `try_leave`): that would be copied otherwise.
///
/// Thread safety: distinct objects: safe. Shared objects: unsafe.
class ChatService::Session {
 public:
  /// The role of a client; one bit each, so that a command can name several.
  enum Role : unsigned {
    guest = 1,     ///< not logged in
    sender = 2,    ///< logged in by `slogin`
    newcomer = 4,  ///< logged in by `rlogin`, in no room yet
    receiver = 8,  ///< a newcomer that has joined
    gone = 16,     ///< quit or refused: further lines are ignored
    waiting = 32,  ///< waits for the verdict on its login; see `ChatOptions::authenticate`
  };

  /// One command of the protocol: its tag, who may send it, and the function that executes it.
  struct Command {
    std::string_view tag;                            ///< tag of the message
    unsigned roles;                                  ///< roles that may send it
    void (Session::*run)(std::string_view payload);  ///< executes the command
    bool leaves = false;                             ///< may remove the client from its room
    /// Returns whether a service with these options knows it.
    bool (*is_on)(ChatOptions const& options) = [](ChatOptions const&) { return true; };
  };

  /// Constructs a session; see `ChatService::open`.
  Session(ChatService& service, Peer peer, ClientInfo info = {}) : service_(service), me_(std::move(peer)) {
    if (service.asks_for_logins()) kept().login.reset(new Login{.client = std::move(info)});
    if (backplane() != nullptr && this->peer().queue().overflow() == Overflow::block_sender)
      throw std::logic_error("a chat with a backplane cannot make its senders wait (Overflow::block_sender)");
  }
  Session(Session const&) = delete;
  Session& operator=(Session const&) = delete;
  ~Session() {
    try {
      flush_deliveries();
    } catch (...) {  // out of memory: no delivery was answered
    }
    leave_room();
  }

  /// Executes one line, which has no terminator.
  void on_line(std::string_view line) {
    catch_up();
    if (role_ == gone) return;
    std::error_code ec;
    auto const message = parse(line, ec);
    if (ec) return refuse(ec.message());
    auto const* const command = find(message.tag);
    if (command == nullptr || !command->is_on(service_.options_)) return refuse("unknown message");
    if (admits(command->roles) && !is_put_off(*command, message.payload)) (this->*command->run)(message.payload);
  }

  /// Refuses a line that was dropped for the reason `ec`.
  void on_bad_line(std::error_code ec) {
    catch_up();
    if (role_ != gone) refuse(ec.message());
  }

  /// Continues with a login or a deferred command, or pauses again if the client was resumed too early.
  void on_resume() {
    catch_up();
    if (!waits() && kept_ && std::exchange(kept_->ends, false)) on_input_end();
    if (waits() || role_ == waiting) peer().pause();
  }
  /// Finishes what it waits for, if rooms span several servers or the client has much to read first. Where rooms span
  /// several servers, a receiver then gets what stands in its room's log.
  void on_input_end() {
    if (backplane() == nullptr && !me_.listens()) return;
    catch_up();
    if (waits()) {
      kept().ends = true;
      peer().pause();
    } else if (backplane() != nullptr && role_ == receiver) {
      reach_end(&Session::input_ended);
    }
  }
  /// Sends what was held back: the deliveries, then the replies. Then closes the client if its role is `gone`.
  void flush() {
    catch_up();  // which may hold back more
    flush_deliveries();
    if (waits()) return peer().pause();
    if (backplane() != nullptr && role_ == receiver && kept_ && !kept_->replies.empty())
      return reach_end(&Session::reply_at_end);
    send_replies();
    if (kept_ && !kept_->put_off && !kept_->login && !kept_->shared) kept_.reset();
    if (role_ == gone) peer().close();
  }

  /// Returns whether the client has logged in and, if it is to receive, has joined a room: until then the login
  /// deadline counts.
  bool logged_in() const noexcept { return role_ != newcomer && !me_.name().empty(); }
  /// Returns the client's current role.
  Role role() const noexcept { return role_; }
  /// Returns the user's name; empty before the login.
  std::string_view name() const noexcept { return me_.name(); }

  /// Returns all commands of the protocol.
  static auto const& commands() noexcept;

  // For a service with commands of its own. Its session has one of these, and passes on every line that is not its own,
  // and `on_bad_line`, `on_resume`, `on_input_end`, `flush` and `logged_in`. It answers its own lines with what
  // follows, so that all replies keep their order.

  /// Returns whether the client has one of these roles (bits of `Role`). If not, refuses, unless the role is `gone`.
  bool admits(unsigned roles) {
    catch_up();
    if ((roles & role_) != 0) return true;
    if (role_ != gone) refuse(role_ == guest ? "log in first" : "not allowed now");
    return false;
  }
  /// Replies `ok:` and `text`, which must fit a line.
  void ok(std::string_view text) { reply(tag::ok, text); }
  /// Replies `err:` and `reason`, which must fit a line. Ends a client that has yet to log in or is a `newcomer`.
  void refuse(std::string_view reason) {
    reply(tag::err, reason);
    if ((role_ & (guest | newcomer | waiting)) != 0) end();
  }
  /// Sends `text` to the client's room, like `sendall` but without a reply. Returns false if the client is in no room
  /// or the text is too long for a delivery. Precondition: it has logged in.
  bool say(std::string_view text) {
    catch_up();
    if (kept_ && !kept_->to.empty()) flush_deliveries();
    return keep_delivery(text).empty();
  }

 private:
  /// A command deferred until the client no longer waits.
  struct PutOff {
    void (Session::*run)(std::string_view payload);
    std::string payload;
  };
  /// What is kept until the login, if the service asks for logins.
  struct Login {
    ClientInfo client;
    Secret secret = {};
    std::string name = {};
    Role role = guest;                                   // after the login
    std::shared_ptr<detail::PendingLogin> pending = {};  // once it waits for the verdict
  };
  /// What is kept for a client in rooms that span several servers.
  struct Shared {
    explicit Shared(Peer const& peer) : request(std::make_shared<detail::BackplaneRequest>(peer)) {}

    std::shared_ptr<detail::BackplaneRequest> const request;
    void (Session::*then)(Backplane::Outcome) = nullptr;  // called with the outcome of the request
    std::uint32_t texts = 0;                              // under way
    std::vector<std::size_t> answers;                     // where in `replies` the answers to texts begin
    detail::Following here, there;                        // the room that it is in, and the one that it enters
    std::size_t losses = 0;                               // of the latter, before it was asked for
  };
  /// What is held back until `flush()`. A client that sends nothing after its login has none.
  struct Kept {
    std::string deliveries;      // for the room, not yet sent
    std::string to;              // the user whom they are for; empty: everybody
    std::string replies;         // for the client, not yet sent
    std::uint32_t texts = 0;     // in deliveries
    bool ends = false;           // no more lines will come, and something is not finished
    RoomTable::Membership next;  // in the room that it enters
    std::unique_ptr<PutOff> put_off;
    std::unique_ptr<Login> login;
    std::unique_ptr<Shared> shared;
  };

  /// At this many bytes, deliveries are sent at once: the block stays small compared with a queue's limit, and with
  /// what the room's history may hold.
  std::size_t block_size() const noexcept {
    return service_.options_.history ? service_.rooms_.history_step() : 32 * 1024;
  }

  static Command const* find(std::string_view tag) noexcept;

  Peer const& peer() const noexcept { return me_.peer(); }
  /// Null: the rooms' logs are the service's own.
  Backplane* backplane() const noexcept { return service_.options_.backplane.get(); }
  Shared& shared() {
    if (!kept().shared) kept_->shared = std::make_unique<Shared>(peer());
    return *kept_->shared;
  }
  /// Returns whether the session waits for its room's members, or for the backplane and has not acted on its answer.
  bool waits() const noexcept { return me_.waits() || (kept_ && kept_->shared && kept_->shared->then != nullptr); }
  /// Waits for `outcomes` of requests to the backplane, then calls `then` with the worst.
  Shared& begin_request(unsigned outcomes, void (Session::*then)(Backplane::Outcome)) {
    auto& mine = shared();
    mine.then = then;
    mine.request->begin(outcomes);
    peer().pause();
    return mine;
  }
  /// Waits until what stands in the room's log has been delivered here.
  void reach_end(void (Session::*then)(Backplane::Outcome)) {
    auto const& request = begin_request(1, then).request;
    backplane()->at_end(me_.room_name(), request);
  }
  Kept& kept() {
    if (!kept_) kept_ = std::make_unique<Kept>();
    return *kept_;
  }
  void reply(std::string_view tag, std::string_view text) {
    kept().replies.append(tag).append(1, ':').append(text).append(1, '\n');
  }
  /// Defers a command that would leave the room while the client waits for the room's members. Returns whether it did.
  bool is_put_off(Command const& command, std::string_view payload) {
    if (!me_.is_in_room() || !command.leaves) return false;
    flush_deliveries();  // what was sent before belongs to this room
    if (!waits()) return false;
    put_off(command.run, payload);
    return true;
  }
  void put_off(void (Session::*run)(std::string_view), std::string_view payload) {
    kept().put_off.reset(new PutOff{run, std::string(payload)});
  }
  /// Acts on what the session has waited for, and executes the deferred command, if there is one.
  void catch_up() {
    if (!kept_) return;
    if (role_ == waiting) conclude_login();
    if (auto* const mine = kept_->shared.get(); mine != nullptr && !mine->request->is_pending())
      if (auto const then = std::exchange(mine->then, nullptr)) (this->*then)(mine->request->outcome());
    if (waits()) return;
    if (auto const command = std::exchange(kept_->put_off, nullptr)) (this->*command->run)(command->payload);
  }
  /// Sends the replies, after what the client was sent before. Returns false if the client was closed. They wait for
  /// the deferred command, if there is one.
  bool send_replies() {
    if (!kept_ || kept_->replies.empty() || kept_->put_off) return true;
    auto const result = me_.try_send(kept_->replies);
    if (!result) read_first(&Session::send_replies_now);
    return !result || *result == PushResult::queued;
  }
  void send_replies_now(std::string_view) { send_replies(); }
  /// Defers `run` until the client has read what its room resumes it after.
  void read_first(void (Session::*run)(std::string_view)) {
    put_off(run, {});
    peer().pause();
  }
  void end() {
    leave_room();
    role_ = gone;
    if (!kept_) return;
    kept_->next = {};
    if (!kept_->shared) return;
    kept_->shared->then = nullptr;
    kept_->shared->there = {};
  }

  void pass(std::string_view secret) {
    auto& login = *kept_->login;
    auto const is_private = login.client.is_encrypted || login.client.is_loopback;
    if (!is_private && !service_.options_.insecure_passwords) return refuse("secrets need an encrypted connection");
    if (secret.empty()) return refuse("no secret (pass:SECRET)");
    if (!login.secret.empty()) return refuse("only one secret");
    login.secret = Secret(secret);
    ok("");
  }

  void login(std::string_view name, Role role) {
    if (!is_valid_name(name)) return refuse("invalid user name (letters and digits only)");
    if (!service_.asks_for_logins()) return log_in(std::string(name), role);
    auto& login = *kept_->login;
    login.pending = service_.begin_login(peer());
    if (!login.pending) return refuse("too many logins at once; try again later");
    Verdict verdict(login.pending);
    login.name = name;
    login.role = role;
    role_ = waiting;
    peer().pause();
    Credentials credentials{std::string(name), std::move(login.secret), std::move(login.client)};
    service_.options_.authenticate(std::move(credentials), std::move(verdict));
  }
  void log_in(std::string name, Role role) {
    if (service_.is_banned(name)) return refuse("this name is banned");
    me_.name(std::move(name));
    role_ = role;
    ok("");
  }
  /// Acts on the verdict, if there is one.
  void conclude_login() {
    using State = detail::PendingLogin::State;
    auto const state = kept_->login->pending->state();
    if (state == State::waiting) return;
    auto const login = std::move(kept_->login);
    if (state == State::accepted) return log_in(std::move(login->name), login->role);
    auto const& reason = login->pending->reason();
    refuse(reason.empty() ? "wrong name or secret" : reason);
  }
  void slogin(std::string_view name) { login(name, sender); }
  void rlogin(std::string_view name) { login(name, newcomer); }

  void join(std::string_view name) {
    if (!is_valid_name(name)) return refuse("invalid room name (letters and digits only)");
    if (me_.is_in_room() && me_.room_name() == name) return ok("already there");
    flush_deliveries();  // what was sent before belongs to the other room
    auto next = service_.rooms_.enter(name);
    if (!next) return refuse("the room is full, or there are too many rooms");
    kept().next = std::move(next);
    if (backplane() != nullptr && role_ != sender) return join_shared();
    enter_next();
  }
  void enter_next(std::string_view = {}) {
    if (!me_.try_leave()) return read_first(&Session::enter_next);
    me_.enter(std::exchange(kept_->next, {}));
    if (kept_->shared) kept_->shared->here = std::exchange(kept_->shared->there, {});
    joined();
  }
  void joined() {
    ok("joined");
    if (role_ == sender) return;
    // The ok is queued first, so that no delivery overtakes it. It is written when this client's executor is free
    // again; by then the receiver is a member and misses nothing.
    if (!send_replies()) return end();  // closed meanwhile: it must see nothing of this room
    me_.listen();
    role_ = receiver;
    // If texts were lost since, members were disconnected, and this one may have come too late for that.
    if (backplane() != nullptr && me_.room().losses() != kept_->shared->losses) cut();
  }

  /// Enters a room when everything that stands in its log, and in that of the present room, has been delivered here.
  void join_shared() {
    auto& mine = begin_request(me_.is_in_room() ? 2 : 1, &Session::joined_shared);
    if (me_.is_in_room()) backplane()->at_end(me_.room_name(), mine.request);
    mine.losses = kept_->next.room().losses();
    mine.there = detail::Following(*backplane(), kept_->next.name(), mine.request);
  }
  void joined_shared(Backplane::Outcome outcome) {
    if (outcome == Backplane::Outcome::done) return enter_next();
    kept_->next = {};
    kept_->shared->there = {};
    refuse("the room cannot be reached; try again later");
  }

  void history(std::string_view number) {
    std::uint32_t most = 0;
    auto const* const end = number.data() + number.size();
    if (auto const [at, error] = std::from_chars(number.data(), end, most); error != std::errc() || at != end)
      return refuse("not a number of texts (history:N)");
    auto const texts = me_.room().history(me_, most);
    ok(std::to_string(texts.count));
    kept_->replies.reserve(kept_->replies.size() + texts.lines.size());  // exactly, because it may be much
    kept_->replies += texts.lines;
    // At once, so that the link knows how much waits for the client.
    if (backplane() != nullptr) return reach_end(&Session::reply_at_end);
    send_replies();
  }
  void who(std::string_view) {
    if (!me_.is_in_room()) return refuse("join a room first");
    constexpr std::string_view tag = "ok:", more = " ...";
    auto roster = me_.room().roster(2 * max_line);
    auto line = std::to_string(roster.members);
    auto const size = [&] {
      auto bytes = tag.size() + line.size() + 1 + (roster.is_complete ? 0 : more.size());
      for (auto const& name : roster.names) bytes += 1 + name.size();
      return bytes;
    };
    auto const is_shorter = [](auto const& a, auto const& b) { return a.size() < b.size(); };
    while (size() > max_line) {
      roster.names.erase(std::max_element(roster.names.begin(), roster.names.end(), is_shorter));
      roster.is_complete = false;
    }
    for (auto const& name : roster.names) line.append(1, ' ').append(name);
    if (!roster.is_complete) line += more;
    ok(line);
  }

  void leave(std::string_view) {
    if (!me_.is_in_room()) return refuse("not in a room");
    leave_room();
    ok("left");
  }

  void leave_room() {
    flush_deliveries();  // what was sent before belongs to this room
    me_.leave();
    if (kept_ && kept_->shared) kept_->shared->here = {};
  }

  void sendall(std::string_view text) {
    if (!addresses({}, &Session::sendall, text)) return;
    answer(keep_delivery(text));
  }

  void senduser(std::string_view user_and_text) {
    auto const colon = user_and_text.find(':');
    if (colon == std::string_view::npos) return refuse("no text (senduser:USER:TEXT)");
    auto const user = user_and_text.substr(0, colon);
    if (!is_valid_name(user)) return refuse("invalid user name (letters and digits only)");
    if (!addresses(user, &Session::senduser, user_and_text)) return;
    answer(keep_delivery(user_and_text.substr(colon + 1)));
  }
  /// Makes `user` the one for whom texts are held back, after sending those for others; empty: everybody. Returns false
  /// if `command` has to wait for that.
  bool addresses(std::string_view user, void (Session::*command)(std::string_view), std::string_view payload) {
    if (kept().to != user) flush_deliveries();
    if (backplane() != nullptr && waits()) return put_off(command, payload), false;
    kept_->to = user;
    return true;
  }
  /// Replies to a text, which was refused for this reason unless it is empty.
  void answer(std::string const& reason) {
    if (!reason.empty()) return refuse(reason);
    if (backplane() != nullptr) shared().answers.push_back(kept_->replies.size());
    ok("sent");
  }

  void quit(std::string_view) {
    if (backplane() != nullptr && role_ == receiver) return reach_end(&Session::quit_at_end);
    quit_at_end(Backplane::Outcome::done);
  }
  void quit_at_end(Backplane::Outcome outcome) {
    if (outcome != Backplane::Outcome::done) return cut();
    say_bye();
  }
  void say_bye(std::string_view = {}) {
    if (!me_.try_leave()) return read_first(&Session::say_bye);
    ok("bye");
    end();
  }
  void reply_at_end(Backplane::Outcome outcome) {
    if (outcome != Backplane::Outcome::done) return cut();
    send_replies();
  }
  void input_ended(Backplane::Outcome outcome) {
    if (outcome != Backplane::Outcome::done) cut();
  }
  /// Disconnects the client: neither ok nor err would be true.
  void cut() {
    peer().queue().cut(MessageQueue::State::room_lost);
    kept_->deliveries.clear();
    kept_->texts = 0;
    kept_->replies.clear();
    kept_->put_off.reset();
    kept_->shared->answers.clear();
    end();
  }

  /// Appends the delivery of `text` to `lines`. Returns an empty string, or the reason for refusing it.
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

  /// Holds back the delivery of `text`, and sends the block if it is full. Returns the same as `append_delivery`.
  std::string keep_delivery(std::string_view text) {
    auto reason = append_delivery(kept().deliveries, text);
    if (!reason.empty()) return reason;
    ++kept_->texts;
    if (kept_->deliveries.size() >= block_size()) flush_deliveries();
    return reason;
  }

  /// Sends what is held back, and pauses the client if it must wait.
  void flush_deliveries() {
    if (!kept_ || kept_->deliveries.empty()) return;
    if (backplane() != nullptr && waits()) return;  // one block is under way at a time
    auto const lines = std::exchange(kept_->deliveries, {});
    auto const to = std::exchange(kept_->to, {});
    auto const texts = std::exchange(kept_->texts, 0u);
    if (backplane() != nullptr) {
      auto& mine = begin_request(1, &Session::appended);
      mine.texts = texts;
      return backplane()->append(me_.room_name(), {me_.name(), to, lines, texts}, mine.request);
    }
    auto& room = me_.room();
    auto const receivers = to.empty() ? room.broadcast(me_.name(), lines) : room.send_to(to, lines);
    service_.count_texts(texts);
    service_.count_deliveries(texts, receivers);
    if (peer().is_open() && room.must_wait(me_)) peer().pause();
  }
  /// Answers the texts that were under way.
  void appended(Backplane::Outcome outcome) {
    auto& mine = *kept_->shared;
    if (outcome == Backplane::Outcome::unknown) return cut();
    auto const answers = std::exchange(mine.answers, {});
    if (outcome == Backplane::Outcome::done) {
      service_.count_texts(mine.texts);
    } else {
      constexpr std::string_view was = "ok:sent";
      static_assert(tag::ok == "ok");
      for (auto at = answers.rbegin(); at != answers.rend(); ++at)
        kept_->replies.replace(*at, was.size(), "err:the room cannot be reached; try again later");
    }
    send_replies();
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
      {tag::pass, guest, &Session::pass, false, [](ChatOptions const& its) { return bool(its.authenticate); }},
      {tag::history, receiver, &Session::history, false, [](ChatOptions const& its) { return bool(its.history); }},
      {tag::who, sender, &Session::who, false, [](ChatOptions const& its) { return its.presence; }},
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
inline ChatService::Session ChatService::open(Peer peer, ClientInfo info) {
  return {*this, std::move(peer), std::move(info)};
}

}  // namespace chatproto
