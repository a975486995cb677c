// SPDX-License-Identifier: BSL-1.0
/// @file
/// `Link`: one client's socket, driven by `LinkRules`.
#pragma once

#include <atomic>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>

#include <asio/basic_stream_socket.hpp>
#include <asio/buffer.hpp>
#include <asio/error.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/post.hpp>

#include <chatproto/detail/layer_io.hpp>
#include <chatproto/detail/server/client_origin.hpp>
#include <chatproto/detail/server/events.hpp>
#include <chatproto/detail/server/flusher.hpp>
#include <chatproto/detail/server/link_rules.hpp>
#include <chatproto/detail/server/socket_io.hpp>
#include <chatproto/detail/socket_error.hpp>
#include <chatproto/executor.hpp>
#include <chatproto/layer.hpp>
#include <chatproto/message_queue.hpp>
#include <chatproto/observer.hpp>
#include <chatproto/peer.hpp>
#include <chatproto/server_options.hpp>
#include <chatproto/service.hpp>

namespace chatproto::detail {

/// What a link needs of its server, callable from any thread.
template <class H, class Link>
concept LinkHost = requires(H& host, Link& link, std::weak_ptr<Link> client, std::chrono::steady_clock::duration time,
                            ClientOrigin& origin, asio::ip::address const& address, std::string_view name) {
  typename H::executor_type;  // of one client
  { host.options() } -> std::same_as<ServerOptions const&>;
  { host.events() } -> std::same_as<Events&>;
  host.service();          // makes the session
  host.remove(link);       // the link has ended
  host.watch_deadlines();  // the link has a deadline, see `due`
  { host.has_memory() } -> std::same_as<bool>;
  host.watch_memory();                 // memory is short: the link waits until `memory_is_free`
  host.end_throttle_in(time, client);  // calls `end_throttle` after that time
  host.handshake_ended(link);          // of a client with a layer, or with the header of a proxy
  host.await_client();                 // the link will call the next one, see `be_awaited`
  host.client_is_done();
  { host.admit(origin) } -> std::same_as<std::optional<RefusalReason>>;  // if it came through a proxy
  { host.is_banned(address, name) } -> std::same_as<bool>;
};

/// One client of a `Host` (a `ServerCore`): its socket and its pending output. `LinkRules` decides what happens, and
/// the link does it; nothing else touches the socket. Its bytes may pass through a `Layer`; the session then begins
/// after the layer's handshake. A step of a handshake takes a turn, as input does, because it may take long.
///
/// Thread safety: any thread may use the queue, and the functions marked "any thread"; all else runs on the client's
/// executor. A link lives as long as somebody owns it (the host, an operation under way, a `Peer`). After `end()` it is
/// only a closed queue.
///
/// A connection ends in one of two ways. At once: `end()`. Or in order: the queue is closed and written out, then our
/// side is shut down, and for a moment the link reads and drops what the client still sends. Closing a socket that
/// holds unread bytes would reset the connection and could destroy what the client has not read yet (RFC 1122,
/// 4.2.2.13).
///
/// An exception here, such as for lack of memory, ends this client and no other: each handler is `guarded`.
template <class Host>
class Link final : public MessageQueue, public std::enable_shared_from_this<Link<Host>> {
  using Session = typename std::remove_reference_t<decltype(std::declval<Host&>().service())>::Session;
  using Rules = LinkRules<Session, Link>;

 public:
  using Executor = typename Host::executor_type;
  using Socket = asio::basic_stream_socket<asio::ip::tcp, Executor>;
  using Clock = std::chrono::steady_clock;

  /// Constructs the link of the host's `number`th client. `is_layered`: `start` will get a factory of layers. `origin`
  /// may be null.
  Link(Host& host, Socket socket, std::uint64_t number, bool is_layered = false,
       std::unique_ptr<ClientOrigin> origin = nullptr)
      : MessageQueue(host.options().queue_limit, host.options().overflow),
        host_(host),
        flusher_(flusher_of<Executor, Link>(socket.get_executor())),
        socket_(std::move(socket)),
        origin_(std::move(origin)),
        rules_(*this, host.options()),
        number_(number),
        in_handshake_(is_layered || (origin_ && origin_->awaits_header)) {
    static_assert(LinkHost<Host, Link>);
  }

