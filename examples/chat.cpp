// SPDX-License-Identifier: BSL-1.0
// chat HOST PORT USER [ROOM]: talks and listens in a room of the chat. On a terminal, texts appear above the line that
// is being typed.
#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <deque>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <unistd.h>
#include <asio/io_context.hpp>

#include <chatproto/message.hpp>

#include "client.hpp"
#include "readable.hpp"
#include "session.hpp"
#include "terminal.hpp"

namespace {

namespace tag = chatproto::tag;
using chatproto::Message;

struct Word {
  std::string_view word, argument, help;
};
constexpr std::array words = {
    Word{"/join", "ROOM", "go to this room"},
    Word{"/leave", "", "leave the room"},
    Word{"/msg", "USER TEXT", "say something to one user in the room"},
    Word{"/who", "", "show who is in the room"},
    Word{"/history", "[N]", "show the last N texts (20) that others said before you came, if kept"},
    Word{"/help", "", "show this"},
    Word{"/quit", "", "end; so does Ctrl-D"},
};

std::string usage() {
  std::string list;
  for (auto const& each : words)
    list.append(list.empty() ? "" : ", ")
        .append(each.word)
        .append(each.argument.empty() ? "" : " ")
        .append(each.argument);
  return list;
}

std::string clock_time() {
  auto const now = std::time(nullptr);
  std::tm local = {};
  std::array<char, 8> text = {};
  ::localtime_r(&now, &local);
  return {text.data(), std::strftime(text.data(), text.size(), "%H:%M", &local)};
}

bool set_in_environment(char const* name) {
  auto const* const value = std::getenv(name);
  return value != nullptr && *value != '\0';
}

class Chat : public program::SessionEvents {
 public:
  Chat(program::Login const& login, std::string const& room, std::chrono::milliseconds reply_limit, std::string name)
      : login_(login), name_(std::move(name)) {
    session_.emplace(context_, login_, program::secret_of(login_), room, reply_limit, *this);
  }

  /// Returns the exit code.
  int run() {
    session_->start();
    while (!is_up_) context_.run_one();
    auto const* const kind = std::getenv("TERM");
    is_terminal_ = program::is_terminal(stdin) && program::is_terminal(stdout) && kind != nullptr &&
                   std::string_view(kind) != "dumb" && program::use_utf8();
    auto const signal = is_terminal_ ? run_on_terminal() : run_on_lines();
    report("may not have arrived: ", session_->asked());
    report("not sent: ", session_->waiting());
    if (signal != 0) std::raise(signal);  // nobody handles it any more
    return exit_code_;
  }

 private:
  // --- Input and output ----------------------------------------------------------------------------------------------

  int run_on_terminal() {
    has_colours_ = !set_in_environment("NO_COLOR");
    terminal_.emplace(context_, name_,
                      program::Terminal::User{[this] { return prompt(); },
                                              [this](std::string const& line) { return take_line(line); },
                                              [this] { end(); }, [this] { return !session_->is_full(); },
                                              [this](std::string const& before) { return completions(before); }});
    greet();
    auto const signal = terminal_->run();
    terminal_.reset();
    return signal;
  }

  int run_on_lines() {
    auto has_input = false, has_ended = false, is_too_long = false;
    program::Readable input(context_, STDIN_FILENO, [&] { has_input = true; });
    std::string rest;
    while (!is_over_) {
      if (has_input && !session_->is_full()) {
        has_input = false;
        std::array<char, 4096> bytes;
        auto const count = ::read(STDIN_FILENO, bytes.data(), bytes.size());
        if (count < 0 && errno == EINTR) continue;
        has_ended = count <= 0;
        if (count > 0) rest.append(bytes.data(), static_cast<std::size_t>(count));
        if (has_ended && !rest.empty()) rest += '\n';
        std::size_t end = 0;
        while ((end = rest.find('\n')) != rest.npos && !is_over_) {
          if (!std::exchange(is_too_long, false)) take_line(rest.substr(0, end));
          rest.erase(0, end + 1);
        }
        if (rest.size() > longest_input || is_too_long) {
          if (!std::exchange(is_too_long, true))
            complain("not sent: a line of more than " + std::to_string(longest_input) + " bytes");
          rest.clear();
          exit_code_ = 1;
        }
        if (has_ended) this->end();
      }
      if (!has_ended && !has_input && !session_->is_full()) input.wait();
      if (!is_over_) context_.run_one();
    }
    return 0;
  }

