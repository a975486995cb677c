// SPDX-License-Identifier: BSL-1.0
// server PORT: the chat server, until SIGINT or SIGTERM; a second one does not wait for clients to read.
#include <chrono>
#include <csignal>
#include <cstdint>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>

#ifndef _WIN32
#include <sys/resource.h>
#endif

#include <asio/ip/address.hpp>
#include <asio/signal_set.hpp>

#include <chatproto/server.hpp>
#include <chatproto/threading.hpp>

#include "program.hpp"

namespace {

/// As many clients as the system lets us have.
void raise_descriptor_limit() {
#ifndef _WIN32
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
#endif
}

template <chatproto::ThreadingPolicy Policy>
void serve(chatproto::ServerOptions const& options) {
  using Server = chatproto::Server<Policy>;
  auto server = [&] {
    try {
      return std::make_unique<Server>(options);
    } catch (std::system_error const& error) {
      auto const where =
          (options.address.empty() ? "" : options.address + " ") + "port " + std::to_string(options.port);
      throw std::runtime_error("cannot serve on " + where + ": " + error.what());
    }
  }();
  asio::signal_set signals(server->context(), SIGINT, SIGTERM);
  signals.async_wait([&](std::error_code const& ec, int) {
    if (ec) return;
    server->stop();
    signals.async_wait([&](std::error_code const& again, int) {
      if (!again) server->stop(chatproto::Stop::now);
    });
  });
  if (options.port == 0) program::complain("listening on port " + std::to_string(server->port()));
  server->run();
}

std::map<std::string, void (*)(chatproto::ServerOptions const&)> const policies = {
    {"thread-per-client", serve<chatproto::ThreadPerClient>},
    {"pool", serve<chatproto::ThreadPool>},
    {"strand", serve<chatproto::StrandPool>},
};

/// An option of some seconds, which may have fractions.
void add_seconds(CLI::App& app, std::string const& name, std::chrono::milliseconds& time,
                 std::string const& description) {
  auto const check = [](std::string const& text) {
    auto const plain = !text.empty() && text.size() < 10 && text.find_first_not_of("0123456789.") == text.npos;
    return plain ? std::string() : "'" + text + "' is no number of seconds";
  };
  auto const set = [&time](double seconds) {
    time = std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1000));
  };
  app.add_option_function<double>(name, set, description)
      ->check(check, "")
      ->type_name("SECONDS")
      ->default_str(std::to_string(std::chrono::duration_cast<std::chrono::seconds>(time).count()));
}

std::string check_address(std::string const& text) {
  std::error_code ec;
  asio::ip::make_address(text, ec);
  return ec ? "'" + text + "' is no IP address" : std::string();
}

}  // namespace

int main(int argc, char** argv) {
  chatproto::ServerOptions options;
  std::string policy = "pool";
  CLI::App app("Serves the chat on a TCP port until SIGINT or SIGTERM.", "server");
  app.add_option("PORT", options.port, "TCP port to listen on; 0: a free one, which is told on stderr")
      ->required()
      ->check(program::decimal(0, 65535));
  app.add_option("--policy", policy, "Which threads serve the clients")
      ->check(CLI::IsMember(policies))
      ->capture_default_str();
  app.add_option("--threads", options.threads, "Threads of pool and strand; 0: as many as there are cores")
      ->check(program::decimal(0, 1024))
      ->capture_default_str();
  app.add_option("--address", options.address, "The one address to listen on; without it: all, IPv6 and IPv4")
      ->check(check_address, "");
  app.add_option("--queue-limit", options.queue_limit, "Bytes that may wait for a client that does not read")
      ->check(program::decimal(1, 1'000'000'000))
      ->capture_default_str();
  add_seconds(app, "--login-deadline", options.login_deadline, "Time to log in");
  add_seconds(app, "--write-deadline", options.write_deadline, "Time after which a client that takes nothing is cut");
  add_seconds(app, "--drain", options.drain,
              "Time that clients have to take what waits for them, when the server stops");
  return program::run(app, argc, argv, [&] {
#ifdef SIGPIPE
    std::signal(SIGPIPE, SIG_IGN);
#endif
    raise_descriptor_limit();
    policies.at(policy)(options);
    return 0;
  });
}
