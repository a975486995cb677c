// SPDX-License-Identifier: BSL-1.0
/// @file
/// The asynchronous operations of a Connection, for asio::async_compose.
#pragma once

#include <memory>
#include <string>
#include <system_error>
#include <type_traits>
#include <utility>

#include <asio/cancellation_state.hpp>
#include <asio/error.hpp>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>

#include <chatproto/detail/client/connection_state.hpp>

namespace chatproto::detail {

/// The common part of all operations: starts on the executor, waits within the time limit, and tells why an operation
/// was interrupted.
struct Operation {
  std::shared_ptr<ConnectionState> state;
  Clock::time_point until = {};
  int step = 0;

  /// Handles the first two calls: in the caller's thread, and then on the executor. Returns whether the operation is on
  /// the executor.
  template <class Self>
  bool begun(Self& self) {
    if (step == 0) {
      step = 1;
      ++state->async_operations;
      asio::post(state->socket.get_executor(), std::move(self));
      return false;
    }
    if (step == 1) {
      step = 2;
      until = state->deadline();
    }
    return true;
  }

  template <class Self>
  void wait(Self& self, asio::steady_timer& limit) {
    limit.expires_at(until);
    limit.async_wait(std::move(self));
  }

  /// Returns why an operation that was woken must end although it is not done; no error if it need not.
  template <class Self>
  std::error_code cut_short(Self& self) const {
    if (state->cancelled || self.get_cancellation_state().cancelled() != asio::cancellation_type::none)
      return asio::error::operation_aborted;
    if (Clock::now() >= until) return asio::error::timed_out;
    return {};
  }

  template <class Self, class... Result>
  void end(Self& self, std::error_code ec, Result... result) {
    if (ec && state->cancelled) ec = asio::error::operation_aborted;
    --state->async_operations;
    self.complete(ec, std::move(result)...);
  }
};

struct ConnectOperation : Operation {
  std::string host, service;

  template <class Self>
  void operator()(Self& self, std::error_code = {}) {
    if (!this->begun(self)) return;
    if (step == 2) {
      step = 3;
      state->start_connect(host, service);
      return this->wait(self, state->receive_limit);
    }
    if (state->pending_connect) {
      auto const why = this->cut_short(self);
      if (!why) return this->wait(self, state->receive_limit);
      state->pending_connect = false;
      state->layer.reset();  // its handshake is not done, so it has nothing to close
      state->connect_error = why;
      state->resolver.cancel();
    }
    auto const ec = state->connect_error;
    if (ec) state->close();
    this->end(self, ec);
  }
};

/// Sends if `sends`, then waits for what `Take` extracts, unless that is void.
template <bool sends, class Take = void>
struct SendReceiveOp : Operation {
  static constexpr bool receives = !std::is_void_v<Take>;

  std::shared_ptr<std::string const> line;
  std::error_code unsendable = {};

  template <class Self>
  void operator()(Self& self, std::error_code = {}) {
    if (!this->begun(self)) return;
    if constexpr (sends) {
      if (unsendable) return finish(self, unsendable);
      if (step == 2) {
        step = 3;
        state->start_write(line);
        return this->wait(self, state->send_limit);
      }
      if (step == 3) {
        if (state->pending_write) {
          auto const why = this->cut_short(self);
          if (!why) return this->wait(self, state->send_limit);
          return give_up(self, why);
        }
        if (state->write_error) return give_up(self, state->write_error);
        step = 4;
      }
    }
    if constexpr (receives) {
      std::error_code ec;
      auto taken = Take::from(*state, ec);
      if (taken) return this->end(self, ec, std::move(*taken));
      if (ec) return finish(self, ec);
      ec = std::exchange(state->read_error, {});
      if (!ec && step > 4) ec = this->cut_short(self);
      if (ec) {
        state->read_stop.emit(asio::cancellation_type::terminal);
        return sends ? give_up(self, ec) : finish(self, ec);
      }
      step = 5;
      state->start_read();
      this->wait(self, state->receive_limit);
    } else {
      finish(self, {});
    }
  }

 private:
  /// Closes the connection: half a line cannot be taken back, and a late reply would be taken for that of the next
  /// request.
  template <class Self>
  void give_up(Self& self, std::error_code ec) {
    state->close();
    finish(self, ec);
  }
  template <class Self>
  void finish(Self& self, std::error_code ec) {
    if constexpr (receives)
      this->end(self, ec, typename Take::Result());
    else
      this->end(self, ec);
  }
};

}  // namespace chatproto::detail
