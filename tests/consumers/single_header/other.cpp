// SPDX-License-Identifier: BSL-1.0
// Two units that include it make one program.
#include <chatproto/chatproto.hpp>
