// SPDX-License-Identifier: BSL-1.0
// The system calls and allocations of a server in this process: counted, and made to fail. Linux only: the linker lets
// system_calls.cpp stand before the system's functions (--wrap).
#pragma once

#include <array>
#include <atomic>
#include <cstddef>

namespace test {

/// Kinds of system calls, by the names that strace gives a reader.
enum Kind : std::size_t { epoll_ctls, epoll_waits, reads, recvs, sends, writes, others, kinds };

/// How many of each kind there were, but for those of threads that do not count (`counts_as_spent`).
inline std::array<std::atomic<std::size_t>, kinds> calls;

/// What may fail.
enum class Fault { none, call, allocation };

/// Makes the `n`th (from 1) call, or allocation, fail while it lives, of those that count. `style` chooses among the
/// errors that a call can have.
class Failing {
 public:
  Failing(Fault what, std::size_t n, std::size_t style = 0);
  ~Failing() { end(); }
  Failing(Failing const&) = delete;
  Failing& operator=(Failing const&) = delete;

  void end();
  /// Whether it came to that.
  bool happened() const;
  /// What has failed.
  char const* name() const;
};

/// Whether this call, or allocation, is to fail; `allocation_fails` for allocations.cpp.
bool allocation_fails() noexcept;

}  // namespace test