  std::wstring prompt() const {
    auto const most = std::max<std::size_t>(8, program::Terminal::columns() / 3);
    std::string text = !is_up_ ? "not connected" : room_.empty() ? "no room" : room_;
    auto const is_long = text.size() > most;
    if (is_long) text.resize(most - 1);
    std::wstring const wide(text.begin(), text.end());
    auto const shown = is_long ? wide + L'\u2026' : wide;
    return has_colours_ ? L"\1\033[1m\1" + shown + L"\1\033[0m\1> " : shown + L"> ";
  }

  static std::string harmless(std::string_view text) { return program::visible(text, "\ufffd"); }
  std::string coloured(std::string_view colour, std::string const& text) const {
    return has_colours_ ? "\033[" + std::string(colour) + 'm' + text + "\033[0m" : text;
  }
  std::string named(std::string_view name) const {
    constexpr std::array<std::string_view, 10> colours = {"32", "33", "34", "35", "36", "92", "93", "94", "95", "96"};
    std::uint32_t hash = 2166136261u;  // FNV-1a: everybody sees a name in the same colour
    for (auto const letter : name) hash = (hash ^ static_cast<unsigned char>(letter)) * 16777619u;
    return coloured(name == login_.user ? "1" : colours[hash % colours.size()], harmless(name));
  }

  void say(std::string_view name, std::string_view to, std::string_view text, bool is_old = false) {
    if (!terminal_) return program::print_or_fail(std::string(name).append(": ").append(text));
    auto line = coloured("2", is_old ? "--:--" : clock_time()) + ' ' + named(name);
    if (!to.empty()) line += " -> " + named(to);
    terminal_->print(line + ": " + harmless(text));
  }
  /// Shows what the user has asked for.
  void tell(std::string const& line) {
    if (!terminal_) return program::print_or_fail(line);
    note(line);
  }
  void list(std::string const& line) {
    if (!terminal_) return program::print_or_fail(line);
    terminal_->print("  " + line);
  }
  /// Shows what happens.
  void note(std::string const& line) {
    if (!terminal_) return;
    terminal_->print(coloured("2", clock_time() + " * " + harmless(line)));
  }
  void complain(std::string const& line) {
    if (!terminal_) return program::complain(line);
    terminal_->print(coloured("2", clock_time()) + ' ' + coloured("31", "! " + harmless(line)));
  }

  // --- What the user types -------------------------------------------------------------------------------------------

  /// Returns false if the line should be edited again.
  bool take_line(std::string const& line) {
    auto const text = program::trim(line);
    if (text.empty()) return true;
    if (is_ending_) {
      if (terminal_) complain("not sent, as it comes after the end: " + std::string(text));
      return true;
    }
    if (text.starts_with("//")) return send({tag::sendall, text.substr(1)}, text.substr(1));
    if (text.front() != '/') return send({tag::sendall, text}, text);
    auto const space = std::min(text.find_first_of(" \t"), text.size());
    auto const argument = program::trim(text.substr(space));
    auto const word = text.substr(0, space);
    auto const* const known =
        std::find_if(words.begin(), words.end(), [&](auto const& each) { return each.word == word; });
    if (known == words.end()) return wrong("unknown command; the commands are: " + usage());
    auto const takes = !known->argument.empty(), must = takes && known->argument.front() != '[';
    if (must && argument.empty()) return wrong(std::string(word) + " needs a " + std::string(known->argument));
    if (!takes && !argument.empty()) return wrong(std::string(word) + " takes no argument");
    return obey(word, argument);
  }

