#include <chatproto/connection.hpp>

#include <chrono>
#include <iostream>

int main(int argc, char** argv) {
  using chatproto::Message;
  chatproto::Connection connection;
  connection.time_limit(std::chrono::seconds(5));                 // for each operation
  connection.connect("localhost", argc > 1 ? argv[1] : "47374");  // throws std::system_error

  connection.request(Message("slogin", "bob"));
  connection.request(Message("join", "cafe"));
  auto const reply = connection.request(Message("sendall", "hey everybody!"));
  std::cout << reply.tag << ": " << reply.payload << '\n';  // "ok", or "err" and the reason; err does not throw
  connection.request(Message("quit", ""));
}
