// SPDX-License-Identifier: BSL-1.0
/// @file
/// The common part of the client programs: connecting, logging in, reading the keyboard.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <future>
#include <initializer_list>
#include <iostream>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <asio/error.hpp>
#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>
#include <asio/post.hpp>

#include <chatproto/connection.hpp>
#include <chatproto/error.hpp>
#include <chatproto/message.hpp>

#include "program.hpp"
#include "secret.hpp"
#include "tls.hpp"

namespace program {

using chatproto::Message;

/// The server that a client connects to.
struct Place {
  std::string host, port;
  TlsClientFlags tls = {};

  /// Adds the arguments, which are optional if they have defaults.
  void add_to(CLI::App& app) {
    auto* const host_option = app.add_option("HOST", host, "Name or address of the server");
    auto* const port_option = app.add_option("PORT", port, "TCP port of the server")->check(decimal(1, 65535));
    for (auto* const option : {host_option, port_option})
      if (host.empty())
        option->required();
      else
        option->capture_default_str();
  }
};

/// Connects within `limit`; 0: no limit. Throws `std::runtime_error`.
inline void connect(chatproto::Connection& connection, Place const& place,
                    std::chrono::milliseconds limit = std::chrono::seconds(10)) {
  std::error_code ec;
  connection.time_limit(limit);
  place.tls.set_up(connection);
  connection.connect(place.host, place.port, ec);
  if (ec) throw std::runtime_error("cannot connect to '" + place.host + "' port " + place.port + ": " + ec.message());
  connection.time_limit({});  // a server may take its time to answer
}

/// The server that a client connects to, and the user's name.
struct Login : Place {
  std::string user, password_file;
  bool asks_for_password = false, insecure_passwords = false;
  std::chrono::milliseconds deadline = std::chrono::seconds(10);

  void add_to(CLI::App& app) {
    Place::add_to(app);
    tls.add_to(app);
    app.add_option("USER", user, "Name to log in with: letters and digits")->required();
    add_seconds(app, "--login-deadline", deadline,
                "Time limit for connecting, and for each answer until the login is complete; 0: no limit");
    auto* const file = app.add_option("--password-file", password_file, "File whose only line is the user's secret")
                           ->type_name("FILE");
    app.add_flag("--ask-password", asks_for_password, "Ask for the user's secret on the terminal")->excludes(file);
    app.add_flag("--insecure-passwords", insecure_passwords,
                 "Send the secret even if the connection is not encrypted and the server is another machine");
  }
};

/// Sends a message that must be answered by `ok`. Throws `Refused`, or the error that occurred.
inline void require(chatproto::Connection& connection, chatproto::MessageView message) {
  std::error_code ec;
  chatproto::encode(message, ec);
  if (ec) throw std::runtime_error("cannot send " + std::string(message.tag) + ": " + ec.message());
  auto const reply = connection.request(message);
  if (reply.tag != chatproto::tag::ok) throw Refused(reply.payload);
}

/// Returns whether the user's secret may go through this connection.
inline bool may_send_secret(chatproto::Connection const& connection, Login const& login) {
  std::error_code ec;
  auto const address = connection.remote_endpoint(ec).address();
  return login.insecure_passwords || login.tls.is_on() || (!ec && address.is_loopback());
}
inline constexpr auto secret_not_sent =
    "the secret was not sent: the connection is not encrypted (see --insecure-passwords)";

/// Returns the user's secret, if there is one: reads its file, or asks for it. Throws `std::runtime_error`.
inline std::optional<chatproto::Secret> secret_of(Login const& login) {
  if (!login.password_file.empty()) return secret_from_file(login.password_file);
  if (login.asks_for_password) return ask_for_secret("Secret of " + login.user + ": ");
  return std::nullopt;
}

/// Connects, and sends the user's secret, if any, and the first messages, each of which must be answered by `ok`.
/// Throws like `require`.
inline void log_in(chatproto::Connection& connection, Login const& login,
                   std::initializer_list<chatproto::MessageView> messages) {
  auto const secret = secret_of(login);
  connect(connection, login, login.deadline);
  connection.time_limit(login.deadline);
  if (secret && !may_send_secret(connection, login)) throw std::runtime_error(secret_not_sent);
  if (secret) require(connection, {chatproto::tag::pass, secret->view()});
  for (auto const& message : messages) require(connection, message);
  connection.time_limit({});
}

// --- The keyboard ----------------------------------------------------------------------------------------------------

/// Reads lines from stdin, with a prompt on a terminal.
class Keyboard {
 public:
  bool next(std::string& line) {
    if (has_prompt_) std::cout << "> " << std::flush;
    auto const read = static_cast<bool>(std::getline(std::cin, line));
    if (!read) interrupt();
    return read;
  }
  /// Starts a new line on the terminal if this one has a prompt.
  void interrupt() const {
    if (has_prompt_) std::cout << std::endl;
  }

