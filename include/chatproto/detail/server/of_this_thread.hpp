// SPDX-License-Identifier: BSL-1.0
/// @file
/// One object for each thread.
#pragma once

#ifdef __MINGW32__
#include <asio/detail/socket_types.hpp>  // windows.h, as Asio wants it
#endif

namespace chatproto::detail {

/// The `T` of this thread: made when it is first asked for, destroyed when the thread ends.
template <class T>
T& of_this_thread() {
#ifdef __MINGW32__  // whose GCC, before 16, frees what is thread_local before it destroys it (GCC bug 80816)
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
