// SPDX-License-Identifier: BSL-1.0
/// @file
/// The errors of TLS, and OpenSSL's contexts, which hold the settings and certificates of many connections.
#pragma once

#include <cerrno>
#include <memory>
#include <new>
#include <string>
#include <system_error>

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

namespace chatproto::detail {

struct CertificateCategory final : std::error_category {
  char const* name() const noexcept override { return "chatproto.certificate"; }
  std::string message(int value) const override {
    return std::string("certificate not accepted: ") + ::X509_verify_cert_error_string(value);
  }
  static CertificateCategory const& get() noexcept {
    static CertificateCategory const category;
    return category;
  }
};

struct TlsCategory final : std::error_category {
  char const* name() const noexcept override { return "chatproto.tls"; }
  std::string message(int value) const override {
    if (value == 1) return "TLS: the connection ended without TLS's close_notify";
    auto const* const reason = ::ERR_reason_error_string(static_cast<unsigned long>(value));
    return std::string("TLS: ") + (reason != nullptr ? reason : "error " + std::to_string(value));
  }
  static TlsCategory const& get() noexcept {
    static TlsCategory const category;
    return category;
  }
};

template <auto free>
struct FreeBy {
  void operator()(auto* object) const noexcept { free(object); }
};
using SslContext = std::shared_ptr<::SSL_CTX>;

/// Returns OpenSSL's oldest error of this thread, and forgets the others.
inline std::error_code take_tls_error() noexcept {
  auto const value = ::ERR_get_error();
  ::ERR_clear_error();
  if (ERR_SYSTEM_ERROR(value)) return {ERR_GET_REASON(value), std::generic_category()};
  return {value != 0 ? static_cast<int>(value) : EPROTO, value != 0 ? TlsCategory::get() : std::generic_category()};
}

/// Throws unless `done`.
inline void require_tls(bool done, std::string const& what) {
  if (!done) throw std::system_error(take_tls_error(), what);
}

/// Returns a context with what both ends have in common.
inline SslContext make_tls_context(::SSL_METHOD const* method) {
  ::ERR_clear_error();  // which the program may have left
  SslContext context(::SSL_CTX_new(method), FreeBy<::SSL_CTX_free>());
  if (!context) throw std::bad_alloc();
  auto* const made = context.get();
  // Mozilla's "intermediate" recommendation, without finite-field groups.
  require_tls(::SSL_CTX_set_min_proto_version(made, TLS1_2_VERSION) == 1 &&
                  ::SSL_CTX_set_cipher_list(made,
                                            "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
                                            "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
                                            "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305") == 1 &&
                  ::SSL_CTX_set1_groups_list(made, "X25519:P-256:P-384") == 1,
              "TLS");
  ::SSL_CTX_set_options(made, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  ::SSL_CTX_set_mode(made,
                     SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
  ::SSL_CTX_set_read_ahead(made, 1);
  // Otherwise OpenSSL would ask on the terminal, and keep the server waiting.
  ::SSL_CTX_set_default_passwd_cb(made, [](char*, int, int, void*) { return -1; });
  return context;
}

inline void load_chain(::SSL_CTX* context, std::string const& certificate) {
  require_tls(::SSL_CTX_use_certificate_chain_file(context, certificate.c_str()) == 1,
              "certificate '" + certificate + '\'');
}
inline void load_key(::SSL_CTX* context, std::string const& key) {
  require_tls(::SSL_CTX_use_PrivateKey_file(context, key.c_str(), SSL_FILETYPE_PEM) == 1, "key '" + key + '\'');
}
inline void load_certificate(::SSL_CTX* context, std::string const& certificate, std::string const& key) {
  load_chain(context, certificate);
  load_key(context, key);
  require_tls(::SSL_CTX_check_private_key(context) == 1, "key '" + key + "' of certificate '" + certificate + '\'');
}

/// `authorities`: the file of those that a client's certificate must come from.
inline void load_client_authorities(::SSL_CTX* context, std::string const& authorities) {
  auto* const names = ::SSL_load_client_CA_file(authorities.c_str());
  ::SSL_CTX_set_client_CA_list(context, names);  // which frees them
  require_tls(names != nullptr && ::SSL_CTX_load_verify_file(context, authorities.c_str()) == 1,
              "authorities '" + authorities + '\'');
}

}  // namespace chatproto::detail
