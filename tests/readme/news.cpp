#include <chatproto/server.hpp>

#include <cstdlib>
#include <iostream>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_set>

// Everybody who is connected gets every line of the standard input.
class News {
 public:
  struct Session {
    Session(News& n, chatproto::Peer p) : news(n), peer(std::move(p)) {
      std::lock_guard const lock(news.mutex);
      news.readers.insert(peer);
    }
    ~Session() {
      std::lock_guard const lock(news.mutex);
      news.readers.erase(peer);
    }
    void on_line(std::string_view) { peer.send_line("nobody listens to you here"); }

    News& news;
    chatproto::Peer peer;
  };
  Session open(chatproto::Peer peer) { return Session(*this, std::move(peer)); }

  void say(std::string const& line) {
    auto const block = std::make_shared<std::string const>(line + '\n');  // one for all of them
    std::lock_guard const lock(mutex);
    for (auto const& reader : readers) reader.send(block);
  }

 private:
  std::mutex mutex;
  std::unordered_set<chatproto::Peer> readers;
};

int main(int argc, char** argv) {
  auto const port = static_cast<std::uint16_t>(argc > 1 ? std::atoi(argv[1]) : 17378);
  chatproto::Server<chatproto::ThreadPool, News> server({.port = port});
  std::cout << "listening on port " << server.port() << std::endl;
  std::thread serving([&] { server.run(); });
  for (std::string line; std::getline(std::cin, line);) server.service().say(line);
  server.stop();
  serving.join();
}
