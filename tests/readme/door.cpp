#include <chatproto/server.hpp>

#include <asio/post.hpp>
#include <asio/thread_pool.hpp>

#include <chrono>
#include <cstdlib>
#include <exception>
#include <string_view>
#include <thread>
#include <utility>

// Stands for a directory of users whose client blocks. (A real one keeps hashes, and no secrets.)
bool knows(std::string_view name, std::string_view secret) {
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  return name == "bob" && secret == "correct horse";
}

int main(int argc, char** argv) {
  auto const port = static_cast<std::uint16_t>(argc > 1 ? std::atoi(argv[1]) : 17382);
  asio::thread_pool workers{4};
  chatproto::ChatOptions options;
  options.authenticate = [&workers](chatproto::Credentials who, chatproto::Verdict verdict) {
    if (who.name == "guest") return verdict.accept();
    if (who.secret.empty()) return verdict.refuse("this name needs a secret");
    asio::post(workers, [who = std::move(who), verdict = std::move(verdict)]() mutable {
      if (!verdict.is_wanted()) return;  // the client has gone
      try {
        if (knows(who.name, who.secret.view())) verdict.accept();
      } catch (std::exception const&) {  // which would end the program if it left the thread
        verdict.refuse("try again later");
      }
    });  // a verdict that is dropped refuses
  };
  chatproto::Server<chatproto::ThreadPool> server({.port = port}, options);
  server.run();
}
