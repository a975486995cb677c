// SPDX-License-Identifier: BSL-1.0
// Generated scenes: random walks from a seed. A seed gives the same scenes on every system, within one version.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "scene.hpp"
#include "walk.hpp"

namespace conformance {

/// What the walks use besides logins, joins, sendall and a sender's quit.
struct Features {
  bool senduser = true;
  bool leave = true;
  bool receiver_quit = true;
  bool bad_lines = true;   ///< malformed lines and tags that mean nothing or not to this side
  bool bad_names = true;   ///< of users and rooms
  bool long_lines = true;  ///< lines and deliveries near and over 255 bytes, long names
  bool crlf = true;        ///< lines that end in \r\n
  bool bytes = true;       ///< texts with blanks at the ends, colons and bytes other than printable ASCII
  bool empty = true;       ///< empty texts
  bool several = true;     ///< several lines at once
  bool together = true;    ///< several senders at once
  bool half_close = true;  ///< clients that close one direction
  bool vanish = true;      ///< clients that close or reset without quit
};

/// The features by the names that `--without` knows.
inline constexpr std::pair<std::string_view, bool Features::*> all_features[] = {
    {"senduser", &Features::senduser},
    {"leave", &Features::leave},
    {"receiver-quit", &Features::receiver_quit},
    {"bad-lines", &Features::bad_lines},
    {"bad-names", &Features::bad_names},
    {"long-lines", &Features::long_lines},
    {"crlf", &Features::crlf},
    {"bytes", &Features::bytes},
    {"empty", &Features::empty},
    {"several", &Features::several},
    {"together", &Features::together},
    {"half-close", &Features::half_close},
    {"vanish", &Features::vanish},
};

/// Which scenes are generated.
struct Generation {
  unsigned count = 0;
  std::uint64_t seed = 0;
  Features features;
};

/// Whether a name or pattern is one of generated scenes: generated-SEED-NUMBER.
bool names_generated(std::string const& name);

/// Returns the generated scenes that a name or a pattern with `*` stands for. Throws BadScene if there are none.
std::vector<WalkScene> generate(std::string const& name, Generation const& generation);

}  // namespace conformance
