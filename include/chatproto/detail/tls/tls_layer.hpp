// SPDX-License-Identifier: BSL-1.0
/// @file
/// `TlsLayer`, one connection's TLS.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <string>
#include <system_error>
#include <utility>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <chatproto/detail/native_io.hpp>
#include <chatproto/detail/tls/tls_context.hpp>
#include <chatproto/layer.hpp>
#include <chatproto/token_bucket.hpp>

namespace chatproto::detail {

/// One connection's TLS. OpenSSL reads from and writes to the socket through functions of ours, because those of its
/// own raise SIGPIPE, and because a record that the socket takes only in part must not be given to OpenSSL again: the
/// bytes that were to be sent may be others by then. So the rest of a record is kept here.
class TlsLayer final : public Layer {
 public:
  TlsLayer(SslContext context, NativeSocket socket, std::string const& name, bool is_server)
      : context_(std::move(context)), socket_(socket), ssl_(::SSL_new(context_.get())) {
    auto* const bio = ssl_ ? ::BIO_new(method()) : nullptr;
    if (bio == nullptr) throw std::bad_alloc();
    ::BIO_set_data(bio, this);
    ::BIO_set_init(bio, 1);
    ::SSL_set_bio(ssl_.get(), bio, bio);
    ::SSL_set_msg_callback(ssl_.get(), count_message);
    ::SSL_set_msg_callback_arg(ssl_.get(), this);
    is_server ? ::SSL_set_accept_state(ssl_.get()) : expect(name);
  }

  Result handshake() override {
    if (!held_.empty()) {
      auto const held = flush();
      if (held.error || held.wait != Wait::nothing) return {0, held.wait, held.error};
    }
    auto result = step([&](std::size_t&) { return ::SSL_do_handshake(ssl_.get()); });
    auto const verified = ::SSL_get_verify_result(ssl_.get());
    if (result.error && verified != X509_V_OK) result.error = {static_cast<int>(verified), CertificateCategory::get()};
    if (result.error) return result;
    is_established_ = result.wait == Wait::nothing;
    has_input_ = result.wait == Wait::nothing && ::SSL_has_pending(ssl_.get()) == 1;
    if (held_.empty()) return result;
    return {0, Wait::write, {}};
  }
  Result read_some(char* bytes, std::size_t size) override {
    if (held_.size() > most_held && !flush().error && held_.size() > most_held) return {0, Wait::write, {}};
    Result all;
    // A record may hold only one line, and the session should get many at once. But not too many records: each costs
    // time, even if it holds one byte.
    for (auto records = 0; records < most_records && all.bytes < size; ++records) {
      auto const one =
          step([&](std::size_t& n) { return ::SSL_read_ex(ssl_.get(), bytes + all.bytes, size - all.bytes, &n); });
      all.bytes += one.bytes;
      // After an error or the end, the next call will return it.
      has_input_ = one.bytes > 0 ? ::SSL_has_pending(ssl_.get()) == 1 : all.bytes > 0 && one.wait == Wait::nothing;
      if (one.bytes == 0 && all.bytes == 0) return one;
      if (one.bytes == 0 || !has_input_) break;
    }
    return all;
  }
  Result write(char const* bytes, std::size_t size) override {
    Result all;
    while (all.bytes < size && held_.empty()) {
      more_follows_ = size - all.bytes > most_in_record;
      auto const write = [&](std::size_t& n) {
        return ::SSL_write_ex(ssl_.get(), bytes + all.bytes, size - all.bytes, &n);
      };
      auto const one = step(write, false);
      all.bytes += one.bytes;
      all.error = write_error_ ? write_error_ : one.error;
      if (one.bytes > 0) continue;
      // It wants the rest of a message of TLS first. Nobody who is honest sends the start of one and then waits.
      if (!all.error && held_.empty()) all.error = failure_ = tls_error(SSL_R_UNEXPECTED_MESSAGE);
      break;
    }
    more_follows_ = false;
    if (!held_.empty()) all.wait = Wait::write;
    return all;
  }
  Result flush() override {
    if (held_.empty()) return {0, Wait::nothing, write_error_};
    auto const before = held_.size();
    std::size_t written = 0;
    while (written < before && !write_error_) {
      auto const n = send(held_.data() + written, before - written);
      if (n == 0) break;
      written += n;
    }
    held_.erase(0, written);
    if (held_.empty()) held_.shrink_to_fit();
    return {written, held_.empty() ? Wait::nothing : Wait::write, write_error_};
  }
  bool has_input() const noexcept override { return has_input_; }
  void close_output() noexcept override {
    ::ERR_clear_error();
    ::SSL_shutdown(ssl_.get());
    ::ERR_clear_error();
  }
  std::size_t held() const noexcept override { return held_.size(); }
  bool is_encrypted() const noexcept override { return true; }
  /// Returns the common name of the certificate's subject.
  std::string certificate() const override {
    auto* const certificate = ::SSL_get0_peer_certificate(ssl_.get());
    if (certificate == nullptr || ::SSL_get_verify_result(ssl_.get()) != X509_V_OK) return {};
    auto* const subject = ::X509_get_subject_name(certificate);
    auto const at = ::X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    if (at < 0) return {};
    unsigned char* text = nullptr;
    auto const size = ::ASN1_STRING_to_UTF8(&text, ::X509_NAME_ENTRY_get_data(::X509_NAME_get_entry(subject, at)));
    if (size < 0) return {};
    std::string name(reinterpret_cast<char const*>(text), static_cast<std::size_t>(size));
    ::OPENSSL_free(text);
    return name;
  }

