// SPDX-License-Identifier: BSL-1.0
/// @file
/// `ClientEnd`: the client's end of a simulated connection.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

namespace chatproto::detail {

/// The client's end of a simulated connection: the bytes on their way to the server, and how many bytes its socket
/// accepts.
class ClientEnd {
 public:
  static constexpr auto any_number = static_cast<std::size_t>(-1);

  void send(std::string_view bytes) { sent_ += bytes; }
  std::size_t sent() const noexcept { return sent_.size(); }  ///< bytes on their way to the server
  void drop_sent() noexcept { sent_.clear(); }
  /// The server reads `size` bytes.
  std::string take_sent(std::size_t size) {
    auto bytes = sent_.substr(0, size);
    sent_.erase(0, size);
    return bytes;
  }

  std::size_t appetite() const noexcept { return appetite_; }  ///< how many bytes its socket accepts
  void set_appetite(std::size_t bytes) noexcept { appetite_ = bytes; }
  /// Its socket accepts `bytes` more.
  void add_appetite(std::size_t bytes) noexcept {
    appetite_ = appetite_ > any_number - bytes ? any_number : appetite_ + bytes;
  }
  /// Its socket has accepted these bytes: passes the lines that are whole now.
  void accept(std::string_view bytes, auto const& on_line) {
    if (appetite_ != any_number) appetite_ -= bytes.size();
    receive(bytes, on_line);
  }
  /// The same, but its socket accepts as much as before.
  void receive(std::string_view bytes, auto const& on_line) {
    while (!bytes.empty()) {
      auto const end = bytes.find('\n');
      unfinished_ += bytes.substr(0, end);
      if (end == bytes.npos) return;
      bytes.remove_prefix(end + 1);
      auto const line = std::exchange(unfinished_, {});
      on_line(line);
    }
  }
  bool has_half_line() const noexcept { return !unfinished_.empty(); }  ///< received, without its end

  void reset() noexcept { has_reset_ = true; }
  bool has_reset() const noexcept { return has_reset_; }
  void end_input() noexcept { has_ended_input_ = true; }
  bool has_ended_input() const noexcept { return has_ended_input_; }
  void see_end() noexcept { saw_end_ = true; }
  bool saw_end() const noexcept { return saw_end_; }  ///< of what the server sends

 private:
  std::string sent_;
  std::string unfinished_;  // a line that is being received
  std::size_t appetite_ = any_number;
  bool has_reset_ = false, has_ended_input_ = false, saw_end_ = false;
};

}  // namespace chatproto::detail
