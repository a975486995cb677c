// SPDX-License-Identifier: BSL-1.0
/// @file
/// Messages of the protocol, `tag:payload`, and their conversion from and to lines.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <system_error>

#include <chatproto/error.hpp>

namespace chatproto {

/// The maximum length of a line in bytes, including its terminator (protocol, section 1).
inline constexpr std::size_t max_line = 255;

/// The tags of the protocol.
namespace tag {
inline constexpr std::string_view pass = "pass";          ///< brings the secret for the login
inline constexpr std::string_view slogin = "slogin";      ///< logs a sender in
inline constexpr std::string_view rlogin = "rlogin";      ///< logs a receiver in
inline constexpr std::string_view join = "join";          ///< enters a room
inline constexpr std::string_view leave = "leave";        ///< leaves the room
inline constexpr std::string_view sendall = "sendall";    ///< sends a text to the room
inline constexpr std::string_view senduser = "senduser";  ///< sends a text to one user in the room
inline constexpr std::string_view quit = "quit";          ///< ends the connection
inline constexpr std::string_view history = "history";    ///< asks for what was said before
inline constexpr std::string_view who = "who";            ///< asks who is in the room
inline constexpr std::string_view ok = "ok";              ///< reply: done
inline constexpr std::string_view err = "err";            ///< reply: refused, with the reason
inline constexpr std::string_view delivery = "delivery";  ///< a text that a user has sent; see `Delivery`
}  // namespace tag

/// A view of a message whose bytes belong to another object and must outlive the view. Never allocates.
struct MessageView {
  std::string_view tag;      ///< `[a-z]+`
  std::string_view payload;  ///< any bytes but LF; `encode` rejects a CR at the end, `parse` may return one

  /// Returns whether tag and payload are equal.
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
/// Thread safety: distinct objects: safe. Shared objects: unsafe.
struct Message {
  std::string tag;      ///< `[a-z]+`
  std::string payload;  ///< as in `MessageView`

  Message() = default;
  /// Constructs the message `tag:payload` without validating it; `encode` does that.
  Message(std::string_view t, std::string_view p) : tag(t), payload(p) {}
  /// Copies the message that `view` refers to.
  explicit Message(MessageView view) : Message(view.tag, view.payload) {}
  /// Returns a view of this message, valid until the message is changed or destroyed.
  operator MessageView() const noexcept { return {tag, payload}; }

  /// Returns whether tag and payload are equal.
  friend bool operator==(Message const&, Message const&) = default;
};

/// Returns whether `tag` is `[a-z]+`.
inline bool is_valid_tag(std::string_view tag) noexcept {
  return !tag.empty() && std::all_of(tag.begin(), tag.end(), [](char c) { return c >= 'a' && c <= 'z'; });
}

/// Returns whether `name` is valid for a user or a room: `[A-Za-z0-9]+` (protocol, section 2).
inline bool is_valid_name(std::string_view name) noexcept {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
  });
}

/// Parses `line`, which has no terminator, as a message. The result points into `line`.
///
/// Errors: `Errc::malformed`; the result is then empty. Never throws, never allocates.
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

/// Checks whether `text` fits a line of at most `limit` bytes that has `before` other bytes in front of the text.
/// Returns no error, `Errc::invalid_payload` or `Errc::line_too_long`.
inline std::error_code check_text(std::string_view text, std::size_t before = 0,
                                  std::size_t limit = max_line) noexcept {
  if (text.find('\n') != std::string_view::npos || text.ends_with('\r')) return Errc::invalid_payload;
  if (before + text.size() + 1 > limit) return Errc::line_too_long;
  return {};
}

/// Returns `text` as a line, terminated by a bare LF: for protocols whose lines are not messages.
///
/// Errors: `Errc::invalid_payload`; `Errc::line_too_long` for more than `limit` bytes. The result is then empty.
inline std::string encode_line(std::string_view text, std::error_code& ec, std::size_t limit = max_line) {
  ec = check_text(text, 0, limit);
  std::string line;
  if (!ec) {
    line.reserve(text.size() + 1);
    line.append(text).append(1, '\n');
  }
  return line;
}

/// Encodes `message` as a line, terminated by a bare LF.
///
/// Errors: `Errc::malformed` for an invalid tag; `Errc::invalid_payload`; `Errc::line_too_long` for more than `limit`
/// bytes. The result is then empty.
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

/// The contents of a `delivery` message. The members are views into its payload.
struct Delivery {
  std::string_view room;    ///< the room that the text was sent to
  std::string_view sender;  ///< the user that sent it
  std::string_view text;    ///< the text
};

/// Parses the payload of a `delivery` message, `ROOM:SENDER:TEXT`. The text may be empty and may contain colons.
///
/// Errors: `Errc::unexpected` if `message` is not a delivery or lacks a part.
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
