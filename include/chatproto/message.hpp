// SPDX-License-Identifier: BSL-1.0
/// @file
/// A message of the protocol, `tag:payload`, and its way to and from the bytes of a line.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <system_error>

#include <chatproto/error.hpp>

namespace chatproto {

/// The longest line, in bytes, its terminator included (protocol, section 1).
inline constexpr std::size_t max_line = 255;

/// The tags of the protocol.
namespace tag {
inline constexpr std::string_view slogin = "slogin";      ///< logs a sender in
inline constexpr std::string_view rlogin = "rlogin";      ///< logs a receiver in
inline constexpr std::string_view join = "join";          ///< enters a room
inline constexpr std::string_view leave = "leave";        ///< leaves the room
inline constexpr std::string_view sendall = "sendall";    ///< says something to the room
inline constexpr std::string_view senduser = "senduser";  ///< says something to one user of the room
inline constexpr std::string_view quit = "quit";          ///< ends the connection
inline constexpr std::string_view ok = "ok";              ///< a reply: done
inline constexpr std::string_view err = "err";            ///< a reply: refused, with the reason
inline constexpr std::string_view delivery = "delivery";  ///< what somebody said, see `Delivery`
}  // namespace tag

/// A message that lies in somebody else's memory: valid as long as that is. Never allocates.
struct MessageView {
  std::string_view tag;      ///< `[a-z]+`
  std::string_view payload;  ///< any bytes but LF; `encode` refuses a CR at its end, `parse` may return one

  /// Whether tag and payload are the same.
  friend bool operator==(MessageView const&, MessageView const&) = default;
};

/// A message that owns its bytes.
///
/// @code
/// std::string const line = chatproto::encode(chatproto::Message("sendall", "hey!"));  // "sendall:hey!\n"
/// auto const view = chatproto::parse("sendall:hey!");  // without the line's end
/// std::cout << view.tag << view.payload;
/// @endcode
///
/// Thread safety: as `std::string`. Distinct objects: safe. Shared objects: unsafe.
struct Message {
  std::string tag;      ///< `[a-z]+`
  std::string payload;  ///< as in `MessageView`

  Message() = default;
  /// The message `tag:payload`; nothing is checked before `encode`.
  Message(std::string_view t, std::string_view p) : tag(t), payload(p) {}
  /// A copy of what `view` shows.
  explicit Message(MessageView view) : Message(view.tag, view.payload) {}
  /// A view of this message, valid until it is changed or destroyed.
  operator MessageView() const noexcept { return {tag, payload}; }

  /// Whether tag and payload are the same.
  friend bool operator==(Message const&, Message const&) = default;
};

/// Whether `tag` is `[a-z]+`.
inline bool is_valid_tag(std::string_view tag) noexcept {
  return !tag.empty() && std::all_of(tag.begin(), tag.end(), [](char c) { return c >= 'a' && c <= 'z'; });
}

/// Whether `name` may name a user or a room: `[A-Za-z0-9]+` (protocol, section 2).
inline bool is_valid_name(std::string_view name) noexcept {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
  });
}

/// The message in `line`, which comes without its terminator. The view points into `line`.
///
/// Errors: `Errc::malformed`, and then the view is empty. Never throws, never allocates.
inline MessageView parse(std::string_view line, std::error_code& ec) noexcept {
  auto const colon = line.find(':');
  if (colon == std::string_view::npos || !is_valid_tag(line.substr(0, colon))) {
    ec = Errc::malformed;
    return {};
  }
  ec.clear();
  return {line.substr(0, colon), line.substr(colon + 1)};
}

/// As above; throws `std::system_error`.
inline MessageView parse(std::string_view line) {
  std::error_code ec;
  auto const message = parse(line, ec);
  if (ec) throw std::system_error(ec, "chatproto::parse");
  return message;
}

/// What keeps `text` from standing in a line of at most `limit` bytes behind `before` other bytes: nothing,
/// `Errc::invalid_payload`, `Errc::line_too_long`.
inline std::error_code check_text(std::string_view text, std::size_t before = 0,
                                  std::size_t limit = max_line) noexcept {
  if (text.find('\n') != std::string_view::npos || text.ends_with('\r')) return Errc::invalid_payload;
  if (before + text.size() + 1 > limit) return Errc::line_too_long;
  return {};
}

/// The line that carries `text`, its terminator (a bare LF) included: for protocols whose lines are not messages.
///
/// Errors, with an empty string: `Errc::invalid_payload`, `Errc::line_too_long` for more than `limit` bytes.
inline std::string encode_line(std::string_view text, std::error_code& ec, std::size_t limit = max_line) {
  ec = check_text(text, 0, limit);
  std::string line;
  if (!ec) {
    line.reserve(text.size() + 1);
    line.append(text).append(1, '\n');
  }
  return line;
}

/// The line of `message`, its terminator (a bare LF) included.
///
/// Errors, with an empty string: `Errc::malformed` for a bad tag, `Errc::invalid_payload`,
/// `Errc::line_too_long` for more than `limit` bytes.
inline std::string encode(MessageView message, std::error_code& ec, std::size_t limit = max_line) {
  ec = is_valid_tag(message.tag) ? check_text(message.payload, message.tag.size() + 1, limit) : Errc::malformed;
  std::string line;
  if (!ec) {
    line.reserve(message.tag.size() + message.payload.size() + 2);
    line.append(message.tag).append(1, ':').append(message.payload).append(1, '\n');
  }
  return line;
}

/// As above; throws `std::system_error`.
inline std::string encode(MessageView message, std::size_t limit = max_line) {
  std::error_code ec;
  auto line = encode(message, ec, limit);
  if (ec) throw std::system_error(ec, "chatproto::encode");
  return line;
}

/// What a `delivery:` carries: who said what in which room. Views into the payload.
struct Delivery {
  std::string_view room;    ///< where it was said
  std::string_view sender;  ///< who said it
  std::string_view text;    ///< what was said
};

/// The parts of a `delivery:` message's payload, `ROOM:SENDER:TEXT`; the text may be empty and have colons.
///
/// Errors: `Errc::unexpected` if `message` is no delivery or lacks a part.
inline Delivery parse_delivery(MessageView message, std::error_code& ec) noexcept {
  auto const first = message.payload.find(':');
  auto const second = first == std::string_view::npos ? first : message.payload.find(':', first + 1);
  if (message.tag != tag::delivery || second == std::string_view::npos) {
    ec = Errc::unexpected;
    return {};
  }
  ec.clear();
  return {message.payload.substr(0, first), message.payload.substr(first + 1, second - first - 1),
          message.payload.substr(second + 1)};
}

/// As above; throws `std::system_error`.
inline Delivery parse_delivery(MessageView message) {
  std::error_code ec;
  auto const delivery = parse_delivery(message, ec);
  if (ec) throw std::system_error(ec, "chatproto::parse_delivery");
  return delivery;
}

}  // namespace chatproto
