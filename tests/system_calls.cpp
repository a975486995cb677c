// SPDX-License-Identifier: BSL-1.0
#include "system_calls.hpp"

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <initializer_list>

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#include "support.hpp"

namespace {

std::atomic<test::Fault> failing = test::Fault::none;
std::atomic<std::size_t> left = 0;  // until one fails; 0: it has failed
std::atomic<std::size_t> style = 0;
std::atomic<char const*> failed = nullptr;

bool is_its_turn(test::Fault kind, char const* name) noexcept {
  if (failing != kind || !test::counts_as_spent()) return false;
  for (auto now = left.load(); now > 0;)
    if (left.compare_exchange_weak(now, now - 1)) {
      if (now == 1) failed = name;
      return now == 1;
    }
  return false;
}

/// Counts the call, beforehand, so that a thread that sees its effect finds it counted. Sets errno if it is to fail.
bool fails(test::Kind kind, char const* name, std::initializer_list<int> errors) noexcept {
  if (test::counts_as_spent()) test::calls[kind].fetch_add(1);
  if (!is_its_turn(test::Fault::call, name)) return false;
  errno = *(errors.begin() + style % errors.size());
  return true;
}

bool is_socket(int fd) noexcept {
  auto const before = errno;
  auto type = 0;
  socklen_t size = sizeof type;
  auto const result = ::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0;
  errno = before;
  return result;
}

}  // namespace

namespace test {

Failing::Failing(Fault what, std::size_t n, std::size_t with_style) {
  failed = nullptr;
  style = with_style;
  left = n;
  failing = what;
}
void Failing::end() { failing = Fault::none; }
bool Failing::happened() const { return failed != nullptr; }
char const* Failing::name() const { return happened() ? failed.load() : "nothing"; }
bool allocation_fails() noexcept { return is_its_turn(Fault::allocation, "allocation"); }

}  // namespace test

#define ERRORS(...) \
  { __VA_ARGS__ }
#define CALL(kind, result, name, parameters, arguments, errors) \
  result __real_##name parameters;                              \
  result __wrap_##name parameters;                              \
  result __wrap_##name parameters { return fails(test::kind, #name, errors) ? -1 : __real_##name arguments; }
#define READ_ERRORS ERRORS(ECONNRESET, EINTR, ETIMEDOUT, ENOMEM)
#define WRITE_ERRORS ERRORS(EPIPE, EINTR, ENOBUFS, ECONNRESET)

extern "C" {
CALL(epoll_waits, int, epoll_wait, (int epoll, epoll_event* events, int size, int time), (epoll, events, size, time),
     ERRORS(EINTR))
CALL(reads, ssize_t, readv, (int fd, iovec const* data, int count), (fd, data, count), READ_ERRORS)
CALL(recvs, ssize_t, recv, (int fd, void* data, std::size_t size, int flags), (fd, data, size, flags), READ_ERRORS)
CALL(recvs, ssize_t, recvmsg, (int fd, msghdr* message, int flags), (fd, message, flags), READ_ERRORS)
CALL(sends, ssize_t, send, (int fd, void const* data, std::size_t size, int flags), (fd, data, size, flags),
     WRITE_ERRORS)
CALL(sends, ssize_t, sendmsg, (int fd, msghdr const* message, int flags), (fd, message, flags), WRITE_ERRORS)
CALL(writes, ssize_t, writev, (int fd, iovec const* data, int count), (fd, data, count), WRITE_ERRORS)
CALL(others, int, accept4, (int fd, sockaddr* address, socklen_t* size, int flags), (fd, address, size, flags),
     ERRORS(EMFILE, ECONNABORTED, EINTR, ENFILE, ENOBUFS, ENOMEM, EPROTO, EPERM))
CALL(others, int, epoll_create1, (int flags), (flags), ERRORS(EMFILE, ENOMEM))
CALL(others, int, eventfd, (unsigned value, int flags), (value, flags), ERRORS(EMFILE, ENOMEM))
CALL(others, int, timerfd_create, (int clock, int flags), (clock, flags), ERRORS(EMFILE, ENOMEM))
CALL(others, int, setsockopt, (int fd, int level, int name, void const* value, socklen_t size),
     (fd, level, name, value, size), ERRORS(EINVAL, ENOMEM))
CALL(others, int, ioctl, (int fd, unsigned long request, void* value), (fd, request, value), ERRORS(EIO))
CALL(others, int, shutdown, (int fd, int how), (fd, how), ERRORS(ENOTCONN))
CALL(others, int, getpeername, (int fd, sockaddr* address, socklen_t* size), (fd, address, size),
     ERRORS(ENOTCONN, ENOBUFS))
CALL(others, int, getsockname, (int fd, sockaddr* address, socklen_t* size), (fd, address, size), ERRORS(ENOBUFS))

// Only adding a descriptor takes memory. Changing or removing one fails only for a wrong argument, and Asio ignores
// that. Asio's wakeup of its own threads cannot fail either; its descriptors are not sockets.
int __real_epoll_ctl(int epoll, int operation, int fd, epoll_event* event);
int __wrap_epoll_ctl(int epoll, int operation, int fd, epoll_event* event);
int __wrap_epoll_ctl(int epoll, int operation, int fd, epoll_event* event) {
  if (operation != EPOLL_CTL_ADD || !is_socket(fd)) {
    if (test::counts_as_spent()) test::calls[test::epoll_ctls].fetch_add(1);
  } else if (fails(test::epoll_ctls, "epoll_ctl", {ENOMEM, ENOSPC})) {
    return -1;
  }
  return __real_epoll_ctl(epoll, operation, fd, event);
}
#define UNFAILING(kind, name, data)                                 \
  ssize_t __real_##name(int fd, data value, std::size_t size);      \
  ssize_t __wrap_##name(int fd, data value, std::size_t size);      \
  ssize_t __wrap_##name(int fd, data value, std::size_t size) {     \
    if (is_socket(fd)) {                                            \
      if (fails(test::kind, #name, {ECONNRESET, EINTR})) return -1; \
    } else if (test::counts_as_spent()) {                           \
      test::calls[test::kind].fetch_add(1);                         \
    }                                                               \
    return __real_##name(fd, value, size);                          \
  }
UNFAILING(reads, read, void*)
UNFAILING(writes, write, void const*)
// The descriptor is closed even if close reports an error.
int __real_close(int fd);
int __wrap_close(int fd);
int __wrap_close(int fd) {
  auto const result = __real_close(fd);
  if (result != 0 && errno == EBADF) std::abort();  // closed twice: the number may already have been reused
  return fails(test::others, "close", {EIO, EINTR}) ? -1 : result;
}

// Asio's own memory does not come from operator new.
void* __real_aligned_alloc(std::size_t alignment, std::size_t size);
void* __wrap_aligned_alloc(std::size_t alignment, std::size_t size);
void* __wrap_aligned_alloc(std::size_t alignment, std::size_t size) {
  auto* const memory = test::allocation_fails() ? nullptr : __real_aligned_alloc(alignment, size);
  if (memory != nullptr) test::count_allocation(memory);
  return memory;
}
void __real_free(void* memory);
void __wrap_free(void* memory);
void __wrap_free(void* memory) {  // also memory from operator new
  test::count_free(memory);
  __real_free(memory);
}
}
