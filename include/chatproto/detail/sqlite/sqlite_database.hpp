// SPDX-License-Identifier: BSL-1.0
/// @file
/// A connection of SQLite, its statements, and its errors as exceptions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <sqlite3.h>

namespace chatproto::detail {

/// What SQLite could not do.
class SqliteError : public std::runtime_error {
 public:
  SqliteError(int code, std::string const& what) : std::runtime_error(what), code_(code & 0xff) {}
  /// SQLITE_FULL, SQLITE_CORRUPT and so on, without what they are extended with.
  int code() const noexcept { return code_; }
  bool is_damage() const noexcept { return code_ == SQLITE_CORRUPT || code_ == SQLITE_NOTADB; }

 private:
  int code_;
};

/// A connection. Thread safety: distinct objects: safe. Shared objects: unsafe.
class SqliteDatabase {
 public:
  /// Opens a file, with the flags of `sqlite3_open_v2`. Nothing of it is used yet.
  SqliteDatabase(std::string const& name, int flags) {
    sqlite3* raw = nullptr;
    auto const code = sqlite3_open_v2(name.c_str(), &raw, flags | SQLITE_OPEN_NOMUTEX, nullptr);
    handle_.reset(raw);
    check(code);
  }

  sqlite3* handle() const noexcept { return handle_.get(); }
  /// Throws `SqliteError` if `code` is an error.
  void check(int code) const {
    if (code == SQLITE_OK || code == SQLITE_ROW || code == SQLITE_DONE) return;
    if (!handle_) throw SqliteError(code, "out of memory");
    std::string what = sqlite3_errstr(code);
    // A text of the system says more than "disk I/O error".
    auto const is_of_system = (code & 0xff) == SQLITE_IOERR || (code & 0xff) == SQLITE_CANTOPEN;
    if (auto const number = sqlite3_system_errno(handle()); is_of_system && number != 0)
      what += ": " + std::generic_category().message(number);
    throw SqliteError(code, what);
  }
  /// Runs statements that have no parameters and whose rows nobody wants.
  void run(char const* sql) const { check(sqlite3_exec(handle(), sql, nullptr, nullptr, nullptr)); }
  /// Returns whether a transaction is under way.
  bool is_in_transaction() const noexcept { return sqlite3_get_autocommit(handle()) == 0; }

 private:
  struct Closer {
    void operator()(sqlite3* handle) const noexcept { sqlite3_close_v2(handle); }
  };
  std::unique_ptr<sqlite3, Closer> handle_;
};

/// A prepared statement.
class SqliteStatement {
 public:
  SqliteStatement(SqliteDatabase const& database, std::string_view sql) : database_(database) {
    sqlite3_stmt* raw = nullptr;
    auto const code = sqlite3_prepare_v3(database.handle(), sql.data(), static_cast<int>(sql.size()),
                                         SQLITE_PREPARE_PERSISTENT, &raw, nullptr);
    handle_.reset(raw);
    database.check(code);
  }

  /// The rows that a run of the statement returns. They end the run.
  class Rows {
   public:
    explicit Rows(SqliteStatement const& statement) noexcept : statement_(statement) {}
    Rows(Rows const&) = delete;
    Rows& operator=(Rows const&) = delete;
    ~Rows() { sqlite3_reset(statement_.handle_.get()); }

    /// Goes to the next row. Returns false if there is none.
    bool next() {
      auto const code = sqlite3_step(statement_.handle_.get());
      statement_.database_.check(code);
      return code == SQLITE_ROW;
    }
    std::int64_t number(int column) const noexcept { return sqlite3_column_int64(statement_.handle_.get(), column); }
    /// Valid until the next row.
    std::string_view bytes(int column) const {
      auto* const handle = statement_.handle_.get();
      auto const* const data = static_cast<char const*>(sqlite3_column_blob(handle, column));
      auto const size = static_cast<std::size_t>(sqlite3_column_bytes(handle, column));
      if (data == nullptr && size > 0) throw SqliteError(SQLITE_NOMEM, "out of memory");
      return {data, data != nullptr ? size : 0};
    }

   private:
    SqliteStatement const& statement_;
  };

  /// Begins a run with these parameters, which must live as long as it.
  template <class... Values>
  Rows rows(Values const&... values) const {
    auto index = 0;
    (bind(++index, values), ...);
    return Rows(*this);
  }
  /// Runs it to the end.
  template <class... Values>
  void run(Values const&... values) const {
    auto all = rows(values...);
    while (all.next()) {
    }
  }
  /// Runs it, and returns the number in its first row.
  template <class... Values>
  std::int64_t number(Values const&... values) const {
    auto all = rows(values...);
    return all.next() ? all.number(0) : 0;
  }

 private:
  struct Finalizer {
    void operator()(sqlite3_stmt* handle) const noexcept { sqlite3_finalize(handle); }
  };

  void bind(int index, std::int64_t value) const { database_.check(sqlite3_bind_int64(handle_.get(), index, value)); }
  void bind(int index, std::string_view value) const {
    auto const* const data = value.empty() ? "" : value.data();  // a null pointer would be NULL
    database_.check(sqlite3_bind_blob64(handle_.get(), index, data, value.size(), SQLITE_STATIC));
  }

  SqliteDatabase const& database_;
  std::unique_ptr<sqlite3_stmt, Finalizer> handle_;
};

/// A transaction that writes. Undone if it was not committed.
class SqliteTransaction {
 public:
  explicit SqliteTransaction(SqliteDatabase const& database) : database_(database) { database_.run("BEGIN IMMEDIATE"); }
  SqliteTransaction(SqliteTransaction const&) = delete;
  SqliteTransaction& operator=(SqliteTransaction const&) = delete;
  ~SqliteTransaction() {  // some errors have undone it already
    if (database_.is_in_transaction()) sqlite3_exec(database_.handle(), "ROLLBACK", nullptr, nullptr, nullptr);
  }
  void commit() const { database_.run("COMMIT"); }

 private:
  SqliteDatabase const& database_;
};

}  // namespace chatproto::detail
