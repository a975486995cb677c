// SPDX-License-Identifier: BSL-1.0
/// @file
/// What a server is asked to do on its own context.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <type_traits>

#include <asio/io_context.hpp>
#include <asio/post.hpp>

#include <chatproto/detail/server/handler_memory.hpp>

namespace chatproto::detail {

/// Tasks of an object: any thread asks for one, and the object's context carries it out. Asking needs no memory. A task
/// that is asked for twice before it begins is carried out once.
template <class Owner, void (Owner::*... tasks)()>
class Mailbox {
 public:
  Mailbox(asio::io_context& context, Owner& owner, HandlerMemory& memory)
      : context_(context), owner_(owner), memory_(memory) {}

  /// Asks for one of the tasks. Any thread.
  template <void (Owner::*task)()>
  void ask() noexcept {
    constexpr std::size_t index = index_of<task>();
    static_assert(index < sizeof...(tasks));
    if (asked_.fetch_or(1u << index) == 0) asio::post(context_, memory_(callback<&Mailbox::work>(this)));
  }

 private:
  // Compared as types: with GCC's UndefinedBehaviorSanitizer pointers to members cannot be compared at compile time.
  template <void (Owner::*)()>
  struct Task {};
  template <void (Owner::*task)()>
  static constexpr std::size_t index_of() {
    std::size_t index = 0;
    auto found = false;
    ((found = found || std::is_same_v<Task<task>, Task<tasks>>, index += found ? 0u : 1u), ...);
    return index;
  }
  void work() {
    auto const asked = asked_.exchange(0);
    unsigned bit = 1;
    ((void((asked & bit) != 0 ? (owner_.*tasks)() : void()), bit <<= 1), ...);
  }

  asio::io_context& context_;
  Owner& owner_;
  HandlerMemory& memory_;  // outlives the context; used by one post at a time: whoever asks first posts
  std::atomic<unsigned> asked_ = 0;
};

}  // namespace chatproto::detail
