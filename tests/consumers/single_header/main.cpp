// SPDX-License-Identifier: BSL-1.0
// The same user's program, on the one header.
#include <chatproto-all.hpp>

#define CONSUMER_HAS_CHATPROTO
#include "../main.cpp"
