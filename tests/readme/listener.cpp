#include <chatproto/connection.hpp>

#include <iostream>

int main(int argc, char** argv) {
  using chatproto::Message;
  chatproto::Connection connection;
  connection.connect("localhost", argc > 1 ? argv[1] : "47374");
  connection.request(Message("rlogin", "alice"));
  connection.request(Message("join", "cafe"));

  auto const message = connection.receive();  // waits until somebody speaks
  auto const delivery = chatproto::parse_delivery(message);
  std::cout << delivery.sender << ": " << delivery.text << std::endl;
}
