// SPDX-License-Identifier: BSL-1.0
#include <chatproto/sqlite_history.hpp>

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <sqlite3.h>

#include "catch.hpp"
#include "sanitized.hpp"
#include "support.hpp"

using chatproto::HistoryStore;
using chatproto::SqliteHistory;
using chatproto::SqliteHistoryOptions;
using chatproto::detail::HistoryQueue;
using chatproto::detail::KeptLines;
using test::eventually;

namespace {

/// SQLite's access to files, which a test can make fail. It is SQLite's default as long as it exists.
class Disk {
 public:
  /// What writing returns: SQLITE_OK, SQLITE_FULL and so on. Atomic, because the store's thread writes.
  std::atomic<int> write_error = SQLITE_OK;
  /// After how many more operations that change something one fails; 0: none does.
  std::atomic<int> until_failure = 0;
  std::atomic<int> changes = 0;            ///< such operations so far
  std::atomic<bool> spoils_reads = false;  ///< pages come with other bytes

  Disk() {
    real_ = sqlite3_vfs_find(nullptr);
    vfs_ = *real_;
    vfs_.zName = "faulty";
    vfs_.pAppData = this;
    vfs_.szOsFile = static_cast<int>(sizeof(File)) + real_->szOsFile;
    vfs_.xOpen = [](sqlite3_vfs* vfs, char const* name, sqlite3_file* file, int flags, int* out_flags) {
      auto& disk = *static_cast<Disk*>(vfs->pAppData);
      auto& mine =
          *new (file) File{{nullptr}, &disk, reinterpret_cast<sqlite3_file*>(reinterpret_cast<File*>(file) + 1)};
      auto const code = disk.real_->xOpen(disk.real_, name, mine.real, flags, out_flags);
      if (mine.real->pMethods != nullptr) mine.base.pMethods = &methods;
      return code;
    };
    sqlite3_vfs_register(&vfs_, 1);
  }
  Disk(Disk const&) = delete;
  Disk& operator=(Disk const&) = delete;
  ~Disk() {
    sqlite3_vfs_unregister(&vfs_);
    sqlite3_vfs_register(real_, 1);
  }

 private:
  struct File {
    sqlite3_file base;
    Disk* disk;
    sqlite3_file* real;
  };

  int change() {
    ++changes;
    if (write_error != SQLITE_OK) return write_error;
    if (until_failure > 0 && --until_failure == 0) return SQLITE_IOERR_WRITE;
    return SQLITE_OK;
  }
  static sqlite3_file* real(sqlite3_file* file) { return reinterpret_cast<File*>(file)->real; }
  static Disk& disk(sqlite3_file* file) { return *reinterpret_cast<File*>(file)->disk; }
  static int changed(sqlite3_file* file, auto const& go_on) {
    auto const code = disk(file).change();
    return code == SQLITE_OK ? go_on(real(file)) : code;
  }

  static sqlite3_io_methods const methods;
  sqlite3_vfs* real_;
  sqlite3_vfs vfs_;
};

sqlite3_io_methods const Disk::methods = {
    2,
    [](sqlite3_file* file) { return real(file)->pMethods->xClose(real(file)); },
    [](sqlite3_file* file, void* data, int size, sqlite3_int64 at) {
      auto const code = real(file)->pMethods->xRead(real(file), data, size, at);
      if (disk(file).spoils_reads && size >= 512 && at >= 512)
        for (auto i = 0; i < size; i += 7) static_cast<unsigned char*>(data)[i] ^= 0x55;
      return code;
    },
    [](sqlite3_file* file, void const* data, int size, sqlite3_int64 at) {
      return changed(file, [&](sqlite3_file* f) { return f->pMethods->xWrite(f, data, size, at); });
    },
    [](sqlite3_file* file, sqlite3_int64 size) {
      return changed(file, [&](sqlite3_file* f) { return f->pMethods->xTruncate(f, size); });
    },
    [](sqlite3_file* file, int flags) {
      return changed(file, [&](sqlite3_file* f) { return f->pMethods->xSync(f, flags); });
    },
    [](sqlite3_file* file, sqlite3_int64* size) { return real(file)->pMethods->xFileSize(real(file), size); },
    [](sqlite3_file* file, int lock) { return real(file)->pMethods->xLock(real(file), lock); },
    [](sqlite3_file* file, int lock) { return real(file)->pMethods->xUnlock(real(file), lock); },
    [](sqlite3_file* file, int* out) { return real(file)->pMethods->xCheckReservedLock(real(file), out); },
    [](sqlite3_file* file, int what, void* data) { return real(file)->pMethods->xFileControl(real(file), what, data); },
    [](sqlite3_file* file) { return real(file)->pMethods->xSectorSize(real(file)); },
    [](sqlite3_file* file) { return real(file)->pMethods->xDeviceCharacteristics(real(file)); },
    [](sqlite3_file* file, int page, int size, int extend, void volatile** data) {
      return real(file)->pMethods->xShmMap(real(file), page, size, extend, data);
    },
    [](sqlite3_file* file, int offset, int count, int flags) {
      return real(file)->pMethods->xShmLock(real(file), offset, count, flags);
    },
    [](sqlite3_file* file) { real(file)->pMethods->xShmBarrier(real(file)); },
    [](sqlite3_file* file, int flag) { return real(file)->pMethods->xShmUnmap(real(file), flag); },
    nullptr,
    nullptr};

/// A folder that is removed in the end.
struct Folder {
  Folder() {
    auto name = (std::filesystem::temp_directory_path() / "chatproto_history.XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("no folder");
    path = name;
  }
  Folder(Folder const&) = delete;
  Folder& operator=(Folder const&) = delete;
  ~Folder() {
    std::error_code ec;
    std::filesystem::remove_all(path, ec);
  }
  std::string file(std::string const& name = "history.db") const { return (path / name).string(); }
  std::filesystem::path path;
};

/// What the store says to its owner.
class Problems {
 public:
  std::function<void(std::string const&)> callback() {
    return [this](std::string const& line) {
      std::lock_guard const lock(mutex_);
      lines_.push_back(line);
    };
  }
  test::Lines lines() const {
    std::lock_guard const lock(mutex_);
    return lines_;
  }
  std::size_t size() const { return lines().size(); }

