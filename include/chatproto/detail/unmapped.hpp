// SPDX-License-Identifier: BSL-1.0
/// @file
/// `unmapped`, the address of an IPv4 client at an IPv6 socket.
#pragma once

#include <asio/ip/address.hpp>
#include <asio/ip/address_v4.hpp>

namespace chatproto::detail {

/// Returns the IPv4 address of an IPv4 client of an IPv6 socket; other addresses as they are.
inline asio::ip::address unmapped(asio::ip::address const& address) {
  if (!address.is_v6() || !address.to_v6().is_v4_mapped()) return address;
  return asio::ip::make_address_v4(asio::ip::v4_mapped, address.to_v6());
}

}  // namespace chatproto::detail
