// SPDX-License-Identifier: BSL-1.0
// Counts the allocations of each thread and of all threads together. In a file of its own: a compiler that sees both
// functions inline takes them for a mismatched pair.
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "sanitized.hpp"
#include "support.hpp"
#include "system_calls.hpp"

#ifndef __linux__
bool test::allocation_fails() noexcept { return false; }
#endif

test::Allocations& test::allocations() noexcept {
  static thread_local Allocations mine;
  return mine;
}

namespace {

std::atomic<std::size_t> allocations_of_all = 0;
std::atomic<std::ptrdiff_t> bytes_of_all = 0;

std::ptrdiff_t size_of([[maybe_unused]] void* memory) noexcept {
#ifdef __GLIBC__  // plus the size field that malloc puts before the block
  return static_cast<std::ptrdiff_t>(malloc_usable_size(memory) + sizeof(std::size_t));
#else
  return 0;
#endif
}

}  // namespace

test::Spent test::spent() noexcept { return {allocations_of_all, bytes_of_all}; }

bool& test::counts_as_spent() noexcept {
  static thread_local auto counts = true;
  return counts;
}

void test::count_allocation(void* memory) noexcept {
  if (!counts_as_spent()) return;
  allocations_of_all.fetch_add(1, std::memory_order_relaxed);
  bytes_of_all.fetch_add(size_of(memory), std::memory_order_relaxed);
}

void test::count_free(void* memory) noexcept {
  if (memory != nullptr && counts_as_spent()) bytes_of_all.fetch_sub(size_of(memory), std::memory_order_relaxed);
}

#if !CHATPROTO_SANITIZED
void* operator new(std::size_t size) {
  auto* const memory = test::allocation_fails() ? nullptr : std::malloc(size != 0 ? size : 1);
  if (memory == nullptr) throw std::bad_alloc();
  auto& mine = test::allocations();
  ++mine.made;
  ++mine.live;
  mine.largest = std::max(mine.largest, size);
  test::count_allocation(memory);
  return memory;
}

void operator delete(void* memory) noexcept {
  if (memory != nullptr) --test::allocations().live;
  std::free(memory);
}

void operator delete(void* memory, std::size_t) noexcept { ::operator delete(memory); }
#endif
