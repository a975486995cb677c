// SPDX-License-Identifier: BSL-1.0
// The runner's command line.
#pragma once

#include <iosfwd>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "play.hpp"
#include "scene.hpp"

namespace conformance {

struct Options {
  Settings settings;
  bool tests_server = false;         ///< else only scenes that connect to none can be played
  std::string host, port;            ///< of the server under test,
  std::vector<std::string> command;  ///< or how to start it
  std::vector<std::string> files;
  Level level = Level::concurrent;
  bool whole = true, split = true, bytewise = true;
  bool terminal = true;  ///< programs can have one
  std::string only;      ///< the only form to play, when not empty
  unsigned jobs = 32;
  unsigned failures = 3;  ///< after which a scene is given up
  bool strict = false;
  bool list = false;
  bool verbose = false;
};

/// Nothing when help was asked for and written. Throws std::runtime_error for a command line that makes no sense.
std::optional<Options> read_options(std::vector<std::string> const& arguments, std::ostream& out);

}  // namespace conformance
