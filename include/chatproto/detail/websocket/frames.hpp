// SPDX-License-Identifier: BSL-1.0
/// @file
/// `FrameReader` and `FrameWriter`, which take WebSocket frames apart and make them, and the check of their text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <openssl/rand.h>
#include <wslay/wslay.h>

namespace chatproto::detail {

/// Checks UTF-8 (RFC 3629) that comes in pieces.
class Utf8Check {
 public:
  /// Returns whether the bytes so far can be the beginning of a valid text.
  bool feed(std::string_view bytes) noexcept {
    for (auto const c : bytes) {
      auto const byte = static_cast<std::uint8_t>(c);
      if (left_ > 0) {
        if (byte < low_ || byte > high_) return false;
        low_ = 0x80, high_ = 0xbf;
        --left_;
      } else if (byte >= 0x80) {
        if (byte < 0xc2 || byte > 0xf4) return false;
        left_ = byte < 0xe0 ? 1 : byte < 0xf0 ? 2 : 3;
        low_ = byte == 0xe0 ? 0xa0 : byte == 0xf0 ? 0x90 : 0x80;   // no overlong encoding
        high_ = byte == 0xed ? 0x9f : byte == 0xf4 ? 0x8f : 0xbf;  // no surrogate, nothing above U+10FFFF
      }
    }
    return true;
  }
  /// Returns whether no character is unfinished.
  bool is_complete() const noexcept { return left_ == 0; }

 private:
  std::uint8_t left_ = 0, low_ = 0x80, high_ = 0xbf;
};

/// What reads the bytes of frames.
class FrameSource {
 public:
  /// Reads at most `size` bytes; 0: none now.
  virtual std::size_t read_bytes(char* bytes, std::size_t size) noexcept = 0;

 protected:
  ~FrameSource() = default;
};

/// Takes frames apart, by wslay, whose context has a buffer of 4 KiB. So a connection has one only while it has bytes
/// that it cannot give away yet: each thread keeps some that are not in use.
class FrameReader {
 public:
  /// A part of a frame.
  struct Part {
    std::string_view data;  ///< of its payload; valid until the next call
    std::uint8_t opcode = 0, reserved = 0;
    bool is_final = false, is_masked = false;
    bool begins = false;        ///< it is the first part of the frame
    bool ends = false;          ///< it is the last one
    std::uint64_t payload = 0;  ///< bytes in the whole frame
  };
  enum class Result : std::uint8_t { part, nothing, invalid };

  static std::unique_ptr<FrameReader> take(FrameSource& source) {
    auto& all = unused();
    if (all.empty()) return std::unique_ptr<FrameReader>(new FrameReader(source));
    auto one = std::move(all.back());
    all.pop_back();
    one->source_ = &source;
    return one;
  }
  /// Gives one back that holds nothing.
  static void give(std::unique_ptr<FrameReader> one) noexcept {
    auto& all = unused();
    if (all.size() == all.capacity()) return;
    one->source_ = nullptr;
    all.push_back(std::move(one));
  }
  FrameReader(FrameReader const&) = delete;
  FrameReader& operator=(FrameReader const&) = delete;
  ~FrameReader() { ::wslay_frame_context_free(context_); }

  /// Returns whether it has no byte, and is not within a frame.
  bool is_empty() const noexcept { return left_ == 0 && buffered_ == 0; }
  /// Returns whether it has bytes.
  bool has_bytes() const noexcept { return buffered_ > 0; }

  Result read(Part& part) noexcept {
    ::wslay_frame_iocb frame{};
    auto const n = ::wslay_frame_recv(context_, &frame);
    if (n == WSLAY_ERR_WANT_READ) return Result::nothing;
    if (n < 0) return Result::invalid;
    part.begins = !in_frame_;
    if (part.begins) {
      left_ = frame.payload_length;
      auto const length = frame.payload_length;
      buffered_ -= 2u + (length > 65535 ? 8u : length > 125 ? 2u : 0u) + (frame.mask != 0 ? 4u : 0u);
    }
    left_ -= static_cast<std::uint64_t>(n);
    buffered_ -= static_cast<std::size_t>(n);
    in_frame_ = left_ > 0;
    part.ends = !in_frame_;
    part.data = {reinterpret_cast<char const*>(frame.data), static_cast<std::size_t>(n)};
    part.opcode = frame.opcode;
    part.reserved = frame.rsv;
    part.is_final = frame.fin != 0;
    part.is_masked = frame.mask != 0;
    part.payload = frame.payload_length;
    return Result::part;
  }

