// SPDX-License-Identifier: BSL-1.0
#include "tls.hpp"

#include <cerrno>
#include <cstring>
#include <stdexcept>

#ifdef CHATPROTO_BENCH_TLS

#include <openssl/err.h>
#include <openssl/ssl.h>

namespace {

std::string reason_of(unsigned long error) {
  auto const* const reason = ERR_reason_error_string(error);
  return reason != nullptr ? reason : "error " + std::to_string(error);
}

struct Context {
  SSL_CTX* handle = SSL_CTX_new(TLS_client_method());

  Context() {
    if (handle == nullptr || SSL_CTX_set_min_proto_version(handle, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_ciphersuites(handle, "TLS_AES_256_GCM_SHA384") != 1 ||
        SSL_CTX_set1_groups_list(handle, "X25519") != 1)
      throw std::runtime_error("cannot set up OpenSSL: " + reason_of(ERR_get_error()));
    SSL_CTX_set_verify(handle, SSL_VERIFY_NONE, nullptr);
    // Nor is the certificate's own signature checked, which would take a third of a handshake's time here.
    SSL_CTX_set_cert_verify_callback(
        handle, [](X509_STORE_CTX*, void*) { return 1; }, nullptr);
    SSL_CTX_set_session_cache_mode(handle, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(handle,
                     SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_options(handle, SSL_OP_IGNORE_UNEXPECTED_EOF);  // an end like any other, as over TCP
    SSL_CTX_set_read_ahead(handle, 1);                          // else two recv for each record
  }
  ~Context() { SSL_CTX_free(handle); }
  Context(Context const&) = delete;
  Context& operator=(Context const&) = delete;
};

class OpenSsl final : public tls::Stream {
 public:
  OpenSsl(Context const& context, int fd) : ssl_(SSL_new(context.handle)) {
    if (ssl_ == nullptr || SSL_set_fd(ssl_, fd) != 1) {
      SSL_free(ssl_);
      throw std::runtime_error("cannot set up OpenSSL: " + reason_of(ERR_get_error()));
    }
  }
  ~OpenSsl() override { SSL_free(ssl_); }
  OpenSsl(OpenSsl const&) = delete;
  OpenSsl& operator=(OpenSsl const&) = delete;

  Step shake_hands() override {
    prepare();
    auto const result = SSL_connect(ssl_);
    switch (result == 1 ? SSL_ERROR_NONE : SSL_get_error(ssl_, result)) {
      case SSL_ERROR_NONE: return Step::done;
      case SSL_ERROR_WANT_READ: return Step::wants_to_read;
      case SSL_ERROR_WANT_WRITE: return Step::wants_to_write;
      default: explain(); return Step::failed;
    }
  }
  ssize_t receive(char* to, std::size_t size) override {
    prepare();
    std::size_t count = 0;
    return SSL_read_ex(ssl_, to, size, &count) == 1 ? static_cast<ssize_t>(count) : failed();
  }
  ssize_t send(char const* from, std::size_t size) override {
    prepare();
    std::size_t count = 0;
    return SSL_write_ex(ssl_, from, size, &count) == 1 ? static_cast<ssize_t>(count) : failed();
  }
  bool has_pending() const override { return SSL_has_pending(ssl_) == 1; }
  void say_end() override {
    prepare();
    SSL_shutdown(ssl_);
  }
  std::string why() const override { return why_; }

 private:
  static void prepare() {
    ERR_clear_error();
    errno = 0;
  }
  /// Returns what recv() and send() would. That a read waits for a write cannot be: TLS 1.3 has no renegotiation.
  ssize_t failed() {
    switch (SSL_get_error(ssl_, 0)) {
      case SSL_ERROR_WANT_READ:
      case SSL_ERROR_WANT_WRITE: errno = EAGAIN; return -1;
      case SSL_ERROR_ZERO_RETURN: return 0;
      case SSL_ERROR_SYSCALL: explain(); return -1;
      default:
        explain();
        errno = EPROTO;
        return -1;
    }
  }
  void explain() {
    auto const error = ERR_peek_last_error();
    why_ = error != 0 ? reason_of(error) : errno != 0 ? std::strerror(errno) : "the server has closed";
  }

  SSL* const ssl_;
  std::string why_;
};

}  // namespace

std::unique_ptr<tls::Stream> tls::open(int fd) {
  static Context const context;
  return std::make_unique<OpenSsl>(context, fd);
}

#else

std::unique_ptr<tls::Stream> tls::open(int) {
  throw std::runtime_error("--tls needs OpenSSL, and this program was built without it");
}

#endif
