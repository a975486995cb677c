// SPDX-License-Identifier: BSL-1.0
// student_server PORT [LOGIN_DEADLINE]: the student's server without a fault. Every scene must pass with it.
#include "student_server.hpp"

int main(int argc, char** argv) {
  student::Server server(
      [](student::Server& owner, int connection) { return std::make_unique<student::Client>(owner, connection); });
  return student::serve(argc, argv, server);
}
