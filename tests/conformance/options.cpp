// SPDX-License-Identifier: BSL-1.0
#include "options.hpp"

#include <algorithm>
#include <charconv>
#include <csignal>
#include <ostream>
#include <random>

#include "walk.hpp"

namespace conformance {
namespace {

constexpr char const* usage = R"(usage: chatproto-conformance [OPTION]... HOST PORT [SCENE]...
       chatproto-conformance [OPTION]... [SCENE]... -- COMMAND {port} [ARGUMENT]...
       chatproto-conformance [OPTION]... --program NAME=FILE... [SCENE]... [-- COMMAND {port} [ARGUMENT]...]

Tests whether a chat server follows the chat protocol: a server that runs at HOST PORT, or one that COMMAND starts
({port} stands for a free port). If a server that COMMAND started dies, it is started again. Tests also a sender and a
receiver: --program sender=FILE --program receiver=FILE.

Plays scenes, each a conversation of several clients. For each scene that fails, it prints which rule was broken, what
was expected and what came. A SCENE is the name of a built-in scene, a pattern like 'lines-*', a file, or a folder of
*.scene files; without one, all built-in scenes about what is tested are played.

  --profile PROFILE    play the scenes of an exercise, and give its points: course, full, or a file
  --level LEVEL        basic, robust (includes basic) or concurrent (includes both; the default)
  --list, --show       list the scenes, or print their text, and play nothing
  --generate COUNT     also play COUNT scenes generated from --seed; the SCENE 'generated-*' stands for these only
  --seed N             the same number gives the same scenes (chosen at random, and told)
  --without LIST       what generated scenes do without: senduser, leave, receiver-quit, bad-lines, bad-names,
                       long-lines, crlf, bytes, empty, several, together, half-close, vanish
  --login-deadline MS  how long the server waits for a login; without this option, scenes about it are skipped
  --tls                speak TLS with the server, whose certificate must be valid for HOST (localhost if COMMAND
                       starts it)
  --ca FILE            the authorities to trust, in PEM format, in place of the system's
  --insecure           accept any certificate
  --websocket          speak WebSocket with the server, over TLS if there is --tls
  --secret NAME=SECRET also play scenes about secrets (secrets-*), with a server at which NAME needs this SECRET to log
                       in, and other names need none
  --history            also play scenes about the history (history-*), with a server that keeps 100 texts or more
  --presence           also play scenes about who is in a room (presence-*), with a server that tells
  --timeout SECONDS    time limit of each step (10)
  --strict             count failures also where the protocol leaves open what is right
  --tap                write the results as TAP, version 13
  --junit FILE         also write the results to a file, as JUnit XML
  --json FILE          also write the results to a file, as JSON
  --verbose            also list the scenes that passed, and each of those that need a program
  --help, --version

  --forms LIST         which of whole,split,bytewise to play (all; for the level basic only whole, which always is)
  --only FORM          play only this form, as a failure names it: --only 'split s at 12'
  --jobs N             number of scenes to play at the same time (32)
  --pause MICROSECONDS pause between the parts of split bytes (500)

For programs, and scenes of your own:

