// SPDX-License-Identifier: BSL-1.0
/// @file
/// `Listener`, which waits for clients and accepts them, and the functions that depend on the system.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <system_error>
#include <utility>

#include <asio/basic_socket_acceptor.hpp>
#include <asio/error.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/socket_base.hpp>
#ifdef _WIN32
#include <asio/windows/overlapped_ptr.hpp>
#else
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#endif

#include <chatproto/server_options.hpp>

namespace chatproto::detail {

// Asio's default acceptor type accepts any executor at run time. That, with the same for timers, costs a tenth of the
// time to compile a server. This one belongs to the server's own context.
using ContextExecutor = asio::io_context::executor_type;
using ContextAcceptor = asio::basic_socket_acceptor<asio::ip::tcp, ContextExecutor>;

/// Returns how many clients the process has descriptors for, after a reserve for the program itself and for `threads`
/// threads.
template <class Policy>
std::size_t client_limit([[maybe_unused]] unsigned threads) noexcept {
  std::size_t each = 1;
  if constexpr (requires { Policy::descriptors_per_client; }) each = Policy::descriptors_per_client;
#ifndef _WIN32
  auto const reserve = 32 + std::uint64_t(3) * threads;  // epoll, its event and its timer
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
    auto const most = static_cast<std::uint64_t>(limit.rlim_cur);  // which is signed on some systems
    return std::max<std::size_t>(static_cast<std::size_t>((most - std::min(most, reserve)) / each), 1);
  }
#endif
  return std::numeric_limits<std::size_t>::max() / each;
}

#ifdef __linux__
/// Returns the lowest memory limit of the control groups that the file `groups` names, as in "0::/a/b" or
/// "9:memory:/a/b", and of each of their ancestors up to the root: a container may see its own group only there. `root`
/// is where the groups are mounted.
inline std::uint64_t group_memory(char const* groups, char const* root) noexcept {
  auto least = std::numeric_limits<std::uint64_t>::max();
  auto* const lines = std::fopen(groups, "re");
  if (lines == nullptr) return least;
  for (char line[512], name[1024]; std::fgets(line, sizeof line, lines) != nullptr;) {
    line[std::strcspn(line, "\n")] = '\0';
    auto* const controllers = std::strchr(line, ':');
    auto* const path = controllers != nullptr ? std::strchr(controllers + 1, ':') : nullptr;
    if (path == nullptr) continue;
    auto const is_second = controllers + 1 == path;  // control groups version 2
    *path = '\0';
    if (!is_second && std::strstr(controllers, "memory") == nullptr) continue;
    auto const* const format = is_second ? "%s%s/memory.max" : "%s/memory%s/memory.limit_in_bytes";
    for (auto* end = path; end != nullptr; end = std::strrchr(path + 1, '/')) {
      *end = '\0';
      std::snprintf(name, sizeof name, format, root, path + 1);
      auto* const file = std::fopen(name, "re");
      if (file == nullptr) continue;
      unsigned long long limit = 0;  // "max" is not a number
      if (std::fscanf(file, "%llu", &limit) == 1) least = std::min<std::uint64_t>(least, limit);
      std::fclose(file);
    }
  }
  std::fclose(lines);
  return least;
}
#endif

