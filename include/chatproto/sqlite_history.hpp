// SPDX-License-Identifier: BSL-1.0
/// @file
/// `SqliteHistory`: a file in which the histories of rooms outlive the server. Needs SQLite 3.37, and CMake's target
/// `chatproto::sqlite`; chatproto/chatproto.hpp does not include this header.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include <chatproto/detail/sqlite/history_database.hpp>
#include <chatproto/detail/sqlite/history_file.hpp>
#include <chatproto/detail/sqlite/history_queue.hpp>
#include <chatproto/history_store.hpp>

namespace chatproto {

/// The options of a `SqliteHistory`.
struct SqliteHistoryOptions {
  /// The file, which is made if there is none; only its owner may read it then. Beside it are, while it is used, files
  /// with `-wal` and `-shm` after its name, and one with `-lock`, which stays.
  std::string path;
  /// The last texts of each room; older ones are deleted. At least 1.
  std::size_t lines = 100;
  /// The most bytes of these, as whole lines. At least 1.
  std::size_t bytes = 64 * 1024;
  /// The most bytes of texts that wait for the file; the names of their rooms may take as much again.
  std::size_t queue_bytes = 8 * 1024 * 1024;
  /// The most bytes of the file before the rooms that were used longest ago are deleted; at least 1 MiB. What waits is
  /// written before that, and the log beside the file may take as much and 16 MiB.
  std::size_t file_bytes = 64 * 1024 * 1024;
  /// If set, called with a line without an end when the file cannot be written, or too much is said at once, and when
  /// that is over. The store's thread is the caller; it must not throw.
  std::function<void(std::string const& line)> on_problem = {};
};

/// Keeps the histories of rooms in a SQLite database.
///
/// What is said is in the file half a second later, if the disk keeps pace, and survives the end of the process from
/// then on. What survives a power failure is what the system had written: the file stays sound, but the last seconds
/// may be missing.
///
/// Texts that cannot be written wait in memory and are tried again. If there are too many, those of a room are dropped
/// together with what the file has of this room from before: its history begins anew, so it never has a gap. If the
/// file is damaged, moved or deleted, no more is kept.
///
/// @code
/// chatproto::SqliteHistory history({.path = "history.db"});
/// history.load([](std::string_view room, chatproto::HistoryStore::Said const& said) {
///   std::cout << room << ' ' << said.lines;
/// });
/// history.append("cafe", {.lines = "delivery:cafe:bob:hey!\n", .user = "bob"});
/// @endcode
///
/// Thread safety: distinct objects: safe. Shared objects: safe.
class SqliteHistory final : public HistoryStore {
 public:
  /// Opens or makes the file, and starts the thread. Throws `std::runtime_error`, which names the file and says what is
  /// wrong: it cannot be read, written or made; another server uses it; it is damaged; or it is no history, and is left
  /// as it is. Throws `std::invalid_argument` for limits of 0.
  explicit SqliteHistory(SqliteHistoryOptions options)
      : options_(checked(std::move(options))),
        file_(options_.path, limits(), std::max(options_.file_bytes, least_file)),
        queue_(limits(), options_.queue_bytes),
        thread_([this] { work(); }) {}
  /// Writes what waits, unless that fails, and ends the thread.
  ~SqliteHistory() override {
    {
      std::lock_guard const lock(mutex_);
      stops_ = true;
      wake_.notify_one();
    }
    thread_.join();
  }

  /// See `HistoryStore`. `take` may call the other functions. Throws as the constructor does, and what `take` throws.
  void load(std::function<void(std::string_view room, Said const& said)> const& take) override {
    std::lock_guard const use_file(file_mutex_);
    file_.load(take, [this](std::string_view room) {
      std::lock_guard const lock(mutex_);
      queue_.touch(room);
      wake_.notify_one();
    });
  }
  void append(std::string_view room, Said const& said) noexcept override {
    change([&] { queue_.append(room, said); });
  }

  /// Returns how many texts were not kept, although the limits of their rooms would have allowed it.
  std::uint64_t lost() const noexcept {
    std::lock_guard const lock(mutex_);
    return queue_.lost();
  }

  /// Looks at a file as the constructor does, but changes nothing; a server may use it meanwhile. If there is none,
  /// looks whether one can be made. Throws as the constructor does.
  static void check(std::string const& path) { detail::HistoryDatabase::check(path); }

