// SPDX-License-Identifier: BSL-1.0
// The client's end of WebSocket for bench_load. It shares no code with chatproto/websocket.hpp, so that neither can
// hide the other's faults, and it neither copies nor changes a byte of a line, so that the load is as fast as over TCP.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace websocket {

/// The client's side of the handshake, with the key that is the example of RFC 6455, section 1.3.
constexpr std::string_view request =
    "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// Returns whether this is the whole answer, without anything behind it: a client must speak first.
inline bool is_accepted(std::string_view answer) {
  return answer.starts_with("HTTP/1.1 101 ") && answer.find("\r\n\r\n") == answer.size() - 4 &&
         answer.find("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n") != answer.npos;
}

/// Appends the header of a binary frame, whose payload of `size` bytes is to follow as it is: its mask is zero. A
/// server unmasks that like any other.
inline void append_header(std::string& to, std::size_t size) {
  auto const more = size > 65'535 ? 8 : size > 125 ? 2 : 0;  // bytes of its length
  to.push_back('\x82');
  to.push_back(static_cast<char>(0x80 | (more == 8 ? 127 : more == 2 ? 126 : size)));
  for (auto shift = more * 8; shift > 0;) to.push_back(static_cast<char>(std::uint64_t{size} >> (shift -= 8)));
  to.append(4, '\0');
}

/// Takes a server's frames apart, which may come in any pieces.
class Frames {
 public:
  /// Takes the next piece of payload from the front of `bytes`, and the headers before it. Empty: there is none.
  std::string_view next(std::string_view& bytes) {
    while (left_ == 0 && !bytes.empty()) {
      header_[count_++] = static_cast<std::uint8_t>(bytes.front());
      bytes.remove_prefix(1);
      auto const size = count_ < 2 ? 2u : header_[1] == 126 ? 4u : header_[1] == 127 ? 10u : 2u;
      if (count_ < size) continue;
      has_closed_ = has_closed_ || header_[0] == 0x88;
      is_wrong_ = is_wrong_ || header_[0] != 0x82 || header_[1] > 127;
      left_ = size == 2 ? header_[1] : 0;
      for (auto i = 2u; i < size; ++i) left_ = left_ << 8 | header_[i];
      count_ = 0;
    }
    auto const piece = bytes.substr(0, static_cast<std::size_t>(std::min<std::uint64_t>(left_, bytes.size())));
    bytes.remove_prefix(piece.size());
    left_ -= piece.size();
    return piece;
  }
  /// Whether no frame is unfinished.
  bool is_between() const { return left_ == 0 && count_ == 0; }
  /// Why the connection is to end; null: it is not.
  char const* why() const {
    return has_closed_ ? "the server has closed" : is_wrong_ ? "not an unmasked, unbroken binary frame" : nullptr;
  }

 private:
  std::array<std::uint8_t, 10> header_{};
  std::uint8_t count_ = 0;  // bytes of the header so far
  bool has_closed_ = false, is_wrong_ = false;
  std::uint64_t left_ = 0;  // bytes of the payload to come
};

}  // namespace websocket
