// SPDX-License-Identifier: BSL-1.0
/// @file
/// Opens the file of a `SqliteHistory`, if it is one.
#pragma once

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>

#ifndef _WIN32
#include <fcntl.h>
#include <unistd.h>
#endif

#include <chatproto/detail/sqlite/sqlite_database.hpp>

namespace chatproto::detail {

/// A database with the tables of a history, used by one server at a time.
///
/// Thread safety: distinct objects: safe. Shared objects: unsafe.
class HistoryDatabase {
 public:
  static constexpr std::size_t page_size = 4096;

  /// Opens the file, or makes it. Throws `std::runtime_error` with a text for people if it cannot be used, or if it is
  /// another program's, which is then not changed.
  explicit HistoryDatabase(std::string const& path) : lock_(locked(path)), database_(opened(path)) {
    explained(path, [&] { set_up(); });
  }

  SqliteDatabase const& get() const noexcept { return database_; }

  /// Looks at a file as the constructor does, without changing or locking it. It need not exist, but then a file must
  /// be possible there.
  static void check(std::string const& path) {
    auto const absolute = absolute_path(path);
    std::error_code ec;
    if (!std::filesystem::exists(absolute, ec)) return require_writable(path, absolute.parent_path());
    require_writable(path, absolute);
    require_writable(path, absolute.parent_path());
    explained(path, [&] {
      // Without a log nobody uses it, and then SQLite need not make one to read it.
      auto log = absolute;
      log += "-wal";
      auto const* const how = std::filesystem::exists(log, ec) ? "" : "?immutable=1";
      SqliteDatabase const database(uri(absolute.string()) + how, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI);
      if (is_new(database)) return;
      require_schema(database);
      require_soundness(database);
    });
  }

  /// Does something, and throws what SQLite throws as a `std::runtime_error` for people.
  static void explained(std::string const& path, auto const& action) {
    try {
      action();
    } catch (SqliteError const& error) {
      if (error.is_damage())
        fail(path, std::string("the history is damaged (") + error.what() + "): move the file away, or restore a copy");
      if (error.code() == SQLITE_BUSY) fail(path, "another program has locked it");
      fail(path, error.what());
    }
  }

 private:
  static constexpr std::int32_t application_id = 0x63704869, version = 1;  // "cpHi"
  static constexpr std::array<std::string_view, 3> schema = {
      "CREATE TABLE rooms(id INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE, used INTEGER NOT NULL, "
      "line INTEGER NOT NULL, byte INTEGER NOT NULL) STRICT",
      "CREATE INDEX rooms_used ON rooms(used)",
      "CREATE TABLE texts(room INTEGER NOT NULL, line INTEGER NOT NULL, byte INTEGER NOT NULL, count INTEGER NOT NULL, "
      "only INTEGER NOT NULL, user BLOB NOT NULL, lines BLOB NOT NULL, PRIMARY KEY(room, line)) STRICT, WITHOUT ROWID"};

