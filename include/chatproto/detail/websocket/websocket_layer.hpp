// SPDX-License-Identifier: BSL-1.0
/// @file
/// `WebSocketLayer`, one connection's WebSocket.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <sys/socket.h>
#include <sys/uio.h>

#include <chatproto/detail/native_io.hpp>
#include <chatproto/detail/websocket/frames.hpp>
#include <chatproto/detail/websocket/http_message.hpp>
#include <chatproto/layer.hpp>

namespace chatproto::detail {

/// What is written before a connection becomes a WebSocket.
class WebSocketGreeter {
 public:
  /// What to send, and whether frames follow.
  struct Greeting {
    std::string bytes = {};
    std::error_code error = {};  ///< why no frames follow
  };
  virtual ~WebSocketGreeter() = default;
  /// The type of message that the other end sends.
  virtual ::http_parser_type expects() const noexcept = 0;
  /// Returns what a client sends first.
  virtual std::string begin() { return {}; }
  /// Returns what is to be done after the other end's message. `state` is not `incomplete`. `is_encrypted`: nobody on
  /// the way could read it.
  virtual Greeting answer(HttpMessage const& message, bool is_encrypted) = 0;
};

/// One connection's WebSocket (RFC 6455), over its socket or over another layer.
///
/// Lines travel in binary frames, of which each holds what was written at once; a text frame is taken too. Messages
/// have no limit: lines have one, and a frame is never stored. While pongs wait, only the latest ping is answered, so
/// that pings whose pongs are not read take no memory.
class WebSocketLayer final : public Layer, private FrameSource {
 public:
  /// `inner` may be null. A client masks its frames.
  WebSocketLayer(NativeSocket socket, std::unique_ptr<Layer> inner, std::unique_ptr<WebSocketGreeter> greeter,
                 bool is_client)
      : socket_(socket),
        is_client_(is_client),
        inner_(std::move(inner)),
        handshake_(new Handshake{std::move(greeter)}) {}

  Result handshake() override {
    auto& now = *handshake_;
    if (inner_ && !now.inner_is_done) {
      auto const result = inner_->handshake();
      if (result.error || result.wait != Wait::nothing) return result;
      now.inner_is_done = true;
    }
    if (!std::exchange(now.has_begun, true)) hold(now.greeter->begin());
    for (;;) {
      if (auto const held = flush(); held.error || held.wait != Wait::nothing) return {0, held.wait, held.error};
      if (now.is_answered) {
        if (now.error) return is_client_ ? Result{0, Wait::nothing, now.error} : drop_input();
        handshake_.reset();
        return {};
      }
      std::array<char, 2048> bytes;
      auto const got = read_wire(bytes.data(), bytes.size());
      if (got.error || got.wait != Wait::nothing) return got;
      if (got.bytes == 0) return {0, Wait::nothing, std::make_error_code(std::errc::connection_reset)};
      auto const taken = now.message.feed({bytes.data(), got.bytes});
      if (now.message.state() == HttpMessage::State::incomplete) continue;
      auto greeting = now.greeter->answer(now.message, is_encrypted());
      now.is_answered = true;
      now.error = greeting.error;
      hold(std::move(greeting.bytes));
      if (taken < got.bytes) early_ = std::make_unique<std::string>(bytes.data() + taken, got.bytes - taken);
    }
  }

