// SPDX-License-Identifier: BSL-1.0
/// @file
/// The server's flags for rooms that span several servers.
#pragma once

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <chatproto/backplane.hpp>
#include <chatproto/message_queue.hpp>
#include <chatproto/redis_options.hpp>
#ifdef CHATPROTO_PROGRAMS_HAVE_REDIS
#include <chatproto/redis.hpp>
#endif

#include "log.hpp"
#include "program.hpp"
#include "secret.hpp"
#include "serving.hpp"

namespace program {

/// Returns the server of "HOST:PORT" or "[IPV6]:PORT". Throws `std::invalid_argument`.
inline chatproto::RedisServer redis_server(std::string const& text) {
  auto const colon = text.rfind(':');
  chatproto::RedisServer server{text.substr(0, colon), 0};
  auto& host = server.host;
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  // What the log or a label of the metrics would have to quote is in no host's name.
  auto const is_odd = [](unsigned char c) { return c <= ' ' || c == 127 || c == '"' || c == '\\'; };
  auto const is_plain = std::none_of(host.begin(), host.end(), is_odd) && host.find_first_of("[]") == host.npos &&
                        (host.find(':') == host.npos || text[0] == '[');
  auto const* const end = text.data() + text.size();
  auto const digits = colon == text.npos ? end : text.data() + colon + 1;
  if (host.empty() || !is_plain || digits == end || std::from_chars(digits, end, server.port).ptr != end ||
      server.port == 0)
    throw std::invalid_argument("'" + text + "' is not HOST:PORT");
  return server;
}

class RedisFlags {
 public:
  void add_to(CLI::App& app) {
    auto* const redis = app.add_option_function<std::string>(
                               "--redis", [this](std::string const& text) { options_.servers = servers(text); },
                               "Share the rooms with other servers through these Redis servers")
                            ->check(check_servers, "")
                            ->type_name("HOST:PORT[,HOST:PORT...]");
    auto* const password = app.add_option("--redis-password-file", password_file_, "File with the password for Redis")
                               ->needs(redis)
                               ->type_name("FILE");
    app.add_option("--redis-user", options_.user, "User of Redis; by default its user 'default'")
        ->needs(password)
        ->type_name("NAME");
    app.add_option("--redis-ca", authorities_, "File of authorities (PEM): use TLS, and trust these, to reach Redis")
        ->needs(redis)
        ->type_name("FILE");
    app.add_option("--redis-replicas", options_.replicas,
                   "Number of Redis' replicas that must have a text before its sender gets 'ok'")
        ->check(decimal(0, 100))
        ->needs(redis)
        ->capture_default_str();
    app.add_option("--redis-new-rooms", options_.new_rooms,
                   "Maximum number of rooms that begin per second, with 40 times as many at once")
        ->check(decimal(1, 1'000'000))
        ->needs(redis)
        ->capture_default_str();
    app.add_option("--redis-keep", keep_,
                   "Seconds for which Redis keeps a room's texts after the last one; by default 60, with --history "
                   "86400 (a day)")
        ->check(decimal(60, 31'536'000))
        ->needs(redis)
        ->type_name("SECONDS");
  }

  /// Returns the backplane; null if there is none. With `--check`, tries each Redis. `keeps_history`: who joins may ask
  /// for what was said long ago. `log` may be null. Throws `std::runtime_error`.
  std::shared_ptr<chatproto::Backplane> backplane([[maybe_unused]] ServerFlags const& serving, bool keeps_history,
                                                  [[maybe_unused]] Log* log) {
    if (options_.servers.empty()) return nullptr;
    if (keep_ > 0 || keeps_history) options_.stream_time = std::chrono::seconds(keep_ > 0 ? keep_ : 86'400);
#ifdef CHATPROTO_PROGRAMS_HAVE_REDIS
    if (serving.options.overflow == chatproto::Overflow::block_sender)
      throw std::runtime_error(
          "--overflow block-sender cannot be used with --redis: a server cannot hold up the "
          "senders of other servers");
    Attempts files;
    if (!password_file_.empty())
      files.attempt([&] { options_.password = std::string(secret_from_file(password_file_).view()); });
    if (!authorities_.empty()) files.attempt([&] { options_.layer = encryption(); });
    files.require_success();
    if (serving.check) {
      if (auto errors = chatproto::RedisBackplane::errors(options_); !errors.empty()) throw Errors(std::move(errors));
    }
    if (log != nullptr) options_.on_event = [log](chatproto::RedisEvent const& event) { write(*log, event); };
    redis_ = std::make_shared<chatproto::RedisBackplane>(options_);
    return redis_;
#else
    throw std::runtime_error("--redis needs hiredis, without which this server was built");
#endif
  }

  /// Returns the figures of each Redis.
  std::vector<chatproto::RedisStats> stats() const {
#ifdef CHATPROTO_PROGRAMS_HAVE_REDIS
    if (redis_) return redis_->stats();
#endif
    return {};
  }

 private:
  static std::vector<chatproto::RedisServer> servers(std::string const& text) {
    std::vector<chatproto::RedisServer> all;
    for (auto const& one : split(text)) {
      all.push_back(redis_server(one));
      for (std::size_t i = 0; i + 1 < all.size(); ++i)
        if (all[i].name() == all.back().name()) throw std::invalid_argument("'" + one + "' is there twice");
    }
    return all;
  }
  static std::string check_servers(std::string const& text) try {
    servers(text);
    return {};
  } catch (std::invalid_argument const& error) {
    return error.what();
  }
  static void write(Log& log, chatproto::RedisEvent const& event) {
    using Kind = chatproto::RedisEvent::Kind;
    auto const server = event.server.name();
    switch (event.kind) {
      case Kind::connected: return log.write(Log::Level::info, "redis_connected", "redis", server);
      case Kind::disconnected:
        return log.write(Log::Level::err, "redis_disconnected", "redis", server, "error", event.what);
      case Kind::refused: return log.redis_refused(server, event.what);
      case Kind::room_lost: return log.room_lost(server, event.what);
    }
  }
#ifdef CHATPROTO_PROGRAMS_HAVE_REDIS
  std::shared_ptr<chatproto::LayerFactory> encryption() const {
#ifdef CHATPROTO_PROGRAMS_HAVE_TLS
    return std::make_shared<chatproto::TlsClient>(chatproto::TlsClientOptions{authorities_});
#else
    lack_tls();
#endif
  }
  std::shared_ptr<chatproto::RedisBackplane> redis_;
#endif

  chatproto::RedisOptions options_;
  unsigned keep_ = 0;  // seconds; 0: not given
  std::string password_file_, authorities_;
};

}  // namespace program