  /// Starts the link, on the client's executor. The host may have stopped it already.
  void start(LayerFactory* layers = nullptr) noexcept {
    guarded([&] {
      if (!socket_) return;
      std::error_code ec;
      socket_->non_blocking(true, ec);
#ifndef __linux__
      if (!ec) socket_->set_option(asio::ip::tcp::no_delay(true), ec);
#endif
      if (ec) return end(DisconnectReason::lost, ec);
      if (!is_open()) return;
      if (!awaits_header()) return begin(layers);
      origin_->layers = layers;
      begin_handshake(std::make_unique<ProxyLayer<Socket>>(*socket_));
    });
  }

  /// Ends a link whose `start` could not be posted.
  void drop() noexcept { end(DisconnectReason::failed); }

  /// Writes pending output, on the client's executor.
  void flush() noexcept {
    guarded([this] { write_out(); });
  }
  /// Continues with input that waits, on the client's executor.
  void take_turn() noexcept {
    guarded([this] {
      exchange(listed, false);
      if (in_handshake_)
        continue_handshake();
      else if (rules_.wants_turn())
        count_lines(rules_.take_turn());
      else if (layer_)
        read({});
    });
  }

  /// `flush` or `take_turn` could not be posted, for lack of memory: any thread, also under a queue's lock.
  void not_served() noexcept {
    not_served_ = true;
    host_.watch_deadlines();
  }

  /// When to call `ask_if_overdue`: any thread.
  Clock::time_point due() const noexcept { return is_broken() ? Clock::time_point() : rules_.due(); }
  /// Bytes held for the client: in its queue now, elsewhere at the last `measure`; any thread.
  std::size_t held() const noexcept { return this->is_cut() ? 0 : this->queued_bytes() + rules_.held(); }

  /// Passes no more lines to the session: any thread. If the session must finish something, tells the host when it
  /// has. `done` is released when the host knows of it.
  void stop_reading(std::shared_ptr<void> done) noexcept {
    auto const stop = [](Link& link, auto&) {
      link.rules_.stop_reading();
      link.be_awaited_if(link.rules_.is_awaited());
    };
    post(stop, std::move(done));
  }
  /// Ends the link if its deadline has passed: any thread.
  void ask_if_overdue() noexcept {
    post([](Link& link, auto&) {
      if (link.is_broken()) return link.end(DisconnectReason::failed);
      if (link.due() > Clock::now()) return;
      if (link.rules_.wants_writable()) link.write_out();  // the thread may have been too busy to notice that it can
      link.rules_.time_is_over(Clock::now(), link.in_handshake_);
    });
  }
  /// Ends the link if its handshake is not done: any thread.
  void end_handshake() noexcept {
    post([](Link& link, auto&) {
      if (link.in_handshake_) link.end(DisconnectReason::handshake);
    });
  }
  /// If the client has still to log in, or its handshake is under way, tells the host when that is over: any thread.
  /// `done` is released when the host knows of it.
  void be_awaited(std::shared_ptr<void> done) noexcept {
    auto const look = [](Link& link, auto&) { link.be_awaited_if(link.in_handshake_ || link.rules_.is_awaited()); };
    post(look, std::move(done));
  }
  /// Ends the link if its client is banned: any thread.
  void end_if_banned() noexcept {
    post([](Link& link, auto&) {
      std::error_code ignored;
      auto const address = link.origin_ ? link.origin_->endpoint : link.socket_->remote_endpoint(ignored);
      if (!link.awaits_header() && link.host_.is_banned(address.address(), link.rules_.name()))
        link.end(DisconnectReason::banned);
    });
  }
  /// Ends the wait for the rate limit: any thread.
  void end_throttle() noexcept {
    post([](Link& link, auto&) { link.count_lines(link.rules_.end_throttle()); });
  }
  /// Asks the link to measure what it holds: any thread.
  void measure() noexcept {
    post([](Link& link, auto&) { link.rules_.measure(link.layer_ ? link.layer_->held() : 0); });
  }
  /// Lets the link read again, if it waits for memory: any thread.
  void memory_is_free() noexcept {
    if (needs_memory_.exchange(false)) post([](Link&, auto&) {});  // `guarded` then continues
  }

