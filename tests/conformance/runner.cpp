// SPDX-License-Identifier: BSL-1.0
// Plays scenes of the chat protocol against a server, or against client programs, and tells which rule was broken.
//
// It uses no header of chatproto: it judges any implementation by the protocol's text alone.
#include <algorithm>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/post.hpp>
#include <asio/signal_set.hpp>

#include "options.hpp"
#include "play.hpp"
#include "report.hpp"
#include "server_under_test.hpp"

namespace conformance {
namespace {

/// What is to be played, in the order of the files.
struct Entry {
  std::size_t scene;
  Form form;
};

/// Why the run cannot play a scene, empty when it can.
std::string missing(Scene const& scene, Options const& options, asio::any_io_executor const& executor) {
  if (scene.level > options.level) return "of a higher level";
  if (scene.needs == "login-deadline" && options.settings.login_deadline.count() == 0) return "needs --login-deadline";
  if (scene.needs == "ipv6" && !has_ipv6(executor)) return "needs IPv6";
  if (scene.starts_program() && !can_start_programs()) return "this system cannot start programs";
  for (Step const& step : scene.steps)
    if (step.verb == Verb::run && !options.settings.programs.contains(step.arguments.front().bytes({})))
      return "needs --program " + step.arguments.front().bytes({}) + "=FILE";
  if (scene.needs_terminal() && !options.terminal) return "needs a terminal";
  if (scene.needs_server() && !options.tests_server) return "needs a server to test";
  return {};
}

/// Plays all entries, several at a time.
class Run {
 public:
  Run(asio::io_context& io, Options const& options, std::vector<Scene> const& scenes, Report& report)
      : io_(io), options_(options), scenes_(scenes), report_(report) {
    std::vector<std::vector<Form>> forms;
    for (Scene const& scene : scenes_) {
      forms.emplace_back();
      std::string const why = missing(scene, options_, io_.get_executor());
      if (why.empty())
        forms.back() = forms_of(scene, options_.whole, options_.split, options_.bytewise);
      else
        report_.skip(scene, why);
    }
    // one form of each scene, then the next form of each: different scenes meet at the server
    for (std::size_t nth = 0, left = 1; left != 0; ++nth) {
      left = 0;
      for (std::size_t i = 0; i < scenes_.size(); ++i) {
        if (nth >= forms[i].size()) continue;
        ++left;
        if (options_.only.empty() || forms[i][nth].name(scenes_[i]) == options_.only)
          entries_.push_back({i, forms[i][nth]});
      }
    }
  }

  void start() {
    for (unsigned i = 0; i < options_.jobs; ++i) play_next();
  }

 private:
  void play_next() {
    while (next_ < entries_.size() && report_.gave_up(scenes_[entries_[next_].scene]))
      report_.leave_out(scenes_[entries_[next_++].scene]);
    if (next_ == entries_.size()) {
      if (playing_ == 0) io_.stop();
      return;
    }
    Entry const entry = entries_[next_++];
    Scene const& scene = scenes_[entry.scene];
    ++playing_;
    auto const done = [this, &scene, form = entry.form](Failure const* failure) {
      --playing_;
      report_.add(scene, form, failure);
      asio::post(io_, [this] { play_next(); });
    };
    std::make_shared<Play>(io_.get_executor(), scene, entry.form, options_.settings, done)->start();
  }

  asio::io_context& io_;
  Options const& options_;
  std::vector<Scene> const& scenes_;
  Report& report_;
  std::vector<Entry> entries_;
  std::size_t next_ = 0;
  std::size_t playing_ = 0;
};

int list(std::vector<Scene> const& scenes) {
  constexpr char const* levels[] = {"basic", "robust", "concurrent"};
  for (Scene const& scene : scenes)
    std::cout << std::filesystem::path(scene.file).stem().string() << " (" << levels[static_cast<int>(scene.level)]
              << "; " << scene.rule << "): " << scene.title << '\n';
  return 0;
}

int run(Options options) {
  std::vector<Scene> scenes;
  for (std::string const& file : options.files) scenes.push_back(read_scene(file));
  if (options.list) return list(scenes);

  asio::io_context io(1);
  Report report(std::cout, options);
  ServerUnderTest server(io, options.command, options.settings.term);
  if (!options.command.empty())
    options.settings.server = server.start();
  else if (options.tests_server)
    options.settings.server = find_server(io, options.host, options.port);

  Run all(io, options, scenes, report);
  asio::post(io, [&] { all.start(); });
  server.watch([&](std::string const& how) {
    report.stop("the server under test ended before the scenes did: " + how);
    io.stop();
  });
  asio::signal_set interrupted(io, SIGINT, SIGTERM);
  interrupted.async_wait([&](std::error_code const& error, int) {
    if (error) return;
    report.stop("interrupted");
    io.stop();
  });
  io.run();
  std::string const how = server.stop();
  if (!how.empty()) report.stop("the server under test did not end well: " + how);
  return report.finish();
}

}  // namespace
}  // namespace conformance

int main(int argc, char** argv) {
  using namespace conformance;
  try {
    std::optional<Options> const options = read_options({argv + 1, argv + argc}, std::cout);
    return options ? run(*options) : 0;
  } catch (BadScene const& error) {
    std::cerr << error.what() << '\n';
  } catch (std::exception const& error) {
    std::cerr << "conformance: " << error.what() << '\n';
  }
  return 2;
}
