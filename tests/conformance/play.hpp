// SPDX-License-Identifier: BSL-1.0
// A play: one scene in one form.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <asio/any_io_executor.hpp>
#include <asio/steady_timer.hpp>

#include "channel.hpp"
#include "form.hpp"
#include "inbox.hpp"
#include "process.hpp"
#include "scene.hpp"

namespace conformance {

/// The settings of all plays of a run.
struct Settings {
  Endpoints server;                             ///< the server under test
  std::shared_ptr<Wrapping const> wrapping;     ///< of connections to it; null: plain TCP
  std::map<std::string, std::string> programs;  ///< name in scenes -> file
  std::map<std::string, std::string> words;     ///< what `{name}` in scenes stands for
  std::chrono::seconds step_limit{10};          ///< how long anything expected may take
  std::chrono::microseconds pause{500};         ///< between two parts of split bytes
  std::chrono::milliseconds login_deadline{0};  ///< of the server under test; 0: unknown
  bool distinct_names = false;                  ///< whether each play has users of its own
  int term = SIGTERM;                           ///< the signal that makes a program end in order
};

/// Why a play failed.
struct Failure {
  std::size_t line = 0;  ///< of the step, in the scene's file
  std::string step;
  std::string actor;  ///< of the step
  std::string expected;
  std::string came;
  std::vector<std::string> before;  ///< what succeeded before, an entry for each step
  bool no_server = false;           ///< the server under test accepted no connection
};

class Play : public std::enable_shared_from_this<Play> {
 public:
  /// Called once, with null if everything went as the scene says.
  using Done = std::function<void(Failure const*)>;

  /// The scene and the settings must outlive the play.
  Play(asio::any_io_executor const& executor, Scene const& scene, Form form, Settings const& settings, Done done);

  void start() { next(); }

  /// Ends the play without calling back.
  void abandon();

  /// Describes a failure at the current step, or at the last one.
  [[nodiscard]] Failure failure(std::string const& expected, std::string const& came) const;

 private:
  /// The state of an actor in this play.
  struct Role {
    std::shared_ptr<Channel> to, from, errors;  ///< of a connection, to and from are the same
    std::unique_ptr<Process> process;
    Inbox inbox, complaints;
    std::size_t sent = 0;            ///< bytes before the burst that is being sent
    std::error_code broken;          ///< why nothing more can be sent
    std::vector<std::string> merge;  ///< the lines of its last merge, in the order in which they came
  };
  using Streams = std::map<int, std::vector<std::size_t>>;  ///< of a merge: the steps still to come

  [[nodiscard]] Step const& step() const { return scene_.steps[index_]; }
  [[nodiscard]] Role& role() { return roles_[step().actor]; }
  [[nodiscard]] Actor const& actor() const { return scene_.actors[step().actor]; }

  void next();
  void advance();
  void connect();
  void connected(std::error_code const& error, std::unique_ptr<Channel> channel);
  void run();
  void send();
  void send_part(std::size_t begin);
  void receive();
  void merge();
  void merge_line(Streams streams, std::size_t left);
  void same(std::size_t at);
  void maybe();
  void complain();
  void prompt();
  void end();
  void exit();
  void wait_for_exit();
  void pause(std::chrono::microseconds time, void (Play::*then)());

  void open(std::unique_ptr<Channel> channel);
  std::unique_ptr<std::string> take_line();
  void limit_step();
  [[nodiscard]] std::string expectation();
  void fail(std::string const& came);
  void fail(std::string const& expected, std::string const& came);
  void finish(Failure const* failure);
  void clear();
  std::string word(std::string const& name);

  /// Wraps a callback so that it does nothing once the play has ended.
  template <class Function>
  auto guarded(Function function) {
    return [self = shared_from_this(), function = std::move(function)](auto&&... arguments) mutable {
      if (!self->finished_) function(std::forward<decltype(arguments)>(arguments)...);
    };
  }

  asio::any_io_executor executor_;
  Scene const& scene_;
  Form form_;
  Settings const& settings_;
  Done done_;
  std::vector<std::vector<std::size_t>> cuts_;  ///< by actor
  std::vector<Role> roles_;
  std::map<std::string, std::string> words_;
  Text::Words fill_;
  Ports ports_;
  std::size_t index_ = 0;  ///< of the current step
  Burst burst_;            ///< the one being sent
  int refused_ = 0;        ///< how often the server under test refused a connection
  asio::steady_timer limit_;
  asio::steady_timer pause_;
  bool finished_ = false;
};

}  // namespace conformance
