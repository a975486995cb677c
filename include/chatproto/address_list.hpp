// SPDX-License-Identifier: BSL-1.0
/// @file
/// `AddressList`, networks and addresses in CIDR form, and `Bans`, who may not use a server.
#pragma once

#include <array>
#include <bitset>
#include <charconv>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>

#include <asio/ip/address.hpp>

#include <chatproto/detail/addresses.hpp>

namespace chatproto {

/// A list of networks, such as 192.0.2.0/24 and 2001:db8::/32, and of single addresses.
///
/// @code
/// chatproto::AddressList list;
/// list.add("192.0.2.0/24");
/// if (list.contains(asio::ip::make_address("192.0.2.7"))) std::cout << "it is in the list\n";
/// @endcode
///
/// An IPv4 address that is mapped into an IPv6 address counts as the IPv4 address.
///
/// Thread safety: distinct objects: safe. Shared objects: unsafe.
class AddressList {
 public:
  /// Adds an address, or a network as ADDRESS/LENGTH whose remaining bits are 0. Throws `std::invalid_argument`, whose
  /// text says what is wrong.
  void add(std::string_view text) {
    auto const slash = text.find('/');
    auto const shown = [text] { return '\'' + std::string(text) + '\''; };
    auto const address = detail::parse_address(std::string(text.substr(0, slash)));
    if (!address) throw std::invalid_argument(shown() + " is not an IP address or network");
    auto const bits = address->is_v4() ? 32u : 128u;
    auto length = bits;
    if (slash != text.npos) {
      auto const number = text.substr(slash + 1);
      auto const* const last = number.data() + number.size();
      auto const [end, error] = std::from_chars(number.data(), last, length);
      if (error != std::errc() || end != last || length > bits)
        throw std::invalid_argument(shown() + " needs a length from 0 to " + std::to_string(bits) + " after the slash");
    }
    auto network = Network(detail::unmapped(*address));
    if (network.is_v4 && address->is_v6()) {  // ::ffff:192.0.2.0/120
      if (length < 96) throw std::invalid_argument(shown() + " is neither an IPv4 nor an IPv6 network");
      length -= 96;
    }
    auto const whole = network;
    network.cut(length);
    if (network.bytes != whole.bytes)
      throw std::invalid_argument(shown() + " is not a network: bits after the first " + std::to_string(length) +
                                  " are set");
    networks_.insert(network);
    lengths_[network.is_v4].set(length);
  }

  /// Returns whether `address` is in the list. The time is logarithmic in the number of networks of each length.
  bool contains(asio::ip::address const& address) const {
    if (networks_.empty()) return false;
    Network network(detail::unmapped(address));
    auto const& lengths = lengths_[network.is_v4];
    for (auto length = network.length + 1u; length-- > 0;) {  // each cut leaves less
      if (!lengths[length]) continue;
      network.cut(length);
      if (networks_.contains(network)) return true;
    }
    return false;
  }

  /// Returns whether nothing was added.
  bool empty() const noexcept { return networks_.empty(); }

 private:
  struct Network {
    explicit Network(asio::ip::address const& address) : is_v4(address.is_v4()), length(is_v4 ? 32 : 128) {
      auto const copy = [this](auto const& from) {
        for (std::size_t i = 0; i < from.size(); ++i) bytes[i] = from[i];
      };
      is_v4 ? copy(address.to_v4().to_bytes()) : copy(address.to_v6().to_bytes());
    }
    /// Clears the bits after the first `count`.
    void cut(unsigned count) noexcept {
      length = static_cast<std::uint8_t>(count);
      for (std::size_t i = 0; i < bytes.size(); ++i) {
        auto const kept = count > 8 * i ? count - 8 * i : 0;  // bits of this byte
        if (kept < 8) bytes[i] = static_cast<std::uint8_t>(bytes[i] & ~(0xffu >> kept));
      }
    }
    auto operator<=>(Network const&) const = default;

    bool is_v4;
    std::uint8_t length;
    std::array<std::uint8_t, 16> bytes{};
  };

  std::set<Network> networks_;
  std::array<std::bitset<129>, 2> lengths_;  // that occur, of IPv6 and of IPv4 networks
};

/// Who may not use a server; see `Server::ban`.
struct Bans {
  AddressList addresses = {};                     ///< clients from these addresses are refused
  std::set<std::string, std::less<>> names = {};  ///< users with these names are disconnected
};

}  // namespace chatproto
