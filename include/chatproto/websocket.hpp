// SPDX-License-Identifier: BSL-1.0
/// @file
/// WebSocket for servers and connections, by wslay and http-parser. Not part of chatproto.hpp: link the target
/// `chatproto::websocket`.
#pragma once

#include <algorithm>
#include <array>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <chatproto/detail/websocket/http_message.hpp>
#include <chatproto/detail/websocket/origin.hpp>
#include <chatproto/detail/websocket/websocket_layer.hpp>
#include <chatproto/layer.hpp>

namespace chatproto {

/// Why a connection did not become a WebSocket.
enum class WebSocketError {
  answered = 1,    ///< A request for a page was answered, and the connection closed.
  not_found,       ///< A request for what is not there (404).
  bad_request,     ///< A request that is not HTTP, or asks for a WebSocket in a wrong way (400).
  too_large,       ///< The head of a request had more than 8 KiB or 64 fields (431).
  bad_method,      ///< A request that is neither GET nor HEAD (405).
  bad_version,     ///< A request for another version of WebSocket than 13 (426).
  foreign_origin,  ///< A page from elsewhere has asked for a WebSocket (403).
  foreign_host,    ///< A request from this machine for a host that is elsewhere (421).
  refused,         ///< The server did not answer as one that speaks WebSocket.
};

/// Returns the category of `WebSocketError`.
inline std::error_category const& websocket_category() noexcept {
  struct Category final : std::error_category {
    char const* name() const noexcept override { return "websocket"; }
    std::string message(int value) const override {
      switch (static_cast<WebSocketError>(value)) {
        case WebSocketError::answered: return "a request for a page, which was answered";
        case WebSocketError::not_found: return "a request for a page that does not exist";
        case WebSocketError::bad_request: return "not a request for a WebSocket";
        case WebSocketError::too_large: return "a request that is too large";
        case WebSocketError::bad_method: return "a request with a wrong method";
        case WebSocketError::bad_version: return "a request for an unknown version of WebSocket";
        case WebSocketError::foreign_origin: return "a request from a page of another origin";
        case WebSocketError::foreign_host: return "a request from this machine for an unknown host";
        case WebSocketError::refused: return "the server does not speak WebSocket";
      }
      return "unknown error";
    }
    std::error_condition default_error_condition(int value) const noexcept override {
      if (value == static_cast<int>(WebSocketError::answered)) return std::errc::not_connected;
      return {value, *this};
    }
  };
  static Category const category;
  return category;
}
/// Makes an error code of this category.
inline std::error_code make_error_code(WebSocketError error) noexcept {
  return {static_cast<int>(error), websocket_category()};
}

}  // namespace chatproto

template <>
struct std::is_error_code_enum<chatproto::WebSocketError> : std::true_type {};

namespace chatproto {

/// The options of `WebSocketServer`.
struct WebSocketServerOptions {
  /// The origins whose pages may connect, such as `https://chat.example.org`; `*`: all. A page that came from this
  /// server, as its `Host` tells, always may, and so may programs that are no browsers, which name no origin.
  ///
  /// A request to a loopback address must name as its `Host` an address, `localhost`, a name that ends in
  /// `.localhost`, or the host of one of these origins: a page from elsewhere may let its own name lead to this machine
  /// (DNS rebinding). So the name that a proxy on this machine passes on must be listed here.
  std::vector<std::string> origins = {};
  /// The page that `GET /` answers: HTML, whose styles and scripts are inline (one `<style>`, one `<script>`). It may
  /// load nothing else, and connect to this server only. Empty: there is none.
  std::string page = {};
  /// What WebSocket is spoken over, such as a `TlsServer`; null: the socket itself.
  std::shared_ptr<LayerFactory> over = nullptr;
};

/// WebSocket (RFC 6455) for the clients of a listener.
///
/// Lines may be split and joined in frames as in TCP's segments. The server's frames are binary, because a text may be
/// any bytes. There are no extensions and no subprotocols.
///
/// @code
/// auto web = std::make_shared<chatproto::WebSocketServer>();
/// chatproto::Server<chatproto::ThreadPool> server({.listeners = {{.port = 47374}, {.port = 8080, .layer = web}}});
/// @endcode
///
/// Thread safety: distinct objects: safe. Shared objects: safe.
class WebSocketServer final : public LayerFactory {
 public:
  /// Prepares the page. Throws `std::bad_alloc`.
  explicit WebSocketServer(WebSocketServerOptions options = {})
      : shared_(std::make_shared<Shared>(std::move(options))) {}

