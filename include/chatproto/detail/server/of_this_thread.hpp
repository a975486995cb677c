// SPDX-License-Identifier: BSL-1.0
/// @file
/// `of_this_thread`, which returns one object for each thread.
#pragma once

#ifdef __MINGW32__
#include <asio/detail/socket_types.hpp>  // windows.h, included as Asio needs it
#endif

namespace chatproto::detail {

/// Returns the `T` of this thread, which is made on first use and destroyed when the thread ends.
template <class T>
T& of_this_thread() {
#ifdef __MINGW32__  // GCC before 16 frees thread_local objects there before it destroys them (GCC bug 80816)
  struct Slot {
    static void WINAPI destroy(void* mine) { delete static_cast<T*>(mine); }
    DWORD const index = ::FlsAlloc(destroy);
  };
  static Slot const slot;
  auto* mine = static_cast<T*>(::FlsGetValue(slot.index));
  if (mine == nullptr) ::FlsSetValue(slot.index, mine = new T);
  return *mine;
#else
  static thread_local T mine;
  return mine;
#endif
}

}  // namespace chatproto::detail
