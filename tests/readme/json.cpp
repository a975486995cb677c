#include <chatproto/server.hpp>

#include <nlohmann/json.hpp>

#include <cstdlib>

// A line is a JSON object, {"add": [1, 2]}; so is its answer, {"sum": 3}.
struct Adder {
  struct Session {
    chatproto::Peer peer;

    void on_line(std::string_view line) {
      using nlohmann::json;
      try {
        auto const question = json::parse(line);
        auto sum = 0.0;
        for (double const number : question.at("add")) sum += number;
        answer({{"sum", sum}});
      } catch (json::exception const& error) {  // no JSON, or not such an object
        answer({{"error", error.what()}});
      }
    }
    void on_bad_line(std::error_code const&) { answer({{"error", "the line is too long"}}); }

    void answer(nlohmann::json const& object) {
      constexpr auto replace = nlohmann::json::error_handler_t::replace;  // the error may quote what is no UTF-8
      peer.send_line(object.dump(-1, ' ', false, replace));
    }
  };
  Session open(chatproto::Peer peer) { return {std::move(peer)}; }
};

int main(int argc, char** argv) {
  auto const port = static_cast<std::uint16_t>(argc > 1 ? std::atoi(argv[1]) : 47380);
  chatproto::Server<chatproto::ThreadPool, Adder> server({.port = port, .line_limit = 64 * 1024 + 2});
  server.run();
}