  std::unique_ptr<Layer> make_layer(NativeSocket socket, std::string_view host) override {
    auto const& over = shared_->options.over;
    return std::make_unique<detail::WebSocketLayer>(socket, over ? over->make_layer(socket, host) : nullptr,
                                                    std::make_unique<Greeter>(shared_, detail::is_loopback(socket)),
                                                    false);
  }

 private:
  using HttpMessage = detail::HttpMessage;

  struct Shared {
    explicit Shared(WebSocketServerOptions all) : options(std::move(all)) {
      auto const hash_of = [this](std::string_view tag) -> std::string {
        auto const open = '<' + std::string(tag) + '>', close = "</" + std::string(tag) + '>';
        auto const begin = options.page.find(open), end = options.page.find(close, begin);
        if (begin == options.page.npos || end == options.page.npos) return "'none'";
        auto const text = std::string_view(options.page).substr(begin + open.size(), end - begin - open.size());
        return "'sha256-" + detail::base64(detail::digest(text, ::EVP_sha256())) + '\'';
      };
      policy = "default-src 'none'; connect-src 'self'; img-src data:; style-src " + hash_of("style") +
               "; script-src " + hash_of("script") + "; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    }
    WebSocketServerOptions const options;
    std::string policy;  // what the page may load
  };

  class Greeter final : public detail::WebSocketGreeter {
   public:
    Greeter(std::shared_ptr<Shared> shared, bool is_local) : shared_(std::move(shared)), is_local_(is_local) {}
    ::http_parser_type expects() const noexcept override { return HTTP_REQUEST; }
    Greeting answer(HttpMessage const& request, bool is_encrypted) override {
      using State = HttpMessage::State;
      if (request.state() == State::too_large)
        return refusal("431 Request Header Fields Too Large", WebSocketError::too_large);
      if (request.state() == State::invalid) return refusal("400 Bad Request", WebSocketError::bad_request);
      is_head_ = request.is_method(HTTP_HEAD);
      if (!is_head_ && !request.is_method(HTTP_GET))
        return refusal("405 Method Not Allowed", WebSocketError::bad_method, "Allow: GET, HEAD\r\n");
      auto const host = request.field("Host");
      if (!host || (request.is_http_1_1() && host->empty()))  // RFC 9112, section 3.2
        return refusal("400 Bad Request", WebSocketError::bad_request);
      if (is_local_ && !may_name(*host))
        return refusal("421 Misdirected Request", WebSocketError::foreign_host, {},
                       "This server does not know the host that was asked for. It knows addresses, localhost, and the "
                       "hosts of origins that may connect.\n");
      auto const target = request.target().substr(0, request.target().find('?'));
      auto const wants = request.has_word("Upgrade", "websocket");
      if (target != "/" || (!wants && shared_->options.page.empty()))
        return refusal("404 Not Found", WebSocketError::not_found);
      return wants ? upgrade(request, is_encrypted) : page();
    }

   private:
    Greeting upgrade(HttpMessage const& request, bool is_encrypted) const {
      auto const key = request.field("Sec-WebSocket-Key"), host = request.field("Host");
      if (is_head_ || !request.is_http_1_1() || !request.has_word("Connection", "Upgrade") || !host || host->empty() ||
          !key || !detail::is_websocket_key(*key))
        return refusal("400 Bad Request", WebSocketError::bad_request);
      if (request.field("Sec-WebSocket-Version") != "13")
        return refusal("426 Upgrade Required", WebSocketError::bad_version, "Sec-WebSocket-Version: 13\r\n");
      auto const origin = request.field("Origin");
      if (!origin || !may_connect(*origin, *host, is_encrypted))
        return refusal("403 Forbidden", WebSocketError::foreign_origin, {}, "Pages of this origin may not connect.\n");
      return {
          "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
              detail::websocket_accept(*key) + "\r\n\r\n",
          {}};
    }
    /// An unencrypted connection may come from a page by HTTPS, through a proxy.
    bool may_connect(std::string_view text, std::string_view host, bool is_encrypted) const noexcept {
      if (text.empty()) return true;
      auto const origin = detail::Origin::parse(text);
      if ((!is_encrypted || origin.is_scheme("https")) && origin.is_same(detail::Origin{origin.scheme, host}))
        return true;
      return any_origin([&](std::string_view each) { return origin.is_same(detail::Origin::parse(each)); });
    }
    bool may_name(std::string_view host) const noexcept {
      auto const name = detail::host_of(host);
      return detail::is_local_name(name) || detail::is_address(name) || any_origin([&](std::string_view each) {
               return detail::is_same_ignoring_case(detail::host_of(detail::Origin::parse(each).authority), name);
             });
    }
    bool any_origin(auto const& fits) const noexcept {
      auto const& allowed = shared_->options.origins;
      return std::any_of(allowed.begin(), allowed.end(),
                         [&](std::string const& each) { return each == "*" || fits(each); });
    }
    Greeting page() const {
      auto const& text = shared_->options.page;
      return response("200 OK",
                      "Content-Type: text/html; charset=utf-8\r\nContent-Security-Policy: " + shared_->policy +
                          "\r\nReferrer-Policy: no-referrer\r\nCache-Control: no-cache\r\n",
                      text, WebSocketError::answered);
    }
    Greeting refusal(std::string const& status, WebSocketError why, std::string const& fields = {},
                     std::string const& advice = {}) const {
      return response(status, "Content-Type: text/plain; charset=utf-8\r\n" + fields, status + '\n' + advice, why);
    }
    Greeting response(std::string const& status, std::string const& fields, std::string const& body,
                      WebSocketError why) const {
      auto bytes = "HTTP/1.1 " + status + "\r\n" + fields +
                   "X-Content-Type-Options: nosniff\r\nContent-Length: " + std::to_string(body.size()) +
                   "\r\nConnection: close\r\n\r\n";
      if (!is_head_) bytes += body;
      return {std::move(bytes), make_error_code(why)};
    }

