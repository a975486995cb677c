// SPDX-License-Identifier: BSL-1.0
/// @file
/// `RoomLog`: the texts of a room, kept until every reader has read them.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <chatproto/detail/held_memory.hpp>
#include <chatproto/history_limits.hpp>

namespace chatproto {

/// An append-only log of encoded lines. Each reader reads it at its own pace, from its own place.
///
/// The log is a list of segments. A reader with a place keeps its segment and all later ones in memory; the segments
/// before the first such place are freed. Text never moves, so a reader may use what `read` has returned without a
/// lock, until it moves its place.
///
/// A log may also keep its last lines, the *history*, although everybody has read them.
///
/// Consecutive lines with the same audience form one *run*. A run begins and ends at a line boundary.
///
/// Thread safety: distinct objects: safe. Shared objects: unsafe; a `Room` guards its log.
class RoomLog {
  struct Segment;

 public:
  /// The readers of a run: all but `user`, or, with `only`, just `user`.
  struct Audience {
    std::string_view user;  ///< a reader's name
    bool only = false;      ///< true: only `user`; false: all others

    /// Returns whether both stand for the same readers.
    bool operator==(Audience const&) const = default;
    /// Returns whether the reader called `name` is included.
    bool includes(std::string_view name) const noexcept { return (name == user) == only; }
  };

  /// A reader's place in the log. Empty: the reader has read everything, and keeps nothing in memory.
  class Place {
   public:
    /// Returns whether the place is not empty.
    explicit operator bool() const noexcept { return segment_ != nullptr; }
    /// Returns the bytes of the log before it. Precondition: not empty.
    std::uint64_t position() const noexcept { return segment_->base + text_; }

   private:
    friend class RoomLog;
    Segment* segment_ = nullptr;
    std::uint32_t run_ = 0;   // offset of its run in the segment; see Run
    std::uint32_t text_ = 0;  // offset of the next text
  };

  /// A range of bytes in memory.
  struct Piece {
    char const* data;  ///< first byte
    std::size_t size;  ///< number of bytes
  };
  /// The text that a reader is to write next.
  struct Pieces {
    std::array<Piece, 64> pieces;  ///< the first `count` are used
    std::size_t count = 0;         ///< pieces used
    std::size_t size = 0;          ///< bytes in all pieces
    Place end;                     ///< the reader's place after them; pins nothing yet
  };

  /// Lines of the history, for one reader.
  struct History {
    std::size_t count = 0;  ///< how many
    std::string lines;      ///< whole lines, in order
  };

  RoomLog() = default;
  RoomLog(RoomLog const&) = delete;
  RoomLog& operator=(RoomLog const&) = delete;
  ~RoomLog() {
    drop_all();
    if (history_ != nullptr) history_->remove(kept_memory_);
  }

  /// Appends whole lines and returns their place, which pins nothing yet. If it throws `std::bad_alloc`, nothing has
  /// changed.
  Place append(std::string_view lines, Audience audience) {
    auto const need = lines.size() + Run::size_of(audience.user.size());
    if (last_ == nullptr || need > last_->runs - last_->text) add_segment(need);
    auto& segment = *last_;
    Place place;
    place.segment_ = &segment;
    place.text_ = segment.text;
    std::memcpy(segment.bytes() + segment.text, lines.data(), lines.size());
    segment.text += static_cast<std::uint32_t>(lines.size());
    end_ += lines.size();
    if (history_ != nullptr) {
      auto const count = static_cast<std::uint32_t>(std::count(lines.begin(), lines.end(), '\n'));
      segment.lines += count;
      kept_lines_ += count;
    }
    if (auto const last = segment.last_run; last != 0 && segment.audience_of(last) == audience) {
      place.run_ = last;
      segment.set_end(last, segment.text);
    } else {
      place.run_ = segment.add_run(audience);
    }
    return place;
  }

  /// Makes it keep a history. `memory` counts what that takes, and must outlive the log. Precondition: nothing was
  /// appended, and `memory.limits()` is not empty.
  void keep_history(HistoryMemory& memory) noexcept { history_ = &memory; }

  /// Forgets its history. What is appended from now on begins a new one.
  void forget_history() noexcept {
    if (kept_ == nullptr) return;
    kept_ = nullptr;
    kept_lines_ = 0;
    history_->remove(std::exchange(kept_memory_, 0));
    if (readers_ == 0) return drop_all();
    last_->runs = last_->text;  // full: the new one begins with a segment
    drop_read();
  }

