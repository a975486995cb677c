// SPDX-License-Identifier: BSL-1.0
// server PORT: the chat server. Runs until SIGINT or SIGTERM; a second signal stops without waiting for clients to
// read. SIGHUP makes it read its files again. A service manager may open its sockets, see service_manager.hpp.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <numeric>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <chatproto/chat_service.hpp>

#include "ban_file.hpp"
#include "history.hpp"
#include "log.hpp"
#include "metrics.hpp"
#include "passwords.hpp"
#include "redis.hpp"
#include "serving.hpp"

namespace {

/// Writes a server's log and exports its metrics while it serves.
template <class Server>
class ServerReport {
 public:
  ServerReport(Server& server, program::ServerFlags const& flags, program::Log* log,
               program::MetricsFlags const& metrics, program::RedisFlags const& redis)
      : server_(server), log_(log) {
    if (metrics.port)
      metrics_.emplace(metrics, [&server, &redis, log] {
        return program::metrics_text(server.stats(), server.service(), redis.stats(),
                                     log != nullptr ? log->dropped() : 0);
      });
    if (log_ == nullptr) return;
    log_->write(Level::info, "started", "port", server.port(), "policy", flags.policy);
    auto const& limits = server.options();
    log_->write(Level::debug, "limits", "max_clients", limits.max_clients, "line_limit", limits.line_limit,
                "queue_limit", limits.queue_limit, "rate", static_cast<std::uint64_t>(limits.rate));
  }
  ServerReport(ServerReport const&) = delete;
  ServerReport& operator=(ServerReport const&) = delete;
  ~ServerReport() {
    if (log_ == nullptr) return;
    auto const stats = server_.stats();
    log_->write(Level::info, "stopped", "accepted", stats.accepted, "refused",
                std::accumulate(stats.refused.begin(), stats.refused.end(), std::uint64_t()), "lines_in",
                stats.lines_in, "texts", server_.service().texts());
  }

 private:
  using Level = program::Log::Level;

  Server& server_;
  program::Log* log_;
  std::optional<program::MetricsServer> metrics_;
};

}  // namespace

int main(int argc, char** argv) {
  std::optional<program::Log> log;  // outlives the threads that check secrets
  program::ServerFlags flags;
  program::MetricsFlags metrics;
  program::PasswordFlags passwords;
  program::RedisFlags redis;
  program::HistoryFlags history;
  std::string level = "off", bans;
  std::size_t max_rooms = 100'000, max_members = 10'000;
  std::function<void(chatproto::Bans)> ban;  // at the server, once there is one
  CLI::App app("Serves the chat on a TCP port until SIGINT or SIGTERM.");
  flags.add_to(app);
  flags.add_login_deadline_to(app);
  flags.add_layers_to(app);
  passwords.add_to(app);
  redis.add_to(app);
  flags.add_check_to(app);
  app.add_option("--log", level, "Lowest level of the events that the server logs on stderr")
      ->check(CLI::IsMember({"off", "error", "warn", "info", "debug"}))
      ->capture_default_str();
  metrics.add_to(app);
  app.add_option("--ban", bans, "File of addresses, networks and names that are banned; read again on SIGHUP")
      ->type_name("FILE");
  app.add_option("--max-rooms", max_rooms, "Maximum number of rooms; 0: no limit")
      ->check(program::decimal(0, 1'000'000'000))
      ->capture_default_str();
  app.add_option("--max-members", max_members, "Maximum number of senders and receivers in a room; 0: no limit")
      ->check(program::decimal(0, 1'000'000'000))
      ->capture_default_str();
  history.add_to(app);
  return program::run(app, argc, argv, [&] {
    flags.find_sockets();
    if (level != "off") flags.options.observer = &log.emplace(level);
    // A file that is wrong keeps no other from being read, so that all of them are reported, and before it listens.
    program::Attempts files;
    if (flags.tls.has_files()) {
      files.attempt([&] { flags.tls.read(); });
      flags.reloaders.emplace_back([&flags] { flags.tls.read(); });
    }
    files.attempt([&] { flags.further_listeners(); });
    chatproto::ChatOptions options;
    files.attempt([&] {
      options = passwords.options(flags, [&log](std::string_view name, std::string_view address) {
        if (log) log->login_refused(name, address);
      });
    });
    if (!bans.empty()) files.attempt([&] { program::read_bans(bans); });
    files.attempt([&] { options.backplane = redis.backplane(flags, history.is_on(), log ? &*log : nullptr); });
    files.attempt([&] { history.set(options, flags, log ? &*log : nullptr); });
    files.require_success();
    options.max_rooms = max_rooms;
    options.max_members = max_members;
    if (!bans.empty()) {
      flags.reloaders.emplace_back([&] {
        ban(program::read_bans(bans));
        if (log) log->write(program::Log::Level::info, "bans_read", "file", bans);
      });
    }
    auto const report = [&]<class Server>(Server& server) {
      ban = [&server](chatproto::Bans all) { server.ban(std::move(all)); };
      if (!bans.empty()) ban(program::read_bans(bans));
      return ServerReport<Server>(server, flags, log ? &*log : nullptr, metrics, redis);
    };
    return program::serve_beside<chatproto::ChatService>(flags, report, options);
  });
}
