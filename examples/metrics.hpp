// SPDX-License-Identifier: BSL-1.0
/// @file
/// Exports a server's counters to Prometheus over HTTP. Requests consist of lines, so the library itself serves them.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <list>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <chatproto/chat_service.hpp>
#include <chatproto/observer.hpp>
#include <chatproto/redis_options.hpp>
#include <chatproto/server.hpp>
#include <chatproto/threading.hpp>

#include "serving.hpp"

namespace program {

/// Returns the counters in Prometheus' text format.
inline std::string metrics_text(chatproto::ServerStats const& stats, chatproto::ChatService const& chat,
                                std::vector<chatproto::RedisStats> const& redis, std::uint64_t log_dropped) {
  std::string text;
  auto const head = [&](std::string const& name, std::string_view type, std::string_view help) {
    text.append("# HELP chatproto_" + name + ' ').append(help).append("\n# TYPE chatproto_" + name + ' ');
    text.append(type).append("\n");
  };
  auto const add = [&](std::string const& name, std::string_view type, std::string_view help, std::uint64_t value) {
    head(name, type, help);
    text += "chatproto_" + name + ' ' + std::to_string(value) + '\n';
  };
  add("clients", "gauge", "Clients that are connected.", stats.clients);
  add("accepted_total", "counter", "Clients that were accepted.", stats.accepted);
  auto const add_by_reason = [&]<class Reason>(std::string const& name, std::string_view help, auto const& values,
                                               Reason) {
    head(name, "counter", help);
    for (std::size_t i = 0; i < values.size(); ++i)
      text.append("chatproto_" + name + "{reason=\"").append(to_string(static_cast<Reason>(i))) +=
          "\"} " + std::to_string(values[i]) + '\n';
  };
  add_by_reason("ended_total", "Clients whose connections have ended, by reason.", stats.ended,
                chatproto::DisconnectReason());
  add_by_reason("refused_total", "Clients that were refused, by reason.", stats.refused, chatproto::RefusalReason());
  add("accept_errors_total", "counter", "Errors while accepting clients.", stats.accept_errors);
  add("lines_in_total", "counter", "Lines from clients.", stats.lines_in);
  add("bytes_in_total", "counter", "Bytes from clients.", stats.bytes_in);
  add("bytes_out_total", "counter", "Bytes for clients, handed to the system.", stats.bytes_out);
  add("queued_bytes", "gauge", "Bytes that wait for clients.", stats.queued);
  add("held_bytes", "gauge", "Bytes of memory that the server holds for clients, as --memory-limit counts them.",
      stats.held);
  add("throttled_total", "counter", "Times a client had to wait for the rate limit.", stats.throttled);
  add("observer_failures_total", "counter", "Times the observer threw an exception.", stats.observer_failures);
  add("rooms", "gauge", "Rooms that have members.", chat.room_count());
  add("history_bytes", "gauge", "Bytes of memory of the rooms' logs, if they keep a history.", chat.history_bytes());
  add("texts_total", "counter", "Texts that were said.", chat.texts());
  add("deliveries_total", "counter", "Deliveries that these texts made: one for each receiver of each text.",
      chat.deliveries());
  add("log_dropped_total", "counter", "Lines of the log that could not be written.", log_dropped);
  auto const add_by_redis = [&](std::string const& name, std::string_view type, std::string_view help,
                                auto const& value) {
    if (redis.empty()) return;
    head("redis_" + name, type, help);
    for (auto const& one : redis)
      text.append("chatproto_redis_" + name + "{redis=\"" + one.server + "\"} " + value(one) + '\n');
  };
  using One = chatproto::RedisStats;
  add_by_redis("connected", "gauge", "Whether this Redis is connected.",
               [](One const& one) { return std::string(one.is_connected ? "1" : "0"); });
  add_by_redis("silence_seconds", "gauge", "Time since something was heard of this Redis; +Inf: nothing yet.",
               [](One const& one) {
                 auto const never = one.silence == one.silence.max();
                 return never ? "+Inf" : std::to_string(std::chrono::duration<double>(one.silence).count());
               });
  add_by_redis("under_way", "gauge", "Rooms with a block that this Redis has not confirmed yet.",
               [](One const& one) { return std::to_string(one.under_way); });
  auto const count_by_redis = [&](std::string const& name, std::string_view help, auto member) {
    add_by_redis(name, "counter", help, [&](One const& one) { return std::to_string(one.counts.*member); });
  };
  using Counts = chatproto::BackplaneCounts;
  count_by_redis("appended_total", "Blocks of texts that this Redis has stored.", &Counts::appended);
  count_by_redis("refused_total", "Blocks of texts that were not stored.", &Counts::refused);
  count_by_redis("unknown_total", "Blocks of texts of which nobody knows whether they were stored.", &Counts::unknown);
  count_by_redis("delivered_total", "Blocks of texts that came from this Redis.", &Counts::delivered);
  count_by_redis("gaps_closed_total", "Times a room's missing blocks were read from its log.", &Counts::gaps_closed);
  count_by_redis("rooms_lost_total",
                 "Times texts of a room may have been lost, so that its receivers were disconnected.",
                 &Counts::rooms_lost);
  return text;
}

/// Answers `GET /metrics` with the result of a function, then closes. It has logins only so that a client that sends no
/// request is closed at the login deadline.
///
/// Slow or silent clients cannot block others: of the clients that have not asked yet, and of those that were answered
/// but do not close, only the newest `most` stay. All sessions run in one thread.
class MetricsService {
 public:
  static constexpr std::size_t most = 6;

