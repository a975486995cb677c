// SPDX-License-Identifier: BSL-1.0
// The runner's command line.
#pragma once

#include <iosfwd>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "generate.hpp"
#include "play.hpp"
#include "scene.hpp"
#include "tls.hpp"

namespace conformance {

struct Options {
  enum class Task { play, list, show };
  Task task = Task::play;
  Settings settings;
  bool tests_server = false;         ///< else only scenes that do not connect to one can be played
  std::string host, port;            ///< address of the server under test,
  std::vector<std::string> command;  ///< or the command that starts it
  TlsOptions tls;                    ///< for connections to it
  bool websocket = false;            ///< over that, or over TCP
  std::set<std::string> parts;       ///< optional parts of the protocol that it has, as `needs:` names them
  std::vector<std::string> scenes;   ///< files, folders, names and patterns
  Generation generation;             ///< the scenes that are generated besides them
  bool chose_seed = false;           ///< at random
  Level level = Level::concurrent;
  bool split = true, bytewise = true;  ///< which forms are played besides whole
  bool terminal = true;                ///< whether programs can have a terminal
  std::string only;                    ///< if not empty, the only form to play
  unsigned jobs = 32;
  bool strict = false;
  bool tap = false;
  std::string junit, json;  ///< the files, if not empty
  std::string profile;      ///< name or file of the profile that selects the scenes, if not empty
  bool verbose = false;
};

/// Parses the command line. Writes the help (also if there are no arguments) or the version if asked to, and then
/// returns nothing. Throws std::runtime_error for an invalid command line.
std::optional<Options> read_options(std::vector<std::string> const& arguments, std::ostream& out);

}  // namespace conformance