  /// Returns the number of bytes ever appended.
  std::uint64_t end() const noexcept { return end_; }
  /// Returns whether it keeps a history.
  bool keeps_history() const noexcept { return history_ != nullptr; }
  /// Returns the memory in bytes that its history may take at most, and a little more.
  std::size_t most_history() const noexcept { return history_ != nullptr ? history_->most_in_room() + 2 * largest : 0; }
  /// Returns the memory in bytes that its history takes. What readers have still to read may be part of it.
  std::size_t history_memory() const noexcept { return kept_memory_; }
  /// Returns the memory in bytes that the log holds.
  std::size_t memory() const noexcept { return memory_; }

  /// Gives a reader that has no place the place `at`.
  void pin(Place& place, Place const& at) noexcept {
    place = at;
    ++place.segment_->pins;
    ++readers_;
  }
  /// Takes a reader's place away. Frees segments that are no longer read.
  void unpin(Place& place) noexcept {
    --std::exchange(place.segment_, nullptr)->pins;
    --readers_;
    trim();
  }
  /// Moves a reader forward. Frees segments that are no longer read.
  void move(Place& place, Place const& to) noexcept {
    if (place.segment_ != to.segment_) {
      --place.segment_->pins;
      ++to.segment_->pins;
      trim();
    }
    place = to;
  }
  /// Returns whether `place` is in the oldest segment.
  bool is_first(Place const& place) const noexcept { return place.segment_ == first_; }
  /// Returns whether nothing follows `place`.
  bool is_at_end(Place const& place) const noexcept { return place.segment_ == last_ && place.text_ == last_->text; }

  /// Finds the text that the reader called `name` is to write between `from` and `until` (a position). Stops after the
  /// run that reaches `most` bytes, or when `result` is full.
  void read(Place const& from, std::string_view name, std::uint64_t until, std::size_t most,
            Pieces& result) const noexcept {
    result.count = result.size = 0;
    result.end = from;
    walk(result.end, name, until, [&](char const* data, std::size_t size) {
      if (result.count > 0 && result.pieces[result.count - 1].data + result.pieces[result.count - 1].size == data)
        result.pieces[result.count - 1].size += size;
      else if (result.count < result.pieces.size())
        result.pieces[result.count++] = {data, size};
      else
        return std::size_t(0);
      result.size += size;
      return result.size < most ? size : stop;
    });
  }

  /// Returns all that the reader called `name` is to get between `place` and `until` (a position), and moves `place`,
  /// which must pin nothing, after that.
  std::string read_all(Place& place, std::string_view name, std::uint64_t until) const {
    std::string all;
    walk(place, name, until, [&](char const* data, std::size_t size) { return all.append(data, size), size; });
    return all;
  }

  /// Returns the last lines of the history that the reader called `name` could have got before the position `before`,
  /// at most `most` of them.
  History history(std::string_view name, std::uint64_t before, std::size_t most) const {
    History result;
    if (kept_ == nullptr || most == 0) return result;
    auto const begin = history_begin();
    if (before <= begin.position()) return result;
    std::vector<Place> places;  // where to begin in each segment
    for (auto place = begin; place.segment_ != nullptr && place.segment_->base < before;) {
      places.push_back(place);
      place = first_of(place.segment_->next);
    }
    // From the end, so that a few lines cost little.
    std::vector<Piece> found, pieces;
    for (; !places.empty() && result.count < most; places.pop_back()) {
      auto const end = places.back().segment_->base + places.back().segment_->text;
      pieces.clear();
      walk(places.back(), name, std::min(before, end), [&](char const* data, std::size_t size) {
        return pieces.push_back({data, size}), size;
      });
      for (; !pieces.empty() && result.count < most; pieces.pop_back()) {
        std::string_view const piece(pieces.back().data, pieces.back().size);
        auto line = piece.size();
        for (; line > 0 && result.count < most; ++result.count) line = line < 2 ? 0 : piece.rfind('\n', line - 2) + 1;
        found.push_back({piece.data() + line, piece.size() - line});
      }
    }
    std::size_t size = 0;
    for (auto const& piece : found) size += piece.size;
    result.lines.reserve(size);  // exactly, because many clients may ask at once
    for (; !found.empty(); found.pop_back()) result.lines.append(found.back().data, found.back().size);
    return result;
  }

  /// Returns the place of the reader called `name` after it has written `bytes` from `place` on. If they end within a
  /// line, returns the place after that line, and appends the rest of the line to `rest`: a place is always at the
  /// beginning of a line.
  Place after(Place place, std::string_view name, std::size_t bytes, std::string& rest) const {
    if (bytes == 0) return place;
    walk(place, name, end(), [&](char const* data, std::size_t size) {
      if (bytes > size) return bytes -= size, size;
      auto line_end = bytes;
      while (data[line_end - 1] != '\n') ++line_end;
      rest.append(data + bytes, line_end - bytes);
      return line_end == size ? stop : line_end;
    });
    return place;
  }

