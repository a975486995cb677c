// SPDX-License-Identifier: BSL-1.0
/// @file
/// `Acceptor`, which listens and keeps accepting clients after every error.
#pragma once

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <asio/basic_stream_socket.hpp>
#include <asio/buffer.hpp>
#include <asio/error.hpp>
#include <asio/ip/tcp.hpp>

#include <chatproto/detail/server/client_origin.hpp>
#include <chatproto/detail/server/events.hpp>
#include <chatproto/detail/server/handler_memory.hpp>
#include <chatproto/detail/server/listener.hpp>
#include <chatproto/detail/server/reliable_timer.hpp>
#include <chatproto/detail/server/socket_io.hpp>
#include <chatproto/layer.hpp>
#include <chatproto/listen.hpp>
#include <chatproto/server_options.hpp>

namespace chatproto::detail {

/// What an acceptor needs of its server, on the server's context.
template <class H, class Executor>
concept AcceptorHost = requires(H& host, asio::basic_stream_socket<asio::ip::tcp, Executor> socket,
                                LayerFactory* layers, asio::ip::tcp::endpoint address,
                                std::unique_ptr<ClientOrigin> origin) {
  { host.context() } -> std::same_as<asio::io_context&>;
  { host.options() } -> std::same_as<ServerOptions const&>;
  { host.events() } -> std::same_as<Events&>;
  { host.has_room() } -> std::same_as<bool>;           // for one more client
  { host.has_memory() } -> std::same_as<bool>;         // for any client; if not, they wait in the network
  host.watch_memory();                                 // watch for free memory
  { host.next_executor() } -> std::same_as<Executor>;  // see `ThreadingPolicy`
  { host.admit(address, origin) } -> std::same_as<std::optional<RefusalReason>>;
  host.add(std::move(socket), layers, std::move(origin));   // adds a client
  { host.has_room_for_handshake() } -> std::same_as<bool>;  // of a client with a layer; if not, they wait
};

/// The memory of an acceptor's operations; it must outlive the context.
struct AcceptorMemory {
  HandlerMemory accept, retry, drop;
};

/// Accepts the clients of one listener of a `Host` (a `ServerCore`), each on an executor of the host's policy.
///
/// Used only on the host's own context. No error ends it. It tries again at once if one connection was lost; if
/// descriptors or memory are short, or the error is unknown, it tries again later, and doubles the delay each time.
template <class Host, class Executor>
class Acceptor {
 public:
  /// Listens. Throws `std::system_error`.
  Acceptor(Host& host, ListenerOptions const& options, AcceptorMemory& memory)
      : host_(host),
        layers_(options.layer.get()),
        memory_(memory),
        acceptor_(host.context()),
        retry_(host.context(), memory.retry, callback<&Acceptor::accept_when_ready>(this)),
        drop_(host.context(), memory.drop, callback<&Acceptor::drop_input>(this)),
        retry_delay_(host.options().accept_retry) {
    static_assert(AcceptorHost<Host, Executor>);
    if (options.descriptor >= 0)
      adopt_listener(acceptor_, options.descriptor);
    else
      listen(acceptor_, options.port, options.address);
    acceptor_.non_blocking(true);
    set_up_clients(acceptor_, host.options());
    auto const endpoint = acceptor_.local_endpoint();
    listener_.set_protocol(endpoint.protocol());
    port_ = endpoint.port();
  }

  std::uint16_t port() const noexcept { return port_; }

  void start() { accept_when_ready(); }

  void stop() {
    listener_.close();
    retry_.cancel();
    drop_.cancel();
    refused_.clear();
    next_executor_.reset();
  }

 private:
  using tcp = asio::ip::tcp;
  struct Refused {
    explicit Refused(asio::io_context& context) : socket(context) {}
    asio::basic_stream_socket<tcp, ContextExecutor> socket;
    std::chrono::steady_clock::time_point until;
  };

  /// Disconnects the client that was accepted, unless it was taken. It would wait for the next one to come.
  struct DropUntaken {
    Listener& listener;
    ~DropUntaken() { listener.drop(); }
  };

  void accept_when_ready() {
    if (!acceptor_.is_open()) return;
    try {
      listener_.async_wait(memory_.accept([this](std::error_code const& ec) {
        if (!acceptor_.is_open()) return;
        if (ec) return accept_later(ec);
        if (!host_.has_memory()) {
          host_.watch_memory();
          return retry_.set(memory_retry);
        }
        if (!has_room_for_handshake()) return retry_.set(handshake_retry);
        accept();
      }));
    } catch (std::bad_alloc const&) {  // on Windows, where the wait does not use our memory
      accept_later(asio::error::no_memory);
    }
  }

  bool has_room_for_handshake() { return layers_ == nullptr || host_.has_room_for_handshake(); }

