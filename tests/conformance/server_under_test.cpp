// SPDX-License-Identifier: BSL-1.0
#include "server_under_test.hpp"

#include <chrono>
#include <csignal>
#include <stdexcept>
#include <thread>

#include <asio/connect.hpp>
#include <asio/ip/address_v4.hpp>

namespace conformance {

using asio::ip::tcp;
using namespace std::chrono_literals;

namespace {

std::string how_it_ended(Process::End const& end) {
  return end.signal != 0 ? "by signal " + std::to_string(end.signal) : "with exit code " + std::to_string(end.code);
}

}  // namespace

Endpoints find_server(asio::io_context& io, std::string const& host, std::string const& port) {
  std::error_code error;
  auto const found = tcp::resolver(io).resolve(host, port, error);
  tcp::socket socket(io);
  if (!error) asio::connect(socket, found, error);
  if (error) throw std::runtime_error("no server at " + host + " port " + port + ": " + error.message());
  return {socket.remote_endpoint()};  // the one that answered, so that plays need not try the others
}

void check_wrapping(Settings const& settings) {
  asio::io_context io(1);  // whose end forgets what is under way
  std::string failure = "it does not answer";
  asio::steady_timer limit(io, settings.step_limit);
  limit.async_wait([&](std::error_code const&) { io.stop(); });
  auto const done = [&](std::error_code const& error, std::unique_ptr<Channel> const& channel) {
    failure = error ? error.message() : std::string();
    if (channel) channel->close();
    io.stop();
  };
  connect(io.get_executor(), settings.server, false,
          [&](std::error_code const& error, std::unique_ptr<Channel> channel) {
            if (error) return done(error, nullptr);
            settings.wrapping->start(std::move(channel), done);
          });
  io.run();
  if (!failure.empty()) throw std::runtime_error(settings.wrapping->name() + " with the server under test: " + failure);
}

ServerUnderTest::ServerUnderTest(asio::io_context& io, std::vector<std::string> command, int term)
    : io_(io), command_(std::move(command)), term_(term), timer_(io) {}

Endpoints ServerUnderTest::start() {
  std::string how;
  for (int tries = 0; tries < 5; ++tries) {
    tcp::endpoint const endpoint(asio::ip::address_v4::loopback(), free_port(io_.get_executor()));
    std::vector<std::string> command = command_;
    for (std::string& argument : command)
      for (std::size_t at = argument.find("{port}"); at != argument.npos; at = argument.find("{port}"))
        argument.replace(at, 6, std::to_string(endpoint.port()));
    process_ = start_server(command);
    for (auto const until = std::chrono::steady_clock::now() + 20s; std::chrono::steady_clock::now() < until;) {
      if (answers(endpoint)) return {endpoint};
      if (auto const end = process_->poll()) {
        how = "it ended " + how_it_ended(*end);
        break;
      }
      how = "it takes no connection";
      std::this_thread::sleep_for(10ms);
    }
  }
  throw std::runtime_error("the server under test cannot be started: " + how);
}

bool ServerUnderTest::answers(tcp::endpoint const& endpoint) {
  tcp::socket socket(io_);
  std::error_code error;
  socket.connect(endpoint, error);
  return !error;
}

void ServerUnderTest::watch(std::function<void(std::string const& how)> ended) {
  if (!process_) return;
  timer_.expires_after(50ms);
  timer_.async_wait([this, ended = std::move(ended)](std::error_code const&) {
    if (auto const end = process_->poll())
      ended(how_it_ended(*end));
    else
      watch(ended);
  });
}

std::string ServerUnderTest::stop() {
  if (!process_) return {};
  process_->signal(term_);
  for (auto const until = std::chrono::steady_clock::now() + 20s; std::chrono::steady_clock::now() < until;) {
    if (auto const end = process_->poll()) {
      // A program that does not handle the signal is killed by it, or exits with the code that shells report for that.
      bool const well = end->signal == term_ || (end->signal == 0 && (end->code == 0 || end->code == 128 + term_));
      return well ? std::string() : how_it_ended(*end);
    }
    std::this_thread::sleep_for(10ms);
  }
  process_.reset();
  return "it did not end within 20 s of signal " + std::to_string(term_);
}

}  // namespace conformance