 private:
  static constexpr std::size_t smallest = 512, largest = 64 * 1024;  // bytes; well below what malloc maps
  static constexpr std::size_t stop = ~std::size_t(0);               // tells walk() to take the whole piece and stop

  /// Describes a run. Text fills a segment from the front, descriptions fill it from the back. A description is
  /// identified by the offset at which it ends; the user's name is stored in front of it.
  struct Run {
    std::uint32_t text_end;
    std::uint32_t name_size : 31;
    std::uint32_t only : 1;

    static std::uint32_t size_of(std::size_t name_size) noexcept {
      return static_cast<std::uint32_t>((sizeof(Run) + name_size + 7) / 8 * 8);
    }
  };

  struct Segment {
    Segment* next = nullptr;
    std::uint64_t base = 0;      // bytes of the log before this segment
    std::uint32_t capacity = 0;  // bytes after this header
    std::uint32_t text = 0;      // bytes of text, at the front
    std::uint32_t runs = 0;      // offset of the descriptions, at the back
    std::uint32_t last_run = 0;  // 0: none
    std::uint32_t pins = 0;      // readers whose place is here
    std::uint32_t lines = 0;     // if the log keeps a history

    char* bytes() noexcept { return reinterpret_cast<char*>(this + 1); }
    char const* bytes() const noexcept { return reinterpret_cast<char const*>(this + 1); }
    Run run(std::uint32_t at) const noexcept {
      Run run;
      std::memcpy(&run, bytes() + at - sizeof run, sizeof run);
      return run;
    }
    Audience audience_of(std::uint32_t at) const noexcept {
      auto const it = run(at);
      return {{bytes() + at - sizeof it - it.name_size, it.name_size}, it.only != 0};
    }
    std::uint32_t add_run(Audience const& audience) noexcept {
      Run const run{text, static_cast<std::uint32_t>(audience.user.size()) & 0x7fff'ffff, audience.only ? 1u : 0u};
      last_run = runs;
      std::memcpy(bytes() + last_run - sizeof run, &run, sizeof run);
      // not memcpy: an empty name may be a null pointer
      std::copy(audience.user.begin(), audience.user.end(), bytes() + last_run - sizeof run - audience.user.size());
      runs -= Run::size_of(audience.user.size());
      return last_run;
    }
    void set_end(std::uint32_t at, std::uint32_t end) noexcept {
      auto changed = run(at);
      changed.text_end = end;
      std::memcpy(bytes() + at - sizeof changed, &changed, sizeof changed);
    }
  };

  /// Moves `place` towards `until`, and calls `use` with each piece for `name`. `use` returns how many bytes it has
  /// used: all (continue), fewer (the place is then after these), or `stop` (the place is then after this piece).
  void walk(Place& place, std::string_view name, std::uint64_t until, auto const& use) const {
    for (;;) {
      auto const& segment = *place.segment_;
      auto const most = static_cast<std::uint32_t>(std::min<std::uint64_t>(segment.text, until - segment.base));
      for (;;) {
        auto const run = segment.run(place.run_);
        auto const run_end = std::min(run.text_end, most);
        if (place.text_ < run_end) {
          if (segment.audience_of(place.run_).includes(name)) {
            auto const size = run_end - place.text_;
            auto const used = use(segment.bytes() + place.text_, std::size_t(size));
            place.text_ += used == stop ? size : static_cast<std::uint32_t>(used);
            if (used != size) return;
          } else {
            place.text_ = run_end;
          }
        }
        // Stay in the last run, which may still grow.
        if (run_end == most || place.run_ == segment.last_run) break;
        place.run_ -= Run::size_of(run.name_size);
      }
      if (segment.next == nullptr || place.text_ < segment.text || until <= segment.next->base) return;
      place.segment_ = segment.next;
      place.run_ = segment.next->capacity;
      place.text_ = 0;
    }
  }