 private:
  bool has_prompt_ = is_terminal(stdin) && is_terminal(stdout);
};

inline std::string_view trim(std::string_view text) {
  constexpr auto blanks = " \t\r\v\f";
  auto const begin = text.find_first_not_of(blanks);
  if (begin == text.npos) return {};
  return text.substr(begin, text.find_last_not_of(blanks) - begin + 1);
}

/// Returns why `line` cannot be sent; nothing if it can.
inline std::string obstacle(std::string_view line) {
  auto const ec = chatproto::check_text(line);
  if (ec == chatproto::Errc::line_too_long)
    return "too long by " + std::to_string(line.size() + 1 - chatproto::max_line) + " (counted in bytes)";
  return ec ? ec.message() : std::string();
}

/// Returns whether `line` can be sent; complains if not.
inline bool is_sendable(std::string_view line) {
  auto const why = obstacle(line);
  if (!why.empty()) complain("not sent: " + why);
  return why.empty();
}

// --- A sender --------------------------------------------------------------------------------------------------------

/// Talks to the server for a thread that mostly waits for the keyboard. A second thread receives meanwhile, and so
/// notices at once when the server disconnects.
///
/// Replies are taken in their order, whenever they come. A server that answers before it is asked plays a script, and
/// may close after it has sent everything. From then on the dialogue reads only when it needs a reply, so that it takes
/// all replies before it notices the end of the connection.
class Dialogue {
 public:
  /// Takes a connection that has logged in. Each reply must come within `limit`; 0: no limit. `lost` is called by the
  /// second thread and must not return.
  Dialogue(asio::io_context& context, chatproto::Connection& connection, std::chrono::milliseconds limit,
           std::function<void(std::error_code)> lost)
      : context_(context),
        work_(context.get_executor()),
        connection_(connection),
        limit_(limit),
        lost_(std::move(lost)) {
    receive();
    thread_ = std::thread([this] { context_.run(); });
  }
  Dialogue(Dialogue const&) = delete;
  Dialogue& operator=(Dialogue const&) = delete;
  ~Dialogue() {
    context_.stop();
    thread_.join();
    connection_.close();  // in order: TLS tells the server
  }

  /// Sends a message and returns its reply. After `quit` the server may disconnect.
  Message ask(Message const& message) {
    std::promise<Message> promise;
    auto future = promise.get_future();
    asio::post(context_, [this, &message, promise = std::move(promise)]() mutable {
      asked_.emplace(std::move(promise));
      goes_on_ = message.tag != chatproto::tag::quit;
      receive();
      connection_.async_send(message, [this](std::error_code ec) {
        if (ec) return lost_(ec);
        sent_ = true;
        answer();
      });
    });
    if (limit_.count() > 0 && future.wait_for(limit_) == std::future_status::timeout)
      asio::post(context_, [this] {
        if (asked_) lost_(asio::error::timed_out);
      });
    return future.get();
  }

 private:
  /// Waits for the next reply, unless there is one already.
  void receive() {
    if (reply_ || std::exchange(receiving_, true)) return;
    connection_.async_receive([this](std::error_code ec, Message message) {
      receiving_ = false;
      auto const is_reply = message.tag == chatproto::tag::ok || message.tag == chatproto::tag::err;
      if (!ec && !is_reply) ec = chatproto::Errc::unexpected;
      if (ec) return lost_(ec);
      reply_ = std::move(message);
      if (!asked_) reads_ahead_ = false;
      answer();
    });
  }

  /// Gives the reply to the waiting `ask`, once the message has been sent.
  void answer() {
    if (!sent_ || !reply_) return;
    sent_ = false;
    std::exchange(asked_, {})->set_value(*std::exchange(reply_, {}));
    if (goes_on_ && reads_ahead_) receive();
  }

