// SPDX-License-Identifier: BSL-1.0
// However the bytes are split, and however little the wire takes, a WebSocketServer's layer must deliver the same bytes
// and answer with whole frames; what it delivers is compared with a plain decoder. The first byte of the input seeds
// the splits; if it is odd, the rest follows a handshake, else it is one.
#include "fuzz.hpp"

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <utility>

#include <chatproto/websocket.hpp>

using chatproto::Layer;

namespace {

constexpr std::string_view request =
    "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// What the layer reads from and writes to. If it is narrow, it moves a few bytes at a time, and often none.
class Wire final : public Layer {
 public:
  Wire(std::string_view input, std::minstd_rand* narrow, std::string& output)
      : input_(input), narrow_(narrow), output_(output) {}

  Result handshake() override { return {}; }
  Result read_some(char* bytes, std::size_t size) override {
    if (input_.empty()) return {};
    if (stalls()) return {0, Wait::read, {}};
    auto const n = std::min({size, input_.size(), at_once()});
    std::copy_n(input_.data(), n, bytes);
    input_.remove_prefix(n);
    return {n, Wait::nothing, {}};
  }
  Result write(char const* bytes, std::size_t size) override {
    if (holds_) return {0, Wait::write, {}};
    holds_ = stalls();
    auto const n = holds_ ? std::min(size, at_once()) : size;
    output_.append(bytes, n);
    return {n, holds_ ? Wait::write : Wait::nothing, {}};
  }
  Result flush() override {
    holds_ = holds_ && stalls();
    return {0, holds_ ? Wait::write : Wait::nothing, {}};
  }
  bool has_input() const noexcept override { return false; }
  void close_output() noexcept override {}

 private:
  bool stalls() { return narrow_ != nullptr && (*narrow_)() % 3 == 0; }
  std::size_t at_once() { return narrow_ != nullptr ? 1 + (*narrow_)() % 20 : std::size_t(-1); }

  std::string_view input_;
  std::minstd_rand* const narrow_;
  std::string& output_;
  bool holds_ = false;
};

class WireFactory final : public chatproto::LayerFactory {
 public:
  std::unique_ptr<Layer> next;
  std::unique_ptr<Layer> make_layer(chatproto::NativeSocket, std::string_view) override { return std::move(next); }
};

struct Outcome {
  std::string payload, output;
  std::error_code refused = {};
};

void flush(Layer& layer) {
  for (;;) {
    auto const result = layer.flush();
    assert(!result.error && result.wait != Layer::Wait::read);
    if (result.wait == Layer::Wait::nothing) return;
  }
}

/// Does what a link does.
Outcome play(std::string_view input, std::minstd_rand* narrow) {
  static auto const wires = std::make_shared<WireFactory>();
  static chatproto::WebSocketServer server({.page = "<p>page</p>", .over = wires});
  Outcome outcome;
  wires->next = std::make_unique<Wire>(input, narrow, outcome.output);
  auto const layer = server.make_layer({}, {});
  for (;;) {
    auto const result = layer->handshake();
    if ((outcome.refused = result.error)) {
      flush(*layer);
      return outcome;
    }
    if (result.wait == Layer::Wait::nothing) break;
  }
  std::string bytes(narrow != nullptr ? 50 : 65536, '\0');
  for (;;) {
    auto const result = layer->read_some(bytes.data(), bytes.size());
    if (result.error == std::errc::protocol_error) break;  // the other end is told by the close
    assert(!result.error && result.bytes <= bytes.size());
    outcome.payload.append(bytes, 0, result.bytes);
    if (result.bytes == 0 && result.wait == Layer::Wait::nothing) break;
    if (result.wait == Layer::Wait::write) assert(narrow != nullptr);
    if (narrow == nullptr || (*narrow)() % 2 == 0) continue;
    if (layer->flush().wait == Layer::Wait::nothing) layer->write("ok:\n", 4);
  }
  assert(!layer->has_input());
  flush(*layer);
  layer->close_output();
  flush(*layer);
  return outcome;
}

/// A frame of either side.
struct Frame {
  unsigned first = 0;  // FIN, reserved bits and opcode
  bool is_masked = false, is_whole = false;
  std::uint64_t size = 0;
  std::string payload = {};

