// SPDX-License-Identifier: BSL-1.0
// kitchen [HOST PORT]: a program of your own that takes part in a chat, with its own io_context and coroutines. A
// client that names a dish in the room "kitchen" is told when it is ready. Without arguments the program starts its own
// server and guest, and ends when the guest has an egg.
#include <chatproto/connection.hpp>
#include <chatproto/server.hpp>

#include <chrono>
#include <exception>
#include <iostream>
#include <stdexcept>
#include <string>
#include <thread>

#include <asio/awaitable.hpp>
#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>
#include <asio/redirect_error.hpp>
#include <asio/steady_timer.hpp>
#include <asio/this_coro.hpp>
#include <asio/use_awaitable.hpp>

#ifndef ASIO_HAS_CO_AWAIT
#error "Asio has no coroutines here: GCC has them, Clang needs a newer Asio than 1.22"
#endif

using asio::awaitable;
using asio::use_awaitable;
using chatproto::Connection;
using chatproto::Message;

namespace {

/// The address of the chat.
struct Place {
  std::string host, port;
};

/// Logs in and joins. Each `co_await` lets everything else on the context continue. The messages are named variables,
/// because GCC 12 destroys some temporaries in such expressions twice.
awaitable<void> enter(Connection& connection, Place place, std::string login, std::string user) {
  co_await connection.async_connect(place.host, place.port, use_awaitable);
  Message const hello(login, user), join("join", "kitchen");
  for (auto const* message : {&hello, &join}) {
    auto const reply = co_await connection.async_request(*message, use_awaitable);
    if (reply.tag == chatproto::tag::err) throw std::runtime_error(reply.payload);
  }
}

awaitable<void> say(Connection& mouth, std::string text) {
  Message const message("sendall", text);
  co_await mouth.async_request(message, use_awaitable);
}

/// Handles one order after the other; orders that arrive meanwhile wait in the connection.
awaitable<void> cook(Place place) {
  auto const executor = co_await asio::this_coro::executor;
  Connection ear(executor), mouth(executor);
  co_await enter(mouth, place, "slogin", "cook");
  co_await enter(ear, place, "rlogin", "cook");
  for (;;) {
    auto const message = co_await ear.async_receive(use_awaitable);
    auto const order = chatproto::parse_delivery(message);
    asio::steady_timer timer(executor, std::chrono::milliseconds(20 * order.text.size()));
    co_await timer.async_wait(use_awaitable);
    co_await say(mouth, std::string(order.text) + " for " + std::string(order.sender));
  }
}

awaitable<void> eat(Place place, asio::io_context& context) {
  Connection ear(context), mouth(context);
  co_await enter(ear, place, "rlogin", "ada");
  co_await enter(mouth, place, "slogin", "ada");
  ear.time_limit(std::chrono::seconds(1));
  for (std::string heard; heard != "egg for ada";) {
    co_await say(mouth, "egg");  // repeated until the cook is there
    std::error_code ec;
    auto const message = co_await ear.async_receive(asio::redirect_error(use_awaitable, ec));
    if (!ec) heard = chatproto::parse_delivery(message).text;
  }
  std::cout << "ada has her egg" << std::endl;
  context.stop();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 1 && argc != 3) {
    std::cerr << "usage: kitchen [HOST PORT]\n";
    return 1;
  }
  try {
    asio::io_context context(1);  // yours: run it as you like
    auto const run = [&](Place const& place, bool guest) {
      auto const rethrow = [](std::exception_ptr error) {
        if (error) std::rethrow_exception(error);  // out of context.run()
      };
      asio::co_spawn(context, cook(place), rethrow);
      if (guest) asio::co_spawn(context, eat(place, context), rethrow);
      context.run();
    };
    if (argc == 3) {
      run({argv[1], argv[2]}, false);
    } else {
      chatproto::Server<chatproto::ThreadPool> server({.address = "127.0.0.1", .threads = 1});
      std::thread serving([&] { server.run(); });
      struct Stop {
        chatproto::Server<chatproto::ThreadPool>& server;
        std::thread& serving;
        ~Stop() {
          server.stop(chatproto::StopMode::now);
          serving.join();
        }
      } const stop{server, serving};
      run({"127.0.0.1", std::to_string(server.port())}, true);
    }
  } catch (std::exception const& error) {
    std::cerr << "kitchen: " << error.what() << '\n';
    return 1;
  }
}