  Result read_some(char* bytes, std::size_t size) override {
    if (has_held() && !flush().error && held_size() > most_held) return {0, Wait::write, {}};
    Result all;
    is_drained_ = has_more_ = false;
    work_ = 0;
    wire_ = {0, Wait::read, {}};
    while (all.bytes < size && !has_ended_ && work_ < most_work) {
      if (!reader_) reader_ = FrameReader::take(*this);
      FrameReader::Part part;
      if (rest_.empty()) {
        auto const result = reader_->read(part);
        if (result == FrameReader::Result::nothing) break;
        if (result == FrameReader::Result::invalid) {
          fail(WSLAY_CODE_PROTOCOL_ERROR);
          break;
        }
        take(part);
      }
      auto const n = std::min(size - all.bytes, rest_.size());
      std::copy_n(rest_.data(), n, bytes + all.bytes);
      rest_.remove_prefix(n);
      all.bytes += n;
    }
    if (std::exchange(has_answer_, false)) flush();  // an error shows in the next read
    has_more_ = all.bytes == size || work_ >= most_work;
    if (reader_ && rest_.empty() && reader_->is_empty()) FrameReader::give(std::exchange(reader_, nullptr));
    if (all.bytes > 0) return all;
    if (has_ended_) {
      knows_end_ = true;
      return {0, Wait::nothing, has_failed_ ? std::make_error_code(std::errc::protocol_error) : std::error_code()};
    }
    if (wire_.error) return {0, Wait::nothing, wire_.error};
    return {0, wire_.wait == Wait::write ? Wait::write : Wait::read, {}};  // input may wait already, see most_work
  }
  Result write(char const* bytes, std::size_t size) override {
    Result all;
    if (has_closed_) return {size, Wait::nothing, {}};  // nothing may follow a close
    while (all.bytes < size && !has_held() && !all.error) {
      auto const n = std::min(size - all.bytes, most_in_frame);
      all.error = send_frame({bytes + all.bytes, n});
      all.bytes += n;
    }
    if (has_held()) all.wait = Wait::write;
    return all;
  }
  Result flush() override {
    Result all;
    if (inner_) {
      all = inner_->flush();
      inner_holds_ = all.wait != Wait::nothing;
      if (all.error || inner_holds_) return all;
    }
    for (;;) {
      if (!held_ && pong_) append_control(WSLAY_PONG, *std::exchange(pong_, nullptr));
      if (!held_) return all;
      auto const sent = write_wire(*held_);
      all.bytes += sent.bytes;
      held_->erase(0, sent.bytes);
      if (held_->empty()) held_.reset();
      if (sent.error) return {all.bytes, Wait::nothing, sent.error};
      if (held_ || inner_holds_) return {all.bytes, Wait::write, {}};
    }
  }
  bool has_input() const noexcept override {
    return !rest_.empty() || early_ || (has_ended_ && !knows_end_) || (has_more_ && reader_ && reader_->has_bytes()) ||
           (inner_ && inner_->has_input());
  }
  void close_output() noexcept override {
    try {
      if (!handshake_ && !std::exchange(has_closed_, true)) {
        auto const code = close_code_ != 0 ? close_code_ : std::uint16_t(WSLAY_CODE_NORMAL_CLOSURE);
        append_control(WSLAY_CONNECTION_CLOSE,
                       std::string{static_cast<char>(code >> 8), static_cast<char>(code & 255)});
      }
      flush();
    } catch (...) {  // out of memory: the connection ends all the same
    }
    if (inner_ && !held_) inner_->close_output();
  }
  std::size_t held() const noexcept override {
    return held_size() + (pong_ ? pong_->size() : 0) + (early_ ? early_->size() : 0) + (inner_ ? inner_->held() : 0);
  }
  bool is_encrypted() const noexcept override { return inner_ && inner_->is_encrypted(); }
  std::string certificate() const override { return inner_ ? inner_->certificate() : std::string(); }

 private:
  static constexpr std::size_t most_in_frame = 64 * 1024, most_held = 64 * 1024;  // bytes; see read_some
  static constexpr std::size_t most_pongs = 4096;  // bytes held, above which only the latest ping is answered
  // A read ends after frames that cost so much, though it has room left, so that other clients have their turn. A frame
  // costs 1. One that brings nothing costs more, because nothing else limits how many there are.
  static constexpr int most_work = 1024, empty_frame = 32;
  static constexpr std::size_t most_dropped = 256 * 1024;  // bytes, after a request that was not granted

  struct Handshake {
    std::unique_ptr<WebSocketGreeter> greeter;
    HttpMessage message{greeter->expects()};
    std::error_code error = {};
    std::size_t dropped = 0;  // bytes
    bool inner_is_done = false, has_begun = false, is_answered = false, drops_input = false;
  };
  /// The payload of a control frame.
  struct Control {
    std::array<char, 125> bytes;
    std::size_t size = 0;
    std::string_view text() const noexcept { return {bytes.data(), size}; }
  };