  Executor executor() { return socket_->get_executor(); }  ///< only before it starts
  std::uint32_t& slot() noexcept { return slot_; }         ///< its index in the host's list of links

 private:
  friend Rules;
  using Flusher = detail::Flusher<Executor, Link>;
  using Wait = typename Socket::wait_type;

  /// The bits of `flags_`. The first ones are those of `waiting`.
  enum Flag : std::uint8_t { listed = 8, layer_closed = 16, awaited = 32 };
  /// Whether an operation is under way that waits for this.
  static constexpr std::uint8_t waiting(Wait what) noexcept { return static_cast<std::uint8_t>(1 << what); }
  static_assert(Socket::wait_read < 3 && Socket::wait_write < 3 && Socket::wait_error < 3);
  bool has(std::uint8_t flag) const noexcept { return (flags_ & flag) != 0; }
  /// Sets the flag. Returns what it was.
  bool exchange(std::uint8_t flag, bool on) noexcept {
    auto const was = has(flag);
    flags_ = static_cast<std::uint8_t>(on ? flags_ | flag : flags_ & ~flag) & 63;
    return was;
  }

  /// Makes the session in place by `open`, so that it need not be movable.
  struct Opening {
    Link& link;
    operator Session() const {
      auto const info = [this] {
        auto known = link.info();
        if (!link.layer_) return known;
        known.is_encrypted = link.layer_->is_encrypted();
        known.certificate = link.layer_->certificate();
        return known;
      };
      return open_session(link.host_.service(), Peer(link.shared_from_this()), info);
    }
  };

  ClientInfo info() const { return origin_ ? info_of(origin_->endpoint) : info_of(*socket_); }

  /// Begins the session, or the handshake of the listener's layer.
  void begin(LayerFactory* layers) {
    if (!tell_connected()) return end(DisconnectReason::failed);
    if (layers != nullptr) return begin_handshake(layers->make_layer(socket_->native_handle(), {}));
    rules_.open(Opening{*this});
  }
  void be_awaited_if(bool needed) noexcept {
    if (!needed) return is_done();
    if (!exchange(awaited, true)) host_.await_client();
  }
  void is_done() noexcept {
    if (exchange(awaited, false)) host_.client_is_done();
  }
  bool tell_connected() {
    auto& events = host_.events();
    return !events.observed() || events.connected(number_, info().address);
  }

  /// Something could not be posted to it, so only `ask_if_overdue` can end it.
  bool is_broken() const noexcept { return this->has_failed() || not_served_; }

  /// Calls `call`, then does what the rules want. An exception ends this client and no other.
  void guarded(auto&& call) noexcept {
    try {
      call();
      go_on();
    } catch (std::exception const& e) {
      fail(e.what());
    } catch (...) {
      fail("not a std::exception");
    }
  }
  void fail(char const* what) noexcept {
    if (socket_) host_.events().threw(number_, what);
    end(DisconnectReason::failed);
  }

