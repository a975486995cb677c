// SPDX-License-Identifier: BSL-1.0
// A second translation unit that includes the header, to be linked with the first.
#include <chatproto/chatproto.hpp>