  /// Reads and drops what follows a request that was not granted, until the client closes its side: input that nobody
  /// has read would reset the connection, and the client might lose the answer.
  Result drop_input() {
    auto& now = *handshake_;
    if (!std::exchange(now.drops_input, true)) {
      if (inner_) {
        inner_->close_output();
        inner_->flush();
      }
      ::shutdown(socket_, SHUT_WR);
    }
    for (std::array<char, 2048> bytes; now.dropped < most_dropped;) {
      auto const got = read_wire(bytes.data(), bytes.size());
      if (!got.error && got.wait != Wait::nothing) return got;
      if (got.error || got.bytes == 0) break;
      now.dropped += got.bytes;
    }
    return {0, Wait::nothing, now.error};
  }

  // --- Frames

  /// Takes a part of a frame; `rest_` is then what it brings for the lines.
  void take(FrameReader::Part const& part) {
    auto const is_control = wslay_is_ctrl_frame(part.opcode) != 0;
    if (part.begins) work_ += part.payload == 0 || is_control ? empty_frame : 1;
    if (part.begins && !is_allowed(part, is_control)) return fail(WSLAY_CODE_PROTOCOL_ERROR);
    if (is_control) return take_control(part);
    if (part.begins && part.opcode != WSLAY_CONTINUATION_FRAME) {
      is_text_ = part.opcode == WSLAY_TEXT_FRAME;
      text_ = {};
    }
    in_message_ = !(part.ends && part.is_final);
    if (is_text_ && (!text_.feed(part.data) || (!in_message_ && !text_.is_complete())))
      return fail(WSLAY_CODE_INVALID_FRAME_PAYLOAD_DATA);
    rest_ = part.data;
  }
  bool is_allowed(FrameReader::Part const& part, bool is_control) const noexcept {
    if (part.reserved != 0 || part.is_masked == is_client_) return false;
    switch (part.opcode) {
      case WSLAY_CONTINUATION_FRAME: return in_message_;
      case WSLAY_TEXT_FRAME:
      case WSLAY_BINARY_FRAME: return !in_message_;
      case WSLAY_CONNECTION_CLOSE:
      case WSLAY_PING:
      case WSLAY_PONG: return is_control && part.is_final && part.payload <= 125;
      default: return false;
    }
  }
  void take_control(FrameReader::Part const& part) {
    if (part.begins) control_ = std::make_unique<Control>();
    for (auto const c : part.data) control_->bytes[control_->size++] = c;
    if (!part.ends) return;
    auto const control = std::exchange(control_, nullptr);
    if (part.opcode == WSLAY_CONNECTION_CLOSE) return take_close(control->text());
    if (part.opcode != WSLAY_PING) return;
    has_answer_ = true;
    if (pong_ || inner_holds_ || held_size() > most_pongs)
      pong_ = std::make_unique<std::string>(control->text());
    else
      append_control(WSLAY_PONG, std::string(control->text()));
  }
  void take_close(std::string_view payload) noexcept {
    auto code = unsigned(WSLAY_CODE_NORMAL_CLOSURE);
    if (payload.size() == 1) return fail(WSLAY_CODE_PROTOCOL_ERROR);
    if (payload.size() >= 2) {
      code = static_cast<unsigned char>(payload[0]) * 256u + static_cast<unsigned char>(payload[1]);
      auto const is_known = (code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006) ||
                            (code >= 3000 && code <= 4999);
      if (!is_known) return fail(WSLAY_CODE_PROTOCOL_ERROR);
      Utf8Check reason;
      if (!reason.feed(payload.substr(2)) || !reason.is_complete()) return fail(WSLAY_CODE_INVALID_FRAME_PAYLOAD_DATA);
    }
    close_code_ = static_cast<std::uint16_t>(code);
    has_ended_ = true;
  }
  /// Takes no more from the other end, and tells it why when the output is closed.
  void fail(int code) noexcept {
    close_code_ = static_cast<std::uint16_t>(code);
    has_ended_ = has_failed_ = true;
    rest_ = {};
  }