  bool obey(std::string_view word, std::string_view argument) {
    if (word == "/join") {
      if (!chatproto::is_valid_name(argument)) return wrong("invalid room name (letters and digits only)");
      return ask({tag::join, argument});
    }
    if (word == "/msg") {
      auto const space = argument.find_first_of(" \t");
      if (space == argument.npos) return wrong("/msg needs a USER and a TEXT");
      auto const user = argument.substr(0, space);
      if (!chatproto::is_valid_name(user)) return wrong("invalid user name (letters and digits only)");
      auto const text = program::trim(argument.substr(space));
      return send({tag::senduser, std::string(user).append(":").append(text)}, text);
    }
    if (word == "/history") {
      std::uint32_t count = 20;
      auto const* const end = argument.data() + argument.size();
      if (!argument.empty()) {
        auto const [at, error] = std::from_chars(argument.data(), end, count);
        if (error != std::errc() || at != end || count == 0)
          return wrong("/history takes a number of texts, 1 or more");
      }
      return in_room() && ask({tag::history, std::to_string(count)});
    }
    if (word == "/help") {
      for (auto const& each : words) {
        auto line = std::string(each.word).append(" ").append(each.argument);
        line.resize(std::max<std::size_t>(line.size(), 16), ' ');
        list(line.append(" ").append(each.help));
      }
      list("//TEXT           say a text that begins with a slash");
      return true;
    }
    if (word == "/quit") return end(), true;
    return in_room() && ask({word == "/who" ? tag::who : tag::leave, ""});
  }

  bool in_room() {
    if (!session_->next_room().empty()) return true;
    return wrong("join a room first: /join ROOM");
  }
  bool wrong(std::string const& what) {
    complain(what);
    return false;
  }

  bool send(Message message, std::string_view text) {
    if (!in_room()) return false;
    auto const delivery =
        std::string("delivery:").append(session_->next_room()).append(":").append(login_.user).append(":").append(text);
    auto const line = message.tag + ':' + message.payload;
    auto const why = program::obstacle(line.size() > delivery.size() ? line : delivery);
    if (!why.empty()) return wrong("not sent: " + why);
    if (!is_up_ && !std::exchange(has_warned_, true))
      note("not connected: what you type is kept, and sent when the connection is back");
    session_->ask(std::move(message));
    return true;
  }
  bool ask(Message message) {
    auto const why = program::obstacle(message.tag + ':' + message.payload);
    if (!why.empty()) return wrong("not sent: " + why);
    session_->ask(std::move(message));
    return true;
  }

  void end() {
    if (std::exchange(is_ending_, true)) return;
    if (is_up_) return session_->ask({tag::quit, ""});
    if (!session_->waiting().empty()) exit_code_ = 1;
    finish();
  }
  void finish() {
    is_over_ = true;
    if (terminal_) terminal_->stop();
  }

  std::vector<std::string> completions(std::string const& before) const {
    auto const begin = before.find_last_of(' ') + 1;
    auto const typed = std::string_view(before).substr(begin);
    std::vector<std::string> all;
    if (begin == 0 && typed.starts_with('/')) {
      for (auto const& each : words)
        if (each.word.starts_with(typed)) all.push_back(std::string(each.word) + (each.argument.empty() ? "" : " "));
    } else if (!typed.empty() || before == "/msg ") {
      for (auto const& each : names_)
        if (each.starts_with(typed)) all.push_back(each + (begin == 0 ? ": " : " "));
    }
    std::sort(all.begin(), all.end());
    return all;
  }
  void remember(std::string_view name) {
    if (!chatproto::is_valid_name(name) || (!names_.empty() && names_.front() == name)) return;
    std::erase(names_, name);
    names_.emplace_front(name);
    if (names_.size() > most_names) names_.pop_back();
  }

  /// Says what becomes of what the user has typed.
  void report(std::string const& what, std::deque<Message> const& messages) {
    for (auto const& message : messages) {
      if (message.tag != tag::sendall && message.tag != tag::senduser) continue;
      exit_code_ = 1;
      program::complain(what + message.payload);
    }
  }

  // --- What the server says ------------------------------------------------------------------------------------------

  void on_text(chatproto::Delivery const& delivery, bool is_old) override {
    remember(delivery.sender);
    say(delivery.sender, {}, delivery.text, is_old);
  }

