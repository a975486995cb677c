// SPDX-License-Identifier: BSL-1.0
/// @file
/// The server's flags for WebSocket, and the page for browsers.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <chatproto/layer.hpp>
#ifdef CHATPROTO_PROGRAMS_HAVE_WEBSOCKET
#include <chatproto/websocket.hpp>
#endif

#include "program.hpp"
#ifdef CHATPROTO_PROGRAMS_HAVE_PAGE
#include "page.hpp"
#endif

namespace program {

class WebSocketFlags {
 public:
  std::optional<std::uint16_t> port, secure_port;

  void add_to(CLI::App& app) {
    app.add_option("--websocket", port,
                   "TCP port to listen on for WebSocket, and to serve a page for browsers at; 0: a "
                   "free port")
        ->check(decimal(0, 65535))
        ->type_name("PORT");
    app.add_option("--secure-websocket", secure_port, "As --websocket, over TLS; needs --cert and --key")
        ->check(decimal(0, 65535))
        ->type_name("PORT");
    app.add_option_function<std::vector<std::string>>(
           "--origin", [this](std::vector<std::string> const& all) { origins_ = all; },
           "Origin, such as https://chat.example.org, whose pages may connect, besides the server's own; *: all")
        ->check(check_origin, "")
        ->allow_extra_args(false)  // PORT may follow
        ->type_name("ORIGIN");
  }

  /// Throws if there are origins, but no listener that they are for. `has_listener`: the service manager has given one.
  void check_origins(bool has_listener) const {
    if (!origins_.empty() && !has_listener && !port && !secure_port)
      throw CLI::ValidationError("--origin needs --websocket or --secure-websocket");
  }

  /// Returns the layer of a listener, over `tls` if that is not null.
  std::shared_ptr<chatproto::LayerFactory> layer([[maybe_unused]] std::shared_ptr<chatproto::LayerFactory> tls) const {
#ifdef CHATPROTO_PROGRAMS_HAVE_WEBSOCKET
    chatproto::WebSocketServerOptions options;
    options.origins = origins_;
#ifdef CHATPROTO_PROGRAMS_HAVE_PAGE
    options.page = page;
#endif
    options.over = std::move(tls);
    return std::make_shared<chatproto::WebSocketServer>(std::move(options));
#else
    throw std::runtime_error("this program was built without WebSocket, because wslay or http-parser was not found");
#endif
  }

 private:
  /// Returns what is wrong, for CLI11. A browser names its origin without a path.
  static std::string check_origin(std::string const& text) {
    auto const scheme = text.find("://");
    auto const is_right = scheme != text.npos && scheme > 0 && scheme + 3 < text.size() &&
                          text.find_first_of("/?#@ ", scheme + 3) == text.npos;
    return is_right || text == "*" ? "" : "an origin is like https://chat.example.org, without a path, or *: " + text;
  }

  std::vector<std::string> origins_;
};

}  // namespace program
