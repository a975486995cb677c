// SPDX-License-Identifier: BSL-1.0
#include "options.hpp"

#include <algorithm>
#include <charconv>
#include <csignal>
#include <filesystem>
#include <ostream>

namespace conformance {
namespace {

constexpr char const* usage = R"(usage: conformance [OPTION]... HOST PORT SCENE...
       conformance [OPTION]... SCENE... -- COMMAND {port} [ARGUMENT]...
       conformance [OPTION]... --program NAME=FILE... SCENE...

Plays scenes against a chat server that is there, against one that it starts on a free port, or with client programs.
A SCENE is a file, or a folder of *.scene files.

  --timeout SECONDS      time limit of each step (10)
  --forms LIST           of whole,split,bytewise (all three)
  --only FORM            just this form, as a failure names it: --only 'split s at 12'
  --level LEVEL          no scenes above this level: basic, robust or concurrent (concurrent)
  --jobs N               plays at the same time (32)
  --pause MICROSECONDS   between the parts of split bytes (500)
  --login-deadline MS    the server's login deadline; without it the scenes about it are left out
  --program NAME=FILE    what a scene calls by this name when it runs a program; no server is tested then
  --word NAME=TEXT       what {NAME} in a scene stands for
  --no-terminal          leave out scenes in which a program has a terminal
  --no-sigterm           the programs know no SIGTERM, as on Windows: SIGINT in its place
  --no-server            only scenes that need neither a server nor programs
  --failures N           failures after which a scene is given up (3)
  --strict               count failures of scenes that the protocol leaves open
  --list                 list the scenes, play nothing
  --verbose              name each scene that was played, and each that was left out
  --help

Exit code: 0 when nothing failed, 1 when something did, 2 for a wrong command line or scene file.
)";

[[noreturn]] void wrong(std::string const& what) { throw std::runtime_error(what + " (--help tells more)"); }

unsigned number(std::string const& option, std::string const& value, unsigned least) {
  unsigned result = 0;
  auto const [end, error] = std::from_chars(value.data(), value.data() + value.size(), result);
  if (error != std::errc() || end != value.data() + value.size() || result < least || result > 10'000'000)
    wrong(option + " needs a number from " + std::to_string(least) + ", not '" + value + "'");
  return result;
}

void read_forms(Options& options, std::string const& value) {
  options.whole = options.split = options.bytewise = false;
  for (std::size_t begin = 0; begin <= value.size();) {
    std::size_t const end = std::min(value.find(',', begin), value.size());
    std::string const form = value.substr(begin, end - begin);
    if (form == "whole")
      options.whole = true;
    else if (form == "split")
      options.split = true;
    else if (form == "bytewise")
      options.bytewise = true;
    else
      wrong("no form is called '" + form + "'");
    begin = end + 1;
  }
}

/// The part of NAME=VALUE before the sign.
std::string name_of(std::string const& option, std::string const& value) {
  std::size_t const equals = value.find('=');
  if (equals == 0 || equals == value.npos) wrong(option + " needs NAME=VALUE, not '" + value + "'");
  return value.substr(0, equals);
}

void read_option(Options& options, std::string const& option, std::string const& value) {
  if (option == "--timeout")
    options.settings.step_limit = std::chrono::seconds(number(option, value, 1));
  else if (option == "--forms")
    read_forms(options, value);
  else if (option == "--only")
    options.only = value;
  else if (option == "--level")
    options.level = level_of(value);
  else if (option == "--jobs")
    options.jobs = number(option, value, 1);
  else if (option == "--pause")
    options.settings.pause = std::chrono::microseconds(number(option, value, 0));
  else if (option == "--login-deadline")
    options.settings.login_deadline = std::chrono::milliseconds(number(option, value, 1));
  else if (option == "--failures")
    options.failures = number(option, value, 1);
  else if (option == "--program")
    options.settings.programs.insert_or_assign(name_of(option, value), value.substr(value.find('=') + 1));
  else if (option == "--word")
    options.settings.words.insert_or_assign(name_of(option, value), value.substr(value.find('=') + 1));
  else
    wrong("no option is called '" + option + "'");
}

void add_scenes(std::vector<std::string>& files, std::string const& name) {
  namespace fs = std::filesystem;
  if (!fs::is_directory(name)) {
    files.push_back(name);
    return;
  }
  std::size_t const before = files.size();
  for (auto const& entry : fs::directory_iterator(name))
    if (entry.path().extension() == ".scene") files.push_back(entry.path().string());
  if (files.size() == before) wrong("no *.scene in " + name);
  std::sort(files.begin() + static_cast<std::ptrdiff_t>(before), files.end());
}

}  // namespace

std::optional<Options> read_options(std::vector<std::string> const& arguments, std::ostream& out) {
  Options options;
  std::vector<std::string> names;
  bool no_server = false;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    std::string const& argument = arguments[i];
    if (argument == "--help") {
      out << usage;
      return std::nullopt;
    }
    if (argument == "--") {
      options.command.assign(arguments.begin() + static_cast<std::ptrdiff_t>(i) + 1, arguments.end());
      if (options.command.empty()) wrong("no command after --");
      break;
    }
    if (argument == "--strict")
      options.strict = true;
    else if (argument == "--list")
      options.list = true;
    else if (argument == "--no-terminal")
      options.terminal = false;
    else if (argument == "--no-sigterm")
      options.settings.term = SIGINT;
    else if (argument == "--no-server")
      no_server = true;
    else if (argument == "--verbose")
      options.verbose = true;
    else if (!argument.starts_with("--"))
      names.push_back(argument);
    else if (i + 1 == arguments.size())
      wrong(argument + " needs a value");
    else
      read_option(options, argument, arguments[i + 1]), ++i;
  }
  bool const has_address = options.command.empty() && options.settings.programs.empty() && !options.list && !no_server;
  options.tests_server = has_address || !options.command.empty();
  if (has_address) {
    if (names.size() < 3) wrong("HOST, PORT and a scene are needed");
    options.host = names[0];
    options.port = names[1];
    names.erase(names.begin(), names.begin() + 2);
  }
  if (names.empty()) wrong("no scene named");
  for (std::string const& name : names) add_scenes(options.files, name);
  return options;
}

}  // namespace conformance
