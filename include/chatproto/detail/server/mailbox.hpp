// SPDX-License-Identifier: BSL-1.0
/// @file
/// `Mailbox`, through which any thread asks a server to do something on its own context.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <type_traits>

#include <asio/io_context.hpp>
#include <asio/post.hpp>

#include <chatproto/detail/server/handler_memory.hpp>

namespace chatproto::detail {

/// A set of tasks of an object: any thread can ask for one, and the object's context runs it. Asking needs no memory. A
/// task that is asked for twice before it begins runs once.
template <class Owner, void (Owner::*... tasks)()>
class Mailbox {
 public:
  Mailbox(asio::io_context& context, Owner& owner, HandlerMemory& memory)
      : context_(context), owner_(owner), memory_(memory) {}

  /// Asks for one of the tasks. Any thread may call it.
  template <void (Owner::*task)()>
  void ask() noexcept {
    constexpr std::size_t index = index_of<task>();
    static_assert(index < sizeof...(tasks));
    if (asked_.fetch_or(1u << index) == 0) asio::post(context_, memory_(callback<&Mailbox::work>(this)));
  }

 private:
  // Compares types, because GCC's UndefinedBehaviorSanitizer cannot compare member pointers at compile time.
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
  HandlerMemory& memory_;  // must outlive the context; used by one post at a time, as only the first to ask posts
  std::atomic<unsigned> asked_ = 0;
};

}  // namespace chatproto::detail
