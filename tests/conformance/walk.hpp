// SPDX-License-Identifier: BSL-1.0
// A walk: what several clients do, one action after the other. The model knows what must come, and so makes a scene of
// it.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "scene.hpp"

namespace conformance {

/// Stands for `{room}` in the lines of a walk, and is as long as the word that replaces `{room}`.
inline constexpr std::string_view room_word = "theroom0";

/// A client of a walk. Its name is s or r, and its place.
struct WalkClient {
  bool receiver = false;  ///< else a sender
  bool lazy = false;      ///< reads deliveries only before its own replies, and at the end
};

/// Lines that a client sends at once. Each has its end; only the last may be a part of a line.
struct Input {
  std::size_t client = 0;
  std::vector<std::string> lines;
};

/// What one client sends and does then, or what several senders send at the same time.
struct Action {
  enum class Then { stay, shutdown, close, reset };
  std::vector<Input> inputs;
  Then then = Then::stay;
};

struct Walk {
  std::string name;
  std::string title;
  std::vector<WalkClient> clients;
  std::vector<Action> actions;
};

/// What a correct server knows of the clients of a walk. Writes the steps of the scene.
class Model {
 public:
  enum class Is { absent, connected, sender, receiver, gone };
  struct State {
    Is is = Is::absent;
    std::string name;
    std::string room;
  };

  void add(WalkClient const& client);
  [[nodiscard]] State const& of(std::size_t client) const { return clients_[client].state; }

  /// Carries out an action. Returns false if it means nothing now, in which case nothing has changed.
  bool act(Action const& action);

  /// Adds the fences.
  void finish();

  /// A line of the scene.
  struct Line {
    std::string step;
    std::string rule;
    std::size_t action;  ///< how many actions were carried out before
  };
  [[nodiscard]] std::vector<Line> const& lines() const { return lines_; }

  /// Whether clients have spoken at the same time.
  [[nodiscard]] bool is_concurrent() const { return concurrent_; }

 private:
  struct Delivery {
    std::string line;
    std::string rule;
    std::size_t stream = 0;
  };
  struct Client {
    WalkClient walks;
    State state;
    std::vector<Delivery> waiting;  ///< deliveries that it has not read
  };
  struct Reply {
    bool ok = false;
    std::string rule;
    bool closes = false;
  };

  [[nodiscard]] std::string name(std::size_t client) const;
  void step(std::size_t client, std::string const& what, std::string const& rule);
  void read_waiting(std::size_t client);
  bool act_alone(Input const& input, Action::Then then);
  bool act_together(std::vector<Input> const& inputs);
  bool read_streams(std::size_t streams);
  void read_replies(std::size_t client, std::vector<Reply> const& replies);
  std::vector<Reply> carry_out(Input const& input, std::size_t stream);
  Reply carry_out(std::size_t client, std::string_view line, std::size_t stream);
  Reply log_in(State& state, std::string_view tag, std::string_view payload);
  Reply join(State& state, std::string_view room);
  Reply deliver(State const& from, std::string_view text, std::string const* to, std::size_t stream);

  std::vector<Client> clients_;
  std::vector<Line> lines_;
  std::string rule_;  ///< of the last action
  std::size_t actions_ = 0;
  bool concurrent_ = false;
};

/// A scene that was written from a walk.
struct WalkScene {
  Walk walk;  ///< without the actions that mean nothing
  std::string text;
  std::vector<Model::Line> lines;

  /// Returns what the step at a line of the text is about; null for the header.
  [[nodiscard]] Model::Line const* at(std::size_t line) const;
};

WalkScene scene_of(Walk const& walk);

/// Whether a text can be the name of a user or room.
bool is_name(std::string_view text);

}  // namespace conformance
