// SPDX-License-Identifier: BSL-1.0
// Plays scenes of the chat protocol against a server, or against client programs, and reports which rule was broken.
//
// Uses no header of chatproto: it judges any implementation by the protocol's text alone.
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <asio/io_context.hpp>
#include <asio/signal_set.hpp>

#include "options.hpp"
#include "output.hpp"
#include "report.hpp"
#include "run.hpp"
#include "server_under_test.hpp"

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

Results play(Options& options, std::vector<Scene> const& scenes) {
  asio::io_context io(1);
  Report report(options, scenes);
  ServerUnderTest server(io, options.command, options.settings.term);
  if (!options.command.empty())
    options.settings.server = server.start();
  else if (options.tests_server)
    options.settings.server = find_server(io, options.host, options.port);

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

/// Returns the scenes that were named, and those generated besides. Shows their text, if asked to.
std::vector<Scene> find(Options const& options) {
  std::vector<Scene> scenes;
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
      for (SceneText const& found : find_scenes(name)) add(found.file, found.text);
    }
  }
  if (!generated) add_generated("generated-*");
  return scenes;
}

int run(Options options) {
  std::vector<Scene> const scenes = find(options);
  if (options.task == Options::Task::list) list(scenes, options.level);
  if (options.task != Options::Task::play) return 0;

  if (options.chose_seed && !options.tap)
    std::cout << "--seed " << options.generation.seed << " (chosen at random: plays the same generated scenes again)\n";
  std::ofstream junit;
  if (!options.junit.empty()) {
    junit.open(options.junit);
    if (!junit) throw std::runtime_error(options.junit + ": cannot be written");
  }
  Results const results = play(options, scenes);
  if (junit.is_open()) write_junit(junit, results);
  if (options.tap)
    write_tap(std::cout, results);
  else
    write_text(std::cout, results, options.verbose);
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
