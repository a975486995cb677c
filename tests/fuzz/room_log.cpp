// SPDX-License-Identifier: BSL-1.0
// However it is appended to and read, in parts that end at any byte, a log must give each reader what a plain list of
// lines gives it, and keep no more than its readers have still to read. Each byte of the input is an event, some with
// arguments.
#include "fuzz.hpp"

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <chatproto/detail/held_memory.hpp>
#include <chatproto/room_log.hpp>

#include "../support.hpp"

namespace {

using chatproto::RoomLog;
using chatproto::detail::HeldMemory;

constexpr auto never = ~std::uint64_t();

struct Plain {
  std::string text;
  RoomLog::Audience audience;
  std::uint64_t begin;
};

/// Behaves like a room's member: without a place it sleeps, and the next line for it wakes it.
struct Reader {
  std::string_view name;
  RoomLog::Place place = {};
  std::uint64_t until = never;
  std::size_t next = 0;       // index of the next line
  std::size_t taken = 0;      // bytes taken of that line
  RoomLog::Pieces held = {};  // what it is writing
  bool writes = false;
};

struct Test {
  RoomLog log;
  std::vector<Plain> lines;
  std::array<std::string, 4> names = {"a", "b", "Ann7", std::string(240, 'n')};
  std::array<Reader, 5> readers = {Reader{names[0]}, {names[1]}, {names[2]}, {names[3]}, {names[0]}};
  bool unread = false;  // something was appended that was for no reader

  void append(RoomLog::Audience audience, std::size_t count, std::size_t size) {
    std::string block;
    auto const first = lines.size();
    for (; count > 0; --count) {
      auto line = std::to_string(lines.size()) + std::string(size, static_cast<char>('a' + lines.size() % 26)) + '\n';
      lines.push_back({line, audience, log.end() + block.size()});
      block += line;
    }
    auto const place = log.append(block, audience);
    assert(place.position() == lines[first].begin);
    for (auto& reader : readers) {
      if (reader.place || reader.until != never || !audience.includes(reader.name)) continue;
      log.pin(reader.place, place);
      reader.next = first;
    }
    unread = unread || std::none_of(readers.begin(), readers.end(), [](auto const& each) { return bool(each.place); });
  }

  /// Returns what the reader has still to read.
  std::string rest_of(Reader const& reader) const {
    std::string rest;
    for (auto i = reader.next; i < lines.size() && lines[i].begin < reader.until; ++i)
      if (lines[i].audience.includes(reader.name)) rest += lines[i].text;
    return rest;
  }
  void read(Reader& reader, std::size_t most) {
    if (!reader.place) return;
    log.read(reader.place, reader.name, reader.until, most, reader.held);
    reader.writes = reader.held.size > 0;
    if (reader.writes) return;
    assert(rest_of(reader).empty());
    go_to(reader, reader.held.end);
  }
  /// The reader has written `bytes` bytes of what it held. Others may have appended meanwhile.
  void advance(Reader& reader, std::size_t bytes) {
    if (!std::exchange(reader.writes, false)) return;
    auto const text = test::text_of(reader.held);
    assert(text.size() == reader.held.size && text.ends_with('\n') && rest_of(reader).starts_with(text));
    bytes = std::min(bytes, text.size());
    std::string rest;
    auto const to = bytes == text.size() ? reader.held.end : log.after(reader.place, reader.name, bytes, rest);
    assert(text.substr(bytes).starts_with(rest));
    for (auto left = bytes + rest.size(); left > 0; ++reader.next) {
      auto const& line = lines[reader.next];
      if (!line.audience.includes(reader.name)) continue;
      assert(left >= line.text.size());  // whole lines
      left -= line.text.size();
    }
    assert(rest.empty() || (rest.ends_with('\n') && std::count(rest.begin(), rest.end(), '\n') == 1));
    go_to(reader, to);
  }
  void go_to(Reader& reader, RoomLog::Place const& to) {
    auto const position = to.position();
    auto const line = std::lower_bound(lines.begin(), lines.end(), position,
                                       [](Plain const& each, std::uint64_t at) { return each.begin < at; });
    assert(line == lines.end() ? position == log.end() : line->begin == position);
    log.move(reader.place, to);
    if (position >= reader.until || log.is_at_end(reader.place)) sleep(reader);
  }
  void sleep(Reader& reader) {
    assert(rest_of(reader).empty());
    log.unpin(reader.place);
    unread = false;
  }
  /// The reader reads no further than the current end.
  void finish(Reader& reader) { reader.until = std::min(reader.until, log.end()); }
  /// The reader leaves, and comes again.
  void leave(Reader& reader) {
    if (reader.place) {
      auto end = reader.place;
      auto const all = log.read_all(end, reader.name, reader.until);
      assert(all == rest_of(reader) && end.position() == std::min(reader.until, log.end()));
      log.unpin(reader.place);
      unread = false;
    }
    reader = Reader{reader.name};
  }

  void check() const {
    assert(log.memory() == HeldMemory::total());
    auto oldest = lines.size();
    for (auto const& reader : readers) {
      if (!reader.place) continue;
      auto const at = std::lower_bound(lines.begin(), lines.end(), reader.place.position(),
                                       [](Plain const& each, std::uint64_t i) { return each.begin < i; });
      oldest = std::min(oldest, static_cast<std::size_t>(at - lines.begin()));
    }
    if (oldest == lines.size()) {
      assert(unread || log.memory() < 1024);
      return;
    }
    // A partly read segment stays, and a new one may be twice as large as it must be.
    std::size_t needed = 0, largest = 64 * 1024;
    for (auto i = oldest; i < lines.size(); ++i) needed += lines[i].text.size() + 256;
    for (auto const& line : lines) largest = std::max(largest, 4 * line.text.size());
    assert(log.memory() <= 2 * needed + 3 * largest);
  }
};

}  // namespace

int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  auto const* const end = data + size;
  {
    Test test;
    while (data != end) {
      auto const what = *data++;
      auto const argument = [&] { return data != end ? *data++ : 0u; };
      auto& reader = test.readers[what / 8u % test.readers.size()];
      switch (what % 8) {
        case 0:
        case 1:
        case 2: {
          auto const bytes = argument();
          test.append({reader.name, what % 8 == 2}, 1 + what / 64u, bytes == 255 ? 70'000 : bytes);
          break;
        }
        case 3: test.read(reader, 1 + argument() * 16); break;
        case 4: test.advance(reader, argument()); break;
        case 5: test.advance(reader, static_cast<std::size_t>(-1)); break;
        case 6: test.finish(reader); break;
        case 7: test.leave(reader); break;
        default: break;
      }
      test.check();
    }
    for (auto& reader : test.readers) {
      test.advance(reader, 1);
      while (reader.place) {
        test.read(reader, 1000);
        test.advance(reader, 700);
      }
      assert(reader.until != never || test.rest_of(reader).empty() || reader.next == 0);
    }
    assert(test.unread || test.log.memory() < 1024);
  }
  assert(HeldMemory::total() == 0);
  return 0;
}
