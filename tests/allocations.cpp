// SPDX-License-Identifier: BSL-1.0
// Counts what each thread allocates. A file of its own: a compiler that sees through both functions takes them for a
// mismatched pair.
#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <new>

#include "sanitized.hpp"
#include "support.hpp"

test::Allocations& test::allocations() noexcept {
  static thread_local Allocations mine;
  return mine;
}

#if !CHATPROTO_SANITIZED
void* operator new(std::size_t size) {
  auto* const memory = std::malloc(size != 0 ? size : 1);
  if (memory == nullptr) throw std::bad_alloc();
  auto& mine = test::allocations();
  ++mine.made;
  ++mine.live;
  mine.largest = std::max(mine.largest, size);
  return memory;
}

void operator delete(void* memory) noexcept {
  if (memory != nullptr) --test::allocations().live;
  std::free(memory);
}

void operator delete(void* memory, std::size_t) noexcept { ::operator delete(memory); }
#endif
