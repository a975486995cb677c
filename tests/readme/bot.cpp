#include <chatproto/server.hpp>

#include <asio/steady_timer.hpp>

#include <chrono>
#include <cstdlib>
#include <system_error>

using Server = chatproto::Server<chatproto::ThreadPool>;

// Says "tick" in the room "clock" every second. Its timer is on the server's context, which run() runs.
class Clock {
 public:
  explicit Clock(Server& server) : server_(server), timer_(server.context()) { wait(); }

 private:
  void wait() {
    timer_.expires_after(std::chrono::seconds(1));
    timer_.async_wait([this](std::error_code ec) {
      if (ec) return;
      server_.service().say("clock", "clock", "tick", ec);  // an error: not said, this time
      wait();
    });
  }

  Server& server_;
  asio::steady_timer timer_;
};

int main(int argc, char** argv) {
  auto const port = static_cast<std::uint16_t>(argc > 1 ? std::atoi(argv[1]) : 17379);
  Server server({.port = port});
  Clock const clock(server);
  server.run();
}
