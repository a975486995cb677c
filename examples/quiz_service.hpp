// SPDX-License-Identifier: BSL-1.0
/// @file
/// A quiz service: the first client to answer correctly gets a point.
#pragma once

#include <algorithm>
#include <chrono>
#include <functional>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <asio/io_context.hpp>
#include <asio/steady_timer.hpp>

#include <chatproto/message.hpp>
#include <chatproto/peer.hpp>
#include <chatproto/room_table.hpp>
#include <chatproto/server_options.hpp>

namespace examples {

/// Asks all clients a question at intervals. The first correct answer earns a point. The first player with enough
/// points wins, and all start again from 0. A client's first line is its name; `who` lists the players and their
/// points.
class QuizService {
 public:
  /// A question and its answer.
  using Question = std::pair<std::string, std::string>;
  /// Makes a question; one thread at a time calls it.
  using Author = std::function<Question()>;

  QuizService(Author author, std::chrono::milliseconds interval, unsigned to_win)
      : author_(std::move(author)), interval_(std::max(interval, shortest)), to_win_(to_win) {}

  /// A member of the room, with its points.
  struct Player : chatproto::Participant {
    using Participant::Participant;
    ~Player() { leave(); }
    unsigned points = 0;  // guarded by the room's lock
  };

  class Session {
   public:
    Session(QuizService& quiz, chatproto::Peer peer) : quiz_(quiz), me_(std::move(peer)) {}
    ~Session() {
      if (!me_.is_in_room()) return;
      me_.leave();
      try {
        quiz_.room().guarded([&](Room& room) { say(room, "* " + me_.name() + " has gone"); });
      } catch (std::bad_alloc const&) {  // then the others are not told
      }
    }

    void on_line(std::string_view line) {
      if (!me_.is_in_room())
        enter(line);
      else if (line == "who")
        me_.send("* " + quiz_.room().guarded(players) + '\n');
      else
        answer(line);
    }
    bool logged_in() const { return me_.is_in_room(); }
    std::string_view name() const { return me_.name(); }

   private:
    void enter(std::string_view name) {
      if (!chatproto::is_valid_name(name)) {
        me_.send("* your name, please: letters and digits\n");
        return;
      }
      me_.name(std::string(name));
      me_.enter(quiz_.rooms_, hall);
      auto const is_here = quiz_.room().guarded([&](Room& room) {
        if (room.has(me_.name())) return false;
        me_.listen(room);
        say(room, "* " + me_.name() + " has come");
        room.send_to(me_.name(), "* here are " + players(room) + '\n');
        return true;
      });
      if (is_here) return;
      me_.leave();
      me_.send("* there is another " + me_.name() + " here\n");
    }
    void answer(std::string_view line) {
      auto const is_first = quiz_.room().guarded([&](Room& room) {
        if (quiz_.answer_ != line) return false;
        quiz_.answer_.reset();
        quiz_.award(room, me_, line);
        return true;
      });
      if (!is_first) me_.send("* no, or too late\n");
    }

    QuizService& quiz_;
    Player me_;
  };
  Session open(chatproto::Peer peer) { return {*this, std::move(peer)}; }

  void on_start(asio::io_context& context) {
    timer_.emplace(context);
    wait();
  }
  void on_stop(chatproto::StopMode) {
    room().guarded([](Room& room) { say(room, "* the quiz is over"); });
  }

  /// Asks the next question.
  void ask() {
    auto next = author_();
    room().guarded([&](Room& room) {
      answer_ = std::move(next.second);
      say(room, "? " + next.first);
    });
  }

 private:
  using Room = chatproto::Room::Locked;
  static constexpr auto hall = "hall";
  static constexpr std::chrono::milliseconds shortest{10};  // minimum of interval_

  chatproto::Room& room() const { return stay_.room(); }
  static void say(Room& room, std::string line) { room.broadcast({}, line += '\n'); }
  /// Lists the players, those with most points first.
  static std::string players(Room& room) {
    std::vector<std::pair<unsigned, std::string>> all;
    room.for_each([&](auto& member) { all.emplace_back(~static_cast<Player&>(member).points, member.name()); });
    std::sort(all.begin(), all.end());
    std::string list;
    for (auto const& [lack, name] : all) list += (list.empty() ? "" : ", ") + name + ' ' + std::to_string(~lack);
    return list;
  }
  void award(Room& room, Player& winner, std::string_view answer) {
    auto const points = ++winner.points;
    say(room, "! " + winner.name() + " is right: " + std::string(answer) + ", now " + std::to_string(points));
    if (points < to_win_) return;
    say(room, "! that wins. Again from 0");
    room.for_each([](auto& member) { static_cast<Player&>(member).points = 0; });
  }
  void wait() {
    timer_->expires_after(interval_);
    timer_->async_wait([this](std::error_code const& ec) {
      if (ec) return;
      try {
        ask();
      } catch (std::bad_alloc const&) {  // try again next time
      }
      wait();
    });
  }

  Author author_;
  std::chrono::milliseconds interval_;
  unsigned to_win_;
  chatproto::RoomTable rooms_;
  chatproto::RoomTable::Membership const stay_ = rooms_.enter(hall);  // keeps the room when nobody plays
  std::optional<std::string> answer_;  // guarded by the room's lock; empty: already answered
  std::optional<asio::steady_timer> timer_;
};

}  // namespace examples