  void on_reply(Message const& request, Message const& reply) override {
    auto const is_ok = reply.tag == tag::ok;
    auto const& payload = request.payload;
    if (request.tag == tag::sendall || request.tag == tag::senduser) {
      if (!is_ok) return complain("not sent (" + reply.payload + "): " + payload);
      if (!terminal_) return;
      auto const colon = request.tag == tag::senduser ? payload.find(':') : 0;
      auto const to = payload.substr(0, colon);
      if (!to.empty()) remember(to);
      return say(login_.user, to, std::string_view(payload).substr(to.empty() ? 0 : colon + 1));
    }
    if (request.tag == tag::who)
      return is_ok ? show_who(reply.payload) : complain("this server does not say who is here: " + reply.payload);
    if (request.tag == tag::history) {
      if (!is_ok) return complain("this server keeps no history: " + reply.payload);
      return note(reply.payload == "0" ? "there are no texts of others from before you came"
                                       : "texts of others from before you came: " + reply.payload);
    }
    if (!is_ok) return complain(reply.payload);
    room_ = request.tag == tag::join ? payload : "";
    note(room_.empty() ? "you are in no room" : "you are in " + room_);
  }

  void show_who(std::string_view payload) {
    std::string line(payload.substr(0, payload.find(' ')));
    line += " here:";
    std::size_t begin = std::min(payload.find(' '), payload.size());
    while (begin < payload.size()) {
      auto const end = std::min(payload.find(' ', begin + 1), payload.size());
      auto const name = payload.substr(begin + 1, end - begin - 1);
      remember(name);
      line.append(name == "..." ? " and others" : " " + std::string(name));
      begin = end;
    }
    tell(line);
  }

  void on_error(std::string const& reason) override { complain(reason); }

  void on_login(std::string const& room) override {
    room_ = room;
    is_up_ = true;
    if (!lost_at_.empty())
      complain("connected again: what was said since " + lost_at_ + " may be missing here (try /history)");
    lost_at_.clear();
    last_reason_.clear();
    has_warned_ = false;
    if (terminal_) terminal_->refresh();
  }

  void greet() {
    note(room_.empty() ? "you are in no room: /join ROOM takes you to one, /help lists the commands"
                       : "you are in " + room_ + "; /help lists the commands");
  }

  void on_loss(std::string const& why, std::vector<Message> const& unanswered) override {
    if (!is_up_ && lost_at_.empty()) throw std::runtime_error(why);  // the first attempt
    auto const was_up = std::exchange(is_up_, false);
    if (was_up) lost_at_ = clock_time();
    for (auto const& message : unanswered)
      if (message.tag == tag::sendall || message.tag == tag::senduser)
        complain("may not have arrived: " + message.payload);
    if (is_ending_ || !terminal_) {
      exit_code_ = 1;
      complain(name_ + ": " + why);
      return finish();
    }
    session_->start_later();
    if (was_up || why != last_reason_) complain(why + "; trying again");
    last_reason_ = why;
    terminal_->refresh();
  }

  void on_end() override { finish(); }

  static constexpr std::size_t most_names = 1000, longest_input = 64 * 1024;

  program::Login const& login_;
  std::string const name_;
  asio::io_context context_{1};
  std::optional<program::Session> session_;
  std::optional<program::Terminal> terminal_;
  std::deque<std::string> names_;  // seen, the last first
  std::string room_, lost_at_, last_reason_;
  bool is_terminal_ = false, has_colours_ = false, is_up_ = false, has_warned_ = false, is_ending_ = false,
       is_over_ = false;
  int exit_code_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  program::Login login;
  std::string room;
  std::chrono::milliseconds reply_deadline = std::chrono::minutes(1);
  CLI::App app("Talks and listens in a room of the chat. Commands: " + usage() + ".");
  login.add_to(app);
  app.add_option("ROOM", room, "Room to join: letters and digits; without it, /join takes you to one");
  program::add_seconds(app, "--reply-deadline", reply_deadline,
                       "Time limit for the answer to each line after the login; 0: no limit");
  return program::run(app, argc, argv, [&] {
    auto const code = Chat(login, room, reply_deadline, app.get_name()).run();
    return code;
  });
}
