// SPDX-License-Identifier: BSL-1.0
/// @file
/// The file of a `SqliteHistory`.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <chatproto/detail/sqlite/history_database.hpp>
#include <chatproto/detail/sqlite/history_queue.hpp>
#include <chatproto/detail/sqlite/sqlite_database.hpp>
#include <chatproto/history_store.hpp>
#include <chatproto/message.hpp>

namespace chatproto::detail {

/// The file was moved or deleted while it was used.
class HistoryFileGone : public std::runtime_error {
 public:
  HistoryFileGone() : std::runtime_error("it was moved or deleted") {}
};

/// The histories in a database. It has a row for each room, and one for each run of lines with the same audience. A
/// room's lines, and their bytes, are numbered through, so that a gap would show.
///
/// Thread safety: distinct objects: safe. Shared objects: unsafe.
class HistoryFile {
 public:
  /// Opens the file, or makes it. Throws as `HistoryDatabase` does.
  HistoryFile(std::string const& path, KeptLines const& limits, std::size_t most_bytes)
      : path_(path),
        limits_(limits),
        most_pages_(static_cast<std::int64_t>(most_bytes / HistoryDatabase::page_size)),
        opened_(path),
        database_(opened_.get()) {
    HistoryDatabase::explained(path, [&] {
      statements_.emplace(database_);
      base_ = SqliteStatement(database_, "SELECT max(used) FROM rooms").number();
    });
    sqlite3_wal_hook(
        database_.handle(),
        [](void* pages, sqlite3*, char const*, int count) {
          *static_cast<std::int64_t*>(pages) = count;
          return SQLITE_OK;
        },
        &log_pages_);
  }

  /// See `HistoryStore::load`. Calls `cut(room)` for each room of which the file has more than the limits allow.
  void load(std::function<void(std::string_view room, HistoryStore::Said const& said)> const& take,
            std::function<void(std::string_view room)> const& cut) const {
    // What `take` throws is its own.
    std::vector<std::pair<std::string, Room>> rooms;
    HistoryDatabase::explained(path_, [&] {
      SqliteStatement const all_rooms(database_, "SELECT id, line, byte, name FROM rooms ORDER BY used, id");
      auto all = all_rooms.rows();
      while (all.next()) {
        auto const name = all.bytes(3);
        require(is_valid_name(name), "a room's name");
        rooms.emplace_back(name, Room{all.number(0), all.number(1), all.number(2)});
      }
    });
    for (auto const& [name, room] : rooms) {
      std::vector<KeptText> texts;
      auto is_cut = false;
      HistoryDatabase::explained(path_, [&, &of = room] { is_cut = read(of, texts); });
      for (auto at = texts.rbegin(); at != texts.rend(); ++at) take(name, {at->lines, at->user, at->only});
      if (is_cut) cut(name);
    }
  }

  /// Writes all of `batch`, or nothing. Throws `SqliteError`; `HistoryFileGone`.
  void write(HistoryBatch const& batch) {
    auto moved = 0;
    if (sqlite3_file_control(database_.handle(), "main", SQLITE_FCNTL_HAS_MOVED, &moved) == SQLITE_OK && moved != 0)
      throw HistoryFileGone();
    if (log_pages_ > most_pages_ + spare_pages) checkpoint(SQLITE_CHECKPOINT_TRUNCATE);
    {
      SqliteTransaction const transaction(database_);
      if (batch.anew) database_.run("DELETE FROM texts; DELETE FROM rooms");
      for (auto const& [name, change] : batch.rooms) write(name, change);
      while (statements_->page_count.number() - statements_->free_count.number() > most_pages_ && delete_oldest()) {
      }
      transaction.commit();
    }
    // It is written. Whether the pages have made their way out of the log is a matter of later.
    if (log_pages_ >= checkpoint_pages) checkpoint(SQLITE_CHECKPOINT_PASSIVE);
  }

 private:
  static constexpr std::int64_t checkpoint_pages = 1000, spare_pages = 4096;

  struct Room {
    std::int64_t id, line, byte;  // number of its next line, and of its next byte
  };
  struct Statements {
    explicit Statements(SqliteDatabase const& database)
        : room(database, "SELECT id, line, byte FROM rooms WHERE name = ?"),
          add_room(database, "INSERT INTO rooms(name, used, line, byte) VALUES(?, 0, 0, 0)"),
          use_room(database, "UPDATE rooms SET used = max(used, ?2), line = ?3, byte = ?4 WHERE id = ?1"),
          delete_room(database, "DELETE FROM rooms WHERE id = ?"),
          oldest_room(database, "SELECT id FROM rooms ORDER BY used LIMIT 1"),
          add_text(database,
                   "INSERT INTO texts(room, line, byte, count, only, user, lines) VALUES(?, ?, ?, ?, ?, ?, ?)"),
          newest_texts(database,
                       "SELECT line, byte, count, only, user, lines FROM texts WHERE room = ? "
                       "ORDER BY line DESC"),
          oldest_texts(database, "SELECT line, byte, count, length(lines) FROM texts WHERE room = ? ORDER BY line"),
          lines(database, "SELECT lines FROM texts WHERE room = ? AND line = ?"),
          cut_text(database,
                   "UPDATE texts SET line = ?3, byte = ?4, count = ?5, lines = ?6 WHERE room = ?1 AND line = ?2"),
          delete_texts(database, "DELETE FROM texts WHERE room = ? AND line < ?"),
          page_count(database, "PRAGMA page_count"),
          free_count(database, "PRAGMA freelist_count") {}
    SqliteStatement room, add_room, use_room, delete_room, oldest_room, add_text, newest_texts, oldest_texts, lines,
        cut_text, delete_texts, page_count, free_count;
  };
  static constexpr std::int64_t no_end = std::numeric_limits<std::int64_t>::max();

