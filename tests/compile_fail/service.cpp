// SPDX-License-Identifier: BSL-1.0
// A valid service, unless a macro is defined that spoils it.
#include <string>
#include <string_view>
#include <utility>

#include <chatproto/server.hpp>

#ifndef SESSION
#define SESSION Session
#endif
#ifndef OPEN
#define OPEN open
#endif
#ifndef OPENED
#define OPENED SESSION
#endif
#ifndef ON_LINE
#define ON_LINE on_line
#endif

#ifndef MEMBER
#define MEMBER bool logged_in() const
#endif

#ifndef SERVICE_MEMBER
#define SERVICE_MEMBER void on_end()
#endif

struct Echo {
  struct SESSION {
    MEMBER { return true; }
    chatproto::Peer peer;
    void ON_LINE(std::string_view line) { peer.send(std::string(line) + '\n'); }
  };
  OPENED OPEN(chatproto::Peer peer) { return OPENED{std::move(peer)}; }
  SERVICE_MEMBER {}
};

template class chatproto::Server<chatproto::ThreadPool, Echo>;