  void accept_later(std::error_code const& why) {
    host_.events().accept_failed(why);
    auto const delay = std::max(retry_delay_, std::chrono::milliseconds(1));  // avoids a busy loop
    retry_.set(delay);
    retry_delay_ = std::min(2 * delay, std::max(delay, host_.options().accept_retry_most));
  }

  void accept() {
    for (auto i = 0; i < 64 && host_.has_memory() && has_room_for_handshake();
         ++i) {  // after 64 the host's timers get their turn
      std::error_code ec;
      try {
        accept_one(ec);
      } catch (std::system_error const& error) {
        ec = error.code();
      } catch (...) {
        ec = asio::error::no_memory;
      }
      if (ec == asio::error::would_block || ec == asio::error::try_again) break;
      if (!ec)
        retry_delay_ = host_.options().accept_retry;
      else if (ec != asio::error::connection_aborted && ec != asio::error::interrupted && ec != system_error(EPROTO))
        return accept_later(ec);
    }
    accept_when_ready();
  }

  void accept_one(std::error_code& ec) {
    if (!host_.has_room()) return accept_and_refuse(ec);
    if (!next_executor_) {
      try {
        next_executor_.emplace(host_.next_executor());
      } catch (std::system_error const& error) {
        if (is_shortage(error.code())) throw;
        return accept_and_refuse(ec);
      }
    }
    asio::basic_stream_socket<tcp, Executor> socket(*next_executor_);
    listener_.accept(ec);
    if (ec) return;
    DropUntaken const drop_untaken{listener_};
    std::unique_ptr<ClientOrigin> origin;
    if (auto const reason = host_.admit(listener_.address(), origin)) return refuse(*reason, ec);
    listener_.take(socket, ec);
    if (ec) return;
    next_executor_.reset();
    host_.add(std::move(socket), layers_, std::move(origin));
  }

  void accept_and_refuse(std::error_code& ec) {
    listener_.accept(ec);
    DropUntaken const drop_untaken{listener_};
    if (!ec) refuse(RefusalReason::full, ec);
  }
  /// Tells the client that was accepted why it is refused. A client with a layer is only closed, because it expects the
  /// layer's handshake.
  void refuse(RefusalReason reason, std::error_code& ec) {
    Refused client(host_.context());
    listener_.take(client.socket, ec);
    if (ec) return;
    host_.events().refused(reason, [&] { return to_text(listener_.address()); });
    std::error_code ignored;
    client.socket.non_blocking(true, ignored);
    if (ignored) return;  // must not block here
    if (layers_ == nullptr) client.socket.write_some(asio::buffer(refusal_line(reason)), ignored);
    client.socket.shutdown(asio::socket_base::shutdown_send, ignored);
    if (refused_.size() == most_refused) refused_.pop_front();  // resets that client if it still sends
    client.until = std::chrono::steady_clock::now() + host_.options().linger;
    refused_.push_back(std::move(client));
    drop_input();
  }

  /// Reads and drops what refused clients send, which must not reset their connections, see `Link`. One timer serves
  /// them all, because threads or descriptors may be what is short.
  void drop_input() {
    auto const now = std::chrono::steady_clock::now();
    refused_.remove_if([&](Refused& client) {
      char dropped[4096];
      std::error_code ec;
      client.socket.read_some(asio::buffer(dropped), ec);
      return (ec && ec != asio::error::would_block) || now >= client.until;
    });
    if (!refused_.empty() && !drop_.is_set()) drop_.set(std::chrono::milliseconds(20));
  }

  static std::error_code system_error(int value) noexcept { return {value, asio::error::get_system_category()}; }

  static bool is_shortage(std::error_code const& ec) noexcept {
    // Asio's category does not map all of its errors to std::errc.
    return ec == asio::error::no_descriptors || ec == system_error(ENFILE) || ec == asio::error::no_buffer_space ||
           ec == asio::error::no_memory || ec == std::errc::too_many_files_open ||
           ec == std::errc::too_many_files_open_in_system || ec == std::errc::no_buffer_space ||
           ec == std::errc::not_enough_memory;
  }

  /// Part of the reserve of descriptors, see `ServerOptions::max_clients`.
  static constexpr std::size_t most_refused = 8;

  static constexpr auto memory_retry = std::chrono::milliseconds(10);
  static constexpr auto handshake_retry = std::chrono::milliseconds(10);

  Host& host_;
  LayerFactory* const layers_;  // may be null
  AcceptorMemory& memory_;
  ContextAcceptor acceptor_;
  Listener listener_{acceptor_};
  ReliableTimer retry_, drop_;
  std::chrono::milliseconds retry_delay_;
  std::list<Refused> refused_;
  std::optional<Executor> next_executor_;  // made for a client that was not there after all
  std::uint16_t port_ = 0;
};

}  // namespace chatproto::detail