  using Action = void (*)(Link&, std::shared_ptr<void> const& kept);
  /// Calls `action` on the client's executor and then releases `kept`: any thread. Returns false if the link has ended.
  /// All actions have one type, because each type of handler costs the compiler about 10 ms.
  bool try_post(Action action, std::shared_ptr<void> kept) {
    return this->unless_finished([&] {
      // Copies `kept`, so that if this throws, the lock is not held when `kept` is destroyed.
      asio::post(socket_->get_executor(), [self = this->shared_from_this(), action, kept] {
        self->guarded([&] {
          if (self->socket_) action(*self, kept);
        });
      });
    });
  }
  /// As above; if posting fails, ends the link.
  void post(Action action, std::shared_ptr<void> kept = nullptr) noexcept {
    try {
      try_post(action, std::move(kept));
    } catch (...) {
      this->cut(State::failed);
    }
  }

  /// Does what the rules want now.
  void go_on() {
    if (!socket_) return;
    if (auto const& over = rules_.over()) return end(*over);
    if (in_handshake_) return wait_for_layer();
    if (has(awaited) && !rules_.is_awaited()) is_done();
    if (rules_.wants_shutdown() && close_layer()) {
      std::error_code ec;
      socket_->shutdown(Socket::shutdown_send, ec);
      if (ec) return end(DisconnectReason::lost, ec);
      rules_.shut_down();
    }
    if (!socket_) return;
    if (rules_.wants_turn()) add_turn();
    if (rules_.wants_input() && !needs_memory_) wait_for_input();
    if (rules_.wants_writable()) wait<Socket::wait_write>();
    if (rules_.wants_errors()) wait<Socket::wait_error>();
    if (rules_.has_new_deadline()) host_.watch_deadlines();
  }
  void add_turn() {
    if (!exchange(listed, true)) flusher_.add_turn(socket_->get_executor(), this->shared_from_this());
  }

  /// Waits, unless it is waiting already.
  template <Wait what>
  void wait() {
    if (exchange(waiting(what), true)) return;
    socket_->async_wait(what, [self = this->shared_from_this()](std::error_code const& ec) {
      self->guarded([&] {
        if (!self->socket_) return;
        self->exchange(waiting(what), false);
        if (self->layer_ && self->layer_is_ready(what, ec)) return;
        if constexpr (what == Socket::wait_read)
          self->read(ec);
        else if constexpr (what == Socket::wait_write)
          self->write_out();
        else
          self->look_for_error();
      });
    });
  }

  void read(std::error_code ec) {
    if (!rules_.wants_input()) return;
    if (!host_.has_memory()) {
      needs_memory_ = true;
      return host_.watch_memory();
    }
    auto* const buffer = ThreadBuffers::mine().read.get();
    std::size_t size = 0;
    if (!ec) size = read_some(buffer, rules_.read_size(), ec);
    add(traffic().bytes_in, size);
    if (ec == asio::error::eof)
      rules_.input_ended();
    else if (layer_ && ec == std::errc::protocol_error)
      rules_.input_ended(false);
    else if (ec && !would_block(ec))
      end(DisconnectReason::lost, ec);
    else if (size > 0)
      count_lines(rules_.received({buffer, size}));
    if (socket_ && layer_) write_answers();
  }
  /// A read may make the layer answer, as to a ping. What the socket did not take has a deadline, as other output has.
  void write_answers() {
    if (rules_.wants_writable() || has(layer_closed)) return;
    if (layer_->flush().wait == Layer::Wait::write) write_out();
  }

  void write_out() {
    if (!socket_) return;
    auto& buffers = ThreadBuffers::mine();
    struct Clear {
      Batch& batch;
      ~Clear() { batch.clear(); }
    } const clear{buffers.output.batch};
    if (!rules_.next_output(buffers.output)) return;
    if (in_handshake_) {
      if (!is_open()) end(DisconnectReason::closed);
      return;
    }
    std::error_code ec;
    if (layer_) return write_to_layer(buffers, ec);
    auto const size = write(*socket_, buffers, ec);
    add(traffic().bytes_out, size);
    if (ec) return end(DisconnectReason::lost, ec);
    rules_.written(buffers.output, size);
  }

