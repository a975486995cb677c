// SPDX-License-Identifier: BSL-1.0
// Built twice, as two shared libraries with hidden visibility; see main.cpp.
#include <chatproto/detail/held_memory.hpp>
#include <chatproto/error.hpp>

#include "library.hpp"

__attribute__((visibility("default"))) std::error_code LIBRARY::malformed() { return chatproto::Errc::malformed; }
__attribute__((visibility("default"))) std::size_t LIBRARY::hold(std::size_t bytes) {
  chatproto::detail::HeldMemory::add(bytes);
  return chatproto::detail::HeldMemory::total();
}