 private:
  static constexpr std::size_t most_held = 64 * 1024;  // bytes; a peer may ask for answers, and not take them
  static constexpr int most_records = 256;             // read at once
  static constexpr std::size_t most_in_record = SSL3_RT_MAX_PLAIN_LENGTH;
  // Messages of TLS itself after the handshake, at once and then per second: such as requests for new keys. They cost
  // more than lines, and a peer that is honest sends one after gigabytes, or each hour.
  static constexpr double messages_at_once = 32, messages_per_second = 1;

  /// Connects, and expects the other end to prove this name or address.
  void expect(std::string const& name) {
    ::SSL_set_connect_state(ssl_.get());
    auto* const wanted = ::SSL_get0_param(ssl_.get());
    if (::X509_VERIFY_PARAM_set1_ip_asc(wanted, name.c_str()) == 1) return;
    ::ERR_clear_error();
    require_tls(::SSL_set_tlsext_host_name(ssl_.get(), name.c_str()) == 1 &&
                    ::X509_VERIFY_PARAM_set1_host(wanted, name.c_str(), 0) == 1,
                "TLS: server name");
  }

  static std::error_code tls_error(int reason) noexcept {
    return {static_cast<int>(ERR_PACK(ERR_LIB_SSL, 0, reason)), TlsCategory::get()};
  }

