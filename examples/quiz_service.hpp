// SPDX-License-Identifier: BSL-1.0
/// @file
/// A quiz: whoever answers first has a point.
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

/// Asks everybody a question at intervals. The first right answer earns a point; whoever has enough of them wins, and
/// all begin again. A client's first line is its name; `who` lists the players and their points.
class QuizService {
 public:
  /// A question and its answer.
  using Question = std::pair<std::string, std::string>;
  /// Makes a question; called by one thread at a time.
  using Author = std::function<Question()>;

  QuizService(Author author, std::chrono::milliseconds interval, unsigned to_win)
      : author_(std::move(author)), interval_(std::max(interval, shortest)), to_win_(to_win) {}

  /// A member of the room, with what the quiz knows of it.
  struct Player : chatproto::Participant {
    using Participant::Participant;
    ~Player() { leave(); }
    unsigned points = 0;  // guarded by the room
  };

  class Session {
   public:
    Session(QuizService& quiz, chatproto::Peer peer) : quiz_(quiz), me_(std::move(peer)) {}
    ~Session() {
      if (!me_.is_in_room()) return;
      me_.leave();
      try {
        quiz_.say("* " + me_.name() + " has gone");
      } catch (std::bad_alloc const&) {  // then nobody hears of it
      }
    }

    void on_line(std::string_view line) {
      if (!me_.is_in_room())
        enter(line);
      else if (line == "who")
        me_.send("* " + quiz_.players() + '\n');
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
      me_.listen();
      quiz_.say("* " + me_.name() + " has come");
      me_.send("* here are " + quiz_.players() + '\n');
    }
    void answer(std::string_view line) {
      auto const points = quiz_.room().guarded([&] {
        if (quiz_.is_won_ || quiz_.answer_ != line) return 0u;
        quiz_.answer_.reset();
        quiz_.is_won_ = ++me_.points == quiz_.to_win_;
        return me_.points;
      });
      if (points == 0)
        me_.send("* no, or too late\n");
      else
        quiz_.award(me_.name() + " is right: " + std::string(line), points);
    }

    QuizService& quiz_;
    Player me_;
  };
  Session open(chatproto::Peer peer) { return {*this, std::move(peer)}; }

  void on_start(asio::io_context& context) {
    timer_.emplace(context);
    wait();
  }
  void on_stop(chatproto::Stop) { say("* the quiz is over"); }

  /// Asks the next question.
  void ask() {
    auto next = author_();
    room().guarded([&] { answer_ = std::move(next.second); });
    say("? " + next.first);
  }

 private:
  static constexpr auto hall = "hall";
  static constexpr std::chrono::milliseconds shortest{10};  // of intervals

  chatproto::Room& room() const { return stay_.room(); }
  void say(std::string line) { room().broadcast({}, line += '\n'); }
  /// Those with most points first.
  std::string players() const {
    std::vector<std::pair<unsigned, std::string>> all;
    room().for_each([&](auto& member) { all.emplace_back(~static_cast<Player&>(member).points, member.name()); });
    std::sort(all.begin(), all.end());
    std::string list;
    for (auto const& [lack, name] : all) list += (list.empty() ? "" : ", ") + name + ' ' + std::to_string(~lack);
    return list;
  }
  void award(std::string const& what, unsigned points) {
    say("! " + what + ", now " + std::to_string(points));
    if (points < to_win_) return;
    say("! that wins. Again from 0");
    room().for_each([](auto& member) { static_cast<Player&>(member).points = 0; });
    room().guarded([&] { is_won_ = false; });
  }
  void wait() {
    timer_->expires_after(interval_);
    timer_->async_wait([this](std::error_code const& ec) {
      if (ec) return;
      try {
        ask();
      } catch (std::bad_alloc const&) {  // the next time, perhaps
      }
      wait();
    });
  }

  Author author_;
  std::chrono::milliseconds interval_;
  unsigned to_win_;
  chatproto::RoomTable rooms_;
  chatproto::RoomTable::Stay const stay_ = rooms_.enter(hall);  // so that there is a room also when nobody plays
  // Guarded by the room:
  std::optional<std::string> answer_;  // none: it was given
  bool is_won_ = false;                // nobody has a point until all begin again

  std::optional<asio::steady_timer> timer_;
};

}  // namespace examples