  unsigned opcode() const { return first & 15; }
  bool is_control() const { return opcode() >= 8; }
};

/// Takes a frame from the bytes. Returns false if not even its header is there.
bool take_frame(std::string_view& rest, Frame& frame) {
  auto const at = [&](std::size_t i) { return static_cast<unsigned char>(rest[i]); };
  if (rest.size() < 2) return false;
  auto const length = at(1) & 127u;
  auto const bytes = length == 127 ? 8u : length == 126 ? 2u : 0u;
  frame.first = at(0);
  frame.is_masked = (at(1) & 128) != 0;
  auto const header = 2 + bytes + (frame.is_masked ? 4u : 0u);
  if (rest.size() < header) return false;
  frame.size = bytes == 0 ? length : 0;
  for (auto i = 0u; i < bytes; ++i) frame.size = frame.size << 8 | at(2 + i);
  auto const mask = frame.is_masked ? std::string(rest.substr(header - 4, 4)) : std::string(4, '\0');
  rest.remove_prefix(header);
  frame.is_whole = rest.size() >= frame.size;
  frame.payload = rest.substr(0, static_cast<std::size_t>(std::min<std::uint64_t>(frame.size, rest.size())));
  rest.remove_prefix(frame.payload.size());
  for (std::size_t i = 0; i < frame.payload.size(); ++i)
    frame.payload[i] = static_cast<char>(frame.payload[i] ^ mask[i % 4]);
  return true;
}

/// Returns what a client's frames bring, until one breaks a rule other than that of UTF-8.
std::string decode(std::string_view rest) {
  std::string payload;
  auto in_message = false;
  for (Frame frame; take_frame(rest, frame);) {
    if (!frame.is_masked || (frame.first & 0x70) != 0 || frame.size >> 63 != 0) break;
    if (frame.is_control()) {
      if ((frame.first & 0x80) == 0 || frame.size > 125 || frame.opcode() > 10 || frame.opcode() == 8) break;
      continue;
    }
    if (frame.opcode() > 2 || (frame.opcode() == 0) != in_message) break;
    in_message = (frame.first & 0x80) == 0;
    payload += frame.payload;
  }
  return payload;
}

/// Returns the code of the last frame, which must be a close frame; 0: it has none.
unsigned check_frames(std::string_view rest, bool has_lines) {
  auto code = 0u;
  auto has_closed = false;
  while (!rest.empty()) {
    Frame frame;
    auto const is_frame = take_frame(rest, frame);
    assert(is_frame && frame.is_whole && !frame.is_masked && !has_closed);
    assert(frame.first == 0x88 || frame.first == 0x8a || (has_lines && frame.first == 0x82));
    has_closed = frame.opcode() == 8;
    if (frame.is_control()) assert(frame.size <= 125);
    if (frame.opcode() == 2) assert(frame.payload == "ok:\n");
    if (has_closed && frame.size >= 2)
      code = static_cast<unsigned char>(frame.payload[0]) * 256u + static_cast<unsigned char>(frame.payload[1]);
  }
  assert(has_closed);
  return code;
}

}  // namespace

int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  if (size == 0) return 0;
  std::minstd_rand random(data[0]);
  auto const has_request = data[0] % 2 == 1;
  auto const rest = as_text(data + 1, size - 1);
  auto const input = (has_request ? std::string(request) : std::string()).append(rest);

  auto const whole = play(input, nullptr);
  auto const split = play(input, &random);
  assert(whole.refused == split.refused);
  if (whole.refused) {
    assert(whole.output == split.output && whole.payload.empty() && split.payload.empty() && !has_request);
    assert(whole.output.empty() || whole.output.starts_with("HTTP/1.1 "));
    return 0;
  }
  auto const end = [](std::string const& output) { return output.find("\r\n\r\n") + 4; };
  assert(whole.output.starts_with("HTTP/1.1 101 ") &&
         whole.output.starts_with(split.output.substr(0, end(split.output))));
  auto const code = check_frames(std::string_view(whole.output).substr(end(whole.output)), false);
  assert(code == check_frames(std::string_view(split.output).substr(end(split.output)), true));
  if (!has_request) return 0;
  auto const expected = decode(rest);
  if (code == 1007)  // what is wrong, and what came with it, is not delivered
    assert(expected.starts_with(whole.payload) && expected.starts_with(split.payload));
  else
    assert(whole.payload == expected && split.payload == expected);
  return 0;
}
