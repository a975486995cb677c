// SPDX-License-Identifier: BSL-1.0
/// @file
/// What a program that decides who may log in to the chat gets: `Credentials`, with a `Secret`, and a `Verdict`.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include <chatproto/message.hpp>
#include <chatproto/peer.hpp>
#include <chatproto/service.hpp>

namespace chatproto {

/// A secret, whose memory is overwritten before it is freed.
///
/// Thread safety: distinct objects: safe. Shared objects: const members are safe.
class Secret {
 public:
  Secret() = default;
  /// Copies `text`, which may have any bytes.
  explicit Secret(std::string_view text) : bytes_(new char[text.size()]), size_(text.size()) {
    std::copy(text.begin(), text.end(), bytes_.get());
  }
  /// Takes over the bytes of `other`.
  Secret(Secret&& other) noexcept : bytes_(std::move(other.bytes_)), size_(std::exchange(other.size_, 0)) {}
  /// Exchanges the bytes with `other`, which wipes them when it is destroyed.
  Secret& operator=(Secret&& other) noexcept {
    std::swap(bytes_, other.bytes_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~Secret() { wipe(bytes_.get(), size_); }

  /// Returns the bytes, valid as long as the secret is.
  std::string_view view() const noexcept { return {bytes_.get(), size_}; }
  /// Returns whether there is none.
  bool empty() const noexcept { return size_ == 0; }

  /// Overwrites memory. The compiler does not leave that out.
  static void wipe(char* memory, std::size_t size) noexcept {
    std::fill_n(static_cast<char volatile*>(memory), size, '\0');
  }

 private:
  std::unique_ptr<char[]> bytes_;
  std::size_t size_ = 0;
};

/// What a client logs in with.
struct Credentials {
  std::string name = {};   ///< a valid user name
  Secret secret = {};      ///< what `pass:` brought; empty without it
  ClientInfo client = {};  ///< its address, and the name in its certificate
};

namespace detail {

/// A login that waits for its verdict. Shared by the client's session and the `Verdict`.
class PendingLogin {
 public:
  enum class State : std::uint8_t { waiting, accepted, refused };

  /// `under_way` counts the logins that wait; the caller has counted this one.
  PendingLogin(Peer peer, std::shared_ptr<std::atomic<std::size_t>> under_way) noexcept
      : peer_(std::move(peer)), under_way_(std::move(under_way)) {}

  State state() const noexcept { return state_.load(std::memory_order_acquire); }
  /// Returns what to tell the client, once it is refused; empty: the usual words.
  std::string const& reason() const noexcept { return reason_; }
  bool is_wanted() const noexcept { return peer_.is_open(); }

  /// Called once, by any thread.
  void settle(State state, std::string reason = {}) noexcept {
    reason_ = std::move(reason);
    under_way_->fetch_sub(1, std::memory_order_relaxed);
    state_.store(state, std::memory_order_release);
    peer_.resume();
  }

 private:
  Peer const peer_;
  std::shared_ptr<std::atomic<std::size_t>> const under_way_;
  std::string reason_;
  std::atomic<State> state_ = State::waiting;
};

}  // namespace detail

/// Decides a login, once. The client waits for it, until the login deadline. A verdict that is destroyed without a
/// decision refuses.
///
/// It may outlive the client and the server, and then does nothing.
///
/// Thread safety: distinct objects: safe, and any thread may use them. Shared objects: unsafe.
class Verdict {
 public:
  /// Constructs the verdict on `login`, which must be waiting. Null: there is nothing to decide.
  explicit Verdict(std::shared_ptr<detail::PendingLogin> login) noexcept : login_(std::move(login)) {}
  /// Takes over what is to be decided.
  Verdict(Verdict&&) noexcept = default;
  /// Refuses what was to be decided so far, and takes over the other.
  Verdict& operator=(Verdict&& other) noexcept {
    if (this != &other) {
      refuse();
      login_ = std::move(other.login_);
    }
    return *this;
  }
  ~Verdict() { refuse(); }

  /// Lets the client in. Does nothing if there is a decision already.
  void accept() noexcept { settle(detail::PendingLogin::State::accepted, {}); }
  /// Refuses the client, which gets `err:` and `reason`. With an empty reason, or one that does not fit a line, these
  /// are the same words for every refused login. Does nothing if there is a decision already.
  void refuse(std::string reason = {}) noexcept {
    if (check_text(reason, tag::err.size() + 1)) reason.clear();
    settle(detail::PendingLogin::State::refused, std::move(reason));
  }

  /// Returns whether there is no decision yet and the client still waits for one. Another thread may close the client
  /// at any time.
  bool is_wanted() const noexcept { return login_ && login_->is_wanted(); }

 private:
  void settle(detail::PendingLogin::State state, std::string reason) noexcept {
    if (auto const login = std::exchange(login_, nullptr)) login->settle(state, std::move(reason));
  }

  std::shared_ptr<detail::PendingLogin> login_;
};

}  // namespace chatproto