  /// Sends bytes as one frame, and holds what the socket does not take.
  std::error_code send_frame(std::string_view payload) {
    auto& writer = FrameWriter::of_this_thread(is_client_);
    if (is_client_ || inner_) {  // these copy it anyway
      thread_local std::string frame;
      frame.clear();
      writer.append(frame, WSLAY_BINARY_FRAME, payload);
      auto const sent = write_wire(frame);
      if (sent.bytes < frame.size()) hold(frame.substr(sent.bytes));
      return sent.error;
    }
    auto const header = writer.header(WSLAY_BINARY_FRAME, payload);
    std::array<::iovec, 2> both = {
        {{const_cast<char*>(header.data()), header.size()}, {const_cast<char*>(payload.data()), payload.size()}}};
    ::msghdr message{};
    message.msg_iov = both.data();
    message.msg_iovlen = both.size();
    std::error_code error;
    auto ended = false;
    auto const sent = move_bytes([&] { return ::sendmsg(socket_, &message, no_signal); }, ended, error);
    if (error || sent == header.size() + payload.size()) return error;
    std::string rest;
    if (sent < header.size()) rest = header.substr(sent);
    rest.append(payload.substr(sent < header.size() ? 0 : sent - header.size()));
    hold(std::move(rest));
    return {};
  }
  void append_control(std::uint8_t opcode, std::string const& payload) {
    std::string frame;
    FrameWriter::of_this_thread(is_client_).append(frame, opcode, payload);
    hold(std::move(frame));
  }

  // --- The wire: the socket, or the inner layer

  bool has_held() const noexcept { return held_ || pong_ || inner_holds_; }
  std::size_t held_size() const noexcept { return held_ ? held_->size() : 0; }
  void hold(std::string bytes) {
    if (bytes.empty()) return;
    held_ ? held_->append(bytes) : (held_ = std::make_unique<std::string>(std::move(bytes)), *held_);
  }
  Result read_wire(char* bytes, std::size_t size) {
    if (inner_) return inner_->read_some(bytes, size);
    Result result;
    auto ended = false;
    result.bytes = receive_some(socket_, bytes, size, ended, result.error);
    if (result.bytes == 0 && !ended && !result.error) result.wait = Wait::read;
    return result;
  }
  /// Writes as much as it takes.
  Result write_wire(std::string_view bytes) {
    Result result;
    if (inner_) {
      result = inner_->write(bytes.data(), bytes.size());
      inner_holds_ = result.wait != Wait::nothing;
      return result;
    }
    result.bytes = send_some(socket_, bytes.data(), bytes.size(), false, result.error);
    return result;
  }
  /// For the reader of frames.
  std::size_t read_bytes(char* bytes, std::size_t size) noexcept override {
    if (early_) {
      auto const n = std::min(size, early_->size());
      std::copy_n(early_->data(), n, bytes);
      early_->erase(0, n);
      if (early_->empty()) early_.reset();
      return n;
    }
    if (is_drained_) return 0;  // until it is called again
    wire_ = read_wire(bytes, size);
    if (wire_.bytes == 0 && !wire_.error && wire_.wait == Wait::nothing) has_ended_ = true;
    is_drained_ = wire_.bytes < size && !(inner_ && inner_->has_input());
    if (wire_.bytes < size && wire_.bytes > 0) wire_.wait = Wait::read;
    return wire_.bytes;
  }

  NativeSocket const socket_;
  bool const is_client_;
  bool is_drained_ = false;   // the wire had less than was asked for
  bool has_more_ = false;     // the last read had no room for all
  bool has_answer_ = false;   // pongs have not been tried to be sent
  bool inner_holds_ = false;  // output
  int work_ = 0;              // in this read, see most_work
  bool in_message_ = false, is_text_ = false;
  bool has_ended_ = false;   // the other end has closed its side, or has_failed_
  bool has_failed_ = false;  // it does not keep the rules
  bool knows_end_ = false;   // read_some has told of it
  bool has_closed_ = false;  // our side is closed
  Utf8Check text_;
  std::uint16_t close_code_ = 0;
  std::unique_ptr<Layer> const inner_;
  std::unique_ptr<Handshake> handshake_;  // until it is done
  std::unique_ptr<FrameReader> reader_;   // null: no byte has come
  std::unique_ptr<Control> control_;      // a control frame that has not ended
  std::unique_ptr<std::string> held_;     // output that the socket did not take
  std::unique_ptr<std::string> pong_;     // the payload of a pong, behind that
  std::unique_ptr<std::string> early_;    // input that came with the handshake
  std::string_view rest_;                 // of a frame, in the reader
  Result wire_;                           // of the last read
};

}  // namespace chatproto::detail
