// SPDX-License-Identifier: BSL-1.0
/// @file
/// `ProxyHeader`, which reads the header of the PROXY protocol, versions 1 and 2.
#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

#include <asio/ip/address.hpp>
#include <asio/ip/tcp.hpp>

#include <chatproto/detail/addresses.hpp>

namespace chatproto::detail {

/// Reads what a proxy sends first: for whom it connects (https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt).
///
/// Strict: what the specification does not allow is invalid, as soon as it is seen. Extensions (TLV) are skipped, also
/// a checksum. Keeps at most 107 bytes.
class ProxyHeader {
 public:
  enum class State { incomplete, complete, invalid };

  State state() const noexcept { return state_; }

  /// The client, once the header is complete. Empty if the header names none, as for a check by the proxy itself: then
  /// the address of the connection counts.
  std::optional<asio::ip::tcp::endpoint> const& client() const noexcept { return client_; }

  /// Takes the next bytes. Returns how many of them belong to the header: the others are not its own.
  std::size_t feed(std::string_view bytes) {
    std::size_t taken = 0;
    while (state_ == State::incomplete && taken < bytes.size()) {
      if (to_skip_ > 0) {
        auto const skipped = std::min(to_skip_, bytes.size() - taken);
        taken += skipped;
        to_skip_ -= skipped;
        if (to_skip_ == 0) state_ = State::complete;
        continue;
      }
      kept_.push_back(bytes[taken++]);
      kept_.front() == signature.front() ? read_v2() : read_v1();
    }
    return taken;
  }

 private:
  static constexpr std::string_view signature = {"\r\n\r\n\0\r\nQUIT\n", 12};
  static constexpr std::size_t v1_size = 107, v2_size = 16;  // at most; without addresses

  bool is_still(std::string_view start) const noexcept {
    auto const size = std::min(start.size(), kept_.size());
    return start.substr(0, size) == std::string_view(kept_).substr(0, size);
  }
  void fail() noexcept { state_ = State::invalid; }

  void read_v1() {
    auto const line = std::string_view(kept_);
    if (!is_still("PROXY ")) return fail();
    if (line.ends_with("\r\n")) return read_line(line.substr(6, line.size() - 8));
    // No single CR or LF ends the line.
    if (line.back() == '\n' || line.substr(0, line.size() - 1).ends_with('\r') || line.size() == v1_size) fail();
  }
  /// `rest` is what follows "PROXY ": "TCP4 SOURCE DESTINATION PORT PORT".
  void read_line(std::string_view rest) {
    state_ = State::complete;
    if (rest == "UNKNOWN" || rest.starts_with("UNKNOWN ")) return;
    std::array<std::string_view, 5> words;
    for (auto& word : words) {
      auto const space = rest.find(' ');
      if ((space == rest.npos) != (&word == &words.back())) return fail();
      word = rest.substr(0, space);
      rest.remove_prefix(std::min(rest.size(), word.size() + 1));
    }
    if (words[0] != "TCP4" && words[0] != "TCP6") return fail();
    auto const is_v4 = words[0] == "TCP4";
    auto const source = read_address(words[1], is_v4), destination = read_address(words[2], is_v4);
    auto const port = read_port(words[3]);
    if (!source || !destination || !port || !read_port(words[4])) return fail();
    client_.emplace(*source, *port);
  }
  static std::optional<asio::ip::address> read_address(std::string_view text, bool is_v4) {
    auto const address = parse_address(std::string(text));
    return address && address->is_v4() == is_v4 ? address : std::nullopt;
  }
  static std::optional<std::uint16_t> read_port(std::string_view text) noexcept {
    std::uint16_t port = 0;
    auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
    auto const is_number = error == std::errc() && end == text.data() + text.size();
    return is_number && (text.front() != '0' || text.size() == 1) ? std::optional(port) : std::nullopt;
  }

  void read_v2() {
    auto const size = kept_.size();
    if (!is_still(signature)) return fail();
    if (size == 13 && byte(12) != 0x20 && byte(12) != 0x21) return fail();  // version 2; LOCAL or PROXY
    if (size == 14 && !is_local() && (byte(13) >> 4 > 3 || (byte(13) & 15) > 2)) return fail();
    if (size < v2_size) return;
    auto const length = static_cast<std::size_t>(byte(14) << 8 | byte(15));
    if (length < addresses_size()) return fail();
    auto const is_tcp = !is_local() && (byte(13) == 0x11 || byte(13) == 0x21);
    auto const wanted = is_tcp ? addresses_size() : 0;
    if (size < v2_size + wanted) return;
    if (is_tcp) read_addresses();
    to_skip_ = length - wanted;
    if (to_skip_ == 0) state_ = State::complete;
  }
  unsigned byte(std::size_t i) const noexcept { return static_cast<unsigned char>(kept_[i]); }
  bool is_local() const noexcept { return byte(12) == 0x20; }
  /// The least size of the addresses, which depends on their family.
  std::size_t addresses_size() const noexcept {
    constexpr std::array<std::size_t, 4> sizes = {0, 12, 36, 216};
    return is_local() || (byte(13) & 15) == 0 ? 0 : sizes[byte(13) >> 4];
  }
  void read_addresses() {
    auto const read = [this]<class Address>(Address) {
      typename Address::bytes_type bytes;
      std::copy_n(kept_.begin() + v2_size, bytes.size(), bytes.begin());
      auto const port = v2_size + 2 * bytes.size();
      client_.emplace(Address(bytes), static_cast<std::uint16_t>(byte(port) << 8 | byte(port + 1)));
    };
    byte(13) == 0x11 ? read(asio::ip::address_v4()) : read(asio::ip::address_v6());
  }

  State state_ = State::incomplete;
  std::string kept_;
  std::size_t to_skip_ = 0;  // bytes of a header of version 2
  std::optional<asio::ip::tcp::endpoint> client_;
};

}  // namespace chatproto::detail