  --program NAME=FILE  the program that a scene runs under this name
  --word NAME=TEXT     the text that replaces {NAME} in a scene
  --no-terminal        skip scenes in which a program has a terminal
  --no-sigterm         send SIGINT instead of SIGTERM, for programs that do not support it, as on Windows
  --no-server          play only scenes that need neither a server nor programs

Exit code: 0 when nothing failed, 1 when something failed, 2 when the scenes could not be played.
)";

constexpr std::size_t longest_secret = max_line - std::string_view("pass:\n").size();

[[noreturn]] void wrong(std::string const& what) { throw std::runtime_error(what + " (see --help)"); }

unsigned number(std::string const& option, std::string const& value, unsigned least) {
  constexpr unsigned most = 10'000'000;
  unsigned result = 0;
  auto const [end, error] = std::from_chars(value.data(), value.data() + value.size(), result);
  if (error != std::errc() || end != value.data() + value.size() || result < least || result > most)
    wrong(option + " needs a number from " + std::to_string(least) + " to " + std::to_string(most) + ", not '" + value +
          "'");
  return result;
}

void read_forms(Options& options, std::string const& value) {
  options.split = options.bytewise = false;
  for (std::size_t begin = 0; begin <= value.size();) {
    std::size_t const end = std::min(value.find(',', begin), value.size());
    std::string const form = value.substr(begin, end - begin);
    if (form == "split")
      options.split = true;
    else if (form == "bytewise")
      options.bytewise = true;
    else if (form != "whole")
      wrong("there is no form '" + form + "'");
    begin = end + 1;
  }
}

std::uint64_t seed(std::string const& value) {
  std::uint64_t result = 0;
  auto const [end, error] = std::from_chars(value.data(), value.data() + value.size(), result);
  if (error != std::errc() || end != value.data() + value.size())
    wrong("--seed needs a number of at most 64 bits, not '" + value + "'");
  return result;
}

void read_features(Features& features, std::string const& value) {
  for (std::size_t begin = 0; begin <= value.size();) {
    std::size_t const end = std::min(value.find(',', begin), value.size());
    std::string const name = value.substr(begin, end - begin);
    std::string known;
    bool found = false;
    for (auto const& [feature, member] : all_features) {
      if (name == feature) {
        features.*member = false;
        found = true;
      }
      known += (known.empty() ? "" : ", ") + std::string(feature);
    }
    if (!found) wrong("--without has a list of these, not '" + name + "': " + known);
    begin = end + 1;
  }
}

/// Returns the part of NAME=VALUE before the sign.
std::string name_of(std::string const& option, std::string const& value) {
  std::size_t const equals = value.find('=');
  if (equals == 0 || equals == value.npos) wrong(option + " needs NAME=VALUE, not '" + value + "'");
  return value.substr(0, equals);
}

void read_secret(Options& options, std::string const& value) {
  std::map<std::string, std::string>& words = options.settings.words;
  std::string const name = name_of("--secret", value);
  std::string const secret = value.substr(name.size() + 1);
  if (!is_name(name)) wrong("--secret needs a NAME of letters and digits, not '" + name + "'");
  if (secret.empty() || secret.size() > longest_secret || secret.find('\n') != secret.npos || secret.ends_with('\r'))
    wrong("--secret needs a SECRET of 1 to " + std::to_string(longest_secret) + " bytes in one line");
  words.insert_or_assign("user", name);
  words.insert_or_assign("secret", secret);
  options.parts.insert("secret");
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
  else if (option == "--generate")
    options.generation.count = number(option, value, 1);
  else if (option == "--seed")
    options.generation.seed = seed(value);
  else if (option == "--without")
    read_features(options.generation.features, value);
  else if (option == "--junit")
    options.junit = value;
  else if (option == "--json")
    options.json = value;
  else if (option == "--profile")
    options.profile = value;
  else if (option == "--program")
    options.settings.programs.insert_or_assign(name_of(option, value), value.substr(value.find('=') + 1));
  else if (option == "--ca")
    options.tls.authorities = value;
  else if (option == "--secret")
    read_secret(options, value);
  else if (option == "--word")
    options.settings.words.insert_or_assign(name_of(option, value), value.substr(value.find('=') + 1));
  else
    wrong("there is no option '" + option + "'");
}

/// Reads an option without a value. Returns false if it is none.
bool read_flag(Options& options, std::string const& flag) {
  if (flag == "--strict")
    options.strict = true;
  else if (flag == "--history" || flag == "--presence")
    options.parts.insert(flag.substr(2));
  else if (flag == "--tap")
    options.tap = true;
  else if (flag == "--list")
    options.task = Options::Task::list;
  else if (flag == "--show")
    options.task = Options::Task::show;
  else if (flag == "--no-terminal")
    options.terminal = false;
  else if (flag == "--no-sigterm")
    options.settings.term = SIGINT;
  else if (flag == "--tls")
    options.tls.is_on = true;
  else if (flag == "--insecure")
    options.tls.verifies = false;
  else if (flag == "--websocket")
    options.websocket = true;
  else if (flag == "--verbose")
    options.verbose = true;
  else
    return false;
  return true;
}

void check_tls(Options const& options) {
  TlsOptions const& tls = options.tls;
  if (!tls.is_on && (!tls.authorities.empty() || !tls.verifies)) wrong("--ca and --insecure need --tls");
  if (!tls.authorities.empty() && !tls.verifies) wrong("--ca and --insecure exclude each other");
  if (options.task != Options::Task::play || options.tests_server) return;
  if (tls.is_on || options.websocket)
    wrong(std::string(tls.is_on ? "--tls" : "--websocket") + " needs a server to test");
}

}  // namespace

std::optional<Options> read_options(std::vector<std::string> const& arguments, std::ostream& out) {
  Options options;
  bool no_server = false;
  bool forms = false;
  bool has_seed = false;
  if (arguments.empty()) {
    out << usage;
    return std::nullopt;
  }
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    std::string const& argument = arguments[i];
    if (argument == "--help" || argument == "--version") {
      out << (argument == "--help" ? usage : "chatproto-conformance " CONFORMANCE_VERSION "\n");
      return std::nullopt;
    }
    if (argument == "--") {
      options.command.assign(arguments.begin() + static_cast<std::ptrdiff_t>(i) + 1, arguments.end());
      if (std::none_of(options.command.begin(), options.command.end(),
                       [](std::string const& word) { return word.find("{port}") != word.npos; }))
        wrong("the command after -- needs {port} in the place of its port");
      break;
    }
    if (argument == "--no-server")
      no_server = true;
    else if (!argument.starts_with("--"))
      options.scenes.push_back(argument);
    else if (!read_flag(options, argument)) {
      if (i + 1 == arguments.size()) wrong(argument + " needs a value");
      has_seed = has_seed || argument == "--seed";
      forms = forms || argument == "--forms" || argument == "--only";
      read_option(options, argument, arguments[++i]);
    }
  }
  if (options.level == Level::basic && !forms) options.split = options.bytewise = false;
  bool const has_address =
      options.command.empty() && options.settings.programs.empty() && !no_server && options.task == Options::Task::play;
  options.tests_server = has_address || !options.command.empty();
  if (has_address) {
    if (options.scenes.size() < 2) wrong("HOST and PORT are needed, or a command after --");
    options.host = options.scenes[0];
    options.port = options.scenes[1];
    options.scenes.erase(options.scenes.begin(), options.scenes.begin() + 2);
  }
  check_tls(options);
  if (options.scenes.empty()) options.scenes.push_back("*");
  options.chose_seed = options.generation.count != 0 && !has_seed;
  if (options.chose_seed) options.generation.seed = std::random_device()();
  return options;
}

}  // namespace conformance