  static Place first_of(Segment* segment) noexcept {
    Place place;
    place.segment_ = segment;
    if (segment != nullptr) place.run_ = segment->capacity;
    return place;
  }
  /// Returns where the history begins. Precondition: there is one.
  Place history_begin() const noexcept {
    auto const& limits = history_->limits();
    auto left_out = kept_lines_ - std::min<std::uint64_t>(kept_lines_, limits.lines);  // lines
    auto const from = end_ - std::min<std::uint64_t>(end_, limits.bytes);
    auto place = first_of(kept_);
    auto leave_out = [&left_out](std::uint64_t lines) { left_out -= std::min(left_out, lines); };
    for (auto* next = kept_->next; next != nullptr; next = next->next) {
      if (left_out < place.segment_->lines && from < next->base) break;
      leave_out(place.segment_->lines);
      place = first_of(next);
    }
    auto const& segment = *place.segment_;
    auto const *const begin = segment.bytes(), *const end = begin + segment.text;
    auto const* at = begin;
    for (; at != end && (left_out > 0 || segment.base + static_cast<std::uint64_t>(at - begin) < from); leave_out(1))
      at = std::find(at, end, '\n') + 1;
    place.text_ = static_cast<std::uint32_t>(at - begin);  // walk() goes on to the right run
    return place;
  }
  /// Makes the last segment, which is new, part of the history, and forgets what is too much.
  void keep_last() noexcept {
    if (kept_ == nullptr) kept_ = last_;
    auto const before = kept_memory_;
    kept_memory_ += size_of(*last_);
    auto const& limits = history_->limits();
    auto const most = history_->room_limit();
    auto const is_needed = [&](Segment const& segment) {
      return kept_lines_ - segment.lines < limits.lines && end_ - segment.next->base < limits.bytes &&
             kept_memory_ - size_of(segment) < most;
    };
    for (; kept_ != last_ && !is_needed(*kept_); kept_ = kept_->next) {
      kept_lines_ -= kept_->lines;
      kept_memory_ -= size_of(*kept_);
    }
    history_->add(kept_memory_);
    history_->remove(before);
    drop_read();
  }

  void add_segment(std::size_t need) {
    if (history_ == nullptr && readers_ == 0) drop_all();
    auto const most = history_ != nullptr ? history_->step() : largest;
    auto const wanted = last_ == nullptr ? next_size_ : std::min(2 * std::size_t(last_->capacity), most);
    auto const capacity = (std::max(wanted, need) + 7) / 8 * 8;
    auto* const segment = static_cast<Segment*>(::operator new(sizeof(Segment) + capacity));
    new (segment) Segment{};
    segment->base = end_;
    segment->capacity = segment->runs = static_cast<std::uint32_t>(capacity);
    (last_ != nullptr ? last_->next : first_) = segment;
    last_ = segment;
    memory_ += size_of(*segment);
    detail::HeldMemory::add(size_of(*segment));
    if (history_ != nullptr) keep_last();
  }
  static std::size_t size_of(Segment const& segment) noexcept { return sizeof segment + segment.capacity; }
  void drop_first() noexcept {
    auto* const old = std::exchange(first_, first_->next);
    if (first_ == nullptr) last_ = nullptr;
    auto const size = size_of(*old);
    ::operator delete(old);
    memory_ -= size;
    detail::HeldMemory::remove(size);
  }
  void drop_all() noexcept {
    while (first_ != nullptr) drop_first();
  }
  void drop_read() noexcept {
    while (first_ != last_ && first_->pins == 0 && first_ != kept_) drop_first();
  }
  /// Frees segments that are no longer read. Without readers, keeps a small segment for reuse, and remembers the size
  /// of a larger burst, as the next one may be like it.
  void trim() noexcept {
    drop_read();
    if (readers_ > 0 || history_ != nullptr) return;
    auto const burst = static_cast<std::size_t>(end_ - std::exchange(idle_since_, end_));
    next_size_ = std::bit_ceil(std::clamp(burst, smallest, largest));
    if (first_->capacity > smallest) return drop_all();
    first_->base = end_;
    first_->text = first_->last_run = 0;
    first_->runs = first_->capacity;
  }

  Segment *first_ = nullptr, *last_ = nullptr;
  std::uint64_t end_ = 0;             // bytes ever appended
  std::uint64_t idle_since_ = 0;      // end_ when the last reader had read everything
  HistoryMemory* history_ = nullptr;  // null: it keeps none
  Segment* kept_ = nullptr;           // the first segment of the history
  std::uint64_t kept_lines_ = 0;      // from there on
  std::size_t kept_memory_ = 0;       // as above
  std::size_t memory_ = 0;
  std::size_t readers_ = 0;           // readers that have a place
  std::size_t next_size_ = smallest;  // of the first segment of the next burst
};

/// A reader of a log, from which a link writes when its client's queue is empty. For the client's executor only.
class LogReader {
 public:
  /// Finds the next text, which stays in place until `advance`. Returns false if there is none; the client's queue is
  /// woken when there is.
  virtual bool read(RoomLog::Pieces& next) = 0;
  /// The link has written `bytes` of `written`. If they end within a line, appends the rest of the line to `rest`,
  /// which the link writes before anything else. Returns the new backlog.
  virtual std::size_t advance(RoomLog::Pieces const& written, std::size_t bytes, std::string& rest) = 0;
  /// Returns the bytes of the log that it has not passed yet, including those for others.
  virtual std::size_t backlog() = 0;
  /// Makes it read to the present end of the log and no further.
  virtual void finish() noexcept = 0;

 protected:
  ~LogReader() = default;
};

}  // namespace chatproto
