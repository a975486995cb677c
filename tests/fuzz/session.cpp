// SPDX-License-Identifier: BSL-1.0
// The whole chat without sockets: four clients, driven by the real rules of their links, send any bytes, read slowly,
// are disconnected, and come again. Each must see, byte for byte except for the text of replies, what model.hpp says,
// in that order; if it is disconnected, a prefix of that.
//
// The bytes of the input go to one client, except:
//   F8 to FB  continue with client 0 to 3
//   FC        ends this read
//   FD        disconnects the client, and connects another one
//   FE        the client shuts down sending
//   F7 n      the client accepts n bytes of what waits for it; FF: all
//   F6        pauses its session after the next line, or resumes it
//   F5        closes the client
//   F3        aborts the client
//   F4 n      like FD, but the new client has a queue of 4n bytes
// If the first byte is F2, the service asks for logins. Then each login waits for:
//   F2 n      drops the verdict on the client's login, accepts or refuses it (n mod 3)
#include "fuzz.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <chatproto/chat_service.hpp>
#include <chatproto/detail/held_memory.hpp>
#include <chatproto/detail/server/link_rules.hpp>
#include <chatproto/login.hpp>
#include <chatproto/server_options.hpp>

#include "../model.hpp"
#include "../support.hpp"

namespace {

using namespace chatproto;
using model::Sight;
using Role = model::Chat::Role;

struct Time {
  static std::chrono::steady_clock::time_point now() { return {}; }
};

class Client final : public MessageQueue, public std::enable_shared_from_this<Client> {
 public:
  Client(ChatService& service, model::Chat& chat, int number, std::size_t limit)
      : MessageQueue(limit), service_(service), chat_(chat), number_(number), rules_(*this, options_) {
    chat_.connect(number_);
  }
  void start() { rules_.open(Opening{*this}); }
  /// The connection breaks.
  void end() {
    finish();
    rules_.forget();
    verdict_.reset();
    if (chat_.knows(number_)) chat_.vanish(number_);
  }

  void send(char byte) { unread_ += byte; }
  void end_read() {
    while (!is_over() && rules_.wants_input() && !unread_.empty()) {
      auto const bytes = unread_.substr(0, rules_.read_size());
      unread_.erase(0, bytes.size());
      untold_ += bytes;
      rules_.received(bytes);
      go_on();
    }
  }
  void end_input() {
    if (is_over() || !rules_.wants_input() || rules_.wants_shutdown()) return;
    rules_.input_ended();
    chat_.end_of_input(number_);
    take(0);  // removes it from its room
  }
  void close() {
    if (is_over()) return;
    Peer(shared_from_this()).close();
    chat_.end_of_input(number_);
    take(0);
  }
  void abort() { Peer(shared_from_this()).abort(); }
  void pause_or_resume() {
    if (paused_)
      Peer(shared_from_this()).resume();
    else
      pauses_ = true;
  }

  /// The hook was asked about the client whose line is being executed.
  static void ask(Verdict verdict) { acting_->verdict_.emplace(std::move(verdict)); }
  void settle(unsigned how) {
    if (!verdict_) return;
    accepted_ = how == 1;
    auto verdict = std::move(*verdict_);
    verdict_.reset();
    if (how == 1) verdict.accept();
    if (how == 2) verdict.refuse("no");
  }

  /// Takes at most `most` bytes of what waits for the client, and compares them.
  void take(std::size_t most) {
    while (!is_over()) {
      auto const expected = std::exchange(woken_, false) || rules_.wants_writable();
      auto const found = rules_.next_output(output_);
      assert(expected || (found && output_.batch.blocks.empty() && output_.log.size == 0));
      if (!found) return end();
      auto bytes = test::text_of(output_.batch) + test::text_of(output_.log);
      auto const all = bytes.size() <= most;
      bytes.resize(std::min(bytes.size(), most));
      most -= bytes.size();
      see(bytes);
      rules_.written(output_, bytes.size());
      output_.batch.clear();
      if (rules_.over() && *rules_.over() != DisconnectReason::closed) return end();
      if (all && !woken_) {
        assert(unseen_.empty() && due_.size() == (rules_.over() || rules_.wants_shutdown() ? 1u : 0u));
        assert(due_.empty() || due_.front().kind == Sight::end);
        if (!due_.empty()) return end();
      }
      go_on();
      if (!all || !woken_) return;
    }
  }
  void take_all() { take(static_cast<std::size_t>(-1)); }