/// Returns half of the memory available to the process: the lowest of its limits, its control groups' limits and the
/// machine's memory. 1 GiB if none of these can be determined.
inline std::size_t half_of_memory() noexcept {
  std::uint64_t most = std::uint64_t(2) << 30;  // bytes
#ifdef _SC_PHYS_PAGES
  auto const pages = ::sysconf(_SC_PHYS_PAGES), page_size = ::sysconf(_SC_PAGESIZE);
  if (pages > 0 && page_size > 0) most = static_cast<std::uint64_t>(pages) * static_cast<std::uint64_t>(page_size);
#endif
#ifndef _WIN32
  for (auto const resource : {RLIMIT_AS, RLIMIT_DATA}) {
    rlimit limit{};
    if (::getrlimit(resource, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
      most = std::min<std::uint64_t>(most, limit.rlim_cur);
  }
#endif
#ifdef __linux__
  most = std::min(most, group_memory("/proc/self/cgroup", "/sys/fs/cgroup"));
#endif
  return static_cast<std::size_t>(std::min<std::uint64_t>(most / 2, std::numeric_limits<std::size_t>::max()));
}

template <int name>
using TcpOption = asio::detail::socket_option::integer<IPPROTO_TCP, name>;

/// Sets the socket options of all clients on the listening socket, from which they inherit them without a system call
/// for each client. Skips options that the system does not support.
inline void set_up_clients(ContextAcceptor& acceptor, ServerOptions const& options) {
  std::error_code ignored;
#ifdef __linux__  // elsewhere a client may not inherit it, see Link::start
  acceptor.set_option(asio::ip::tcp::no_delay(true), ignored);
#endif
  if (options.send_buffer > 0) acceptor.set_option(asio::socket_base::send_buffer_size(options.send_buffer), ignored);
  if (options.keepalive.count() <= 0) return;
  acceptor.set_option(asio::socket_base::keep_alive(true), ignored);
  [[maybe_unused]] constexpr auto probes = 4;
  [[maybe_unused]] auto const seconds = static_cast<int>(options.keepalive.count()),
                              interval = std::max(seconds / 4, 1);
#ifdef TCP_KEEPIDLE
  acceptor.set_option(TcpOption<TCP_KEEPIDLE>(seconds), ignored);
#elif defined(TCP_KEEPALIVE)  // macOS
  acceptor.set_option(TcpOption<TCP_KEEPALIVE>(seconds), ignored);
#endif
#if defined(TCP_KEEPINTVL) && defined(TCP_KEEPCNT)
  acceptor.set_option(TcpOption<TCP_KEEPINTVL>(interval), ignored);
  acceptor.set_option(TcpOption<TCP_KEEPCNT>(probes), ignored);
#endif
#ifdef TCP_USER_TIMEOUT  // while data is unacknowledged TCP sends no probes, but retransmits for 15 minutes
  // It also limits how long a peer may keep its window closed, which should be up to the write deadline.
  auto const timeout =
      std::max<std::int64_t>(1000 * (seconds + std::int64_t(probes) * interval), options.write_deadline.count());
  acceptor.set_option(
      TcpOption<TCP_USER_TIMEOUT>(static_cast<int>(std::min<std::int64_t>(timeout, std::numeric_limits<int>::max()))),
      ignored);
#endif
}

/// Takes over a TCP socket that listens already. Throws `std::system_error`.
inline void adopt_listener([[maybe_unused]] ContextAcceptor& acceptor, int descriptor) {
  std::error_code ec = asio::error::operation_not_supported;
#ifndef _WIN32
  sockaddr_storage address{};
  int listens = 0;
  socklen_t size = sizeof address, option_size = sizeof listens;
  ec.clear();
  if (::getsockname(descriptor, reinterpret_cast<sockaddr*>(&address), &size) != 0 ||
      ::getsockopt(descriptor, SOL_SOCKET, SO_ACCEPTCONN, &listens, &option_size) != 0)
    ec = {errno, asio::error::get_system_category()};
  else if (listens == 0 || (address.ss_family != AF_INET && address.ss_family != AF_INET6))
    ec = asio::error::invalid_argument;
  if (!ec) ::fcntl(descriptor, F_SETFD, FD_CLOEXEC);
  using asio::ip::tcp;
  if (!ec) acceptor.assign(address.ss_family == AF_INET ? tcp::v4() : tcp::v6(), descriptor, ec);
#endif
  if (ec) throw std::system_error(ec, "cannot listen on descriptor " + std::to_string(descriptor));
}

/// Waits for clients at a non-blocking acceptor and accepts them. Used only on its context.
///
/// Waiting is separate from accepting, so that a client's executor is chosen when the client is there.
class Listener {
 public:
  explicit Listener(ContextAcceptor& acceptor) : acceptor_(acceptor) {}
  Listener(Listener const&) = delete;
  Listener& operator=(Listener const&) = delete;
  ~Listener() { drop(); }

  /// Sets the protocol of the acceptor, which listens now, and of its clients.
  void set_protocol(asio::ip::tcp protocol) noexcept { protocol_ = protocol; }
  /// Returns the address of the client that was accepted last.
  asio::ip::tcp::endpoint const& address() const noexcept { return address_; }

#ifndef _WIN32
  /// Calls `handler` when there is a client, or with the error.
  void async_wait(auto handler) { acceptor_.async_wait(asio::socket_base::wait_read, std::move(handler)); }

  /// Accepts the client; `would_block` if there is none. Child processes do not inherit it.
  void accept(std::error_code& ec) {
    drop();
    auto size = static_cast<socklen_t>(address_.capacity());
#ifdef SOCK_CLOEXEC  // the only way without a moment in which a fork could copy it
    client_ = ::accept4(acceptor_.native_handle(), address_.data(), &size, SOCK_CLOEXEC);
#else
    client_ = ::accept(acceptor_.native_handle(), address_.data(), &size);
    if (client_ >= 0) ::fcntl(client_, F_SETFD, FD_CLOEXEC);
#endif
    if (client_ < 0) {
      ec = {errno, asio::error::get_system_category()};
    } else {
      ec.clear();
      address_.resize(size);
    }
  }
  /// Makes `socket` that of the client that was accepted, or disconnects it.
  void take(auto& socket, std::error_code& ec) {
    try {
      socket.assign(protocol_, client_, ec);
    } catch (...) {
      ec = asio::error::no_memory;
    }
    if (ec) return drop();
    client_ = -1;
  }

  /// Stops waiting and accepting. Disconnects a client that was not taken.
  void close() {
    std::error_code ignored;
    acceptor_.close(ignored);
    drop();
  }
  /// Disconnects a client that was not taken.
  void drop() {
    if (client_ >= 0) ::close(client_);
    client_ = -1;
  }

 private:
  int client_ = -1;  // accepted and not taken
#else
  // On Windows, Asio's wait_read is a read, which fails on a listening socket, and its accept ties the client to an
  // executor before there is one. So the system accepts into a socket that Asio does not know yet.
  void async_wait(auto handler) {
    if (!there_) drop();
    auto const family = protocol_.family();
    constexpr auto flags = WSA_FLAG_OVERLAPPED | WSA_FLAG_NO_HANDLE_INHERIT;
    if (!there_) client_ = ::WSASocketW(family, SOCK_STREAM, IPPROTO_TCP, nullptr, 0, flags);
    asio::windows::overlapped_ptr operation(
        acceptor_.get_executor(), [this, handler = std::move(handler)](std::error_code const& ec, std::size_t) mutable {
          there_ = client_ != INVALID_SOCKET && (there_ || !ec);
          handler(ec);
        });
    if (there_) return operation.complete({}, 0);
    DWORD received = 0;
    auto const done = ::AcceptEx(acceptor_.native_handle(), client_, addresses_, 0, sizeof addresses_ / 2,
                                 sizeof addresses_ / 2, &received, operation.get());
    std::error_code const ec(done ? 0 : ::WSAGetLastError(), asio::error::get_system_category());
    if (ec && ec.value() != ERROR_IO_PENDING) return operation.complete(ec, 0);
    operation.release();
  }

  void accept(std::error_code& ec) {
    ec = asio::error::would_block;
    if (!there_) return;
    ec.clear();
    auto listener = acceptor_.native_handle();
    ::setsockopt(client_, SOL_SOCKET, SO_UPDATE_ACCEPT_CONTEXT, reinterpret_cast<char const*>(&listener),
                 sizeof listener);
    address_ = {};
    auto size = static_cast<int>(address_.capacity());
    if (::getpeername(client_, address_.data(), &size) == 0) address_.resize(static_cast<std::size_t>(size));
  }
  void take(auto& socket, std::error_code& ec) {
    socket.assign(protocol_, client_, ec);
    if (ec) return drop();
    there_ = false;
    client_ = INVALID_SOCKET;
  }

  void close() {
    std::error_code ignored;
    acceptor_.close(ignored);
    drop();
  }

  /// Disconnects a client that was not taken.
  void drop() {
    if (client_ != INVALID_SOCKET) ::closesocket(client_);
    there_ = false;
    client_ = INVALID_SOCKET;
  }

 private:
  SOCKET client_ = INVALID_SOCKET;  // the client that is there or awaited
  bool there_ = false;
  char addresses_[2 * (sizeof(sockaddr_in6) + 16)];
#endif
  ContextAcceptor& acceptor_;
  asio::ip::tcp::endpoint address_;
  asio::ip::tcp protocol_ = asio::ip::tcp::v4();
};

}  // namespace chatproto::detail
