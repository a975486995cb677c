// SPDX-License-Identifier: BSL-1.0
#include "tls.hpp"

#include <stdexcept>

#ifdef CONFORMANCE_HAS_TLS

#include <array>
#include <new>
#include <utility>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>
#include <asio/error.hpp>

namespace conformance {
namespace {

constexpr int truncated = 1;  // no code of OpenSSL's is that small

/// Values are OpenSSL's error codes, or `truncated`.
class TlsCategory : public std::error_category {
 public:
  char const* name() const noexcept override { return "conformance.tls"; }
  std::string message(int value) const override {
    if (value == truncated) return "the end of TCP without TLS's close_notify";
    char const* const reason = ERR_reason_error_string(static_cast<unsigned long>(value));
    return std::string("TLS: ") + (reason != nullptr ? reason : "error " + std::to_string(value));
  }
};

/// Values are those of SSL_get_verify_result.
class CertificateCategory : public std::error_category {
 public:
  char const* name() const noexcept override { return "conformance.certificate"; }
  std::string message(int value) const override {
    return std::string("the server's certificate is not accepted: ") + X509_verify_cert_error_string(value);
  }
};

std::error_code tls_error(int value) {
  static TlsCategory const category;
  return {value, category};
}

/// Returns OpenSSL's oldest error, and forgets the others.
std::error_code take_error() {
  unsigned long const value = ERR_get_error();
  ERR_clear_error();
  return tls_error(static_cast<int>(value));
}

void require(bool done, std::string const& what) {
  if (!done) throw std::runtime_error(what + ": " + take_error().message());
}

struct Free {
  void operator()(SSL* ssl) const { SSL_free(ssl); }
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
};

/// One connection's TLS. OpenSSL reads and writes memory; the channel below carries that. Its callbacks hold a
/// reference.
class TlsState : public std::enable_shared_from_this<TlsState> {
 public:
  using Then = std::function<void(std::error_code const&)>;

  TlsState(std::unique_ptr<Channel> below, std::unique_ptr<SSL, Free> ssl)
      : below_(std::move(below)), ssl_(std::move(ssl)), input_(BIO_new(BIO_s_mem())), output_(BIO_new(BIO_s_mem())) {
    if (input_ == nullptr || output_ == nullptr) throw std::bad_alloc();
    SSL_set_bio(ssl_.get(), input_, output_);  // which owns them now
    SSL_set_connect_state(ssl_.get());
  }

  void handshake(Then then) {
    ERR_clear_error();
    int const result = SSL_do_handshake(ssl_.get());
    std::error_code error = error_of(result);
    if (long const verified = SSL_get_verify_result(ssl_.get()); error && verified != X509_V_OK) {
      static CertificateCategory const category;
      error = {static_cast<int>(verified), category};
    }
    flush([=, this, then = std::move(then)](std::error_code const& flush_error) mutable {
      if (error || flush_error || result == 1) return then(error ? error : flush_error);
      receive([=, this, then = std::move(then)](std::error_code const& receive_error) mutable {
        receive_error ? then(receive_error) : handshake(std::move(then));
      });
    });
  }

  void read(char* data, std::size_t size, Channel::Done done) {
    ERR_clear_error();
    std::size_t taken = 0;
    int const result = SSL_read_ex(ssl_.get(), data, size, &taken);
    std::error_code const error = error_of(result);
    // The other end may have asked for something that TLS has to answer.
    flush([=, this, done = std::move(done)](std::error_code const&) mutable {
      if (error || result == 1) return done(error, taken);
      receive([=, this, done = std::move(done)](std::error_code const& receive_error) mutable {
        receive_error ? done(receive_error, 0) : read(data, size, std::move(done));
      });
    });
  }

  void write(std::string_view bytes, Channel::Done done) {
    ERR_clear_error();
    std::size_t written = 0;
    std::error_code const error = error_of(SSL_write_ex(ssl_.get(), bytes.data(), bytes.size(), &written));
    flush([=, done = std::move(done)](std::error_code const& flush_error) {
      done(error ? error : flush_error, error || flush_error ? 0 : written);
    });
  }

  /// Sends close_notify, if that has not been sent.
  void finish() {
    if ((SSL_get_shutdown(ssl_.get()) & SSL_SENT_SHUTDOWN) != 0) return;
    ERR_clear_error();
    SSL_shutdown(ssl_.get());
    flush([](std::error_code const&) {});
  }

  void close() { below_->close(); }
  void reset() { below_->reset(); }

 private:
  /// Returns no error if OpenSSL only wants more input.
  [[nodiscard]] std::error_code error_of(int result) const {
    if (result > 0) return {};
    switch (SSL_get_error(ssl_.get(), result)) {
      case SSL_ERROR_WANT_READ: return {};
      case SSL_ERROR_ZERO_RETURN: return asio::error::eof;
      default: return take_error();
    }
  }

