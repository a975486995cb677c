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
  enum class Task { play, list, show };
  Task task = Task::play;
  Settings settings;
  bool tests_server = false;         ///< else only scenes that connect to none can be played
  std::string host, port;            ///< of the server under test,
  std::vector<std::string> command;  ///< or how to start it
  std::vector<std::string> scenes;   ///< files, folders, names and patterns
  Level level = Level::concurrent;
  bool split = true, bytewise = true;  ///< forms that are played besides the whole
  bool terminal = true;                ///< programs can have one
  std::string only;                    ///< the only form to play, when not empty
  unsigned jobs = 32;
  bool strict = false;
  bool tap = false;
  std::string junit;  ///< a file, when not empty
  bool verbose = false;
};

/// Nothing when help or the version was asked for, or nothing at all; then it is written. Throws std::runtime_error for
/// a command line that makes no sense.
std::optional<Options> read_options(std::vector<std::string> const& arguments, std::ostream& out);

}  // namespace conformance
