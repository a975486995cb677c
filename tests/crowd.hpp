// SPDX-License-Identifier: BSL-1.0
// What programs need that play a crowd of clients in one thread: sockets that never wait, one epoll, and what the
// server's process uses. Linux only: epoll, /proc.
#pragma once

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <fstream>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <system_error>

namespace crowd {

inline std::system_error failure(char const* what) { return {errno, std::system_category(), what}; }

inline void set_option(int fd, int level, int name, auto const& value) {
  setsockopt(fd, level, name, &value, sizeof value);
}

/// Opens a TCP socket that never waits. A slow client's has small buffers, as over Ethernet: on loopback both kernels
/// would buffer megabytes that are never read.
inline int open_socket(int family, bool is_slow) {
  auto const fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) throw failure("socket");
  set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  if (is_slow) {
    set_option(fd, IPPROTO_TCP, TCP_MAXSEG, 1448);
    set_option(fd, SOL_SOCKET, SO_RCVBUF, 16 * 1024);
  }
  return fd;
}

/// Lets close() reset the connection, which leaves no TIME_WAIT.
inline void reset_at_close(int fd) { set_option(fd, SOL_SOCKET, SO_LINGER, linger{.l_onoff = 1, .l_linger = 0}); }

/// Watches all clients' sockets.
class Epoll {
 public:
  Epoll() {
    if (fd_ < 0) throw failure("epoll");
  }
  ~Epoll() { close(fd_); }
  Epoll(Epoll const&) = delete;
  Epoll& operator=(Epoll const&) = delete;

  /// Watches `client.fd`. `client.events` must be 0 before the first time, and then belongs to this function.
  void watch(auto& client, std::uint32_t events) const {
    if (client.events == events) return;
    epoll_event event{.events = events, .data = {.ptr = &client}};
    if (epoll_ctl(fd_, client.events == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, client.fd, &event) != 0)
      throw failure("epoll_ctl");
    client.events = events;
  }

  /// Waits for so many milliseconds at most. Returns the events, whose data.ptr is the client, until the next call.
  std::span<epoll_event const> wait(int milliseconds) {
    auto const count = epoll_wait(fd_, events_.data(), static_cast<int>(events_.size()), milliseconds);
    return std::span(events_).first(count > 0 ? static_cast<std::size_t>(count) : 0);
  }

 private:
  int fd_ = epoll_create1(EPOLL_CLOEXEC);
  std::array<epoll_event, 256> events_;
};

/// What a process has used, and uses.
struct Usage {
  std::chrono::nanoseconds cpu{};
  double resident_kib = 0, peak_kib = 0, threads = 0;
};

/// Returns nothing if there is no such process. The clock has the same utime + stime as /proc/PID/stat, in finer steps
/// than 10 ms.
inline std::optional<Usage> usage_of(int pid) {
  Usage usage;
  clockid_t clock{};
  timespec time{};
  if (pid <= 0 || clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &time) != 0) return std::nullopt;
  usage.cpu = std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
  std::ifstream status("/proc/" + std::to_string(pid) + "/status");
  for (std::string key; status >> key; status.ignore(std::numeric_limits<std::streamsize>::max(), '\n')) {
    if (key == "VmRSS:") status >> usage.resident_kib;
    if (key == "VmHWM:") status >> usage.peak_kib;
    if (key == "Threads:") status >> usage.threads;
  }
  return usage;
}

}  // namespace crowd
