// SPDX-License-Identifier: BSL-1.0
// A valid session, unless MEMBER is defined as a near miss.
#include <functional>
#include <string>
#include <string_view>
#include <system_error>

#include <chatproto/detail/server/near_misses.hpp>

#ifndef MEMBER
#define MEMBER bool logged_in() const
#endif
#ifndef KIND
#define KIND
#endif

struct Session KIND {
  void on_line(std::string_view line);
  MEMBER;
};

static_assert(chatproto::detail::has_no_near_miss<Session>());
