// SPDX-License-Identifier: BSL-1.0
/// @file
/// The server's flags for what rooms keep, and who is in them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include <chatproto/chat_service.hpp>
#include <chatproto/detail/server/listener.hpp>
#include <chatproto/history_limits.hpp>
#ifdef CHATPROTO_PROGRAMS_HAVE_SQLITE
#include <chatproto/sqlite_history.hpp>
#endif

#include "log.hpp"
#include "program.hpp"
#include "serving.hpp"

namespace program {

class HistoryFlags {
 public:
  void add_to(CLI::App& app) {
    auto* const lines =
        app.add_option("--history", limits_.lines, "Number of texts of each room that receivers may ask for later")
            ->check(decimal(0, 1'000'000'000))
            ->type_name("TEXTS")
            ->capture_default_str();
    app.add_option("--history-bytes", limits_.bytes, "Maximum size of these texts of a room, in bytes of deliveries")
        ->check(decimal(chatproto::max_line, chatproto::HistoryLimits::most_bytes))
        ->needs(lines)
        ->capture_default_str();
    memory_ =
        app.add_option("--history-memory", limits_.memory, "Bytes of memory that these texts of all rooms may take")
            ->check(decimal(1024 * 1024, 1'000'000'000'000'000))
            ->needs(lines)
            ->capture_default_str();
    app.add_option("--history-file", file_, "File in which these texts outlive the server")
        ->needs(lines)
        ->type_name("FILE");
    app.add_flag("--presence", presence_, "Tell senders that ask for it who is in their room");
  }

  /// Returns whether rooms keep what was said.
  bool is_on() const noexcept { return static_cast<bool>(limits_); }

  /// Sets the options of the chat. With `--check`, only looks at the file. `log` may be null. Throws
  /// `std::runtime_error` if they do not fit the others, or if the file cannot be used.
  void set(chatproto::ChatOptions& chat, ServerFlags const& serving, Log* log) {
    if (chat.backplane && (presence_ || !file_.empty()))
      throw std::runtime_error("--presence and --history-file cannot be used with --redis");
    // What is kept must leave memory for what waits for clients, or the server would read from nobody.
    auto const memory = serving.options.memory_limit;
    auto const most = (memory != 0 ? memory : chatproto::detail::half_of_memory()) / 2;
    if (limits_ && limits_.memory > most && !memory_->empty())
      throw std::runtime_error("--history-memory must be at most half of --memory-limit, which is " +
                               std::to_string(most) + " here");
    limits_.memory = std::min(limits_.memory, most);
    // A reply of this size must not disconnect a client that is slow to read.
    if (auto const queue = limits_.bytes + 64 * 1024; limits_ && serving.options.queue_limit < queue)
      throw std::runtime_error("--queue-limit must be at least " + std::to_string(queue) +
                               " for these --history-bytes");
    chat.history = limits_;
    chat.presence = presence_;
    if (!file_.empty()) open(chat, serving, log);
  }

 private:
  void open([[maybe_unused]] chatproto::ChatOptions& chat, [[maybe_unused]] ServerFlags const& serving,
            [[maybe_unused]] Log* log) const {
    if (!limits_) throw std::runtime_error("--history-file needs --history of at least 1");
#ifdef CHATPROTO_PROGRAMS_HAVE_SQLITE
    if (serving.check) return chatproto::SqliteHistory::check(file_);
    // The file may have more than what may be in memory while nobody is there; it keeps that, within this limit.
    chatproto::SqliteHistoryOptions options{
        .path = file_, .lines = limits_.lines, .bytes = limits_.bytes, .file_bytes = limits_.memory};
    options.on_problem = [log](std::string const& problem) {
      log != nullptr ? log->write(Log::Level::err, "history_file", "problem", problem) : complain(visible(problem));
    };
    chat.history_store = std::make_shared<chatproto::SqliteHistory>(std::move(options));
#else
    throw std::runtime_error("--history-file needs SQLite, without which this server was built");
#endif
  }

  chatproto::HistoryLimits limits_;
  std::string file_;
  CLI::Option* memory_ = nullptr;
  bool presence_ = false;
};

}  // namespace program
