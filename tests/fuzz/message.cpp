// SPDX-License-Identifier: BSL-1.0
// A line that parse accepts must encode to the same line, if a line can carry it. The throwing and non-throwing
// functions must agree.
#include "fuzz.hpp"

#include <algorithm>
#include <string>
#include <system_error>

#include <chatproto/message.hpp>

namespace {

std::error_code thrown_by(auto call) {
  try {
    call();
  } catch (std::system_error const& error) {
    return error.code();
  }
  return {};
}

}  // namespace

int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  using namespace chatproto;
  auto const line = as_text(data, size);
  auto ec = std::make_error_code(std::errc::invalid_argument);  // must be overwritten

  auto const fits = line.find('\n') == line.npos && !line.ends_with('\r') && line.size() < max_line;
  assert(encode_line(line, ec) == (fits ? std::string(line) + '\n' : "") && !ec == fits);
  auto const is_alphanumeric = [&](char c) {
    return std::string_view("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ").find(c) != line.npos;
  };
  assert(is_valid_name(line) == (size > 0 && std::all_of(line.begin(), line.end(), is_alphanumeric)));

  auto const message = parse(line, ec);
  auto const colon = line.find_first_not_of("abcdefghijklmnopqrstuvwxyz");
  assert(!ec == (colon != 0 && colon != line.npos && line[colon] == ':'));
  assert(thrown_by([&] { assert(parse(line) == message); }) == ec);
  if (ec) {
    assert(ec == Errc::malformed && !ec.message().empty() && message == MessageView());
    assert(encode({line, ""}, ec).empty() == !is_valid_tag(line) || ec == Errc::line_too_long);
    return 0;
  }
  assert(message.tag == line.substr(0, colon) && message.payload == line.substr(colon + 1));
  assert(MessageView(Message(message)) == message && Message(message) == Message(message.tag, message.payload));

  auto const again = encode(message, ec);
  assert(!ec == fits && again == (fits ? std::string(line) + '\n' : ""));
  assert(ec.message() != std::error_code(99, chatproto_category()).message());
  assert(thrown_by([&] { assert(encode(message) == again); }) == ec);

  auto const delivery = parse_delivery(message, ec);
  auto const second = line.find(':', colon + 1);
  assert(!ec == (message.tag == "delivery" && second != line.npos && line.find(':', second + 1) != line.npos));
  assert(thrown_by([&] { assert(parse_delivery(message).text == delivery.text); }) == ec);
  if (!ec) {
    auto const parts = {std::string("delivery"), std::string(delivery.room), std::string(delivery.sender)};
    std::string joined;
    for (auto const& part : parts) joined += part + ':';
    assert(joined.append(delivery.text) == line);
  }
  return 0;
}