    std::shared_ptr<Shared> shared_;
    bool const is_local_;
    bool is_head_ = false;
  };

  std::shared_ptr<Shared> shared_;
};

/// The options of `WebSocketClient`.
struct WebSocketClientOptions {
  /// The server as the request names it (`Host`): its name or address, an IPv6 address in brackets, and `:PORT` unless
  /// that is 80, or over TLS 443. Empty: what was connected to.
  std::string host = {};
  std::string origin = {};  ///< The origin that the request names. Empty: none, as of programs other than browsers.
  /// What WebSocket is spoken over, such as a `TlsClient`; null: the socket itself.
  std::shared_ptr<LayerFactory> over = nullptr;
};

/// WebSocket for a `Connection`.
///
/// Thread safety: distinct objects: safe. Shared objects: safe.
class WebSocketClient final : public LayerFactory {
 public:
  /// Takes the options. Throws `std::invalid_argument` if `host` or `origin` has a character that is not visible ASCII.
  explicit WebSocketClient(WebSocketClientOptions options = {}) : options_(std::move(options)) {
    if (!detail::is_visible(options_.host)) throw std::invalid_argument("WebSocketClient: host");
    if (!detail::is_visible(options_.origin)) throw std::invalid_argument("WebSocketClient: origin");
  }

  std::unique_ptr<Layer> make_layer(NativeSocket socket, std::string_view host) override {
    auto inner = options_.over ? options_.over->make_layer(socket, host) : nullptr;
    auto named = options_.host.empty() ? detail::authority_of(host, socket, inner ? 443 : 80) : options_.host;
    return std::make_unique<detail::WebSocketLayer>(socket, std::move(inner),
                                                    std::make_unique<Greeter>(std::move(named), options_.origin), true);
  }

 private:
  class Greeter final : public detail::WebSocketGreeter {
   public:
    Greeter(std::string host, std::string origin) : host_(std::move(host)), origin_(std::move(origin)) {
      std::array<unsigned char, 16> bytes;
      if (::RAND_bytes(bytes.data(), static_cast<int>(bytes.size())) != 1)
        throw std::system_error(std::make_error_code(std::errc::resource_unavailable_try_again), "WebSocket: key");
      key_ = detail::base64({reinterpret_cast<char const*>(bytes.data()), bytes.size()});
    }
    ::http_parser_type expects() const noexcept override { return HTTP_RESPONSE; }
    std::string begin() override {
      return "GET / HTTP/1.1\r\nHost: " + host_ +
             "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: " + key_ +
             "\r\nSec-WebSocket-Version: 13\r\n" + (origin_.empty() ? "" : "Origin: " + origin_ + "\r\n") + "\r\n";
    }
    Greeting answer(detail::HttpMessage const& response, bool) override {
      auto const is_right = response.state() == detail::HttpMessage::State::complete && response.status() == 101 &&
                            response.has_word("Upgrade", "websocket") && response.has_word("Connection", "Upgrade") &&
                            response.field("Sec-WebSocket-Accept") == detail::websocket_accept(key_) &&
                            response.field("Sec-WebSocket-Extensions") == "" &&
                            response.field("Sec-WebSocket-Protocol") == "";
      return {{}, is_right ? std::error_code() : make_error_code(WebSocketError::refused)};
    }

   private:
    std::string const host_, origin_;
    std::string key_;
  };

  WebSocketClientOptions const options_;
};

}  // namespace chatproto
