// SPDX-License-Identifier: BSL-1.0
// server PORT: the chat server. Runs until SIGINT or SIGTERM; a second signal stops without waiting for clients to
// read.
#include <cstdint>
#include <optional>
#include <string>

#include <chatproto/chat_service.hpp>

#include "log.hpp"
#include "metrics.hpp"
#include "serving.hpp"

namespace {

/// Writes a server's log and exports its metrics while it serves.
template <class Server>
class ServerReport {
 public:
  ServerReport(Server& server, program::ServerFlags const& flags, program::Log* log,
               program::MetricsFlags const& metrics)
      : server_(server), log_(log) {
    if (metrics.port)
      metrics_.emplace(metrics, [&server, log] {
        return program::metrics_text(server.stats(), server.service(), log != nullptr ? log->dropped() : 0);
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
    log_->write(Level::info, "stopped", "accepted", stats.accepted, "refused", stats.refused, "lines_in",
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
  program::ServerFlags flags;
  program::MetricsFlags metrics;
  std::string level = "off";
  CLI::App app("Serves the chat on a TCP port until SIGINT or SIGTERM.");
  flags.add_to(app);
  flags.add_login_deadline_to(app);
  app.add_option("--log", level, "Lowest level of the events that the server logs on stderr")
      ->check(CLI::IsMember({"off", "error", "warn", "info", "debug"}))
      ->capture_default_str();
  metrics.add_to(app);
  return program::run(app, argc, argv, [&] {
    std::optional<program::Log> log;
    if (level != "off") flags.options.observer = &log.emplace(level);
    return program::serve_beside<chatproto::ChatService>(flags, [&]<class Server>(Server& server) {
      return ServerReport<Server>(server, flags, log ? &*log : nullptr, metrics);
    });
  });
}
