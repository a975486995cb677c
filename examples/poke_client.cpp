// SPDX-License-Identifier: BSL-1.0
// poke_client HOST PORT USER: a sender that can poke, and prints the poke's number.
#include "client.hpp"

int main(int argc, char** argv) {
  return program::Sender({{"/poke", "poke", {}, true}, {"/pokes", "pokes", {}, true}}).main(argc, argv);
}
