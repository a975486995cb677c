// SPDX-License-Identifier: BSL-1.0
/// @file
/// The error codes of the protocol itself. Network errors are those of Asio and the system.
#pragma once

#include <string>
#include <system_error>

#include <chatproto/detail/visibility.hpp>

#if !defined(__cpp_exceptions) && !defined(_CPPUNWIND)
#error "chatproto needs exceptions: compile without -fno-exceptions"
#endif

namespace chatproto {

/// The errors of lines, messages and names.
///
/// Converts implicitly to `std::error_code`, with the category `chatproto_category()`.
enum class Errc {
  malformed = 1,    ///< A line is not a message: it has no colon, or its tag is not `[a-z]+`.
  line_too_long,    ///< A line exceeds `max_line` bytes, or another `line_limit`, terminator included.
  invalid_name,     ///< A user or room name is not `[A-Za-z0-9]+`.
  invalid_payload,  ///< A payload does not fit any line: it contains an LF or ends in a CR.
  unexpected,       ///< A message arrived that is not valid at this point.
  inbox_full,       ///< More deliveries arrived before a reply than `Connection::inbox_limit` allows.
};

/// Returns the category of `Errc`, whose name is "chatproto". Any thread may call it.
CHATPROTO_ONE_PER_PROCESS inline std::error_category const& chatproto_category() noexcept {
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

/// Returns `error` as a `std::error_code`. Found by argument-dependent look-up.
inline std::error_code make_error_code(Errc error) noexcept { return {static_cast<int>(error), chatproto_category()}; }

}  // namespace chatproto

template <>
struct std::is_error_code_enum<chatproto::Errc> : std::true_type {};
