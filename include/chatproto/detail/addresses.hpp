// SPDX-License-Identifier: BSL-1.0
/// @file
/// Addresses as text, and the address of an IPv4 client at an IPv6 socket.
#pragma once

#include <optional>
#include <string>
#include <system_error>

#include <asio/ip/address.hpp>
#include <asio/ip/address_v4.hpp>

namespace chatproto::detail {

/// Returns the address that `text` is, and nothing else; no zone. Systems differ in what else they accept: 010 for 8,
/// "192.0.2" for 192.0.0.2, a port.
inline std::optional<asio::ip::address> parse_address(std::string const& text) {
  std::error_code ec;
  auto const address = asio::ip::make_address(text, ec);
  auto const is_exact = !ec && (address.is_v4() ? address.to_string() == text
                                                : text.find_first_not_of("0123456789abcdefABCDEF.:") == text.npos);
  return is_exact ? std::optional(address) : std::nullopt;
}

/// Returns the IPv4 address of an IPv4 client of an IPv6 socket; other addresses as they are.
inline asio::ip::address unmapped(asio::ip::address const& address) {
  if (!address.is_v6() || !address.to_v6().is_v4_mapped()) return address;
  return asio::ip::make_address_v4(asio::ip::v4_mapped, address.to_v6());
}

}  // namespace chatproto::detail