 private:
  static constexpr std::size_t least_file = 1024 * 1024, most_limit = std::size_t(1) << 30;
  static constexpr std::chrono::milliseconds gather_time{200}, shortest_pause{250}, longest_pause{2000};

  static SqliteHistoryOptions checked(SqliteHistoryOptions options) {
    if (options.lines == 0 || options.bytes == 0)
      throw std::invalid_argument("chatproto::SqliteHistoryOptions: lines and bytes must be at least 1");
    return options;
  }
  detail::KeptLines limits() const noexcept {
    return {std::min(options_.lines, most_limit), std::min(options_.bytes, most_limit)};
  }

  void change(auto const& action) noexcept {
    auto is_due = false;
    {
      std::lock_guard const lock(mutex_);
      if (is_over_) return;
      auto const was_empty = queue_.is_empty(), was_large = queue_.is_large();
      action();
      is_due = was_empty || (!was_large && queue_.is_large());
    }
    if (is_due) wake_.notify_one();
  }

  void work() {
    std::unique_lock lock(mutex_);
    while (!is_over_) {
      wake_.wait(lock, [this] { return stops_ || !queue_.is_empty(); });
      if (queue_.is_empty()) return;
      wake_.wait_for(lock, gather_time, [this] { return stops_ || queue_.is_large(); });
      auto batch = queue_.take();
      lock.unlock();
      auto const is_written = write(batch);
      lock.lock();
      queue_.done(batch);
      if (!is_written) {  // what is newer must not follow a gap
        queue_.lose(batch.texts);
        queue_.drop_all();
        is_over_ = true;
      }
      auto const lost = queue_.lost();
      lock.unlock();
      tell_of_losses(lost);
      batch = {};
      lock.lock();
    }
  }
  /// Tries until it succeeds, or the end has come. Returns whether it has succeeded.
  bool write(detail::HistoryBatch const& batch) {
    for (auto pause = shortest_pause;; pause = std::min(2 * pause, longest_pause)) {
      auto is_last = false;
      try {
        {
          std::lock_guard const lock(mutex_);
          is_last = stops_;
        }
        std::lock_guard const use_file(file_mutex_);
        file_.write(batch);
        return true;
      } catch (detail::HistoryFileGone const& error) {
        give_up(error.what());
        return false;
      } catch (detail::SqliteError const& error) {
        if (error.is_damage()) {
          give_up(std::string("it is damaged: ") + error.what());
          return false;
        }
        begin_trouble(error.what());
      } catch (std::exception const& error) {  // out of memory
        begin_trouble(error.what());
      }
      std::unique_lock lock(mutex_);
      if (is_last) return false;
      wake_.wait_for(lock, pause, [this] { return stops_; });
    }
  }

  // --- What the owner should know ------------------------------------------------------------------------------------

  void tell(std::string const& what) const {
    if (options_.on_problem) options_.on_problem("history file '" + options_.path + "': " + what);
  }
  void give_up(std::string const& what) {
    is_in_trouble_ = false;  // no other line will follow
    tell("nothing is kept any more, because " + what);
  }
  void begin_trouble(std::string const& what) {
    if (!std::exchange(is_in_trouble_, true)) tell("cannot be written: " + what);
  }
  /// Trouble is over once all was written and nothing has been lost meanwhile.
  void tell_of_losses(std::uint64_t lost) {
    auto const has_lost = lost != std::exchange(seen_lost_, lost);
    if (has_lost && !is_over_ && !std::exchange(is_in_trouble_, true)) tell("more is said than can be written");
    if ((has_lost && !is_over_) || !std::exchange(is_in_trouble_, false)) return;
    auto const count = std::to_string(lost - std::exchange(told_lost_, lost));
    if (is_over_)
      tell("the end; texts not kept: " + count);
    else if (count == "0")
      tell("written again; all texts were kept");
    else
      tell("written again; texts not kept: " + count + " (the histories of their rooms begin anew)");
  }

  SqliteHistoryOptions const options_;
  std::mutex file_mutex_;  // guards file_
  detail::HistoryFile file_;
  mutable std::mutex mutex_;  // guards queue_, stops_ and is_over_
  std::condition_variable wake_;
  detail::HistoryQueue queue_;
  bool stops_ = false, is_over_ = false;
  bool is_in_trouble_ = false;  // this and the rest: only the thread's
  std::uint64_t seen_lost_ = 0, told_lost_ = 0;
  std::thread thread_;
};

}  // namespace chatproto
