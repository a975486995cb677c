// SPDX-License-Identifier: BSL-1.0
// server PORT: the chat server, until SIGINT or SIGTERM; a second one does not wait for clients to read.
#include <optional>
#include <string>

#include <chatproto/chat_service.hpp>

#include "log.hpp"
#include "serving.hpp"

namespace {

/// The first line and the last one of a server's log, if it has one.
template <class Server>
class Announced {
 public:
  Announced(program::Log* log, Server& server, std::string const& policy) : log_(log), server_(server) {
    if (log_ == nullptr) return;
    auto const& options = server.options();
    log_->write(program::Log::Level::info, "started", "port", server.port(), "policy", policy);
    log_->write(program::Log::Level::debug, "limits", "max_clients", options.max_clients, "queue_limit",
                options.queue_limit, "line_limit", options.line_limit);
  }
  Announced(Announced const&) = delete;
  Announced& operator=(Announced const&) = delete;
  ~Announced() {
    if (log_ == nullptr) return;
    auto const stats = server_.stats();
    log_->write(program::Log::Level::info, "stopped", "accepted", stats.accepted, "refused", stats.refused, "lines_in",
                stats.lines_in, "texts", server_.service().texts());
  }

 private:
  program::Log* log_;
  Server& server_;
};

}  // namespace

int main(int argc, char** argv) {
  program::ServerFlags flags;
  std::string level = "off";
  CLI::App app("Serves the chat on a TCP port until SIGINT or SIGTERM.", "server");
  flags.add_to(app);
  flags.add_login_deadline_to(app);
  app.add_option("--log", level, "Which events become a line on stderr: these and worse ones")
      ->check(CLI::IsMember({"off", "error", "warn", "info", "debug"}))
      ->capture_default_str();
  return program::run(app, argc, argv, [&] {
    std::optional<program::Log> log;
    if (level != "off") flags.options.observer = &log.emplace(level);
    return program::serve_beside<chatproto::ChatService>(flags, [&]<class Server>(Server& server) {
      return Announced<Server>(log ? &*log : nullptr, server, flags.policy);
    });
  });
}