  asio::io_context& context_;
  asio::executor_work_guard<asio::io_context::executor_type> work_;  // keeps the thread running between messages
  chatproto::Connection& connection_;
  std::chrono::milliseconds limit_;
  std::function<void(std::error_code)> lost_;
  // Used by the second thread:
  std::optional<std::promise<Message>> asked_;  // `ask` waits for a reply
  std::optional<Message> reply_;
  bool sent_ = false, receiving_ = false;
  bool goes_on_ = true;      // the last message was not `quit`
  bool reads_ahead_ = true;  // to notice the end of the connection
  std::thread thread_;
};

/// A command: a line of input that begins with a slash, and its message.
struct Command {
  std::string word;           ///< including the slash
  std::string_view tag;       ///< the message's tag
  std::string argument = {};  ///< name of the argument; empty: it takes none
  bool shows_reply = false;   ///< on stdout; otherwise only refusals are shown
};

/// A sender: logs in, then sends each line of its input, until the end of input or `/quit`.
class Sender {
 public:
  explicit Sender(std::vector<Command> more_commands = {}) {
    commands_ = {{"/join", chatproto::tag::join, "ROOM"}, {"/leave", chatproto::tag::leave}};
    commands_.insert(commands_.end(), more_commands.begin(), more_commands.end());
    commands_.push_back({"/quit", chatproto::tag::quit});
  }

  int main(int argc, char** argv) {
    Login login;
    CLI::App app("Sends each line of its input to a room of the chat. Commands: " + usage() + ".");
    login.add_to(app);
    add_seconds(app, "--reply-deadline", reply_deadline_,
                "Time limit for the answer to each line after the login; 0: no limit");
    return run(app, argc, argv, [&] {
      name_ = app.get_name();
      chat(login);
      return 0;
    });
  }

 private:
  void chat(Login const& login) {
    asio::io_context context(1);
    chatproto::Connection connection(context);
    connection.inbox_limit(0);  // a sender gets no deliveries
    log_in(connection, login, {{chatproto::tag::slogin, login.user}});
    Keyboard keyboard;
    Dialogue dialogue(context, connection, reply_deadline_, [&](std::error_code ec) {
      keyboard.interrupt();
      complain(name_ + ": " + describe(ec));
      std::_Exit(1);  // nothing else ends a thread that waits for the keyboard
    });
    std::string line;
    while (keyboard.next(line)) {
      auto const text = trim(line);
      if (text.empty()) continue;
      Message message(chatproto::tag::sendall, text);
      auto const* const command = text.front() == '/' ? find(text) : nullptr;
      if (text.front() == '/' && !read(text, command, message)) continue;
      if (!is_sendable(message.tag + ':' + message.payload)) continue;
      auto const reply = dialogue.ask(message);
      if (reply.tag == chatproto::tag::err)
        complain(reply.payload);
      else if (command != nullptr && command->shows_reply)
        print(reply.payload);
      if (message.tag == chatproto::tag::quit) return;
    }
  }

  Command const* find(std::string_view text) const {
    auto const word = text.substr(0, text.find_first_of(" \t"));
    auto const at = std::find_if(commands_.begin(), commands_.end(), [&](auto const& c) { return c.word == word; });
    return at != commands_.end() ? &*at : nullptr;
  }

  /// Sets `message` to what `text` asks for. If that is not a valid command, complains and returns false.
  bool read(std::string_view text, Command const* command, Message& message) const {
    if (command == nullptr) return complain("unknown command; the commands are: " + usage()), false;
    auto const argument = trim(text.substr(command->word.size()));
    if (argument.empty() != command->argument.empty())
      return complain(command->word + (argument.empty() ? " needs a " + command->argument : " takes no argument")),
             false;
    message = {command->tag, argument};
    return true;
  }

  std::string usage() const {
    std::string list;
    for (auto const& command : commands_)
      list += (list.empty() ? "" : ", ") + command.word + (command.argument.empty() ? "" : " " + command.argument);
    return list;
  }

  std::string name_;
  // A server with `block-sender` makes senders wait for a receiver that takes nothing, by default for 10 s.
  std::chrono::milliseconds reply_deadline_ = std::chrono::minutes(1);
  std::vector<Command> commands_;
};

}  // namespace program
