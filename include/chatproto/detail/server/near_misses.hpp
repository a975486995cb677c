// SPDX-License-Identifier: BSL-1.0
/// @file
/// Compile-time checks that reject sessions and services with a member that is nearly an optional one.
#pragma once

#include <concepts>
#include <string_view>
#include <system_error>
#include <type_traits>

namespace chatproto::detail {

// Members by name. A member that is overloaded, a template or not public has no such pointer.

#define CHATPROTO_MEMBER(name) \
  template <class S>           \
  using member_##name = decltype(&S::name)
CHATPROTO_MEMBER(on_bad_line);
CHATPROTO_MEMBER(flush);
CHATPROTO_MEMBER(on_resume);
CHATPROTO_MEMBER(on_input_end);
CHATPROTO_MEMBER(logged_in);
CHATPROTO_MEMBER(on_badline);
CHATPROTO_MEMBER(on_badLine);
CHATPROTO_MEMBER(onBadLine);
CHATPROTO_MEMBER(on_flush);
CHATPROTO_MEMBER(onFlush);
CHATPROTO_MEMBER(on_resumed);
CHATPROTO_MEMBER(onResume);
CHATPROTO_MEMBER(on_input_ended);
CHATPROTO_MEMBER(onInputEnd);
CHATPROTO_MEMBER(is_logged_in);
CHATPROTO_MEMBER(isLoggedIn);
CHATPROTO_MEMBER(loggedIn);
CHATPROTO_MEMBER(loggedin);
CHATPROTO_MEMBER(on_start);
CHATPROTO_MEMBER(on_stop);
CHATPROTO_MEMBER(on_end);
#undef CHATPROTO_MEMBER

// The calls that a link makes to the optional members.

template <class S>
concept TakesBadLines = requires(S& session) {
  session.on_bad_line(std::error_code());
};
template <class S>
concept Flushes = requires(S& session) {
  session.flush();
};
template <class S>
concept Resumes = requires(S& session) {
  session.on_resume();
};
template <class S>
concept SeesInputEnd = requires(S& session) {
  session.on_input_end();
};
template <class S>
concept TellsLogin = requires(S const& session) {
  session.logged_in() ? 1 : 0;
};
template <class S>
concept TellsName = requires(S const& session) {
  { session.name() } -> std::convertible_to<std::string_view>;
};

// Members with a result that were declared without const, or with another result type.

template <class S>
concept AlmostTellsLogin = requires(S& session) {
  session.logged_in();
};
template <class S>
concept AlmostTellsName = requires(S& session) {
  session.name();
};

/// A member function with any parameters.
template <class S, template <class> class Member>
concept HasFunction = std::is_member_function_pointer_v<Member<S>>;
/// A member function that can be called without arguments.
template <class S, template <class> class Member>
concept HasCall = HasFunction<S, Member> && std::invocable<Member<S>, S&>;
/// Such a function that returns a bool.
template <class S, template <class> class Member>
concept HasQuestion = HasFunction<S, Member> && std::predicate<Member<S>, S&>;

// Any other member of that name, private or a template, makes `&Both::name` ambiguous. This cannot tell functions from
// data, so it is used only for names that are unlikely for data.

struct OursToo {
  int on_bad_line, on_resume, on_input_end, on_start, on_stop, on_end;
};
template <class S>
struct Both : S, OursToo {};

template <class S, template <class> class Member>
concept Lacks = std::is_final_v<S> || std::is_union_v<S> || requires {
  typename Member<Both<S>>;
};
/// Neither such a member nor a public function.
template <class S, template <class> class Member>
concept Nowhere = Lacks<S, Member> && !HasFunction<S, Member>;

/// Fails to compile for a session that has an optional member of a `LineSession` nearly right, so that a server would
/// silently ignore it. Accepts members that may have another purpose: data; functions that are overloaded, templates or
/// private (except `on_bad_line`, `on_resume` and `on_input_end`); a `name` that takes an argument; and common names,
/// such as `resume` or `bad_line`.
template <class S>
constexpr bool has_no_near_miss() {
  static_assert(TakesBadLines<S> || Nowhere<S, member_on_bad_line>,
                "a session's on_bad_line must be public and take an error: write void on_bad_line(std::error_code ec)");
  static_assert(Flushes<S> || !HasFunction<S, member_flush>,
                "a session's flush must take no arguments: write void flush(), or give it another name");
  static_assert(Resumes<S> || Nowhere<S, member_on_resume>,
                "a session's on_resume must be public and take no arguments: write void on_resume()");
  static_assert(SeesInputEnd<S> || Nowhere<S, member_on_input_end>,
                "a session's on_input_end must be public and take no arguments: write void on_input_end()");
  static_assert(TellsLogin<S> || !(AlmostTellsLogin<S> || HasFunction<S, member_logged_in>),
                "a session's logged_in must be const and return a bool: write bool logged_in() const");
  static_assert(TellsName<S> || !AlmostTellsName<S>,
                "a session's name must be const and return a text: write std::string_view name() const");

  static_assert(TakesBadLines<S> || !(HasFunction<S, member_on_badline> || HasFunction<S, member_on_badLine> ||
                                      HasFunction<S, member_onBadLine>),
                "a session's on_badline, on_badLine or onBadLine is never called: "
                "write void on_bad_line(std::error_code ec)");
  static_assert(Flushes<S> || !(HasCall<S, member_on_flush> || HasCall<S, member_onFlush>),
                "a session's on_flush or onFlush is never called: write void flush()");
  static_assert(Resumes<S> || !(HasCall<S, member_on_resumed> || HasCall<S, member_onResume>),
                "a session's on_resumed or onResume is never called: write void on_resume()");
  static_assert(SeesInputEnd<S> || !(HasCall<S, member_on_input_ended> || HasCall<S, member_onInputEnd>),
                "a session's on_input_ended or onInputEnd is never called: write void on_input_end()");
  static_assert(
      TellsLogin<S> || !(HasQuestion<S, member_is_logged_in> || HasQuestion<S, member_isLoggedIn> ||
                         HasQuestion<S, member_loggedIn> || HasQuestion<S, member_loggedin>),
      "a session's is_logged_in, isLoggedIn, loggedIn or loggedin is never called: write bool logged_in() const");
  return true;
}

/// As above, for a service.
template <class S, class Context, class How>
constexpr bool service_has_no_near_miss() {
  static_assert(
      requires(S & service, Context & context) { service.on_start(context); } || Nowhere<S, member_on_start>,
      "a service's on_start must be public and take the context: write void on_start(asio::io_context& context)");
  static_assert(
      requires(S & service, How how) { service.on_stop(how); } || Nowhere<S, member_on_stop>,
      "a service's on_stop must be public and take the stop mode: write void on_stop(chatproto::StopMode how)");
  static_assert(
      requires(S & service) { service.on_end(); } || Nowhere<S, member_on_end>,
      "a service's on_end must be public and take no arguments: write void on_end()");
  return true;
}

}  // namespace chatproto::detail