  static void require(bool is_right, char const* what) {
    if (!is_right) throw SqliteError(SQLITE_CORRUPT, std::string("wrong: ") + what);
  }
  /// Reads what the room has within the limits, the newest first. Returns whether there is more.
  bool read(Room const& room, std::vector<KeptText>& texts) const {
    auto left = limits_;
    auto line = room.line, byte = room.byte;
    auto rows = statements_->newest_texts.rows(room.id);
    while (rows.next()) {
      if (left.lines == 0 || left.bytes == 0) return true;
      auto const lines = rows.bytes(5);
      auto const count = std::count(lines.begin(), lines.end(), '\n');
      line -= count;
      byte -= static_cast<std::int64_t>(lines.size());
      require(rows.number(0) == line && rows.number(1) == byte && rows.number(2) == count,
              "the order of a room's texts");
      require(count > 0 && lines.ends_with('\n') && has_short_lines(lines), "a text");
      auto const from = left.begin(lines, static_cast<std::size_t>(count));
      KeptText text{std::string(rows.bytes(4)), std::string(lines.substr(from)), 0, rows.number(3) != 0};
      if (!text.lines.empty()) texts.push_back(std::move(text));
      if (from > 0) return true;
      left.lines -= static_cast<std::size_t>(count);
      left.bytes -= lines.size();
    }
    return false;
  }
  static bool has_short_lines(std::string_view lines) noexcept {
    for (std::size_t at = 0, end = 0; at < lines.size(); at = end + 1) {
      end = lines.find('\n', at);
      if (end - at >= max_line) return false;
    }
    return true;
  }

  void write(std::string_view name, RoomChange const& change) const {
    auto const& use = *statements_;
    Room room{-1, 0, 0};
    {
      auto rows = use.room.rows(name);
      if (rows.next()) room = {rows.number(0), rows.number(1), rows.number(2)};
    }
    if (room.id == -1) {
      if (change.texts.empty()) return;
      use.add_room.run(name);
      room.id = sqlite3_last_insert_rowid(database_.handle());
    } else if (change.anew) {
      use.delete_texts.run(room.id, no_end);
      if (change.texts.empty()) return use.delete_room.run(room.id);
    }
    for (auto const& text : change.texts) {
      auto const count = static_cast<std::int64_t>(text.count);
      use.add_text.run(room.id, room.line, room.byte, count, std::int64_t(text.only), std::string_view(text.user),
                       std::string_view(text.lines));
      room.line += count;
      room.byte += static_cast<std::int64_t>(text.lines.size());
    }
    auto const used = change.used > 0 ? base_ + static_cast<std::int64_t>(change.used) : 0;
    use.use_room.run(room.id, used, room.line, room.byte);
    trim(room);
  }
  /// Deletes what is beyond the limits.
  void trim(Room const& room) const {
    auto const& use = *statements_;
    auto const most_lines = static_cast<std::int64_t>(limits_.lines),
               most_bytes = static_cast<std::int64_t>(limits_.bytes);
    std::int64_t from = 0, line = 0, byte = 0, count = 0, size = 0;
    auto is_cut = false;
    {
      auto rows = use.oldest_texts.rows(room.id);
      while (!is_cut && rows.next()) {
        line = rows.number(0), byte = rows.number(1), count = rows.number(2), size = rows.number(3);
        if (room.line - line <= most_lines && room.byte - byte <= most_bytes) break;
        is_cut = room.line - line - count < most_lines && room.byte - byte - size < most_bytes;
        from = is_cut ? line : line + count;
      }
    }
    if (from > 0) use.delete_texts.run(room.id, from);
    if (!is_cut) return;
    std::string kept;
    {
      auto rows = use.lines.rows(room.id, line);
      require(rows.next(), "a text");
      KeptLines const left{static_cast<std::size_t>(most_lines - (room.line - line - count)),
                           static_cast<std::size_t>(most_bytes - (room.byte - byte - size))};
      auto const lines = rows.bytes(0);
      kept = lines.substr(left.begin(lines, static_cast<std::size_t>(count)));
    }
    if (kept.empty()) return use.delete_texts.run(room.id, line + 1);
    auto const now = std::count(kept.begin(), kept.end(), '\n');
    use.cut_text.run(room.id, line, line + count - now, byte + size - static_cast<std::int64_t>(kept.size()),
                     std::int64_t(now), std::string_view(kept));
  }
  bool delete_oldest() const {
    auto const id = statements_->oldest_room.number();
    if (id == 0) return false;
    statements_->delete_texts.run(id, no_end);
    statements_->delete_room.run(id);
    return true;
  }
  void checkpoint(int how) {
    auto const code = sqlite3_wal_checkpoint_v2(database_.handle(), "main", how, nullptr, nullptr);
    if (how == SQLITE_CHECKPOINT_PASSIVE) return;  // what does not work now is done later
    database_.check(code);
    log_pages_ = 0;
  }

  std::string const path_;
  KeptLines const limits_;
  std::int64_t const most_pages_;
  HistoryDatabase const opened_;
  SqliteDatabase const& database_;
  std::optional<Statements> statements_;
  std::int64_t base_ = 0;       // of `used`, from before
  std::int64_t log_pages_ = 0;  // after the last transaction
};

}  // namespace chatproto::detail
