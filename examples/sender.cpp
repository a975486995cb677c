// SPDX-License-Identifier: BSL-1.0
// sender HOST PORT USER: sends each line of its input to a room of the chat.
#include "client.hpp"

int main(int argc, char** argv) { return program::Sender().main(argc, argv); }
