// SPDX-License-Identifier: BSL-1.0
/// @file
/// `HandlerMemory`, preallocated memory for operations that must continue when memory is short.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>

namespace chatproto::detail {

/// Calls a member function of an object. One type serves all, because each type of handler costs the compiler about 10
/// ms.
struct Callback {
  void* object;
  void (*function)(void* object);
  void operator()() const { function(object); }
};
template <auto member, class T>
Callback callback(T* object) noexcept {
  return {object, [](void* it) { (static_cast<T*>(it)->*member)(); }};
}

/// Memory for one operation at a time. Asio frees it before it calls the handler, which may then start the next.
class HandlerMemory {
 public:
  HandlerMemory() = default;
  HandlerMemory(HandlerMemory const&) = delete;
  HandlerMemory& operator=(HandlerMemory const&) = delete;

  template <class T>
  struct Allocator {
    using value_type = T;
    explicit Allocator(HandlerMemory& from) noexcept : memory(&from) {}
    template <class U>
    Allocator(Allocator<U> const& other) noexcept : memory(other.memory) {}
    template <class U>
    bool operator==(Allocator<U> const& other) const noexcept {
      return memory == other.memory;
    }

    T* allocate(std::size_t n) {
      if (n * sizeof(T) > sizeof memory->bytes_ || std::exchange(memory->used_, true))
        return std::allocator<T>().allocate(n);
      return reinterpret_cast<T*>(memory->bytes_);
    }
    void deallocate(T* at, std::size_t n) noexcept {
      if (static_cast<void*>(at) != memory->bytes_) return std::allocator<T>().deallocate(at, n);
      memory->used_ = false;
    }

    HandlerMemory* memory;
  };

  /// Returns `handler` with this memory for its operation, which is used if it is free and large enough.
  auto operator()(auto handler) { return Handler<decltype(handler)>{this, std::move(handler)}; }
  /// Returns an allocator for one object.
  template <class T>
  Allocator<T> allocator() noexcept {
    return Allocator<T>(*this);
  }

 private:
  template <class F>
  struct Handler {
    using allocator_type = Allocator<void>;
    allocator_type get_allocator() const noexcept { return allocator_type(*memory); }
    template <class... Args>
    void operator()(Args&&... args) {
      handler(std::forward<Args>(args)...);
    }

    HandlerMemory* memory;
    F handler;
  };

  alignas(std::max_align_t) std::byte bytes_[192];
  bool used_ = false;
};

}  // namespace chatproto::detail
