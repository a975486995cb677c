#include <chatproto/server.hpp>

#include <cstdlib>
#include <string>

// Says back each line. Try it: nc localhost 17375
struct Echo {
  struct Session {
    chatproto::Peer peer;
    void on_line(std::string_view line) { peer.send_line(line); }
  };
  Session open(chatproto::Peer peer) { return {std::move(peer)}; }
};

int main(int argc, char** argv) {
  auto const port = static_cast<std::uint16_t>(argc > 1 ? std::atoi(argv[1]) : 17375);
  chatproto::Server<chatproto::StrandPool, Echo> server({.port = port});
  server.run();
}
