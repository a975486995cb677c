// SPDX-License-Identifier: BSL-1.0
/// @file
/// The servers of `ChatService`, compiled once for a whole program: for shorter builds.
///
/// A program that defines `CHATPROTO_COMPILED` in all its files instantiates `Server<Policy>` for the three policies of
/// threading.hpp in none of them. One of its files, or a library of its own, includes this header, which does. CMake's
/// target `chatproto::compiled` is such a library. Servers of other policies and services are compiled where they are
/// used, as ever.
#pragma once

/// @cond
#ifndef CHATPROTO_COMPILED
#define CHATPROTO_COMPILED
#endif

#include <chatproto/server.hpp>
#include <chatproto/threading.hpp>

namespace chatproto {

template class Server<ThreadPerClient>;
template class Server<ThreadPool>;
template class Server<StrandPool>;
template Server<ThreadPerClient>::Server(ServerOptions);
template Server<ThreadPool>::Server(ServerOptions);
template Server<StrandPool>::Server(ServerOptions);

}  // namespace chatproto
/// @endcond
