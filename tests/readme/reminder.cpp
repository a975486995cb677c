#include <chatproto/server.hpp>

#include <asio/steady_timer.hpp>

#include <charconv>
#include <chrono>
#include <cstdlib>
#include <string>
#include <system_error>

// "SECONDS:TEXT" has the server say TEXT after that time. A new line replaces the one before.
struct Reminder {
  struct Session {
    chatproto::Peer peer;
    asio::steady_timer timer{chatproto::executor_of(peer)};

    void on_line(std::string_view line) {
      unsigned seconds = 0;
      auto const number = std::from_chars(line.data(), line.data() + line.size(), seconds);
      if (number.ec != std::errc() || !std::string_view(number.ptr, line.end()).starts_with(':')) {
        peer.send_line("write SECONDS:TEXT");
        return;
      }
      timer.expires_after(std::chrono::seconds(seconds));
      timer.async_wait([client = peer, text = std::string(number.ptr + 1, line.end()), this](std::error_code ec) {
        if (!ec) client.post([text, this] { peer.send_line(text); });
      });
    }
  };
  Session open(chatproto::Peer peer) { return {std::move(peer)}; }
};

int main(int argc, char** argv) {
  auto const port = static_cast<std::uint16_t>(argc > 1 ? std::atoi(argv[1]) : 17376);
  chatproto::Server<chatproto::ThreadPool, Reminder> server({.port = port});
  server.run();
}