  /// Ends the client if its queue was cut, as a link does.
  void end_if_cut() {
    if (is_cut()) take_all();
  }
  bool is_closing() const { return !is_over() && !is_open(); }
  void take_what_comes() {
    end_read();
    settle(1);
    if (paused_) pause_or_resume();
    while (!is_over() && woken_) take_all();
  }

 private:
  /// Wraps the chat's session, and passes its input on to the model.
  struct Session {
    Client& client;
    ChatService::Session chat;

    void on_line(std::string_view line) {
      acting_ = &client;
      client.tell_model();
      chat.on_line(line);
      client.pause_after_line();
    }
    void on_bad_line(std::error_code ec) {
      client.tell_model();
      chat.on_bad_line(ec);
      client.pause_after_line();
    }
    void on_resume() {
      if (client.accepted_) client.chat_.verdict(client.number_, *std::exchange(client.accepted_, std::nullopt));
      chat.on_resume();
    }
    void flush() {
      chat.flush();
      if (!client.is_open()) return;
      auto const role = client.chat_.role(client.number_);
      assert((chat.role() == chat.sender) == (role == Role::sender));
      assert((chat.role() == chat.receiver) == (role == Role::receiver));
      assert((chat.role() == chat.waiting) == (role == Role::waiting));
      assert(chat.logged_in() == (role != Role::guest && role != Role::waiting && role != Role::newcomer));
    }
    bool logged_in() const { return chat.logged_in(); }
  };
  using Rules = detail::LinkRules<Session, Client, Time>;
  friend Rules;
  struct Opening {
    Client& client;
    operator Session() const {
      return {client, client.service_.open(Peer(client.shared_from_this()), {.is_loopback = true})};
    }
  };

  ServerOptions const& options() const { return options_; }
  void wake() override {
    assert(!woken_);
    woken_ = true;
  }
  void pause_input() override {
    paused_ = true;
    rules_.pause();
  }
  void resume_input() noexcept override {
    if (!std::exchange(paused_, false)) return;
    rules_.resume();
    go_on();
  }
  void follow(LogReader* reader) noexcept override { rules_.follow(reader); }
  bool logged_in(std::string_view /*name*/) { return chat_.role(number_) != Role::guest; }
  void throttled(std::chrono::steady_clock::duration /*time*/) { assert(false); }

  bool is_over() const { return !chat_.knows(number_); }
  void go_on() {
    while (rules_.wants_turn()) rules_.take_turn();
    if (is_open() && rules_.wants_input())  // no line was overlooked
      assert(std::count(untold_.begin(), untold_.end(), '\n') <= (too_long_ ? 1 : 0));
  }
  void pause_after_line() {
    if (std::exchange(pauses_, false)) Peer(shared_from_this()).pause();
  }

  /// Passes the next line to the model. The reader reports a line that is too long before its end has come.
  void tell_model() {
    auto const tell = [this] {
      auto const line = untold_.substr(0, untold_.find('\n'));
      auto const ends = line.size() < untold_.size();
      chat_.bytes(number_, ends ? line + '\n' : line);
      untold_.erase(0, line.size() + (ends ? 1 : 0));
      return ends;
    };
    if (too_long_) tell();
    too_long_ = !tell();
  }

