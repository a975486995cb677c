// SPDX-License-Identifier: BSL-1.0
/// @file
/// Waiting in a blocking call, but not for ever: for a socket, for a name.
#pragma once

#include <algorithm>
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

/// Waits until `socket` can be read or written, at most until `deadline`; false: it is over, or `ec` is set.
inline bool poll_until(asio::ip::tcp::socket& socket, bool writable, Clock::time_point deadline, std::error_code& ec) {
  for (;;) {
    auto left = -1;
    if (deadline != Clock::time_point::max()) {
      auto const time = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
      left = static_cast<int>(std::clamp<std::int64_t>(time, 0, 1 << 30));
    }
#ifdef _WIN32
    WSAPOLLFD waiting{socket.native_handle(), static_cast<SHORT>(writable ? POLLOUT : POLLIN), 0};
    auto const n = ::WSAPoll(&waiting, 1, left);
    auto const error = n < 0 ? ::WSAGetLastError() : 0;
#else
    pollfd waiting{socket.native_handle(), static_cast<short>(writable ? POLLOUT : POLLIN), 0};
    auto const n = ::poll(&waiting, 1, left);
    auto const error = n < 0 ? errno : 0;
#endif
    if (n > 0) return true;
    if (n == 0 && Clock::now() >= deadline) return false;
    ec = std::error_code(error, asio::error::get_system_category());
    if (ec && ec != asio::error::interrupted) return false;
    ec.clear();
  }
}

/// A name look-up in a thread of its own: the system's cannot be cancelled, so it may outlive its asker.
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