  [[noreturn]] static void fail(std::string const& path, std::string const& what) {
    throw std::runtime_error("'" + path + "': " + what);
  }
  /// An absolute path has no other meaning to SQLite.
  static std::filesystem::path absolute_path(std::string const& path) {
    if (path.empty()) fail(path, "there is no such file name");
    return std::filesystem::absolute(path);
  }
  static std::string uri(std::string const& absolute) {
    std::string text = "file:";
    for (auto const c : absolute) {
      constexpr auto* digits = "0123456789ABCDEF";
      auto const byte = static_cast<unsigned char>(c);
      if (c == '%' || c == '?' || c == '#')
        text.append(1, '%').append(1, digits[byte / 16]).append(1, digits[byte % 16]);
      else
        text += c;
    }
    return text;
  }
  static void require_writable([[maybe_unused]] std::string const& path,
                               [[maybe_unused]] std::filesystem::path const& what) {
#ifndef _WIN32
    if (::access(what.c_str(), W_OK) != 0) fail(path, "cannot be written: " + std::generic_category().message(errno));
#endif
  }
  /// Makes an empty file that only its owner may read, unless there is one.
  static void create(std::string const& path, std::filesystem::path const& absolute) {
#ifndef _WIN32
    auto const descriptor = ::open(absolute.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
    if (descriptor >= 0)
      ::close(descriptor);
    else if (errno != EEXIST)
      fail(path, "cannot be created: " + std::generic_category().message(errno));
#endif
  }
  static SqliteDatabase open(std::string const& path, std::filesystem::path const& absolute) {
    create(path, absolute);
#ifdef _WIN32
    constexpr auto flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
#else
    constexpr auto flags = SQLITE_OPEN_READWRITE;
#endif
    SqliteDatabase database(absolute.string(), flags);
    if (sqlite3_db_readonly(database.handle(), "main") != 0) fail(path, "cannot be written");
    return database;
  }
  /// Two servers would overwrite each other's rooms. So each locks a file of its own beside the database, which others
  /// may read.
  static SqliteDatabase locked(std::string const& path) try {
    opened(path);  // nothing is made beside another program's file
    auto beside = absolute_path(path);
    beside += "-lock";
    auto database = open(path, beside);
    database.run("BEGIN EXCLUSIVE");
    return database;
  } catch (SqliteError const& error) {
    if (error.code() == SQLITE_BUSY) fail(path, "another server uses this file");
    fail(path, std::string("its lock (-lock) cannot be used: ") + error.what());
  }
  static SqliteDatabase opened(std::string const& path) try {
    auto database = open(path, absolute_path(path));
    is_new(database);  // before anything is read as a database, which may change it
    return database;
  } catch (SqliteError const& error) {
    fail(path, error.what());
  }
  /// Returns whether the file is empty. Throws if it is another program's. Looks at the bytes alone.
  static bool is_new(SqliteDatabase const& database) {
    sqlite3_file* file = nullptr;
    database.check(sqlite3_file_control(database.handle(), "main", SQLITE_FCNTL_FILE_POINTER, &file));
    sqlite3_int64 size = 0;
    if (file == nullptr || file->pMethods == nullptr) throw SqliteError(SQLITE_CANTOPEN, "cannot be opened");
    database.check(file->pMethods->xFileSize(file, &size));
    if (size == 0) return true;
    std::array<char, 100> header{};
    constexpr std::string_view magic("SQLite format 3\0", 16);
    if (size < 100 || file->pMethods->xRead(file, header.data(), static_cast<int>(header.size()), 0) != SQLITE_OK ||
        !std::string_view(header.data(), header.size()).starts_with(magic) || number_at(header, 68) != application_id)
      throw SqliteError(SQLITE_MISMATCH, "no history of chatproto but another file, which stays as it is");
    if (number_at(header, 60) != version)
      throw SqliteError(SQLITE_MISMATCH, "a history of another version of chatproto");
    return false;
  }
  static std::uint32_t number_at(std::array<char, 100> const& header, std::size_t at) noexcept {
    std::uint32_t number = 0;
    for (auto i = at; i < at + 4; ++i) number = number << 8 | static_cast<unsigned char>(header[i]);
    return number;
  }
  /// Throws unless the tables are those that this class makes. So nobody has put triggers there.
  static void require_schema(SqliteDatabase const& database) {
    SqliteStatement const statement(database, "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid");
    auto all = statement.rows();
    auto is_ours = true;
    for (auto const sql : schema) is_ours = is_ours && all.next() && all.bytes(0) == sql;
    if (!is_ours || all.next()) throw SqliteError(SQLITE_CORRUPT, "its tables are not those of a history");
  }
  static void require_soundness(SqliteDatabase const& database) {
    SqliteStatement const statement(database, "PRAGMA quick_check(1)");
    auto all = statement.rows();
    if (!all.next() || all.bytes(0) != "ok") throw SqliteError(SQLITE_CORRUPT, std::string(all.bytes(0)));
  }
  void set_up() {
    auto* const handle = database_.handle();
    sqlite3_db_config(handle, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
    sqlite3_busy_timeout(handle, 250);
    database_.run(
        "PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON; PRAGMA synchronous=NORMAL; "
        "PRAGMA secure_delete=ON; PRAGMA page_size=4096");
    // In one transaction without a log, so that the file's first page tells whose it is, whenever the process ends.
    if (SqliteStatement(database_, "SELECT count(*) FROM sqlite_schema").number() == 0) {
      SqliteTransaction const transaction(database_);
      for (auto const sql : schema) database_.run(std::string(sql).c_str());
      database_.run(("PRAGMA application_id=" + std::to_string(application_id)).c_str());
      database_.run(("PRAGMA user_version=" + std::to_string(version)).c_str());
      transaction.commit();
    }
    require_schema(database_);
    require_soundness(database_);
    {
      SqliteStatement const use_log(database_, "PRAGMA journal_mode=WAL");
      auto mode = use_log.rows();
      if (!mode.next() || mode.bytes(0) != "wal")
        throw SqliteError(SQLITE_CANTOPEN, "this file system has no shared memory");
    }
    database_.run("PRAGMA journal_size_limit=8388608");
  }

  SqliteDatabase const lock_;
  SqliteDatabase const database_;
};

}  // namespace chatproto::detail
