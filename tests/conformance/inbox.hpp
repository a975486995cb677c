// SPDX-License-Identifier: BSL-1.0
// An inbox: the bytes from one channel that have not been examined yet.
#pragma once

#include <array>
#include <functional>
#include <string>
#include <system_error>

#include "channel.hpp"

namespace conformance {

/// Reads only while a caller waits. The caller must keep it alive.
class Inbox {
 public:
  void open(Channel* channel) { channel_ = channel; }

  /// Calls back, perhaps at once, when there is a whole line, or at the end.
  void wait_for_line(std::function<void()> ready);
  /// Calls back, perhaps at once, when there is anything, or at the end.
  void wait_for_something(std::function<void()> ready);

  [[nodiscard]] std::string const& bytes() const { return bytes_; }
  void clear() { bytes_.clear(); }

  /// Returns why nothing more comes, or no error while more may come.
  [[nodiscard]] std::error_code const& end() const { return end_; }

  [[nodiscard]] bool has_line() const { return bytes_.find('\n') != std::string::npos; }
  /// Takes the first line, without its `\n`.
  std::string take_line();
  void put_back(std::string const& line) { bytes_.insert(0, line + "\n"); }

  /// Returns everything that is there, for the report of a failure.
  [[nodiscard]] std::string shown() const;

 private:
  void wait(std::function<bool()> enough, std::function<void()> ready);

  Channel* channel_ = nullptr;
  std::string bytes_;
  std::error_code end_;
  std::array<char, 4096> buffer_{};
};

}  // namespace conformance
