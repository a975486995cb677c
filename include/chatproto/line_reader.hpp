// SPDX-License-Identifier: BSL-1.0
/// @file
/// `LineReader`, which splits a stream of bytes into lines.
#pragma once

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <chatproto/message.hpp>

namespace chatproto {

/// One line of input.
struct Line {
  std::string_view text;  ///< without its terminator; valid until the reader is used again
  bool too_long = false;  ///< the line exceeded the limit and was dropped; `text` is empty
};

/// Splits a stream of bytes into lines that end in LF or CR LF.
///
/// The lines are the same however the bytes are split. Each byte is examined once. Memory is bounded by the limit: a
/// longer line is reported once, as soon as it is too long, and the rest of it, up to its LF, is dropped without being
/// stored. With no unfinished line the reader holds no storage. An unfinished line at the end of input is never
/// returned.
///
/// @code
/// chatproto::LineReader reader;
/// reader.feed("one\ntw");
/// while (auto const line = reader.next()) std::cout << line->text;  // one
/// reader.feed("o\r\n");
/// while (auto const line = reader.next()) std::cout << line->text;  // two
/// @endcode
///
/// Thread safety: distinct objects: safe. Shared objects: unsafe.
class LineReader {
 public:
  /// `limit`: the maximum length of a line in bytes, terminator included. With 0 no line fits; more than 4 GiB - 1
  /// means that.
  explicit LineReader(std::size_t limit = max_line) noexcept { this->limit(limit); }

  /// Returns the maximum length of a line in bytes, terminator included.
  std::size_t limit() const noexcept { return limit_; }
  /// Returns the number of bytes that the reader stores: an unfinished line, or the last line it returned.
  std::size_t held() const noexcept { return partial_.size(); }
  /// Changes the limit for all lines that `next()` has not yet returned, including one that is unfinished.
  void limit(std::size_t bytes) noexcept {
    limit_ = static_cast<std::uint32_t>(std::min<std::size_t>(bytes, std::numeric_limits<std::uint32_t>::max()));
  }

  /// Gives the reader more input, which must stay valid until `next()` has returned nothing.
  ///
  /// Precondition: the previous input is used up.
  void feed(std::string_view bytes) noexcept {
    assert(input_.empty());
    input_ = bytes;
  }

  /// Takes back the input that is not used up yet, so that it can be fed again later. Keeps the unfinished line.
  std::string_view take_rest() noexcept { return std::exchange(input_, {}); }

  /// Returns the next line, or nothing when the input is used up (an unfinished line is kept).
  std::optional<Line> next() {
    if (returned_partial_) {
      returned_partial_ = false;
      partial_.clear();
    }
    while (!input_.empty()) {
      auto const end = input_.find('\n');
      if (end == std::string_view::npos) return keep_rest();
      auto const head = input_.substr(0, end);
      input_.remove_prefix(end + 1);
      if (dropping_) {
        dropping_ = false;
        continue;
      }
      if (partial_.size() + head.size() + 1 > limit_) {
        partial_.clear();
        return Line{{}, true};
      }
      if (partial_.empty()) return Line{without_cr(head)};
      partial_.append(head);
      returned_partial_ = true;
      return Line{without_cr(partial_)};
    }
    if (partial_.empty() && partial_.capacity() > std::string().capacity()) std::string().swap(partial_);
    return std::nullopt;
  }

 private:
  static std::string_view without_cr(std::string_view line) noexcept {
    if (line.ends_with('\r')) line.remove_suffix(1);
    return line;
  }

  /// Stores the unfinished line at the end of the input, or reports that it is too long already.
  std::optional<Line> keep_rest() {
    auto const rest = input_;
    input_ = {};
    if (dropping_) return std::nullopt;
    if (partial_.size() + rest.size() + 1 > limit_) {
      dropping_ = true;
      std::string().swap(partial_);
      return Line{{}, true};
    }
    partial_.append(rest);
    return std::nullopt;
  }

  std::string_view input_;
  std::string partial_;  // the unfinished line
  std::uint32_t limit_;
  bool dropping_ = false;          // inside a line that was too long
  bool returned_partial_ = false;  // the last line returned is in partial_
};

}  // namespace chatproto