  /// The socket reports an error while the link does not read.
  void look_for_error() {
    if (auto const ec = error_of(*socket_)) return end(DisconnectReason::lost, ec);
    // Urgent data, which would wake the link for ever. It waits for no more errors, and sees the end of the connection
    // when it reads again.
    exchange(waiting(Socket::wait_error), true);
  }

  // With a layer. The header of a proxy counts as one, which precedes that of the listener.

  void begin_handshake(std::unique_ptr<Layer> layer) {
    layer_ = std::move(layer);
    layer_waits_ = Layer::Wait::read;  // a client speaks first
    rules_.begin_handshake();
  }
  void end_handshake_phase() noexcept {
    if (std::exchange(in_handshake_, false)) host_.handshake_ended(*this);
  }
  bool awaits_header() const noexcept { return origin_ && origin_->awaits_header; }
  /// A proxy has told for whom it connects.
  void header_is_read() {
    auto const client = static_cast<ProxyLayer<Socket>&>(*layer_).client();
    layer_.reset();
    origin_->awaits_header = false;
    if (client) origin_->endpoint = *client;
    if (auto const reason = client ? host_.admit(*origin_) : std::nullopt) return refuse(*reason);
    if (origin_->layers == nullptr) end_handshake_phase();
    begin(origin_->layers);
  }
  void refuse(RefusalReason reason) {
    tell_connected();
    host_.events().refused(reason, [this] { return info().address; });
    end_handshake_phase();
    if (origin_->layers == nullptr) this->push(std::make_shared<std::string const>(refusal_line(reason)));
    rules_.refuse();
  }

  /// Waits for what the handshake needs, and then takes a turn.
  void wait_for_layer() {
    if (!layer_) return;
    if (rules_.has_new_deadline()) host_.watch_deadlines();
    if (layer_waits_ == Layer::Wait::nothing) return add_turn();
    layer_waits_ == Layer::Wait::read ? wait<Socket::wait_read>() : wait<Socket::wait_write>();
  }
  /// Returns whether the layer waited for this, or the wait failed.
  bool layer_is_ready(Wait what, std::error_code const& ec) {
    if (ec) return end(in_handshake_ ? DisconnectReason::handshake : DisconnectReason::lost, ec), true;
    if (in_handshake_) return layer_waits_ = Layer::Wait::nothing, true;
    if (what == Socket::wait_write && layer_waits_ == Layer::Wait::write) {
      layer_waits_ = Layer::Wait::nothing;
      read({});
    }
    return !socket_;
  }
  void continue_handshake() {
    if (!layer_) return;
    auto const result = layer_->handshake();
    if (result.error == std::errc::not_connected) return end(DisconnectReason::closed);
    if (result.error) return end(DisconnectReason::handshake, result.error);
    layer_waits_ = result.wait;
    if (result.wait != Layer::Wait::nothing) return;
    if (awaits_header()) return header_is_read();
    end_handshake_phase();
    rules_.open(Opening{*this});
  }
  void wait_for_input() {
    if (!layer_ || has(layer_closed)) return wait<Socket::wait_read>();
    if (layer_waits_ == Layer::Wait::write) return wait<Socket::wait_write>();  // also if the layer has input
    layer_->has_input() ? add_turn() : wait<Socket::wait_read>();
  }
  std::size_t read_some(char* buffer, std::size_t size, std::error_code& ec) {
    if (!layer_ || has(layer_closed)) return socket_->read_some(asio::buffer(buffer, size), ec);
    auto wait = Layer::Wait::nothing;
    auto const n = detail::read_some(*layer_, buffer, size, wait, ec);
    layer_waits_ = wait;
    return n;
  }
  void write_to_layer(ThreadBuffers& buffers, std::error_code& ec) {
    auto held = layer_->flush();
    std::size_t size = 0;
    if (!held.error && held.wait == Layer::Wait::nothing) {
      LayerOutput output{*layer_, held};
      size = write(output, buffers, ec);
    }
    add(traffic().bytes_out, size);
    if (held.error) return end(DisconnectReason::lost, held.error);
    rules_.written(buffers.output, size, held.wait != Layer::Wait::nothing, held.bytes > 0);
  }
  /// Tells the other end that nothing follows. Returns false if the socket did not take that yet, or the link has
  /// ended.
  bool close_layer() {
    if (!layer_) return true;
    if (!exchange(layer_closed, true)) layer_->close_output();
    auto const held = layer_->flush();
    if (held.error) return end(DisconnectReason::lost, held.error), false;
    if (held.wait == Layer::Wait::nothing) return true;
    Output nothing;
    rules_.written(nothing, 0, true, held.bytes > 0);
    return false;
  }

