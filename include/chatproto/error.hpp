// SPDX-License-Identifier: BSL-1.0
/// @file
/// The errors of the protocol itself. Errors of the network are those of Asio and the system.
#pragma once

#include <string>
#include <system_error>

namespace chatproto {

/// What can be wrong with a line, a message or a name.
///
/// Converts to `std::error_code` by itself; the category is `chatproto_category()`.
enum class Errc {
  malformed = 1,    ///< A line that is no message: no colon, or a tag that is not `[a-z]+`.
  line_too_long,    ///< Longer than `max_line` bytes, or another `line_limit` that was set; terminator included.
  invalid_name,     ///< A user or room name that is not `[A-Za-z0-9]+`.
  invalid_payload,  ///< A payload that no line can carry: it has an LF, or ends in a CR.
  unexpected,       ///< A message that is none of those that may come now.
  inbox_full,       ///< More deliveries in place of a reply than `Connection::inbox_limit` allows.
};

/// The category of `Errc`; its name is "chatproto". Safe to call from any thread.
inline std::error_category const& chatproto_category() noexcept {
  struct Category final : std::error_category {
    char const* name() const noexcept override { return "chatproto"; }
    std::string message(int value) const override {
      switch (static_cast<Errc>(value)) {
        case Errc::malformed: return "not a message (tag:payload)";
        case Errc::line_too_long: return "line too long";
        case Errc::invalid_name: return "invalid name (letters and digits only)";
        case Errc::invalid_payload: return "text that no line can carry";
        case Errc::unexpected: return "unexpected message";
        case Errc::inbox_full: return "too many deliveries in place of a reply";
      }
      return "unknown error";
    }
  };
  static Category const category;
  return category;
}

/// Makes a `std::error_code` of an `Errc`; found by argument-dependent look-up.
inline std::error_code make_error_code(Errc error) noexcept { return {static_cast<int>(error), chatproto_category()}; }

}  // namespace chatproto

template <>
struct std::is_error_code_enum<chatproto::Errc> : std::true_type {};
