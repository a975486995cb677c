// SPDX-License-Identifier: BSL-1.0
// Plays scenes of the chat protocol against a server, or against client programs, and reports which rule was broken.
//
// Uses no header of chatproto: it judges any implementation by the protocol's text alone.
#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <iterator>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <asio/io_context.hpp>
#include <asio/signal_set.hpp>

#include "options.hpp"
#include "output.hpp"
#include "profile.hpp"
#include "report.hpp"
#include "run.hpp"
#include "server_under_test.hpp"
#include "websocket.hpp"

namespace conformance {
namespace {

void list(std::vector<Scene> const& scenes, Level up_to) {
  for (Level const level : all_levels) {
    if (level > up_to) break;
    std::cout << "level " << name_of(level) << '\n';
    for (Scene const& scene : scenes)
      if (scene.level == level)
        std::cout << "  " << std::left << std::setw(34) << scene.name << ' ' << scene.title << "  [" << scene.rule
                  << "]\n";
  }
}

/// Opens a file before the run, so that a wrong name costs nobody the results. Does nothing without a name.
std::ofstream open(std::string const& name) {
  std::ofstream file;
  if (name.empty()) return file;
  file.open(name);
  if (!file) throw std::runtime_error(name + ": cannot be written");
  return file;
}

Results play(Options& options, std::vector<Scene> const& scenes) {
  asio::io_context io(1);
  Report report(options, scenes);
  std::string const host = options.command.empty() ? options.host : "localhost";
  if (options.tls.is_on) options.settings.wrapping = make_tls(options.tls, host);
  ServerUnderTest server(io, options.command, options.settings.term);
  if (!options.command.empty())
    options.settings.server = server.start();
  else if (options.tests_server)
    options.settings.server = find_server(io, options.host, options.port);
  if (options.websocket)
    options.settings.wrapping = make_websocket(options.settings.wrapping, host, options.settings.server.front().port());
  if (options.settings.wrapping) check_wrapping(options.settings);

  Run run(io, options, scenes, server, report);
  run.start();
  asio::signal_set interrupted(io, SIGINT, SIGTERM);
  interrupted.async_wait([&](std::error_code const& error, int) {
    if (error) return;
    report.stop("interrupted");
    io.stop();
  });
  io.run();
  if (std::string const how = server.stop(); !how.empty())
    report.server("it was told to end, and did not end well: " + how);
  return report.results();
}

/// Returns the built-in scenes about what is tested.
std::vector<FileText> built_in(Options const& options) {
  bool const programs = !options.settings.programs.empty() || !options.profile.empty();
  bool const servers = !programs || options.tests_server || !options.profile.empty();
  std::vector<FileText> found = servers ? built_in_scenes() : std::vector<FileText>();
  for (FileText& scene : built_in_optional_scenes()) {
    // Their names begin with the part of the protocol that they are about: secrets-wrong.
    bool const is_chosen = std::any_of(options.parts.begin(), options.parts.end(),
                                       [&](auto const& part) { return scene.file.starts_with(part); });
    if (is_chosen || !options.profile.empty()) found.push_back(std::move(scene));
  }
  if (programs)
    for (FileText& scene : built_in_program_scenes()) found.push_back(std::move(scene));
  return found;
}

/// Returns the scenes that were named, and those generated besides. Shows their text, if asked to.
std::vector<Scene> find(Options const& options) {
  std::vector<Scene> scenes;
  std::vector<FileText> const texts = built_in(options);
  auto const add = [&](std::string const& file, std::string const& text) {
    if (options.task == Options::Task::show) std::cout << "# " << file << '\n' << text << '\n';
    scenes.push_back(parse_scene(file, text));
  };
  auto const add_generated = [&](std::string const& name) {
    for (WalkScene const& found : generate(name, options.generation)) {
      add(found.walk.name + ".scene", found.text);
      scenes.back().walk = std::make_shared<Walk const>(found.walk);
    }
  };
  bool generated = options.generation.count == 0;
  for (std::string const& name : options.scenes) {
    if (names_generated(name) && !std::filesystem::exists(name)) {
      add_generated(name);
      generated = true;
    } else {
      for (FileText const& found : find_scenes(name, texts)) add(found.file, found.text);
    }
  }
  if (!generated) add_generated("generated-*");
  return scenes;
}

/// Returns the profile that the options name, if they name one, and keeps only its scenes and the generated ones.
std::optional<Profile> apply_profile(Options const& options, std::vector<Scene>& scenes) {
  if (options.profile.empty()) return {};
  std::set<std::string> tests(std::begin(common_tests), std::end(common_tests));
  tests.insert("generated-0-1");  // a profile may name them, whether or not this run has any
  for (Scene const& scene : scenes) tests.insert(scene.name);
  for (FileText const& text : built_in(options)) tests.insert(name_in(text.file));
  std::optional<Profile> profile = find_profile(options.profile, tests);
  std::erase_if(scenes, [&](Scene const& scene) { return !scene.walk && profile->rule_of(scene.name) == nullptr; });
  if (scenes.empty()) throw BadScene("the profile " + options.profile + " has none of these scenes");
  for (Scene& scene : scenes) {
    if (std::string const why = profile->open(scene.name); !why.empty()) scene.open = why;
    if (profile->any_line_end()) scene.is_about_line_ends = false;
    scene.prompts_anywhere = profile->prompts_anywhere();
  }
  return profile;
}

int run(Options options) {
  std::vector<Scene> scenes = find(options);
  check_uses(scenes);
  std::optional<Profile> const profile = apply_profile(options, scenes);
  if (options.task == Options::Task::list) list(scenes, options.level);
  if (options.task != Options::Task::play) return 0;

  if (options.chose_seed && !options.tap)
    std::cout << "--seed " << options.generation.seed << " (chosen at random: plays the same generated scenes again)\n";
  std::ofstream junit = open(options.junit), json = open(options.json);
  Results const results = play(options, scenes);
  Profile const* const rules = profile ? &*profile : nullptr;
  if (junit.is_open()) write_junit(junit, results);
  if (json.is_open()) write_json(json, results, rules);
  if (options.tap)
    write_tap(std::cout, results);
  else
    write_text(std::cout, results, rules, options.verbose);
  return results.exit_code();
}

}  // namespace
}  // namespace conformance

int main(int argc, char** argv) {
  using namespace conformance;
  try {
    std::optional<Options> const options = read_options({argv + 1, argv + argc}, std::cout);
    return options ? run(*options) : argc > 1 ? 0 : 2;
  } catch (BadScene const& error) {
    std::cerr << error.what() << '\n';
  } catch (std::exception const& error) {
    std::cerr << "chatproto-conformance: " << error.what() << '\n';
  }
  return 2;
}
