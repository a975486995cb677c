// SPDX-License-Identifier: BSL-1.0
// Whatever parse accepts is what the line says, and encode makes the same line of it, if a line can carry it.
#include "fuzz.hpp"

#include <string>

#include <chatproto/message.hpp>

int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  using namespace chatproto;
  auto const line = as_text(data, size);
  auto ec = std::make_error_code(std::errc::invalid_argument);  // must be overwritten
  auto const message = parse(line, ec);
  auto const colon = line.find_first_not_of("abcdefghijklmnopqrstuvwxyz");
  assert(!ec == (colon != 0 && colon != line.npos && line[colon] == ':'));
  if (ec) {
    assert(ec == Errc::malformed && message == MessageView());
    return 0;
  }
  assert(message.tag == line.substr(0, colon) && message.payload == line.substr(colon + 1));

  auto const again = encode(message, ec);
  auto const carried = line.find('\n') == line.npos && !line.ends_with('\r') && line.size() < max_line;
  assert(!ec == carried);
  assert(again == (carried ? std::string(line) + '\n' : ""));

  auto const delivery = parse_delivery(message, ec);
  if (!ec) {
    auto const parts = {std::string("delivery"), std::string(delivery.room), std::string(delivery.sender)};
    std::string joined;
    for (auto const& part : parts) joined += part + ':';
    assert(joined.append(delivery.text) == line);
  }
  return 0;
}
