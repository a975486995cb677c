// SPDX-License-Identifier: BSL-1.0
/// @file
/// The server's log on stderr.
#pragma once

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#ifdef _WIN32
#include <io.h>
#else
#include <poll.h>
#include <unistd.h>
#endif

#define SPDLOG_LEVEL_NAMES \
  { "trace", "debug", "info", "warn", "error", "critical", "off" }
#include <spdlog/async_logger.h>
#include <spdlog/details/thread_pool.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/base_sink.h>

#include <asio/ip/address.hpp>

#include <chatproto/address_limits.hpp>
#include <chatproto/observer.hpp>
#include <chatproto/token_bucket.hpp>

#include "logfmt.hpp"

namespace program {

/// Logs a line for each event:
/// `time=2026-01-31T12:00:00.000Z level=info event=connected client=17 address=127.0.0.1:50312`.
///
/// Only the log's own thread waits for stderr. If more than 1024 lines are pending, the oldest are dropped; the next
/// line says how many (`dropped=`). For each kind of event, 50 lines are written at once and 10 per second in the long
/// run; the next line says how many were left out (`suppressed=`), or, at the end, a line without a client does.
///
/// Lines about offences, for which fail2ban may ban an address, are counted by address: 20 at once and one each 10 s.
/// So one address cannot suppress the lines about another. Of all addresses together, 1000 are written at once and 100
/// per second.
class Log final : public chatproto::Observer {
 public:
  using Level = spdlog::level::level_enum;

  /// Writes lines of this level ("error", "warn", "info", "debug") and above.
  explicit Log(std::string const& level) {
    logger_->set_level(spdlog::level::from_str(level));
    logger_->set_error_handler([sink = sink_](std::string const&) { ++sink->lost; });
  }
  /// Waits until all lines are written, but at most 2 s if stderr takes nothing.
  ~Log() override {
    for (auto const& kind : kinds_)
      if (kind.suppressed > 0) write_one(kind, kind.suppressed);
    for (auto const* const kind : {&refused_logins_, &redis_refused_, &room_lost_})
      if (kind->suppressed > 0) write_one(*kind, kind->suppressed);
    logger_->flush();
    // A thread that waits for stderr cannot be stopped. The process ends without it.
    if (sink_->flushed.get_future().wait_for(std::chrono::seconds(2)) != std::future_status::ready) [[maybe_unused]]
      static auto const* const abandoned = new auto(pool_);
  }

  /// Writes a line about another event. `fields` alternates keys and values. Any thread may call it.
  void write(Level level, std::string_view event, auto const&... fields) noexcept {
    write_line(level, [&](std::string& line) { append(line, "event", event, fields...); });
  }
  /// Returns how many lines could not be written. Any thread may call it.
  std::uint64_t dropped() const { return sink_->dropped(); }

  void connected(std::uint64_t client, std::string_view address) override {
    remember(client, address);
    count_client(kinds_[0], client, address);
  }
  void logged_in(std::uint64_t client, std::string_view name) override {
    count_client(kinds_[1], client, address_of(client), "name", name);
  }
  /// A login was refused because of its secret. Any thread may call it.
  void login_refused(std::string_view name, std::string_view address) noexcept {
    count(refused_logins_, address, "name", name, "address", address);
  }
  /// Redis has refused a command, or a room's texts may be missing. Any thread may call these.
  void redis_refused(std::string_view redis, std::string_view error) noexcept {
    count(redis_refused_, {}, "redis", redis, "error", error);
  }
  void room_lost(std::string_view redis, std::string_view room) noexcept {
    count(room_lost_, {}, "redis", redis, "room", room);
  }
  void accept_failed(std::error_code const& error) override { count(kinds_[2], {}, "error", error.message()); }
  void threw(std::uint64_t client, std::string_view what) override {
    count_client(kinds_[3], client, address_of(client), "error", what);
  }
  void refused(std::string_view address, chatproto::RefusalReason reason) override {
    count(kinds_[4 + static_cast<std::size_t>(reason)], address, "address", address);
  }
  void ended(std::uint64_t client, chatproto::DisconnectReason reason, std::error_code const& error) override {
    auto& kind = kinds_[4 + chatproto::refusal_reasons + static_cast<std::size_t>(reason)];
    auto const address = address_of(client);
    forget(client);
    error ? count_client(kind, client, address, "error", error.message()) : count_client(kind, client, address);
  }

 private:
  struct Kind {
    Level level;
    std::string_view event, reason = {};
    bool is_offence = false;
    std::mutex mutex = {};  // guards the following members
    chatproto::TokenBucket bucket = is_offence ? chatproto::TokenBucket(100, 1000) : chatproto::TokenBucket(10, 50);
    std::uint64_t suppressed = 0;
  };

  struct Sink final : spdlog::sinks::base_sink<spdlog::details::null_mutex> {
    explicit Sink(spdlog::details::thread_pool& pool) : pool_(pool) {
      set_formatter_(std::make_unique<spdlog::pattern_formatter>("time=%Y-%m-%dT%H:%M:%S.%eZ level=%l%v",
                                                                 spdlog::pattern_time_type::utc, ""));
    }
    std::uint64_t dropped() const { return lost + pool_.overrun_counter(); }
    void sink_it_(spdlog::details::log_msg const& message) override {
      spdlog::memory_buf_t buffer;
      formatter_->format(message, buffer);
      std::string line(buffer.data(), buffer.size());
      auto const all = dropped();
      if (all > told_) append_field(line, "dropped", all - told_);
      line += '\n';
      if (write_all(line))
        told_ = all;
      else
        ++lost;
    }
    void flush_() override { flushed.set_value(); }

    std::atomic<std::uint64_t> lost = 0;
    std::promise<void> flushed;