  /// Calls `call`, a function of OpenSSL, which reads from the socket at most once, or not at all: it would handle
  /// messages of TLS itself, for as long as the other end sends them, and only return for a line.
  Result step(auto const& call, bool may_read = true) {
    if (failure_) return {0, Wait::nothing, failure_};  // OpenSSL tells it once
    Result result;
    ::ERR_clear_error();
    may_read_ = may_read;
    auto const done = call(result.bytes);
    if (failure_) return {0, Wait::nothing, failure_};  // see count_message
    if (done > 0) return result;
    result.bytes = 0;
    switch (::SSL_get_error(ssl_.get(), done)) {
      case SSL_ERROR_WANT_READ: result.wait = Wait::read; break;
      case SSL_ERROR_WANT_WRITE: result.wait = Wait::write; break;
      case SSL_ERROR_ZERO_RETURN: break;
      case SSL_ERROR_SYSCALL:
        result.error = write_error_ ? write_error_ : read_error_ ? read_error_ : std::error_code(1, TlsCategory::get());
        break;
      default:
        result.error = ERR_GET_REASON(::ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING
                           ? std::error_code(1, TlsCategory::get())
                           : take_tls_error();
        ::ERR_clear_error();
    }
    failure_ = result.error;
    return result;
  }

  /// OpenSSL tells it of each message of TLS. Too many are a failure.
  static void count_message(int is_sent, int, int type, void const*, std::size_t, ::SSL* ssl, void* argument) {
    auto& layer = *static_cast<TlsLayer*>(argument);
    if (!layer.is_established_ || is_sent != 0 || type != SSL3_RT_HANDSHAKE) return;
    if (layer.messages_.take(TokenBucket::Clock::now())) return;
    layer.failure_ = tls_error(SSL_R_TOO_MANY_KEY_UPDATES);
    ::SSL_set_shutdown(ssl, SSL_RECEIVED_SHUTDOWN);  // it handles none of those that it has read already
  }

  // --- OpenSSL's way to the socket ---

  std::size_t send(char const* bytes, std::size_t size) {
    return send_some(socket_, bytes, size, more_follows_, write_error_);  // several records together
  }

  static TlsLayer& layer_of(::BIO* bio) { return *static_cast<TlsLayer*>(::BIO_get_data(bio)); }
  static int write_bio(::BIO* bio, char const* bytes, std::size_t size, std::size_t* written) {
    auto& layer = layer_of(bio);
    BIO_clear_retry_flags(bio);
    try {
      auto const sent = layer.held_.empty() ? layer.send(bytes, size) : 0;
      if (layer.write_error_) return -1;
      layer.held_.append(bytes + sent, size - sent);
      *written = size;
      return 1;
    } catch (...) {
      layer.write_error_ = std::make_error_code(std::errc::not_enough_memory);
      return -1;
    }
  }
  static int read_bio(::BIO* bio, char* bytes, std::size_t size, std::size_t* read) {
    auto& layer = layer_of(bio);
    auto ended = false;
    BIO_clear_retry_flags(bio);
    *read = 0;
    if (!std::exchange(layer.may_read_, false)) return BIO_set_retry_read(bio), 0;
    *read = receive_some(layer.socket_, bytes, size, ended, layer.read_error_);
    if (ended) BIO_set_flags(bio, BIO_FLAGS_IN_EOF);
    if (*read == 0 && !ended && !layer.read_error_) BIO_set_retry_read(bio);
    return *read > 0 ? 1 : 0;
  }
  static long control_bio(::BIO* bio, int command, long, void*) {
    if (command == BIO_CTRL_EOF) return BIO_test_flags(bio, BIO_FLAGS_IN_EOF) != 0 ? 1 : 0;
    return command == BIO_CTRL_FLUSH ? 1 : 0;
  }
  static ::BIO_METHOD* method() {
    static auto const made = [] {
      std::unique_ptr<::BIO_METHOD, FreeBy<::BIO_meth_free>> result(
          ::BIO_meth_new(::BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "chatproto"));
      if (!result) throw std::bad_alloc();
      ::BIO_meth_set_write_ex(result.get(), write_bio);
      ::BIO_meth_set_read_ex(result.get(), read_bio);
      ::BIO_meth_set_ctrl(result.get(), control_bio);
      return result;
    }();
    return made.get();
  }

  SslContext context_;
  NativeSocket socket_;
  std::unique_ptr<::SSL, FreeBy<::SSL_free>> ssl_;
  std::string held_;  // encrypted, not yet sent
  std::error_code read_error_, write_error_, failure_;
  TokenBucket messages_{messages_per_second, messages_at_once};
  bool is_established_ = false;
  bool may_read_ = false;  // in this step
  bool has_input_ = false;
  bool more_follows_ = false;  // another record after this one
};

}  // namespace chatproto::detail