  // Called by the rules.
  ServerOptions const& options() const noexcept { return host_.options(); }
  bool logged_in(std::string_view name) { return host_.events().logged_in(number_, name); }
  void throttled(Clock::duration time) {
    add(traffic().throttled, 1);
    host_.end_throttle_in(time, this->weak_from_this());
  }

  // Called by the queue.
  void wake() override { flusher_.add_output(socket_->get_executor(), this->shared_from_this()); }
  void wake_failed() noexcept override { host_.watch_deadlines(); }
  void pause_input() override { rules_.pause(); }
  void resume_input() noexcept override {
    post([](Link& link, auto&) { link.count_lines(link.rules_.resume()); });
  }
  void follow(LogReader* reader) noexcept override { rules_.follow(reader); }
  bool post(std::shared_ptr<MessageQueue::Task> task) override {
    auto const run = [](Link& link, auto& kept) { link.rules_.run(*static_cast<MessageQueue::Task*>(kept.get())); };
    return try_post(run, std::move(task));
  }
  std::uint64_t id() const noexcept override { return number_; }
  void get_executor(ExecutorSlot& slot) override {
    if (socket_) slot.executor = socket_->get_executor();
  }

  Traffic& traffic() noexcept { return host_.events().traffic(number_); }
  void count_lines(std::size_t lines) {
    if (lines > 0) add(traffic().lines_in, lines);
  }

  /// Ends the link now. Its remaining owners find a closed queue.
  void end(DisconnectReason reason, std::error_code error = {}) noexcept {
    if (!socket_) return;
    auto const was_in_handshake = in_handshake_;
    end_handshake_phase();
    is_done();
    try {
      if (awaits_header()) tell_connected();  // of the proxy
    } catch (...) {                           // out of memory: its end is told all the same
    }
    origin_.reset();
    rules_.end(reason);
    this->finish();  // nobody wakes the link from here on
    rules_.forget();
    if (layer_ && *rules_.over() == DisconnectReason::closed && !was_in_handshake && !has(layer_closed)) {
      layer_->close_output();
      layer_->flush();
    }
    layer_.reset();
    std::error_code ignored;
    socket_->close(ignored);
    socket_.reset();
    auto& events = host_.events();
    auto const number = number_;
    auto const why = *rules_.over();
    // First frees its place, because whoever is told of the end may count on that. That may destroy the link.
    host_.remove(*this);
    events.ended(number, why, error);
  }

  Host& host_;
  Flusher& flusher_;
  std::optional<Socket> socket_;          // empty when the link has ended
  std::unique_ptr<Layer> layer_;          // null: the lines travel as they are
  std::unique_ptr<ClientOrigin> origin_;  // null: that of the socket
  Rules rules_;
  std::uint64_t number_;
  std::uint32_t slot_ = 0;
  std::atomic<bool> needs_memory_ = false;  // whether it waits for memory before it reads again
  std::atomic<bool> not_served_ = false;    // see not_served()
  bool in_handshake_;                       // until the session begins, if there is to be a layer
  // In one byte, because an idle client should cost little.
  std::uint8_t flags_ : 6 = 0;
  Layer::Wait layer_waits_ : 2 = Layer::Wait::nothing;  // what the handshake, or a read, waits for
};

}  // namespace chatproto::detail
