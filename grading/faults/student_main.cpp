// SPDX-License-Identifier: BSL-1.0
// student_server PORT [LOGIN_DEADLINE]: the student's server without a fault. Every scene must pass with it.
#include "student_server.hpp"

int main(int argc, char** argv) { return student::serve(argc, argv); }
