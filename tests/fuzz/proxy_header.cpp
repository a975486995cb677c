// SPDX-License-Identifier: BSL-1.0
// However the bytes are split, ProxyHeader must read the same, and exactly the bytes of the header. The first byte of
// the input seeds the splits.
#include "fuzz.hpp"

#include <random>

#include <chatproto/detail/server/proxy_header.hpp>

using chatproto::detail::ProxyHeader;

namespace {

void check_complete(ProxyHeader const& header, std::string_view bytes) {
  auto const at = [&](std::size_t i) { return static_cast<std::size_t>(static_cast<unsigned char>(bytes[i])); };
  if (bytes.starts_with("PROXY ")) {
    assert(bytes.size() <= 107);
    assert(bytes.find('\n') == bytes.size() - 1 && bytes.find('\r') == bytes.size() - 2);
    assert(header.client().has_value() != bytes.starts_with("PROXY UNKNOWN"));
    if (header.client()) assert(header.client()->address().is_v4() == bytes.starts_with("PROXY TCP4 "));
  } else {
    assert(bytes.starts_with(std::string_view("\r\n\r\n\0\r\nQUIT\n", 12)));
    assert(bytes.size() == 16 + (at(14) << 8) + at(15));
    assert(header.client().has_value() == (at(12) == 0x21 && (at(13) == 0x11 || at(13) == 0x21)));
    if (header.client()) assert(header.client()->address().is_v4() == (at(13) == 0x11));
  }
}

}  // namespace

int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  if (size == 0) return 0;
  std::minstd_rand random(data[0]);
  auto const bytes = as_text(data + 1, size - 1);

  ProxyHeader whole;
  auto const taken = whole.feed(bytes);
  assert(taken <= bytes.size());
  if (whole.state() == ProxyHeader::State::incomplete) assert(taken == bytes.size());
  if (whole.state() == ProxyHeader::State::complete) check_complete(whole, bytes.substr(0, taken));

  ProxyHeader split;
  std::size_t together = 0;
  for (auto rest = bytes; !rest.empty();) {
    auto const part = rest.substr(0, 1 + random() % 30);
    rest.remove_prefix(part.size());
    together += split.feed(part);
  }
  assert(split.state() == whole.state() && together == taken && split.client() == whole.client());
  return 0;
}
