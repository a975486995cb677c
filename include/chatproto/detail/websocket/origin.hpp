// SPDX-License-Identifier: BSL-1.0
/// @file
/// `Origin` (RFC 6454), and the names of hosts in requests.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <chatproto/detail/websocket/http_message.hpp>
#include <chatproto/layer.hpp>

namespace chatproto::detail {

/// Returns the host of `HOST` or `HOST:PORT`. An IPv6 address keeps its brackets.
inline std::string_view host_of(std::string_view authority) noexcept {
  auto const address = authority.starts_with('[') ? authority.find(']') : 0;
  return address == authority.npos ? authority : authority.substr(0, authority.find(':', address));
}

/// Where a page came from: `SCHEME://HOST` or `SCHEME://HOST:PORT`.
struct Origin {
  std::string_view scheme = {}, authority = {};

  /// Returns an empty one if the text is no origin.
  static Origin parse(std::string_view text) noexcept {
    auto const colon = text.find("://");
    if (colon == text.npos) return {};
    return {text.substr(0, colon), text.substr(colon + 3)};
  }
  bool is_scheme(std::string_view name) const noexcept { return is_same_ignoring_case(scheme, name); }
  /// Returns whether both are the same. A port that is the scheme's own may be left out.
  bool is_same(Origin const& other) const noexcept {
    return !authority.empty() && is_scheme(other.scheme) &&
           is_same_ignoring_case(without_usual_port(), other.without_usual_port());
  }

 private:
  std::string_view without_usual_port() const noexcept {
    auto const port = authority.substr(host_of(authority).size());
    auto const usual = is_scheme("http") ? ":80" : is_scheme("https") ? ":443" : "";
    return port == usual ? host_of(authority) : authority;
  }
};

/// Returns whether a name never leads to another machine (RFC 6761, section 6.3).
inline bool is_local_name(std::string_view name) noexcept {
  constexpr std::string_view local = "localhost";
  if (name.ends_with('.')) name.remove_suffix(1);
  if (name.size() < local.size()) return false;
  auto const rest = name.size() - local.size();
  return is_same_ignoring_case(name.substr(rest), local) && (rest == 0 || name[rest - 1] == '.');
}
/// Returns whether a host is an IPv4 address, or an IPv6 address in brackets.
inline bool is_address(std::string_view host) noexcept {
  if (host.starts_with('[')) return true;  // no name begins so
  std::array<char, INET_ADDRSTRLEN> text{};
  if (host.size() >= text.size()) return false;
  host.copy(text.data(), host.size());
  ::in_addr address;
  return ::inet_pton(AF_INET, text.data(), &address) == 1;
}

/// Returns whether all characters are visible ASCII ones, so that they may stand in a header field.
inline bool is_visible(std::string_view text) noexcept {
  return std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c < 0x7f; });
}

/// The address of one end of a connection, as far as it is one of the internet.
class SocketAddress {
 public:
  static SocketAddress local(NativeSocket socket) noexcept { return SocketAddress(socket, &::getsockname); }
  static SocketAddress remote(NativeSocket socket) noexcept { return SocketAddress(socket, &::getpeername); }

  bool is_loopback() const noexcept {
    constexpr std::array<std::uint8_t, 12> mapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    if (any_.sa.sa_family == AF_INET) return ::ntohl(any_.v4.sin_addr.s_addr) >> 24 == 127;
    if (any_.sa.sa_family != AF_INET6) return false;
    auto const* const bytes = any_.v6.sin6_addr.s6_addr;
    if (std::equal(mapped.begin(), mapped.end(), bytes)) return bytes[12] == 127;
    return IN6_IS_ADDR_LOOPBACK(&any_.v6.sin6_addr);
  }
  /// Returns 0 if it has none.
  std::uint16_t port() const noexcept {
    if (any_.sa.sa_family == AF_INET) return ::ntohs(any_.v4.sin_port);
    return any_.sa.sa_family == AF_INET6 ? ::ntohs(any_.v6.sin6_port) : std::uint16_t(0);
  }

 private:
  SocketAddress(NativeSocket socket, int (*get)(int, ::sockaddr*, ::socklen_t*)) noexcept {
    ::socklen_t size = sizeof any_;
    if (get(socket, &any_.sa, &size) != 0) any_.sa.sa_family = AF_UNSPEC;
  }

  union {
    ::sockaddr sa;
    ::sockaddr_in v4;
    ::sockaddr_in6 v6;
    ::sockaddr_storage all{};
  } any_;
};

inline bool is_loopback(NativeSocket socket) noexcept { return SocketAddress::local(socket).is_loopback(); }

/// Returns what names the server that a client has connected to by this name or address.
inline std::string authority_of(std::string_view host, NativeSocket socket, std::uint16_t usual_port) {
  auto text = host.find(':') == host.npos ? std::string(host) : '[' + std::string(host.substr(0, host.find('%'))) + ']';
  auto const port = SocketAddress::remote(socket).port();
  if (port != 0 && port != usual_port) text += ':' + std::to_string(port);
  return text;
}

}  // namespace chatproto::detail