   private:
    // Does not use the stream: a thread that waits inside it holds its lock, which the end of the program takes too.
    static bool write_all(std::string_view bytes) {
      while (!bytes.empty()) {
#ifdef _WIN32
        auto const size = _write(2, bytes.data(), static_cast<unsigned>(bytes.size()));
#else
        auto const size = ::write(2, bytes.data(), bytes.size());
        pollfd stderr_again{2, POLLOUT, 0};
        if (size < 0 && errno == EINTR) continue;
        if (size < 0 && errno == EAGAIN && ::poll(&stderr_again, 1, -1) > 0) continue;
#endif
        if (size <= 0) return false;
        bytes.remove_prefix(static_cast<std::size_t>(size));
      }
      return true;
    }

    spdlog::details::thread_pool& pool_;  // its thread uses this sink
    std::uint64_t told_ = 0;
  };

  static void append(std::string&) {}
  static void append(std::string& line, std::string_view key, auto const& value, auto const&... more) {
    append_field(line, key, value);
    append(line, more...);
  }

  // If memory is short, a client's lines have no address.
  void remember(std::uint64_t client, std::string_view address) noexcept try {
    std::lock_guard const lock(addresses_mutex_);
    addresses_.emplace(client, address);
  } catch (...) {
  }
  std::string address_of(std::uint64_t client) noexcept try {
    std::lock_guard const lock(addresses_mutex_);
    auto const at = addresses_.find(client);
    return at != addresses_.end() ? at->second : std::string();
  } catch (...) {
    return {};
  }
  void forget(std::uint64_t client) noexcept {
    std::lock_guard const lock(addresses_mutex_);
    addresses_.erase(client);
  }

  /// Whether to write a line about one more offence of `offender`, an address and port.
  bool is_due(std::string_view offender, chatproto::TokenBucket::Clock::time_point now) noexcept try {
    std::string host(offender.substr(0, offender.rfind(':')));
    if (host.starts_with('[')) host = host.substr(1, host.size() - 2);
    chatproto::AddressLimits::Place place;
    return !offences_.admit(asio::ip::make_address(host), now, place);
  } catch (...) {  // its address is unknown, or memory is short
    return true;
  }

  void count_client(Kind& kind, std::uint64_t client, std::string_view address, auto const&... fields) noexcept {
    count(kind, address, "client", client, "address", address, fields...);
  }
  /// Counts an event and writes a line, unless there are too many.
  void count(Kind& kind, std::string_view offender, auto const&... fields) noexcept {
    if (!logger_->should_log(kind.level)) return;
    std::uint64_t suppressed = 0;
    auto const now = chatproto::TokenBucket::Clock::now();
    auto const due = !kind.is_offence || is_due(offender, now);
    {
      std::lock_guard const lock(kind.mutex);
      if (!due || !kind.bucket.take(now)) {
        ++kind.suppressed;
        return;
      }
      suppressed = std::exchange(kind.suppressed, 0);
    }
    write_one(kind, suppressed, fields...);
  }
  void write_one(Kind const& kind, std::uint64_t suppressed, auto const&... fields) noexcept {
    write_line(kind.level, [&](std::string& line) {
      append(line, "event", kind.event);
      if (!kind.reason.empty()) append_field(line, "reason", kind.reason);
      append(line, fields...);
      if (suppressed > 0) append_field(line, "suppressed", suppressed);
    });
  }
  void write_line(Level level, auto const& fill) noexcept {
    try {
      if (!logger_->should_log(level)) return;
      std::string line;
      fill(line);
      logger_->log(level, spdlog::string_view_t(line));
    } catch (...) {  // out of memory; a log must not cost a client
      ++sink_->lost;
    }
  }

  std::shared_ptr<spdlog::details::thread_pool> pool_ = std::make_shared<spdlog::details::thread_pool>(1024, 1);
  std::shared_ptr<Sink> sink_ = std::make_shared<Sink>(*pool_);
  std::shared_ptr<spdlog::async_logger> logger_ =
      std::make_shared<spdlog::async_logger>("", sink_, pool_, spdlog::async_overflow_policy::overrun_oldest);
  Kind refused_logins_{Level::warn, "login_refused", {}, true};
  Kind redis_refused_{Level::err, "redis_refused"}, room_lost_{Level::warn, "room_lost"};
  std::mutex addresses_mutex_;                      // guards addresses_
  std::map<std::uint64_t, std::string> addresses_;  // of the clients that are connected
  chatproto::AddressLimits offences_{{.rate = 0.1, .burst = 20}};
  std::array<Kind, 4 + chatproto::refusal_reasons + chatproto::disconnect_reasons> kinds_ = {{
      {Level::info, "connected"},
      {Level::info, "logged_in"},
      {Level::err, "accept_failed"},
      {Level::warn, "threw"},
      {Level::warn, "refused", "full"},  // this and the following in the order of `RefusalReason`
      {Level::warn, "refused", "too_many", true},
      {Level::warn, "refused", "too_fast", true},
      {Level::warn, "refused", "banned", true},
      {Level::info, "ended", "closed"},  // this and the rest in the order of `DisconnectReason`
      {Level::info, "ended", "lost"},
      {Level::info, "ended", "login_deadline", true},
      {Level::warn, "ended", "write_deadline"},
      {Level::warn, "ended", "overflow"},
      {Level::warn, "ended", "failed"},
      {Level::info, "ended", "aborted"},
      {Level::warn, "ended", "memory"},
      {Level::info, "ended", "handshake", true},
      {Level::info, "ended", "refused"},
      {Level::warn, "ended", "banned"},
      {Level::warn, "ended", "room_lost"},
  }};
};

}  // namespace program
