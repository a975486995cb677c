#include <chatproto/server.hpp>
#include <chatproto/stop_on_signals.hpp>

#include <asio/steady_timer.hpp>

#include <chrono>
#include <cstdlib>
#include <new>
#include <optional>
#include <string>

// A client's first line is its name, which nobody else may have. Then all get each of its lines. "who" lists the names.
class Hall {
 public:
  class Session {
   public:
    Session(Hall& hall, chatproto::Peer peer) : hall_(hall), me_(std::move(peer)) {}
    ~Session() {
      if (!me_.is_in_room()) return;
      me_.leave();
      try {
        hall_.say("* " + me_.name() + " has gone");
      } catch (std::bad_alloc const&) {  // a destructor must not throw: nobody hears of it
      }
    }

    void on_line(std::string_view line) {
      if (!logged_in())
        enter(line);
      else if (line == "who")
        me_.send(hall_.names() + '\n');  // after what was said to it before
      else
        hall_.say(me_.name() + ": " + std::string(line));
    }
    bool logged_in() const { return me_.is_in_room(); }  // who has no name is closed at the login deadline

   private:
    void enter(std::string_view name) {
      me_.name(std::string(name));
      me_.enter(hall_.rooms_, "hall");
      auto const has_entered = me_.room().guarded([&](chatproto::Room::Locked& room) {
        if (name.empty() || room.has(name)) return false;
        me_.listen(room);
        room.broadcast({}, "* " + me_.name() + " has come\n");
        return true;
      });
      if (has_entered) return;
      me_.leave();
      me_.send("* another name, please\n");
    }

    Hall& hall_;
    chatproto::Participant me_;
  };
  explicit Hall(std::chrono::seconds interval) : interval_(interval) {}
  Session open(chatproto::Peer peer) { return Session(*this, std::move(peer)); }

  void on_start(asio::io_context& context) {
    timer_.emplace(context);
    wait();
  }
  void on_stop(chatproto::StopMode) { say("* we close"); }

 private:
  void say(std::string const& line) { hall_.room().broadcast({}, line + '\n'); }
  std::string names() {
    std::string all = "*";
    hall_.room().guarded(
        [&](chatproto::Room::Locked& room) { room.for_each([&](auto& member) { all += ' ' + member.name(); }); });
    return all;
  }
  void wait() {
    timer_->expires_after(interval_);
    timer_->async_wait([this](std::error_code ec) {
      if (ec) return;
      say("* be nice to each other");
      wait();
    });
  }

  std::chrono::seconds const interval_;
  chatproto::RoomTable rooms_;
  chatproto::RoomTable::Membership const hall_ = rooms_.enter("hall");  // the room is there also when nobody is in it
  std::optional<asio::steady_timer> timer_;                             // made when there is a context
};

int main(int argc, char** argv) {
  auto const port = static_cast<std::uint16_t>(argc > 1 ? std::atoi(argv[1]) : 47381);
  std::chrono::seconds const interval(argc > 2 ? std::atoi(argv[2]) : 3600);
  chatproto::Server<chatproto::ThreadPool, Hall> server({.port = port}, interval);
  chatproto::StopOnSignals const stop_on_signals(server);
  server.run();
}