  /// Writes what OpenSSL has for the other end. The bytes live as long as the write.
  void flush(Then then) {
    auto const bytes = std::make_shared<std::string>(BIO_ctrl_pending(output_), '\0');
    if (bytes->empty()) return then({});
    std::size_t size = 0;
    BIO_read_ex(output_, bytes->data(), bytes->size(), &size);
    below_->write(*bytes, [self = shared_from_this(), bytes, then = std::move(then)](std::error_code const& error,
                                                                                     std::size_t) { then(error); });
  }

  /// Waits for input, and hands it to OpenSSL.
  void receive(Then then) {
    below_->read(received_.data(), received_.size(),
                 [self = shared_from_this(), then = std::move(then)](std::error_code const& error, std::size_t size) {
                   if (error) return then(error == asio::error::eof ? tls_error(truncated) : error);
                   std::size_t written = 0;
                   BIO_write_ex(self->input_, self->received_.data(), size, &written);
                   then({});
                 });
  }

  std::unique_ptr<Channel> below_;
  std::unique_ptr<SSL, Free> ssl_;
  BIO* input_;   // encrypted, from the other end
  BIO* output_;  // encrypted, for the other end
  std::array<char, 4096> received_{};
};

class TlsChannel : public Channel {
 public:
  explicit TlsChannel(std::shared_ptr<TlsState> state) : state_(std::move(state)) {}
  TlsChannel(TlsChannel const&) = delete;
  TlsChannel& operator=(TlsChannel const&) = delete;
  ~TlsChannel() override { state_->close(); }

  void read(char* data, std::size_t size, Done done) override { state_->read(data, size, std::move(done)); }
  void write(std::string_view bytes, Done done) override { state_->write(bytes, std::move(done)); }
  void finish() override { state_->finish(); }
  void close() override {
    state_->finish();  // most likely sent at once: the channel below tries to write before it waits
    state_->close();
  }
  void reset() override { state_->reset(); }

 private:
  std::shared_ptr<TlsState> state_;
};

class OpenSsl : public Wrapping {
 public:
  OpenSsl(TlsOptions const& options, std::string name)
      : name_(std::move(name)), context_(SSL_CTX_new(TLS_client_method())) {
    if (!context_) throw std::bad_alloc();
    require(SSL_CTX_set_min_proto_version(context_.get(), TLS1_2_VERSION) == 1, "TLS 1.2");
    if (!options.verifies) return;
    SSL_CTX_set_verify(context_.get(), SSL_VERIFY_PEER, nullptr);
    if (options.authorities.empty())
      require(SSL_CTX_set_default_verify_paths(context_.get()) == 1, "the system's authorities");
    else
      require(SSL_CTX_load_verify_file(context_.get(), options.authorities.c_str()) == 1, options.authorities);
    auto const tried = make();  // or a wrong name would be found only later
  }

  [[nodiscard]] std::string name() const override { return "TLS"; }

  void start(std::unique_ptr<Channel> channel, ConnectDone done) const override {
    auto const state = std::make_shared<TlsState>(std::move(channel), make());
    state->handshake([state, done = std::move(done)](std::error_code const& error) {
      done(error, error ? nullptr : std::make_unique<TlsChannel>(state));
    });
  }

 private:
  [[nodiscard]] std::unique_ptr<SSL, Free> make() const {
    std::unique_ptr<SSL, Free> ssl(SSL_new(context_.get()));
    if (!ssl) throw std::bad_alloc();
    X509_VERIFY_PARAM* const wanted = SSL_get0_param(ssl.get());
    if (X509_VERIFY_PARAM_set1_ip_asc(wanted, name_.c_str()) == 1) return ssl;
    ERR_clear_error();
    require(SSL_set_tlsext_host_name(ssl.get(), name_.c_str()) == 1 &&
                X509_VERIFY_PARAM_set1_host(wanted, name_.c_str(), name_.size()) == 1,
            "the name '" + name_ + "'");
    return ssl;
  }

  std::string name_;
  std::unique_ptr<SSL_CTX, Free> context_;
};

}  // namespace

std::shared_ptr<Wrapping const> make_tls(TlsOptions const& options, std::string const& name) {
  return std::make_shared<OpenSsl>(options, name);
}

}  // namespace conformance

#else

namespace conformance {

std::shared_ptr<Wrapping const> make_tls(TlsOptions const&, std::string const&) {
  throw std::runtime_error("--tls needs OpenSSL, without which this program was built");
}

}  // namespace conformance

#endif