  explicit MetricsService(std::function<std::string()> text) : text_(std::move(text)) {}

  class Session {
   public:
    Session(MetricsService& service, chatproto::Peer peer)
        : service_(service), peer_(service.asking_.insert(service.asking_.end(), std::move(peer))) {}
    Session(Session const&) = delete;
    Session& operator=(Session const&) = delete;
    ~Session() { service_.asking_.erase(peer_); }
    /// Reads the request, which empty lines may precede, then ignores its headers up to an empty line.
    void on_line(std::string_view line) {
      if (!line.empty() && status_.empty()) request(line);
      if (line.empty() && !status_.empty()) respond();
    }
    void on_bad_line(std::error_code const&) {
      if (status_.empty()) respond("414 URI Too Long");
    }
    bool logged_in() const noexcept { return responded_; }

   private:
    void request(std::string_view line) {
      auto const first = line.find(' '), last = line.rfind(' ');
      if (first == line.npos || last == first || line.substr(last, 8) != " HTTP/1.") return respond("400 Bad Request");
      auto const method = line.substr(0, first), target = line.substr(first + 1, last - first - 1);
      head_only_ = method == "HEAD";
      if (target.substr(0, target.find('?')) != "/metrics")
        status_ = "404 Not Found";
      else
        status_ = method == "GET" || head_only_ ? "200 OK" : "405 Method Not Allowed";
    }
    void respond() {
      auto const ok = status_ == "200 OK";
      auto const body = ok ? service_.text_() : std::string(status_) + '\n';
      std::string answer = "HTTP/1.1 ";
      answer.append(status_).append("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: ");
      answer.append(std::to_string(body.size())).append("\r\nConnection: close\r\n");
      if (status_.starts_with("405")) answer += "Allow: GET, HEAD\r\n";
      answer += "\r\n";
      if (!head_only_) answer += body;
      peer_->send(std::move(answer));
      peer_->close();
      responded_ = true;
      service_.keep_answered(*peer_);
    }
    void respond(std::string_view status) {
      status_ = status;
      respond();
    }

    MetricsService& service_;
    std::list<chatproto::Peer>::iterator peer_;
    std::string_view status_ = {};  // status of the answer, once there is a request
    bool head_only_ = false, responded_ = false;
  };
  Session open(chatproto::Peer peer) {
    auto oldest = asking_.begin();
    for (auto count = asking_.size(); count >= most; --count) (oldest++)->abort();
    return {*this, std::move(peer)};
  }

 private:
  void keep_answered(chatproto::Peer const& peer) {
    auto& oldest = answered_[next_++ % most];
    if (oldest) oldest->abort();
    oldest = peer;
  }

  std::function<std::string()> text_;
  std::list<chatproto::Peer> asking_;  // oldest first
  std::array<std::optional<chatproto::Peer>, most> answered_;
  std::size_t next_ = 0;
};

/// The command-line flags of the metrics.
struct MetricsFlags {
  std::optional<std::uint16_t> port;
  std::string address = "127.0.0.1";

  void add_to(CLI::App& app) {
    auto* const option =
        app.add_option("--metrics", port,
                       "TCP port for Prometheus (GET /metrics); 0: a free port, whose number is printed on stderr")
            ->check(decimal(0, 65535))
            ->type_name("PORT");
    app.add_option("--metrics-address", address, "Address that --metrics listens on; '::' means all")
        ->check(check_address, "")
        ->needs(option)
        ->capture_default_str();
  }
};

/// Serves the metrics during its lifetime, in its own threads. It does not authenticate clients: any client that can
/// connect may ask.
class MetricsServer {
 public:
  MetricsServer(MetricsFlags const& flags, std::function<std::string()> text) try
      : server_({.port = *flags.port,
                 .address = flags.address,
                 .threads = 1,  // the service requires it
                 .line_limit = 8192,
                 .max_clients = 2 * MetricsService::most + 4},  // some are aborted but still there
                std::move(text)),
        thread_([this] { run(); }) {
    if (*flags.port == 0) complain("metrics on port " + std::to_string(server_.port()));
  } catch (std::system_error const& error) {
    throw std::runtime_error(std::string("metrics: ") + error.what());
  }
  MetricsServer(MetricsServer const&) = delete;
  MetricsServer& operator=(MetricsServer const&) = delete;
  ~MetricsServer() {
    server_.stop(chatproto::StopMode::now);
    thread_.join();
  }

 private:
  void run() {
    try {
      server_.run();
    } catch (std::exception const& error) {  // the chat continues
      complain(std::string("metrics: ") + error.what());
    }
  }

  chatproto::Server<chatproto::ThreadPool, MetricsService> server_;
  std::thread thread_;
};

}  // namespace program
