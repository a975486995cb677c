// SPDX-License-Identifier: BSL-1.0
/// @file
/// Waits with a time limit for blocking calls: for a socket and for a name look-up.
#pragma once

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include <asio/error.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#ifndef _WIN32
#include <poll.h>
#endif

namespace chatproto::detail {

using Clock = std::chrono::steady_clock;

/// Returns the error of the last call of a system socket function.
inline std::error_code last_error() noexcept {
#ifdef _WIN32
  auto const value = ::WSAGetLastError();
#else
  auto const value = errno;
#endif
  return {value, asio::error::get_system_category()};
}

/// Waits at most `milliseconds` until `socket` can be read or written, or has failed. Returns how many sockets are
/// ready, 0 or 1, or -1 for an error.
inline int poll_once(asio::ip::tcp::socket& socket, bool writable, int milliseconds) noexcept {
#ifdef _WIN32  // WSAPoll does not report a failed connect before Windows 10 2004
  ::fd_set ready, failed;
  FD_ZERO(&ready);
  FD_SET(socket.native_handle(), &ready);
  failed = ready;
  ::timeval time{milliseconds / 1000, milliseconds % 1000 * 1000};
  return std::min(::select(0, writable ? nullptr : &ready, writable ? &ready : nullptr, &failed, &time), 1);
#else
  pollfd waiting{socket.native_handle(), static_cast<short>(writable ? POLLOUT : POLLIN), 0};
  return ::poll(&waiting, 1, milliseconds);
#endif
}

/// Waits until `socket` can be read or written, or another thread sets `cancelled` and shuts it down. Returns false if
/// `deadline` has passed, or on an error, which is in `ec`.
inline bool poll_until(asio::ip::tcp::socket& socket, bool writable, Clock::time_point deadline,
                       std::atomic<bool> const& cancelled, std::error_code& ec) {
#ifdef _WIN32  // on Windows a shutdown does not wake a waiting thread
  constexpr auto longest = 50;
#else
  constexpr auto longest = 1 << 30;
#endif
  for (;;) {
    auto left = longest;
    if (deadline != Clock::time_point::max()) {
      auto const time = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
      left = static_cast<int>(std::clamp<std::int64_t>(time, 0, longest));
    }
    auto const n = poll_once(socket, writable, left);
    if (n > 0 || cancelled) return true;
    if (n == 0 && Clock::now() >= deadline) return false;
    if (n == 0) continue;
    ec = last_error();
    if (ec != asio::error::interrupted) return false;
    ec.clear();
  }
}

/// Starts to connect a non-blocking socket. Returns `in_progress` or, on Windows, `would_block` if that takes a while.
inline std::error_code begin_to_connect(asio::ip::tcp::socket& socket, asio::ip::tcp::endpoint const& endpoint) {
  auto const size = static_cast<::socklen_t>(endpoint.size());
  return ::connect(socket.native_handle(), endpoint.data(), size) == 0 ? std::error_code() : last_error();
}

/// A name look-up in its own thread: the system's look-up cannot be cancelled, so it may outlive its caller.
struct Lookup {
  using Results = asio::ip::tcp::resolver::results_type;

  static std::shared_ptr<Lookup> start(std::string host, std::string service) {
    auto lookup = std::make_shared<Lookup>();
    std::thread([lookup, host = std::move(host), service = std::move(service)] {
      asio::io_context context;
      std::error_code ec;
      auto found = asio::ip::tcp::resolver(context).resolve(host, service, ec);
      std::lock_guard const lock(lookup->mutex);
      lookup->results = std::move(found);
      lookup->error = ec;
      lookup->done = true;
      lookup->changed.notify_all();
    }).detach();
    return lookup;
  }
  void cancel() {
    std::lock_guard const lock(mutex);
    done = true;
    error = asio::error::operation_aborted;
    changed.notify_all();
  }

  std::mutex mutex;
  std::condition_variable changed;
  bool done = false;
  std::error_code error;
  Results results;
};

}  // namespace chatproto::detail
