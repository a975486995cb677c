// SPDX-License-Identifier: BSL-1.0
/// @file
/// A threading policy and a service, put together.
#pragma once

#include <concepts>
#include <cstdint>
#include <utility>

#include <asio/io_context.hpp>

#include <chatproto/chat_service.hpp>
#include <chatproto/detail/server/near_misses.hpp>
#include <chatproto/detail/server/server_core.hpp>
#include <chatproto/executor.hpp>
#include <chatproto/observer.hpp>
#include <chatproto/server_options.hpp>
#include <chatproto/service.hpp>
#include <chatproto/threading.hpp>

namespace chatproto {

/// A server: listens, gives each client an executor (`Policy`) and a session (`Svc`), until it is stopped.
///
/// @code
/// chatproto::Server<chatproto::ThreadPool> server({.port = 47374});
/// server.run();
/// @endcode
///
/// An error of accepting never ends it: when descriptors or memory are short it tries again later, and those who are
/// connected are served meanwhile. Memory that is short, or an exception of a service, costs the client that it was
/// for.
///
/// Thread safety: distinct objects: safe. Shared objects: `stop`, `port`, `service` and `stats` from any thread; `run`
/// from one.
template <ThreadingPolicy Policy, Service Svc = ChatService>
class Server {
  static_assert(detail::has_no_near_miss<typename Svc::Session>());
  static_assert(detail::service_has_no_near_miss<Svc, asio::io_context, StopMode>());

 public:
  using executor_type = typename Policy::executor_type;  ///< of one client

  /// Listens. `service_args` make the service. Throws `std::system_error`: the address is bad or cannot be bound, or
  /// the policy cannot start its threads.
  template <class... Args>
    requires std::constructible_from<Svc, Args...>
  explicit Server(ServerOptions options = {}, Args&&... service_args)
      : core_(std::move(options), std::forward<Args>(service_args)...) {}
  Server(Server const&) = delete;
  Server& operator=(Server const&) = delete;
  /// Cuts those who are still connected, if `run()` was left by an exception.
  ~Server() = default;

  /// The port that it listens on.
  std::uint16_t port() const noexcept { return core_.port(); }
  /// The service.
  Svc& service() noexcept { return core_.service(); }
  /// What it was told; `max_clients` and `memory_limit` are the limits that hold, never 0.
  ServerOptions const& options() const noexcept { return core_.options(); }
  /// What it has counted: a snapshot, whose figures need not be of quite the same moment. Any thread.
  ServerStats stats() const { return core_.stats(); }
  /// The context on which clients are accepted, run by `run()`: for a `signal_set` or a timer of the program's own.
  asio::io_context& context() noexcept { return core_.context(); }

  /// Serves until it is stopped and the last client has ended. Timers and signal sets on `context()` that still wait do
  /// not hold it up. Call it once. What a handler of the program's own on
  /// `context()` throws comes out of it.
  void run() { core_.run(); }

  /// Makes `run()` return; if it was not called yet, as soon as it is. Returns at once. Idempotent; `StopMode::now`
  /// hastens a drain under way. From any thread, also from a session. Needs no memory.
  void stop(StopMode how = StopMode::drain) noexcept {
    how == StopMode::now ? core_.ask_to_stop() : core_.ask_to_drain();
  }

 private:
  detail::ServerCore<Policy, Svc> core_;
};

}  // namespace chatproto
