// SPDX-License-Identifier: BSL-1.0
// A run: all scenes in all their forms, several plays at a time.
#pragma once

#include <array>
#include <cstddef>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <asio/io_context.hpp>
#include <asio/steady_timer.hpp>

#include "options.hpp"
#include "play.hpp"
#include "report.hpp"
#include "server_under_test.hpp"
#include "shrink.hpp"

namespace conformance {

/// Plays first, one at a time, the scenes that provide what others rely on, then every other scene whole, then again
/// alone those that have failed, then what is smaller than generated scenes that have failed, and then in pieces those
/// that have passed.
///
/// When a server that the run has started ends by itself, one of the current plays must have ended it. The server is
/// restarted, and these plays are repeated one at a time until it ends again: that scene has failed.
class Run {
 public:
  Run(asio::io_context& io, Options& options, std::vector<Scene> const& scenes, ServerUnderTest& server,
      Report& report);

  /// Stops the context when everything has been played, or nothing more can be played.
  void start();

 private:
  struct Entry {
    Scene const* scene = nullptr;
    Form form;
  };

  /// A play. Its result counts a moment after its end: until then the server may turn out to have died of it.
  struct Current {
    Entry entry;
    std::shared_ptr<Play> play;
    std::unique_ptr<asio::steady_timer> moment;
    bool ended = false;
    std::optional<Failure> failure;
  };

  void play_more();
  std::optional<Entry> take();
  void add(Entry const& entry, Failure const* failure);
  [[nodiscard]] bool uses_lost(Scene const& scene) const;
  void play(Entry const& entry);
  void ended(std::size_t id, Failure const* failure);
  void settle(std::size_t id);
  void watch_server();
  void server_ended(std::string const& how);
  void suspect_all();
  void stop(std::string const& why);

  asio::io_context& io_;
  Options& options_;
  ServerUnderTest& server_;
  Report& report_;
  enum Stage : std::size_t { bases, whole, alone, smaller, pieces, stages };
  std::array<std::deque<Entry>, stages> queues_;  ///< by stage
  std::size_t stage_ = bases;
  Shrinker shrinker_;                     ///< for the stage smaller
  std::set<std::string> lost_;            ///< scenes that have failed alone, or use one that has
  std::map<Basis, std::string> missing_;  ///< the scenes that should have provided it
  std::deque<Current> suspects_;          ///< to be played alone, before all others
  bool alone_ = false;                    ///< a suspect is playing
  bool unexplained_ = false;              ///< no suspect ended the server when played alone
  std::map<std::size_t, Current> now_;    ///< by number of the play
  std::size_t next_id_ = 0;
  std::size_t playing_ = 0;  ///< how many of these have not ended
};

}  // namespace conformance
