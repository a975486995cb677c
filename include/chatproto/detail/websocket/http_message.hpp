// SPDX-License-Identifier: BSL-1.0
/// @file
/// `HttpMessage`, the head of an HTTP request or response, and the hashes that WebSocket needs.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <http_parser.h>
#include <openssl/evp.h>

namespace chatproto::detail {

inline char lower_case(char c) noexcept { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }
inline bool is_same_ignoring_case(std::string_view a, std::string_view b) noexcept {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](char x, char y) { return lower_case(x) == lower_case(y); });
}
inline std::string_view without_blanks(std::string_view text) noexcept {
  auto const begin = text.find_first_not_of(" \t");
  if (begin == text.npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

/// The head of a request or a response, which is read as it comes. The body is not read.
class HttpMessage {
 public:
  enum class State : std::uint8_t { incomplete, complete, invalid, too_large };
  static constexpr std::size_t most_bytes = 8192, most_fields = 64;

  explicit HttpMessage(::http_parser_type type) noexcept {
    ::http_parser_init(&parser_, type);
    parser_.data = this;
  }
  HttpMessage(HttpMessage const&) = delete;
  HttpMessage& operator=(HttpMessage const&) = delete;

  State state() const noexcept { return state_; }
  /// Takes the next bytes. Returns how many of them belong to the head.
  std::size_t feed(std::string_view bytes) {
    if (state_ != State::incomplete) return 0;
    auto const size = std::min(bytes.size(), most_bytes - bytes_);
    auto const taken = ::http_parser_execute(&parser_, settings(), bytes.data(), size);
    bytes_ += taken;
    if (no_memory_) throw std::bad_alloc();
    if (fields_.size() > most_fields) {
      state_ = State::too_large;
      return taken;
    }
    if (state_ == State::complete) return taken;
    if (HTTP_PARSER_ERRNO(&parser_) != HPE_OK || taken < size)
      state_ = State::invalid;
    else if (bytes_ == most_bytes)
      state_ = State::too_large;
    return taken;
  }

  // Of a complete message:

  bool is_method(::http_method method) const noexcept { return parser_.method == static_cast<unsigned>(method); }
  std::string_view target() const noexcept { return target_; }
  unsigned status() const noexcept { return parser_.status_code; }
  bool is_http_1_1() const noexcept { return parser_.http_major == 1 && parser_.http_minor >= 1; }
  /// Returns the value of a header field, empty if there is none. Nothing if there are several.
  std::optional<std::string_view> field(std::string_view name) const noexcept {
    std::optional<std::string_view> found;
    for (auto const& [key, value] : fields_) {
      if (!is_same_ignoring_case(key, name)) continue;
      if (found) return std::nullopt;
      found = without_blanks(value);
    }
    return found.value_or(std::string_view());
  }
  /// Returns whether a field, which is a list, has this word.
  bool has_word(std::string_view name, std::string_view word) const noexcept {
    for (auto const& [key, value] : fields_) {
      if (!is_same_ignoring_case(key, name)) continue;
      for (std::string_view rest = value; !rest.empty();) {
        auto const end = std::min(rest.find(','), rest.size());
        if (is_same_ignoring_case(without_blanks(rest.substr(0, end)), word)) return true;
        rest.remove_prefix(std::min(end + 1, rest.size()));
      }
    }
    return false;
  }

 private:
  static HttpMessage& of(::http_parser* parser) { return *static_cast<HttpMessage*>(parser->data); }
  /// The parser is C: no exception may pass it.
  static int keep(::http_parser* parser, auto const& append) noexcept {
    try {
      append(of(parser));
      return of(parser).fields_.size() > most_fields ? 1 : 0;
    } catch (...) {
      of(parser).no_memory_ = true;
      return 1;
    }
  }
  static ::http_parser_settings const* settings() noexcept {
    static ::http_parser_settings const made = [] {
      ::http_parser_settings all;
      ::http_parser_settings_init(&all);
      all.on_url = [](::http_parser* parser, char const* at, std::size_t size) {
        return keep(parser, [&](HttpMessage& message) { message.target_.append(at, size); });
      };
      all.on_header_field = [](::http_parser* parser, char const* at, std::size_t size) {
        return keep(parser, [&](HttpMessage& message) {
          if (std::exchange(message.in_value_, false) || message.fields_.empty()) message.fields_.emplace_back();
          message.fields_.back().first.append(at, size);
        });
      };
      all.on_header_value = [](::http_parser* parser, char const* at, std::size_t size) {
        return keep(parser, [&](HttpMessage& message) {
          message.in_value_ = true;
          message.fields_.back().second.append(at, size);
        });
      };
      all.on_headers_complete = [](::http_parser* parser) {
        of(parser).state_ = State::complete;
        return 2;  // what follows is no HTTP
      };
      return all;
    }();
    return &made;
  }

  ::http_parser parser_;
  std::string target_;
  std::vector<std::pair<std::string, std::string>> fields_;
  std::size_t bytes_ = 0;
  State state_ = State::incomplete;
  bool in_value_ = false, no_memory_ = false;
};

inline std::string base64(std::string_view bytes) {
  std::string text(4 * ((bytes.size() + 2) / 3) + 1, '\0');  // and a NUL
  ::EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()), reinterpret_cast<unsigned char const*>(bytes.data()),
                    static_cast<int>(bytes.size()));
  text.pop_back();
  return text;
}
inline std::string digest(std::string_view bytes, ::EVP_MD const* how) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> hash;
  auto size = 0u;
  if (::EVP_Digest(bytes.data(), bytes.size(), hash.data(), &size, how, nullptr) != 1) throw std::bad_alloc();
  return {reinterpret_cast<char const*>(hash.data()), size};
}
/// Returns what a server answers to a client's key (RFC 6455, section 4.2.2).
inline std::string websocket_accept(std::string_view key) {
  return base64(digest(std::string(key) + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11", ::EVP_sha1()));
}
/// Returns whether a key is 16 bytes in base64.
inline bool is_websocket_key(std::string_view key) noexcept {
  auto const is_digit = [](char c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' || c == '/';
  };
  return key.size() == 24 && key.ends_with("==") && std::all_of(key.begin(), key.end() - 2, is_digit);
}

}  // namespace chatproto::detail
