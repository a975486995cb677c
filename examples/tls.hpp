// SPDX-License-Identifier: BSL-1.0
/// @file
/// The flags of TLS.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

#include <chatproto/connection.hpp>
#include <chatproto/layer.hpp>
#ifdef CHATPROTO_PROGRAMS_HAVE_TLS
#include <chatproto/tls.hpp>
#endif

#include "program.hpp"

namespace program {

#ifndef CHATPROTO_PROGRAMS_HAVE_TLS
[[noreturn]] inline void lack_tls() {
  throw std::runtime_error("this program was built without TLS, because OpenSSL was not found");
}
#endif

/// The command-line flags of a server's TLS.
class TlsServerFlags {
 public:
  std::optional<std::uint16_t> port;
  std::string address;

  void add_to(CLI::App& app) {
    auto* const tls = app.add_option("--tls", port, "TCP port to listen on for TLS, besides PORT; 0: a free port")
                          ->check(decimal(0, 65535))
                          ->type_name("PORT");
    app.add_option("--tls-address", address, "Address to listen on for TLS; by default that of --address")
        ->check(check_address, "");
    auto* const cert = app.add_option("--cert", certificate_, "File of the server's certificate chain (PEM)");
    auto* const key = app.add_option("--key", key_, "File of the certificate's private key (PEM)");
    auto* const client_ca =
        app.add_option("--client-ca", client_authorities_,
                       "File of authorities (PEM): TLS clients must have a certificate of one of them");
    for (auto* const file : {cert, key, client_ca}) file->type_name("FILE");
    cert->needs(key);
    key->needs(cert);
    client_ca->needs(cert);
    tls->needs(cert);
  }

  bool has_files() const { return !certificate_.empty(); }
  /// Reads the files, the first time or again. If that throws, which is `Errors`, what was read before stays in use.
  void read() {
#ifdef CHATPROTO_PROGRAMS_HAVE_TLS
    chatproto::TlsServerOptions const options{certificate_, key_, client_authorities_, true};
    try {
      if (server_ != nullptr) return server_->reload();
      server_ = std::make_shared<chatproto::TlsServer>(options);
    } catch (std::system_error const& error) {
      auto errors = chatproto::TlsServer::errors(options);
      if (errors.empty()) errors.emplace_back(error.what());  // it has been put right meanwhile
      throw Errors(std::move(errors));
    }
#else
    lack_tls();
#endif
  }
  /// Returns the layer of the TLS listener; null before `read`.
  std::shared_ptr<chatproto::LayerFactory> layer() const {
#ifdef CHATPROTO_PROGRAMS_HAVE_TLS
    return server_;
#else
    return nullptr;
#endif
  }

 private:
  std::string certificate_, key_, client_authorities_;
#ifdef CHATPROTO_PROGRAMS_HAVE_TLS
  std::shared_ptr<chatproto::TlsServer> server_;
#endif
};

/// The command-line flags of a client's TLS.
class TlsClientFlags {
 public:
  void add_to(CLI::App& app) {
    auto* const tls = app.add_flag("--tls", is_on_, "Use TLS; the server must prove that it is HOST");
    auto* const ca =
        app.add_option("--ca", authorities_, "File of the authorities to trust (PEM); by default those of the system");
    auto* const cert = app.add_option("--cert", certificate_, "File of the client's certificate chain (PEM)");
    auto* const key = app.add_option("--key", key_, "File of the certificate's private key (PEM)");
    for (auto* const file : {ca, cert, key}) file->needs(tls)->type_name("FILE");
    cert->needs(key);
    key->needs(cert);
  }

  bool is_on() const { return is_on_; }
  void set_up([[maybe_unused]] chatproto::Connection& connection) const {
    if (!is_on_) return;
#ifdef CHATPROTO_PROGRAMS_HAVE_TLS
    connection.layer(
        std::make_shared<chatproto::TlsClient>(chatproto::TlsClientOptions{authorities_, {}, certificate_, key_}));
#else
    lack_tls();
#endif
  }

 private:
  bool is_on_ = false;
  std::string authorities_, certificate_, key_;
};

}  // namespace program