 private:
  explicit FrameReader(FrameSource& source) : source_(&source) {
    static constexpr ::wslay_frame_callbacks callbacks = {nullptr, &FrameReader::receive, nullptr};
    if (::wslay_frame_context_init(&context_, &callbacks, this) != 0) throw std::bad_alloc();
  }
  static ::ssize_t receive(std::uint8_t* bytes, std::size_t size, int, void* self) noexcept {
    auto& reader = *static_cast<FrameReader*>(self);
    auto const n = reader.source_->read_bytes(reinterpret_cast<char*>(bytes), size);
    reader.buffered_ += n;
    return n > 0 ? static_cast<::ssize_t>(n) : -1;
  }
  static std::vector<std::unique_ptr<FrameReader>>& unused() {
    static constexpr std::size_t most = 16;
    thread_local auto all = [] {
      std::vector<std::unique_ptr<FrameReader>> empty;
      empty.reserve(most);
      return empty;
    }();
    return all;
  }

  ::wslay_frame_context_ptr context_ = nullptr;
  FrameSource* source_;
  std::uint64_t left_ = 0;    // bytes of the frame's payload to come
  std::size_t buffered_ = 0;  // bytes that wslay holds
  bool in_frame_ = false;
};

/// Makes frames, by wslay. Each thread has one that masks them and one that does not: once a context of wslay has
/// masked a frame, it masks the payloads of all later ones.
class FrameWriter {
 public:
  static FrameWriter& of_this_thread(bool masks) {
    thread_local FrameWriter plain(false), masking(true);
    return masks ? masking : plain;
  }
  FrameWriter(FrameWriter const&) = delete;
  FrameWriter& operator=(FrameWriter const&) = delete;
  ~FrameWriter() { ::wslay_frame_context_free(context_); }

  /// Returns the header of a server's frame, whose payload follows as it is. Valid until the next call.
  std::string_view header(std::uint8_t opcode, std::string_view payload) {
    frame_.clear();
    is_header_only_ = true;
    make(opcode, payload);
    return frame_;
  }
  /// Appends a whole frame.
  void append(std::string& to, std::uint8_t opcode, std::string_view payload) {
    frame_.clear();
    is_header_only_ = false;
    make(opcode, payload);
    to.append(frame_);
  }

 private:
  explicit FrameWriter(bool masks) : masks_(masks) {
    static constexpr ::wslay_frame_callbacks callbacks = {&FrameWriter::take, nullptr, &FrameWriter::make_mask};
    frame_.reserve(4096);
    if (::wslay_frame_context_init(&context_, &callbacks, this) != 0) throw std::bad_alloc();
  }
  void make(std::uint8_t opcode, std::string_view payload) {
    ::wslay_frame_iocb frame{};
    frame.fin = 1;
    frame.opcode = opcode;
    frame.mask = masks_ ? 1 : 0;
    frame.payload_length = frame.data_length = payload.size();
    frame.data = reinterpret_cast<std::uint8_t const*>(payload.data());
    if (!is_header_only_) frame_.reserve(payload.size() + 14);
    if (::wslay_frame_send(context_, &frame) < 0) throw std::bad_alloc();
  }
  /// wslay gives the header first, then the payload.
  static ::ssize_t take(std::uint8_t const* bytes, std::size_t size, int, void* self) noexcept {
    auto& writer = *static_cast<FrameWriter*>(self);
    if (writer.frame_.empty() || !writer.is_header_only_)
      writer.frame_.append(reinterpret_cast<char const*>(bytes), size);  // there is room
    return static_cast<::ssize_t>(size);
  }
  static int make_mask(std::uint8_t* bytes, std::size_t size, void*) noexcept {
    return ::RAND_bytes(bytes, static_cast<int>(size)) == 1 ? 0 : -1;
  }

  ::wslay_frame_context_ptr context_ = nullptr;
  std::string frame_;
  bool const masks_;
  bool is_header_only_ = false;
};

}  // namespace chatproto::detail