 private:
  mutable std::mutex mutex_;
  test::Lines lines_;
};

std::string text(std::string const& room, std::string const& what) {
  return "delivery:" + room + ":bob:" + what + '\n';
}
std::string text(std::string const& room, int number) { return text(room, std::to_string(number)); }
void say(HistoryStore& store, std::string const& room, int number) {
  store.append(room, {text(room, number), "bob", false});
}

using Lines = test::Lines;
using Rooms = std::vector<std::pair<std::string, std::string>>;  // names and all lines, in the order in which they come

Rooms loaded(HistoryStore& store) {
  Rooms rooms;
  store.load([&](std::string_view room, HistoryStore::Said const& said) {
    if (rooms.empty() || rooms.back().first != room) rooms.emplace_back(room, "");
    rooms.back().second += said.lines;
  });
  return rooms;
}
Rooms loaded(SqliteHistoryOptions const& options) {
  SqliteHistory store(options);
  return loaded(store);
}
std::string numbered(std::string const& room, int from, int to) {
  std::string all;
  for (auto i = from; i <= to; ++i) all += text(room, i);
  return all;
}
/// Returns the number of the first and of the last text. Fails if one between them is missing.
std::pair<int, int> range(std::string const& room, std::string const& lines) {
  auto const number = [](std::string const& line) { return std::stoi(line.substr(line.rfind(':') + 1)); };
  auto const first = number(lines.substr(0, lines.find('\n')));
  auto const last = number(lines.substr(lines.rfind('\n', lines.size() - 2) + 1));
  CHECK(lines == numbered(room, first, last));
  return {first, last};
}

/// Returns `text` if it lacks one of `parts`.
std::string lacking(std::string const& text, std::vector<std::string> const& parts) {
  auto const has = [&](std::string const& part) { return text.find(part) != std::string::npos; };
  return std::all_of(parts.begin(), parts.end(), has) ? std::string() : "only: " + text;
}

/// Another program's connection to the file.
class Connection {
 public:
  explicit Connection(std::string const& path) {
    REQUIRE(sqlite3_open(path.c_str(), &handle_) == SQLITE_OK);
    sqlite3_busy_timeout(handle_, 60'000);
  }
  Connection(Connection const&) = delete;
  Connection& operator=(Connection const&) = delete;
  ~Connection() { sqlite3_close(handle_); }
  void run(std::string const& sql) {
    REQUIRE(sqlite3_exec(handle_, sql.c_str(), nullptr, nullptr, nullptr) == SQLITE_OK);
  }
  std::int64_t number(std::string const& sql) {
    sqlite3_stmt* statement = nullptr;
    REQUIRE(sqlite3_prepare_v2(handle_, sql.c_str(), -1, &statement, nullptr) == SQLITE_OK);
    REQUIRE(sqlite3_step(statement) == SQLITE_ROW);
    auto const result = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return result;
  }

 private:
  sqlite3* handle_ = nullptr;
};

std::string bytes_of(std::string const& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
void write_file(std::string const& path, std::string const& bytes) { std::ofstream(path, std::ios::binary) << bytes; }
/// Returns why the file cannot be used.
std::string refusal(SqliteHistoryOptions const& options) try {
  SqliteHistory const store(options);
  return "";
} catch (std::runtime_error const& error) {
  return error.what();
}
std::string refusal(std::string const& path) { return refusal(SqliteHistoryOptions{.path = path}); }
/// Returns why `check` does not like the file.
std::string objection(std::string const& path) try {
  SqliteHistory::check(path);
  return "";
} catch (std::runtime_error const& error) {
  return error.what();
}

}  // namespace

// --- What is kept ----------------------------------------------------------------------------------------------------

TEST_CASE("sqlite: what was said is there after a restart, in order, with its audience") {
  Folder const folder;
  SqliteHistoryOptions const options{.path = folder.file()};
  std::vector<std::string> const expected = {"tea bob 0 delivery:tea:bob:1\n", "cafe bob 0 delivery:cafe:bob:1\n",
                                             "cafe eve 1 delivery:cafe:bob:psst\n", "cafe bob 0 delivery:cafe:bob:2\n"};
  {
    SqliteHistory store(options);
    CHECK(loaded(store).empty());
    say(store, "cafe", 1);
    say(store, "tea", 1);
    store.append("cafe", {text("cafe", "psst"), "eve", true});
    say(store, "cafe", 2);
  }
  for (auto i = 0; i < 2; ++i) {
    SqliteHistory store(options);
    std::vector<std::string> found;
    store.load([&](std::string_view room, HistoryStore::Said const& said) {
      found.push_back(std::string(room) + ' ' + std::string(said.user) + ' ' + (said.only ? '1' : '0') + ' ' +
                      std::string(said.lines));
    });
    CHECK(found == expected);
    CHECK(store.lost() == 0);
  }
}

TEST_CASE("sqlite: texts are any bytes, users may have no name") {
  Folder const folder;
  SqliteHistoryOptions const options{.path = folder.file()};
  std::string lines = "delivery:cafe::";
  for (auto c = 0; c < 200; ++c) lines += static_cast<char>(c == '\n' ? 255 : c);
  lines += '\n';
  {
    SqliteHistory store(options);
    store.append("cafe", {lines, "", false});
  }
  CHECK(loaded(options) == Rooms{{"cafe", lines}});
}

TEST_CASE("sqlite: each room keeps its last texts, and no more is in the file") {
  Folder const folder;
  auto const path = folder.file();
  auto const size = text("cafe", 10).size();
  auto const most = GENERATE_COPY(std::pair<std::size_t, std::size_t>(5, 65536),
                                  std::pair<std::size_t, std::size_t>(1000, 5 * size + size - 1),
                                  std::pair<std::size_t, std::size_t>(5, 5 * size));
  SqliteHistoryOptions const options{.path = path, .lines = most.first, .bytes = most.second};
  auto const many_at_once = GENERATE(false, true);
  auto const restarts = GENERATE(false, true);
  {
    std::optional<SqliteHistory> store(std::in_place, options);
    for (auto i = 10; i < 99; ++i) {
      if (restarts && i % 7 == 0) store.reset(), store.emplace(options);
      auto const lines = many_at_once && i % 3 == 0 ? numbered("cafe", i, i + 2) : text("cafe", i);
      if (many_at_once && i % 3 == 0) i += 2;
      store->append("cafe", {lines, "bob", false});
    }
    store->append("tea", {text("tea", 1), "bob", false});
  }
  CHECK(loaded(options) == Rooms{{"cafe", numbered("cafe", 94, 98)}, {"tea", text("tea", 1)}});
  Connection file(path);
  CHECK(file.number("SELECT sum(count) FROM texts JOIN rooms ON rooms.id = room WHERE name = CAST('cafe' AS BLOB)") ==
        5);
  CHECK(file.number("SELECT max(length(lines)) FROM texts") <= static_cast<std::int64_t>(5 * size));
}

TEST_CASE("sqlite: a text that is longer than the limit leaves nothing") {
  Folder const folder;
  SqliteHistoryOptions const options{.path = folder.file(), .bytes = 30};
  {
    SqliteHistory store(options);
    say(store, "cafe", 1);
    store.append("cafe", {text("cafe", std::string(100, 'x')), "bob", false});
  }
  CHECK(loaded(options).empty());
  {
    SqliteHistory store(options);
    say(store, "cafe", 2);
    CHECK(store.lost() == 0);
  }
  CHECK(loaded(options) == Rooms{{"cafe", text("cafe", 2)}});
}

TEST_CASE("sqlite: lower limits hold from the next start on") {
  Folder const folder;
  SqliteHistoryOptions options{.path = folder.file()};
  {
    SqliteHistory store(options);
    for (auto i = 0; i < 50; ++i) say(store, "cafe", i);
    store.append("tea", {numbered("tea", 10, 40), "bob", false});
    store.append("tea", {numbered("tea", 41, 49), "eve", false});
  }
  options.lines = 20;
  Rooms const expected = {{"cafe", numbered("cafe", 30, 49)}, {"tea", numbered("tea", 30, 49)}};
  CHECK(loaded(options) == expected);  // this also made the store look at the limits
  CHECK(Connection(options.path).number("SELECT sum(count) FROM texts") == 40);
  CHECK(loaded(options) == expected);
  options.bytes = text("tea", 30).size() * 3;
  CHECK(loaded(options)[1].second == numbered("tea", 47, 49));
  CHECK(loaded(options)[1].second == numbered("tea", 47, 49));
}

TEST_CASE("sqlite: the room that was used last comes last, and those used first make room for others") {
  Folder const folder;
  SqliteHistoryOptions options{.path = folder.file(), .lines = 1000, .queue_bytes = 64 << 20, .file_bytes = 1};
  auto const name = [](int i) { return "room" + std::to_string(i); };
  constexpr auto rooms = 60;
  {
    SqliteHistory store(options);
    for (auto i = 0; i < rooms; ++i)
      store.append(name(i), {numbered(name(i), 100'000, 102'000), "bob", false});  // 64 KiB are kept
    say(store, name(50), 102'001);
  }
  auto const found = loaded(options);
  REQUIRE(found.size() < rooms);
  REQUIRE(found.size() > 10);
  CHECK(found.back().first == name(50));
  CHECK(range(name(50), found.back().second).second == 102'001);
  for (std::size_t i = 1; i < found.size(); ++i)
    CHECK(found[found.size() - 1 - i].first == name(rooms - static_cast<int>(i) - (i >= 10 ? 1 : 0)));
  Connection file(options.path);
  CHECK(file.number("SELECT (page_count - freelist_count) * 4096 FROM pragma_page_count, pragma_freelist_count") <=
        1024 * 1024);
}

TEST_CASE("sqlite: texts reach the file while the store is in use") {
  Folder const folder;
  SqliteHistory store({.path = folder.file()});
  say(store, "cafe", 1);
  Connection file(folder.file());
  CHECK(eventually([&] { return file.number("SELECT count(*) FROM texts") == 1; }));
}

TEST_CASE("sqlite: threads may append at once") {
  Folder const folder;
  SqliteHistoryOptions const options{.path = folder.file(), .lines = 50};
  {
    SqliteHistory store(options);
    std::vector<std::thread> threads;
    for (auto t = 0; t < 4; ++t)
      threads.emplace_back([&store, room = "room" + std::to_string(t)] {
        for (auto i = 0; i < 2000; ++i) {
          say(store, room, i);
          say(store, "hall", i);
        }
      });
    for (auto& thread : threads) thread.join();
    CHECK(store.lost() == 0);
  }
  auto const found = loaded(options);
  CHECK(found.size() == 5);
  for (auto const& [room, lines] : found)
    if (room != "hall") CHECK(lines == numbered(room, 1950, 1999));
}

// --- The queue -------------------------------------------------------------------------------------------------------

TEST_CASE("sqlite: the queue keeps its bound, and a room begins anew after what it has dropped") {
  constexpr std::size_t most = 64 * 1024;
  HistoryQueue queue({1'000'000, 1'000'000}, most);
  auto said = 0, kept = 0;
  auto const append = [&](std::string const& room) {
    queue.append(room, {text(room, ++said), said % 2 == 0 ? "bob" : "eve", false});
    REQUIRE(queue.memory() <= 2 * most);
  };
  append("old");
  auto const taken = queue.take();  // is being written
  CHECK(taken.texts == 1);
  for (auto i = 0; i < 5000; ++i) append("room" + std::to_string(i % 7));
  CHECK(queue.lost() > 0);
  queue.done(taken);
  auto batch = queue.take();
  CHECK(!batch.anew);
  for (auto const& [name, change] : batch.rooms) {
    std::size_t lines = 0;
    for (auto const& each : change.texts) lines += each.count;
    CHECK(lines == change.lines);
    kept += static_cast<int>(lines);
    CHECK((change.anew || change.texts.front().lines.starts_with(text(name, 2 + name.back() - '0'))));
  }
  CHECK(static_cast<std::uint64_t>(kept) == batch.texts);
  CHECK(static_cast<std::uint64_t>(said - 1) == batch.texts + queue.lost());
  queue.done(batch);
  CHECK(queue.memory() == 0);
  CHECK(queue.is_empty());

  SECTION("rooms without end make all begin anew") {
    for (auto i = 0; i < 5000; ++i) append("room" + std::to_string(i));
    batch = queue.take();
    CHECK(batch.anew);
    for (auto i = 0; i < 5000; ++i) queue.touch("room" + std::to_string(i));
    CHECK(queue.memory() <= 2 * most);
    CHECK(queue.take().anew);
  }
}

TEST_CASE("sqlite: the queue keeps no more of a room than the file would") {
  HistoryQueue queue({10, 1000}, 1 << 20);
  for (auto i = 0; i < 10'000; ++i) {
    queue.append("cafe", {text("cafe", i), i % 2 == 0 ? "bob" : "eve", false});
    REQUIRE(queue.memory() < 3000);
  }
  auto const batch = queue.take();
  CHECK(batch.rooms.at("cafe").anew);
  CHECK(batch.texts == 10);
  CHECK(queue.lost() == 0);
}

// --- Trouble ---------------------------------------------------------------------------------------------------------

TEST_CASE("sqlite: while another program locks the file, texts wait; if there are too many, no gap is left") {
  Folder const folder;
  Problems problems;
  SqliteHistoryOptions const options{.path = folder.file(),
                                     .lines = 1'000'000,
                                     .bytes = 1'000'000,
                                     .queue_bytes = 16 * 1024,
                                     .on_problem = problems.callback()};
  auto const count = GENERATE(10, 5000);  // fits, and does not
  {
    SqliteHistory store(options);
    say(store, "cafe", 1);
    say(store, "tea", 1);
    Connection other(options.path);
    REQUIRE(eventually([&] { return other.number("SELECT count(*) FROM texts") == 2; }));
    other.run("BEGIN IMMEDIATE");
    say(store, "cafe", 2);
    REQUIRE(eventually([&] { return problems.size() == 1; }));
    CHECK(lacking(problems.lines()[0], {"cannot be written: database is locked", options.path}) == "");
    for (auto i = 3; i <= count; ++i) say(store, "cafe", i);
    CHECK((store.lost() > 0) == (count == 5000));
    other.run("COMMIT");
    REQUIRE(eventually([&] { return problems.size() == 2; }));
    CHECK(lacking(problems.lines()[1], {count == 10 ? "all texts were kept" : "texts not kept: "}) == "");
    say(store, "cafe", count + 1);
  }
  CHECK(problems.size() == 2);
  auto const found = loaded(options);
  REQUIRE(found.size() == 2);
  CHECK(found[0] == std::pair<std::string, std::string>("tea", text("tea", 1)));
  auto const [first, last] = range("cafe", found[1].second);
  CHECK(last == count + 1);
  CHECK((first == 1) == (count == 10));
}

TEST_CASE("sqlite: if not even the names of the rooms can wait, all histories begin anew") {
  Folder const folder;
  Problems problems;
  SqliteHistoryOptions const options{
      .path = folder.file(), .queue_bytes = 16 * 1024, .on_problem = problems.callback()};
  {
    SqliteHistory store(options);
    say(store, "cafe", 1);
    Connection other(options.path);
    REQUIRE(eventually([&] { return other.number("SELECT count(*) FROM texts") == 1; }));
    other.run("BEGIN IMMEDIATE");
    say(store, "cafe", 2);
    REQUIRE(eventually([&] { return problems.size() == 1; }));
    say(store, "cafe", 3);
    for (auto i = 0; i < 1000; ++i) say(store, "room" + std::to_string(i), 1);
    auto const lost = store.lost();
    CHECK(lost > 1);
    say(store, "tea", 1);
    other.run("COMMIT");
    REQUIRE(eventually([&] { return problems.size() == 2; }));
    CHECK(lacking(problems.lines()[1], {"texts not kept: " + std::to_string(lost) + " "}) == "");
  }
  auto const found = loaded(options);
  CHECK(found.front().first != "cafe");
  CHECK(found.back() == Rooms::value_type("tea", text("tea", 1)));
}

TEST_CASE("sqlite: while another program reads the file, the log is bounded") {
  Folder const folder;
  Problems problems;
  SqliteHistoryOptions const options{.path = folder.file(),
                                     .lines = 1'000'000,
                                     .bytes = 800'000,
                                     .queue_bytes = 2 << 20,
                                     .file_bytes = 1,
                                     .on_problem = problems.callback()};
  auto said = 0;
  {
    SqliteHistory store(options);
    say(store, "cafe", ++said);
    Connection other(options.path);
    REQUIRE(eventually([&] { return other.number("SELECT count(*) FROM texts") == 1; }));
    other.run("BEGIN");
    other.number("SELECT count(*) FROM texts");
    for (auto i = 0; i < 2000 && problems.size() == 0; ++i) {
      store.append("cafe", {numbered("cafe", said + 1, said + 30'000), "bob", false});
      said += 30'000;
      auto const written = [&] { return Connection(options.path).number("SELECT max(line) FROM rooms") == said; };
      REQUIRE(eventually([&] { return written() || problems.size() > 0; }));
    }
    REQUIRE(problems.size() == 1);
    CHECK(lacking(problems.lines()[0], {"locked"}) == "");
    CHECK(std::filesystem::file_size(options.path + "-wal") < (1u << 20) + (24u << 20));
    other.run("COMMIT");
    REQUIRE(eventually([&] { return problems.size() == 2; }));
  }
  auto const found = loaded(options);
  REQUIRE(found.size() == 1);
  CHECK(range("cafe", found[0].second).second == said);
}

TEST_CASE("sqlite: on a full disk texts wait, and whoever stays full shows no gap") {
  Folder const folder;
  Disk disk;
  Problems problems;
  SqliteHistoryOptions const options{.path = folder.file(), .on_problem = problems.callback()};
  auto const [code, what] = GENERATE(table<int, char const*>(
      {{SQLITE_FULL, "database or disk is full"}, {SQLITE_IOERR_WRITE, "disk I/O error"}, {SQLITE_IOERR_NOMEM, ""}}));
  auto const recovers = GENERATE(false, true);
  {
    SqliteHistory store(options);
    say(store, "cafe", 1);
    Connection other(options.path);
    REQUIRE(eventually([&] { return other.number("SELECT count(*) FROM texts") == 1; }));
    disk.write_error = code;
    say(store, "cafe", 2);
    REQUIRE(eventually([&] { return problems.size() == 1; }));
    CHECK(lacking(problems.lines()[0], {"cannot be written: ", what}) == "");
    say(store, "cafe", 3);
    if (recovers) {
      disk.write_error = SQLITE_OK;
      REQUIRE(eventually([&] { return problems.size() == 2; }));
      CHECK(lacking(problems.lines()[1], {"all texts were kept"}) == "");
    }
  }
  REQUIRE(problems.size() == 2);
  if (!recovers) CHECK(lacking(problems.lines()[1], {"the end; texts not kept: 2"}) == "");
  disk.write_error = SQLITE_OK;
  CHECK(loaded(options) == Rooms{{"cafe", numbered("cafe", 1, recovers ? 3 : 1)}});
}

TEST_CASE("sqlite: whichever operation on the disk fails, no history has a gap") {
  auto const lasts = GENERATE(false, true);
  auto is_done = false;
  for (auto n = 1; !is_done; ++n) {
    Folder const folder;
    Disk disk;
    Problems problems;
    SqliteHistoryOptions const options{
        .path = folder.file(), .lines = 7, .queue_bytes = 4096, .on_problem = problems.callback()};
    auto said = 0;
    disk.until_failure = n;
    for (auto start = 0; start < 3; ++start) {
      try {
        SqliteHistory store(options);
        auto const before = loaded(store);
        if (said > 0 && !before.empty()) said = range("cafe", before[0].second).second;
        for (auto i = 0; i < 5; ++i) say(store, "cafe", ++said);
      } catch (std::runtime_error const& error) {
        CHECK(lacking(error.what(), {options.path}) == "");
      }
      is_done = disk.until_failure > 0;
      if (lasts && disk.until_failure == 0 && disk.write_error == SQLITE_OK && start == 1)
        disk.write_error = SQLITE_FULL;
    }
    disk.until_failure = 0;
    disk.write_error = SQLITE_OK;
    auto const found = loaded(options);
    REQUIRE(found.size() <= 1);
    if (!found.empty()) CHECK(range("cafe", found[0].second).second <= said);
    REQUIRE(n < 1000);
  }
}

TEST_CASE("sqlite: random histories on a disk that fails now and then have no gaps") {
  auto const seed = std::random_device()();
  CAPTURE(seed);
  std::mt19937 random(seed);
  auto const below = [&](unsigned limit) { return static_cast<int>(random() % limit); };
  Folder const folder;
  Disk disk;
  SqliteHistoryOptions const options{.path = folder.file(), .lines = 40, .bytes = 2000, .queue_bytes = 3000};
  std::map<std::string, int> said;
  std::optional<SqliteHistory> store(std::in_place, options);
  for (auto i = 0; i < 4000; ++i) {
    auto const room = std::string(1, static_cast<char>('a' + below(4)));
    auto const chance = below(1000);
    if (chance < 4) {
      disk.write_error = disk.write_error == SQLITE_OK ? SQLITE_FULL : SQLITE_OK;
    } else if (chance < 10) {
      store.reset();
      disk.write_error = SQLITE_OK;
      store.emplace(options);
      std::map<std::string, int> last;
      for (auto const& [name, lines] : loaded(*store)) last[name] = range(name, lines).second;
      for (auto& [name, number] : said)
        if (last.contains(name)) {
          CHECK(last[name] <= number);
          number = last[name];  // the chat goes on from there
        }
    } else if (chance < 40) {
      store->append(room, {numbered(room, said[room] + 1, said[room] + 30), "bob", false});
      said[room] += 30;
    } else {
      store->append(room, {text(room, ++said[room]), below(2) == 0 ? "bob" : "eve", below(2) == 0});
    }
    if (below(100) == 0) std::this_thread::sleep_for(std::chrono::milliseconds(below(20)));
  }
  store.reset();
  disk.write_error = SQLITE_OK;
  for (auto const& [name, lines] : loaded(options)) CHECK(range(name, lines).second <= said[name]);
}

TEST_CASE(
    "sqlite: if the file is damaged, moved or deleted meanwhile, nothing is kept any more, and the chat goes on") {
  Folder const folder;
  Disk disk;
  Problems problems;
  SqliteHistoryOptions const options{.path = folder.file(), .on_problem = problems.callback()};
  auto const how = GENERATE(0, 1, 2);
  {
    SqliteHistory store(options);
    for (auto i = 0; i < 100; ++i) store.append("room" + std::to_string(i), {text("x", i), "bob", false});
    Connection other(options.path);
    REQUIRE(eventually([&] { return other.number("SELECT count(*) FROM texts") == 100; }));
    if (how == 0) {
      other.run("UPDATE rooms SET used = used + 1");  // the store must read its pages again
      disk.spoils_reads = true;
    } else if (how == 1) {
      std::filesystem::remove(options.path);
    } else {
      std::filesystem::rename(options.path, folder.file("elsewhere.db"));
    }
    for (auto i = 0; i < 100; ++i) store.append("room" + std::to_string(i), {text("x", i), "bob", false});
    REQUIRE(eventually([&] { return problems.size() == 1; }));
    CHECK(lacking(problems.lines()[0], {"nothing is kept any more, because it "}) == "");
    for (auto i = 0; i < 1000; ++i) say(store, "cafe", i);
    disk.spoils_reads = false;
  }
  CHECK(problems.size() == 1);
}

TEST_CASE("sqlite: without a callback nobody is told of trouble") {
  Folder const folder;
  Disk disk;
  SqliteHistory store({.path = folder.file()});
  disk.write_error = SQLITE_FULL;
  say(store, "cafe", 1);
  CHECK(eventually([&] { return disk.changes > 0; }));
}

// --- Other files -----------------------------------------------------------------------------------------------------

TEST_CASE("sqlite: a file belongs to one server") {
  Folder const folder;
  SqliteHistory store({.path = folder.file()});
  CHECK(lacking(refusal(folder.file()), {"another server uses this file", folder.file()}) == "");
  CHECK(objection(folder.file()).empty());
  say(store, "cafe", 1);
  Connection file(folder.file());
  CHECK(eventually([&] { return file.number("SELECT count(*) FROM texts") == 1; }));
  CHECK(objection(folder.file()).empty());
}

TEST_CASE("sqlite: another program's file is refused and stays as it is") {
  Folder const folder;
  auto const path = folder.file();
  SECTION("text") {
    write_file(path, "dear diary");
  }
  SECTION("much text") {
    write_file(path, std::string(10'000, 'x'));
  }
  SECTION("nothing but zeros") {
    write_file(path, std::string(4096, '\0'));
  }
  SECTION("a database") {
    Connection(path).run("CREATE TABLE mine(x)");
  }
  SECTION("a database with a log") {
    Connection(path).run("PRAGMA journal_mode=WAL; CREATE TABLE mine(x)");
  }
  SECTION("an application's database") {
    Connection(path).run("CREATE TABLE rooms(x); PRAGMA application_id=42; PRAGMA user_version=1");
  }
  auto const before = bytes_of(path);
  CHECK(lacking(refusal(path), {"no history of chatproto", path}) == "");
  CHECK(lacking(objection(path), {"no history of chatproto", path}) == "");
  CHECK(bytes_of(path) == before);
  CHECK(std::distance(std::filesystem::directory_iterator(folder.path), {}) == 1);
}

TEST_CASE("sqlite: a history of another version, or with other tables, is refused") {
  Folder const folder;
  auto const path = folder.file();
  { SqliteHistory const store({.path = path}); }
  SECTION("version") {
    Connection(path).run("PRAGMA user_version=2");
    CHECK(lacking(refusal(path), {"another version"}) == "");
    CHECK(lacking(objection(path), {"another version"}) == "");
  }
  SECTION("trigger") {
    Connection(path).run("CREATE TRIGGER evil AFTER INSERT ON texts BEGIN DELETE FROM rooms; END");
    CHECK(lacking(refusal(path), {"tables"}) == "");
    CHECK(lacking(objection(path), {"tables"}) == "");
  }
  SECTION("no tables") {
    Connection(path).run("DROP TABLE texts; DROP TABLE rooms");
    CHECK(lacking(objection(path), {"tables"}) == "");
    CHECK(refusal(path).empty());  // nothing to lose
  }
  SECTION("a gap") {
    {
      SqliteHistory store({.path = path});
      say(store, "cafe", 1);
      store.append("cafe", {text("cafe", 2), "eve", false});
      say(store, "cafe", 3);
    }
    Connection(path).run("DELETE FROM texts WHERE line = 1");
    SqliteHistory store({.path = path});
    CHECK_THROWS_AS(loaded(store), std::runtime_error);
  }
}

TEST_CASE("sqlite: an empty file is a new one; a new one is private") {
  Folder const folder;
  auto const made = folder.file("made.db"), given = folder.file("given.db");
  write_file(given, "");
  ::chmod(given.c_str(), 0640);
  auto const mode = [](std::string const& path) {
    struct stat status {};
    REQUIRE(::stat(path.c_str(), &status) == 0);
    return status.st_mode & 0777;
  };
  SqliteHistory store({.path = made}), other({.path = given});
  say(store, "cafe", 1);
  CHECK(eventually([&] { return std::filesystem::exists(made + "-wal"); }));
  for (auto const* const end : {"", "-wal", "-shm", "-lock"}) CHECK(mode(made + end) == 0600);
  CHECK(mode(given) == 0640);
}

TEST_CASE("sqlite: what is wrong with a path is said") {
  Folder const folder;
  CHECK(lacking(refusal(folder.file("none/history.db")), {"cannot be created: No such file or directory"}) == "");
  CHECK(lacking(objection(folder.file("none/history.db")), {"cannot be written: No such file or directory"}) == "");
  CHECK(lacking(refusal(folder.path.string()), {folder.path.string()}) == "");
  CHECK(lacking(objection(folder.path.string()), {folder.path.string()}) == "");
  CHECK(lacking(refusal(std::string()), {"no such file name"}) == "");
  CHECK(objection(folder.file()).empty());
  CHECK(std::filesystem::is_empty(folder.path));
  CHECK_THROWS_AS(SqliteHistory({.path = folder.file(), .lines = 0}), std::invalid_argument);
  CHECK_THROWS_AS(SqliteHistory({.path = folder.file(), .bytes = 0}), std::invalid_argument);
  if (::geteuid() == 0) return;  // may write everywhere
  write_file(folder.file("read-only.db"), "");
  ::chmod(folder.file("read-only.db").c_str(), 0400);
  CHECK(lacking(refusal(folder.file("read-only.db")), {"cannot be written"}) == "");
  CHECK(lacking(objection(folder.file("read-only.db")), {"cannot be written"}) == "");
  ::chmod(folder.path.c_str(), 0500);
  CHECK(lacking(refusal(folder.file()), {"cannot be created: Permission denied"}) == "");
  CHECK(lacking(objection(folder.file()), {"cannot be written: Permission denied"}) == "");
  ::chmod(folder.path.c_str(), 0700);
}

TEST_CASE("sqlite: odd paths are files") {
  Folder const folder;
  auto const here = std::filesystem::current_path();
  std::filesystem::current_path(folder.path);
  for (std::string const path : {":memory:", "file:history.db?mode=memory", "a%20b?c#d", "-"}) {
    {
      SqliteHistory store({.path = path});
      say(store, "cafe", 1);
    }
    CHECK(std::filesystem::exists(path));
    CHECK(objection(path).empty());
    CHECK(loaded({.path = path}) == Rooms{{"cafe", text("cafe", 1)}});
  }
  std::filesystem::current_path(here);
}

TEST_CASE("sqlite: check changes nothing") {
  Folder const folder;
  auto const path = folder.file();
  {
    SqliteHistory store({.path = path});
    say(store, "cafe", 1);
  }
  auto const before = bytes_of(path);
  CHECK(objection(path).empty());
  CHECK(bytes_of(path) == before);
  CHECK(std::distance(std::filesystem::directory_iterator(folder.path), {}) == 2);  // with the lock
}

TEST_CASE("sqlite: a damaged file is refused, or what it has is used; nothing worse happens") {
  Folder const folder;
  auto const path = folder.file();
  {
    SqliteHistory store({.path = path});
    for (auto i = 0; i < 3000; ++i) {
      auto const room = "room" + std::to_string(i % 100);
      store.append(room, {text(room, i), i % 3 == 0 ? "bob" : "eve", i % 5 == 0});
    }
  }
  auto const sound = bytes_of(path);
  REQUIRE(sound.size() > 100'000);
  auto const seed = std::random_device()();
  CAPTURE(seed);
  std::mt19937 random(seed);
  auto refused = 0;
  for (auto i = 0; i < 300; ++i) {
    auto bytes = sound;
    switch (i % 5) {
      case 0: bytes.resize(random() % bytes.size()); break;
      case 1: bytes[100 + random() % (bytes.size() - 100)] ^= static_cast<char>(1 << random() % 8); break;
      case 2:
        for (auto j = 0; j < 50; ++j) bytes[100 + random() % (bytes.size() - 100)] = static_cast<char>(random());
        break;
      case 3:
        for (auto at = 4096 * (1 + random() % (bytes.size() / 4096 - 1)), j = at; j < at + 4096; ++j)
          bytes[j] = static_cast<char>(random());
        break;
      default: bytes[random() % 100] = static_cast<char>(random()); break;
    }
    for (auto const* const end : {"", "-wal", "-shm"}) std::filesystem::remove(path + end);
    write_file(path, bytes);
    objection(path);
    try {
      SqliteHistory store({.path = path});
      for (auto const& [room, lines] : loaded(store)) CHECK(lines.ends_with('\n'));
      for (auto j = 0; j < 100; ++j) store.append("room" + std::to_string(j), {text("x", j), "bob", false});
    } catch (std::runtime_error const& error) {
      ++refused;
      CHECK(lacking(error.what(), {path}) == "");
      if (bytes.size() > 0) CHECK(bytes_of(path).size() == bytes.size());
    }
  }
  CHECK(refused > 100);
}

TEST_CASE("sqlite: a damaged log loses its end at most") {
  Folder const folder;
  auto const path = folder.file(), copy = folder.file("copy.db");
  std::string file, log;
  {
    SqliteHistory store({.path = path});
    Connection other(path);
    for (auto i = 0; i < 5; ++i) {
      say(store, "cafe", i);
      REQUIRE(eventually([&] { return other.number("SELECT count(*) FROM texts") == i + 1; }));
    }
    file = bytes_of(path);
    log = bytes_of(path + "-wal");
  }
  std::mt19937 random(1);
  for (auto i = 0; i < 100; ++i) {
    auto bytes = log;
    if (i % 2 == 0)
      bytes.resize(random() % bytes.size());
    else
      bytes[random() % bytes.size()] ^= 0x10;
    for (auto const* const end : {"", "-wal", "-shm"}) std::filesystem::remove(copy + end);
    write_file(copy, file);
    write_file(copy + "-wal", bytes);
    auto const found = loaded({.path = copy});
    REQUIRE(found.size() <= 1);
    if (!found.empty()) CHECK(range("cafe", found[0].second).first == 0);
  }
}

// --- The end of the process ------------------------------------------------------------------------------------------

#if !CHATPROTO_SANITIZED  // they do not like forks
namespace {

/// Appends until it is killed, and writes the number and the time of each text to a pipe.
[[noreturn]] void append_until_killed(std::string const& path, int out, int from) {
  try {
    SqliteHistory store({.path = path, .lines = 20'000, .bytes = 1'000'000});
    loaded(store);
    for (auto i = from;; ++i) {
      say(store, "cafe", i);
      store.append("room" + std::to_string(i % 50), {text("x", i), "bob", false});
      std::array<std::int64_t, 2> const stamp = {i, std::chrono::steady_clock::now().time_since_epoch().count()};
      if (::write(out, stamp.data(), sizeof stamp) != sizeof stamp) std::_Exit(2);
      if (i % 20 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  } catch (...) {
    std::_Exit(3);
  }
}

struct Child {
  Folder folder;
  pid_t pid = -1;
  int in = -1;
  int next = 0;
  std::vector<std::array<std::int64_t, 2>> stamps = {};

  void start() {
    std::array<int, 2> ends{};
    REQUIRE(::pipe(ends.data()) == 0);
    pid = ::fork();
    REQUIRE(pid >= 0);
    if (pid == 0) append_until_killed(folder.file(), ends[1], next);
    ::close(ends[1]);
    in = ends[0];
    stamps.clear();
  }
  /// Reads stamps until the time has come, or the end.
  void read_until(std::chrono::steady_clock::time_point end) {
    std::array<std::int64_t, 2> stamp{};
    while (std::chrono::steady_clock::now() < end && ::read(in, stamp.data(), sizeof stamp) == sizeof stamp)
      stamps.push_back(stamp);
  }
};

}  // namespace

/// CHATPROTO_KILLS says how often; then, the machine should be idle: what is older than a second must be there.
TEST_CASE("sqlite: a process that is killed leaves a file without gaps") {
  auto const* const wanted = std::getenv("CHATPROTO_KILLS");
  auto const kills = wanted != nullptr ? std::atoi(wanted) : 6;
  auto const seed = std::random_device()();
  CAPTURE(seed);
  std::mt19937 random(seed);
  Child child;
  auto worst = std::chrono::steady_clock::duration::zero();
  for (auto i = 0; i < kills; ++i) {
    child.start();
    child.read_until(std::chrono::steady_clock::now() + std::chrono::milliseconds(random() % 1500));
    auto seen = std::int64_t(-1);
    if (std::filesystem::exists(child.folder.file("history.db-wal")) && random() % 2 == 0) {
      sqlite3* handle = nullptr;  // by its own connection, because there may be no tables yet
      sqlite3_stmt* statement = nullptr;
      sqlite3_open_v2(child.folder.file().c_str(), &handle, SQLITE_OPEN_READONLY, nullptr);
      sqlite3_prepare_v2(handle, "SELECT max(line) - 1 FROM rooms", -1, &statement, nullptr);
      if (sqlite3_step(statement) == SQLITE_ROW && sqlite3_column_type(statement, 0) == SQLITE_INTEGER)
        seen = sqlite3_column_int64(statement, 0);
      sqlite3_finalize(statement);
      sqlite3_close(handle);
    }
    ::kill(child.pid, SIGKILL);
    auto const killed = std::chrono::steady_clock::now();
    child.read_until(std::chrono::steady_clock::time_point::max());
    auto status = 0;
    REQUIRE(::waitpid(child.pid, &status, 0) == child.pid);
    REQUIRE(WIFSIGNALED(status));
    ::close(child.in);

    SqliteHistoryOptions const options{.path = child.folder.file(), .lines = 20'000, .bytes = 1'000'000};
    std::string lines;
    for (auto const& [room, all] : loaded(options))
      if (room == "cafe") lines = all;
    auto const last = lines.empty() ? -1 : range("cafe", lines).second;
    CHECK(last >= seen);
    CHECK((child.stamps.empty() || last <= child.stamps.back()[0] + 1));
    for (auto const& [number, time] : child.stamps)
      if (number > last) {
        worst =
            std::max(worst, killed - std::chrono::steady_clock::time_point(std::chrono::steady_clock::duration(time)));
        break;
      }
    child.next = last + 1;
  }
  auto const milliseconds = std::chrono::duration_cast<std::chrono::milliseconds>(worst).count();
  if (wanted != nullptr) WARN(kills << " kills; the oldest text that was lost was " << milliseconds << " ms old");
  if (wanted != nullptr) CHECK(milliseconds < 1000);
}
#endif
