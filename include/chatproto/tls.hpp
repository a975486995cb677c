// SPDX-License-Identifier: BSL-1.0
/// @file
/// TLS for servers and connections, by OpenSSL 3. Not part of chatproto.hpp: link the target `chatproto::tls`.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <openssl/ssl.h>

#include <chatproto/detail/tls/tls_context.hpp>
#include <chatproto/detail/tls/tls_layer.hpp>
#include <chatproto/layer.hpp>

namespace chatproto {

/// The options of `TlsServer`. Files are in PEM format.
struct TlsServerOptions {
  std::string certificate;  ///< The file of the certificate, followed by those of its issuers, without the root.
  std::string key;          ///< The file of its private key, without a pass phrase.
  /// The file of the authorities whose certificates clients may show. Empty: clients are not asked for one.
  std::string client_authorities = {};
  /// Whether a client without a certificate is refused; otherwise `ClientInfo::certificate` is empty for it.
  bool require_client_certificate = true;
};

/// The options of `TlsClient`. Files are in PEM format.
struct TlsClientOptions {
  std::string authorities = {};  ///< The file of the authorities to trust. Empty: those of the system.
  std::string name = {};         ///< The name that the server must prove. Empty: the name or address connected to.
  std::string certificate = {};  ///< The file of the client's certificate. Empty: none.
  std::string key = {};          ///< The file of its private key.
};

/// Returns the category of errors in certificates. A code's value is OpenSSL's X509_V_ERR_..., and its message says
/// what was wrong with the certificate of the other end.
inline std::error_category const& certificate_category() noexcept { return detail::CertificateCategory::get(); }

/// Returns the category of other errors of TLS. A code's value is OpenSSL's; 1 stands for a connection that ended
/// without TLS's `close_notify`, so that its last bytes may be missing.
inline std::error_category const& tls_category() noexcept { return detail::TlsCategory::get(); }

/// TLS for the clients of a listener: TLS 1.2 and 1.3, with session resumption.
///
/// @code
/// auto tls = std::make_shared<chatproto::TlsServer>(chatproto::TlsServerOptions{"chat.pem", "chat.key"});
/// chatproto::Server<chatproto::ThreadPool> server({.listeners = {{.port = 47374}, {.port = 47375, .layer = tls}}});
/// @endcode
///
/// Thread safety: distinct objects: safe. Shared objects: safe.
class TlsServer final : public LayerFactory {
 public:
  /// Reads the files. Throws `std::system_error`, whose text names the file.
  explicit TlsServer(TlsServerOptions options) : options_(std::move(options)), context_(make()) {}

  /// Reads the files again, for the clients that connect from now on. Throws as the constructor does; what was read
  /// before is then used further.
  void reload() {
    auto context = make();
    std::lock_guard const lock(mutex_);
    context_.swap(context);
  }

  /// Reads each file, also if another one is wrong. Returns what is wrong; nothing if a `TlsServer` can be made.
  static std::vector<std::string> errors(TlsServerOptions const& options) {
    std::vector<std::string> all;
    auto const attempt = [&all](auto const& load, auto const&... files) {
      try {
        load(detail::make_tls_context(::TLS_server_method()).get(), files...);
      } catch (std::system_error const& error) {
        all.emplace_back(error.what());
      }
    };
    attempt(detail::load_chain, options.certificate);
    attempt(detail::load_key, options.key);
    if (all.empty())
      attempt(detail::load_certificate, options.certificate, options.key);  // whether they belong together
    if (!options.client_authorities.empty()) attempt(detail::load_client_authorities, options.client_authorities);
    return all;
  }

  std::unique_ptr<Layer> make_layer(NativeSocket socket, std::string_view) override {
    std::unique_lock lock(mutex_);
    auto context = context_;
    lock.unlock();
    return std::make_unique<detail::TlsLayer>(std::move(context), socket, std::string(), true);
  }

 private:
  detail::SslContext make() const {
    auto context = detail::make_tls_context(::TLS_server_method());
    auto* const made = context.get();
    detail::load_certificate(made, options_.certificate, options_.key);
    constexpr unsigned char id[] = "chatproto";  // for sessions that are resumed
    ::SSL_CTX_set_session_id_context(made, id, sizeof id);
    ::SSL_CTX_set_session_cache_mode(made, SSL_SESS_CACHE_OFF);  // tickets need none
    if (options_.client_authorities.empty()) return context;
    detail::load_client_authorities(made, options_.client_authorities);
    auto const required = options_.require_client_certificate ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0;
    ::SSL_CTX_set_verify(made, SSL_VERIFY_PEER | required, nullptr);
    return context;
  }

  TlsServerOptions const options_;
  std::mutex mutex_;  // guards context_
  detail::SslContext context_;
};

/// TLS for a `Connection`. The server must prove that it has the name or the address that was connected to.
///
/// Thread safety: distinct objects: safe. Shared objects: safe.
class TlsClient final : public LayerFactory {
 public:
  /// Reads the files. Throws `std::system_error`, whose text names the file.
  explicit TlsClient(TlsClientOptions options = {})
      : options_(std::move(options)), context_(detail::make_tls_context(::TLS_client_method())) {
    auto* const made = context_.get();
    ::SSL_CTX_set_verify(made, SSL_VERIFY_PEER, nullptr);
    if (options_.authorities.empty())
      detail::require_tls(::SSL_CTX_set_default_verify_paths(made) == 1, "the system's authorities");
    else
      detail::require_tls(::SSL_CTX_load_verify_file(made, options_.authorities.c_str()) == 1,
                          "authorities '" + options_.authorities + '\'');
    if (!options_.certificate.empty()) detail::load_certificate(made, options_.certificate, options_.key);
  }

  std::unique_ptr<Layer> make_layer(NativeSocket socket, std::string_view host) override {
    auto const name = options_.name.empty() ? std::string(host) : options_.name;
    if (name.empty()) throw std::system_error(std::make_error_code(std::errc::invalid_argument), "TLS: no server name");
    return std::make_unique<detail::TlsLayer>(context_, socket, name, false);
  }

 private:
  TlsClientOptions const options_;
  detail::SslContext context_;
};

}  // namespace chatproto
