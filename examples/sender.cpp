// SPDX-License-Identifier: BSL-1.0
// sender HOST PORT USER: sends each line of its input to a room of the chat.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <future>
#include <iostream>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>
#include <asio/post.hpp>

#include <chatproto/connection.hpp>
#include <chatproto/message.hpp>

#include "program.hpp"

namespace {

using chatproto::Message;
namespace tag = chatproto::tag;

/// The server, for a thread that waits for the keyboard most of the time. A thread of its own receives meanwhile, and
/// so notices at once when the server goes away.
class Dialogue {
 public:
  /// Takes a connection that has logged in. `lost` is called by the other thread, and must not return.
  Dialogue(asio::io_context& context, chatproto::Connection& connection, std::function<void(std::error_code)> lost)
      : context_(context), work_(context.get_executor()), connection_(connection), lost_(std::move(lost)) {
    receive();
    thread_ = std::thread([this] { context_.run(); });
  }
  Dialogue(Dialogue const&) = delete;
  Dialogue& operator=(Dialogue const&) = delete;
  ~Dialogue() {
    context_.stop();
    thread_.join();
  }

  /// Sends a message and returns its reply. After `quit` the server may go away.
  Message ask(Message const& message) {
    std::promise<Message> promise;
    auto future = promise.get_future();
    asio::post(context_, [this, &message, promise = std::move(promise)]() mutable {
      reply_.emplace(std::move(promise));
      connection_.async_send(message, [this](std::error_code ec) {
        if (ec) lost_(ec);
      });
    });
    auto reply = future.get();
    if (message.tag != tag::quit) receive();
    return reply;
  }

 private:
  void receive() {
    connection_.async_receive([this](std::error_code ec, Message message) {
      if (!ec && message.tag != tag::err && (message.tag != tag::ok || !reply_)) ec = chatproto::Errc::unexpected;
      if (ec) return lost_(ec);
      if (reply_) return std::exchange(reply_, {})->set_value(std::move(message));
      program::complain(message.payload);  // nobody asked
      receive();
    });
  }

  asio::io_context& context_;
  asio::executor_work_guard<asio::io_context::executor_type> work_;  // the thread stays, also while nothing is asked
  chatproto::Connection& connection_;
  std::function<void(std::error_code)> lost_;
  std::optional<std::promise<Message>> reply_;  // somebody waits for one; the other thread's
  std::thread thread_;
};

std::string_view trim(std::string_view text) {
  constexpr auto blanks = " \t\r\v\f";
  auto const begin = text.find_first_not_of(blanks);
  if (begin == text.npos) return {};
  return text.substr(begin, text.find_last_not_of(blanks) - begin + 1);
}

/// What a line of input wants to be sent; nothing, and a complaint, if it is none that can be.
std::optional<Message> read(std::string_view line) {
  auto const end = std::min(line.find_first_of(" \t"), line.size());
  auto const command = line.substr(0, end);
  auto const argument = trim(line.substr(end));
  Message message(tag::sendall, line);
  if (command == "/join" && !argument.empty())
    message = {tag::join, argument};
  else if (command == "/leave" && argument.empty())
    message = {tag::leave, ""};
  else if (command == "/quit" && argument.empty())
    message = {tag::quit, ""};
  else if (line.front() == '/')
    return program::complain("no such command; there are: /join ROOM, /leave, /quit"), std::nullopt;
  std::error_code ec;
  chatproto::encode(message, ec);
  if (ec) return program::complain("not sent: " + ec.message()), std::nullopt;
  return message;
}

}  // namespace

int main(int argc, char** argv) {
  program::Login login;
  CLI::App app("Sends each line of its input to a room of the chat. Commands: /join ROOM, /leave, /quit.", "sender");
  login.add_to(app);
  return program::run(app, argc, argv, [&] {
    asio::io_context context(1);
    chatproto::Connection connection(context);
    program::log_in(connection, login, tag::slogin);

    auto const with_prompt = program::is_terminal(stdin) && program::is_terminal(stdout);
    Dialogue dialogue(context, connection, [&](std::error_code ec) {
      if (with_prompt) std::cout << std::endl;
      program::complain("sender: " + program::describe(ec));
      std::_Exit(1);  // nothing else ends a thread that waits for the keyboard
    });
    std::string line;
    while ((with_prompt && std::cout << "> " << std::flush), std::getline(std::cin, line)) {
      auto const text = trim(line);
      if (text.empty()) continue;
      auto const message = read(text);
      if (!message) continue;
      auto const reply = dialogue.ask(*message);
      if (reply.tag == tag::err) program::complain(reply.payload);
      if (message->tag == tag::quit) return 0;
    }
    if (with_prompt) std::cout << std::endl;
    return 0;
  });
}
