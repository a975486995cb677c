#include <chatproto/server.hpp>

#include <asio/post.hpp>
#include <asio/thread_pool.hpp>

#include <chrono>
#include <cstdlib>
#include <exception>
#include <string>
#include <thread>

// Stands for a database whose client blocks.
std::string look_up(std::string const& name) {
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  return name == "bob" ? "bob: 47374" : name + ": unknown";
}

// Answers each name with a number.
struct Phonebook {
  struct Session {
    chatproto::Peer peer;
    asio::thread_pool& workers;

    void on_line(std::string_view line) {
      peer.pause();  // the next line comes when this one is answered
      asio::post(workers, [client = peer, name = std::string(line), this] {
        std::string answer;
        try {
          answer = look_up(name);
        } catch (std::exception const&) {  // which would end the program if it left the thread
          answer = "try again later";
        }
        client.post([answer, this] {
          peer.send_line(answer);
          peer.resume();
        });
      });
    }
  };
  Session open(chatproto::Peer peer) { return {std::move(peer), workers}; }

  asio::thread_pool workers{4};
};

int main(int argc, char** argv) {
  auto const port = static_cast<std::uint16_t>(argc > 1 ? std::atoi(argv[1]) : 17377);
  chatproto::Server<chatproto::ThreadPool, Phonebook> server({.port = port});
  server.run();
}
