#include <chatproto/server.hpp>

#include <string>

// Says back each line.
struct Echo {
  struct Session {
    chatproto::Peer peer;
    void on_line(std::string_view line) { peer.send(std::string(line) + '\n'); }
  };
  Session open(chatproto::Peer peer) { return {std::move(peer)}; }
};

int main() {
  chatproto::Server<chatproto::StrandPool, Echo> server;
  server.stop();  // a real one would not
  server.run();
}
