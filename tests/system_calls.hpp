// SPDX-License-Identifier: BSL-1.0
// Counts the system calls and allocations of a server in this process, and makes them fail. Linux only: the linker puts
// system_calls.cpp in front of the system's functions (--wrap).
#pragma once

#include <array>
#include <atomic>
#include <cstddef>

namespace test {

/// Kinds of system calls, named as strace does.
enum Kind : std::size_t { epoll_ctls, epoll_waits, reads, recvs, sends, writes, others, kinds };

/// Calls of each kind, except those of threads that do not count (`counts_as_spent`).
inline std::array<std::atomic<std::size_t>, kinds> calls;

enum class Fault { none, call, allocation };

/// While it lives, makes the `n`th call or allocation fail, counted from 1 among those that count. `style` chooses
/// among the errors that a call can have.
class Failing {
 public:
  Failing(Fault what, std::size_t n, std::size_t style = 0);
  ~Failing() { end(); }
  Failing(Failing const&) = delete;
  Failing& operator=(Failing const&) = delete;

  void end();
  /// Returns whether the failure has happened.
  bool happened() const;
  char const* name() const;
};

/// Returns whether this allocation is to fail; for allocations.cpp.
bool allocation_fails() noexcept;

}  // namespace test