  void see(std::string const& bytes) {
    for (auto& sight : chat_.sights(number_)) due_.push_back(std::move(sight));
    unseen_ += bytes;
    for (auto end = unseen_.find('\n'); end != unseen_.npos; end = unseen_.find('\n')) {
      assert(end < max_line);
      see_line(unseen_.substr(0, end + 1));
      unseen_.erase(0, end + 1);
    }
  }
  void see_line(std::string const& line) {
    assert(!due_.empty());
    switch (due_.front().kind) {
      case Sight::ok:
        assert(line.starts_with("ok:") && (due_.front().line.empty() || line == due_.front().line));
        break;
      case Sight::err: assert(line.starts_with("err:")); break;
      case Sight::delivery: assert(line == due_.front().line); break;
      case Sight::end: assert(false);
    }
    due_.pop_front();
  }

  ChatService& service_;
  model::Chat& chat_;
  int const number_;
  ServerOptions const options_ = {};
  Rules rules_;
  detail::Output output_;
  std::string unread_, untold_, unseen_;  // not read; read but not in the model yet; an unfinished line
  std::deque<Sight> due_;
  static inline Client* acting_;
  std::optional<Verdict> verdict_;  // on its login
  std::optional<bool> accepted_;    // what was decided, until its session is told
  bool woken_ = false, paused_ = false, pauses_ = false, too_long_ = false;
};

}  // namespace

int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  auto const asks = size > 0 && data[0] == 0xF2;
  ChatOptions options{.history = {.lines = 5}, .presence = true};
  if (asks) options.authenticate = [](Credentials, Verdict verdict) { Client::ask(std::move(verdict)); };
  ChatService service(options);
  {
    model::Chat chat(asks, options.history.lines, options.presence);
    std::array<std::shared_ptr<Client>, 4> clients;
    auto number = 0;
    auto const leave = [&](std::shared_ptr<Client>& client) {
      client->end();
      assert(client.use_count() == 1);
    };
    auto const come = [&](std::size_t limit) {
      auto& client = clients[static_cast<std::size_t>(number)];
      if (client) leave(client);
      client = std::make_shared<Client>(service, chat, number, limit);
      client->start();
    };
    for (; number < 4; ++number) come(MessageQueue::default_limit);
    number = 0;
    auto const settle = [&] {
      for (auto& client : clients) client->end_if_cut();
      // A closed client stays, unseen, until it has read what was sent before.
      auto const closing =
          std::count_if(clients.begin(), clients.end(), [](auto const& client) { return client->is_closing(); });
      assert(service.room_count() >= chat.rooms());
      assert(service.room_count() <= chat.rooms() + static_cast<std::size_t>(closing));
    };
    for (std::size_t i = asks ? 1 : 0; i < size; ++i) {
      auto& client = clients[static_cast<std::size_t>(number)];
      auto const byte = data[i];
      switch (byte) {
        case 0xF8:
        case 0xF9:
        case 0xFA:
        case 0xFB: number = byte - 0xF8; continue;
        case 0xFC: client->end_read(); break;
        case 0xFD: come(MessageQueue::default_limit); break;
        case 0xFE: client->end_input(); break;
        case 0xF7:
          if (++i == size || data[i] == 0xFF)
            client->take_all();
          else
            client->take(data[i]);
          break;
        case 0xF6: client->pause_or_resume(); break;
        case 0xF5: client->close(); break;
        case 0xF3: client->abort(); break;
        case 0xF2:
          if (!asks) {
            client->send(static_cast<char>(byte));
            continue;
          }
          client->settle(++i < size ? data[i] % 3 : 0);
          break;
        case 0xF4: come(++i < size ? data[i] * 4u : 0u); break;
        default: client->send(static_cast<char>(byte)); continue;
      }
      settle();
    }
    for (auto& client : clients) client->take_what_comes();
    settle();
    for (auto& client : clients) client->take_all();
    for (auto& client : clients) leave(client);
  }
  assert(service.room_count() == 0 && detail::HeldMemory::total() == service.history_bytes());
  return 0;
}
