// SPDX-License-Identifier: BSL-1.0
#include <chatproto/websocket.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <asio/buffer.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/write.hpp>

#include "catch.hpp"
#include "link_scene.hpp"

using namespace std::string_literals;
using namespace std::string_view_literals;
using chatproto::Layer;
using chatproto::WebSocketError;
using chatproto::WebSocketServer;
using chatproto::WebSocketServerOptions;

namespace {

/// A server's layer, and the other end of its connection, which is a raw socket.
class Scene {
 public:
  explicit Scene(WebSocketServerOptions options = {}, int buffer = 0) : factory_(std::move(options)) {
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends_.data()) == 0);
    for (auto const end : ends_) {
      ::fcntl(end, F_SETFL, O_NONBLOCK);
      if (buffer > 0) ::setsockopt(end, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
    }
    layer = factory_.make_layer(ends_[0], {});
  }
  Scene(Scene const&) = delete;
  Scene& operator=(Scene const&) = delete;
  ~Scene() {
    layer.reset();
    for (auto const end : ends_) ::close(end);
  }

  void sends(std::string_view bytes) {
    REQUIRE(::write(ends_[1], bytes.data(), bytes.size()) == static_cast<::ssize_t>(bytes.size()));
  }
  void ends() { ::shutdown(ends_[1], SHUT_WR); }
  /// Returns all that has come.
  std::string gets() {
    std::string all;
    std::array<char, 65536> bytes;
    for (::ssize_t n; (n = ::read(ends_[1], bytes.data(), bytes.size())) > 0;)
      all.append(bytes.data(), static_cast<std::size_t>(n));
    return all;
  }
  /// Shakes hands.
  void opens() {
    sends(request());
    REQUIRE(layer->handshake().wait == Layer::Wait::nothing);
    REQUIRE(gets().starts_with("HTTP/1.1 101 "));
  }
  /// Returns what the layer reads; "(end)" if the other end has closed its side, "(nothing)" if nothing has come.
  std::string reads(std::size_t size = 65536) {
    std::string all;
    std::vector<char> bytes(size);
    for (;;) {
      auto const result = layer->read_some(bytes.data(), bytes.size());
      if (result.error == std::errc::protocol_error) return all + "(refused)";
      if (result.error) return all + "(error)";
      if (result.bytes == 0)
        return all + (result.wait == Layer::Wait::nothing ? "(end)" : all.empty() ? "(nothing)" : "");
      all.append(bytes.data(), result.bytes);
    }
    return all;
  }

  static std::string request(std::string_view fields = {}, std::string_view line = "GET / HTTP/1.1") {
    std::string all(line);
    all += "\r\nHost: chat.example.org:8080\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n";
    if (fields.find("Sec-WebSocket-Key") == fields.npos) all += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    if (fields.find("Sec-WebSocket-Version") == fields.npos) all += "Sec-WebSocket-Version: 13\r\n";
    return all.append(fields) + "\r\n";
  }

  std::unique_ptr<Layer> layer;

 private:
  WebSocketServer factory_;
  std::array<int, 2> ends_{};
};

/// A client's frame. `first`: FIN, reserved bits and opcode.
std::string frame(int first, std::string_view payload, bool is_masked = true) {
  std::string all(1, static_cast<char>(first));
  auto const mask = is_masked ? 0x80 : 0;
  if (payload.size() < 126) {
    all += static_cast<char>(mask | static_cast<int>(payload.size()));
  } else if (payload.size() < 65536) {
    all += static_cast<char>(mask | 126);
    all += static_cast<char>(payload.size() >> 8);
    all += static_cast<char>(payload.size() & 255);
  } else {
    all += static_cast<char>(mask | 127);
    for (auto shift = 56; shift >= 0; shift -= 8) all += static_cast<char>(payload.size() >> shift & 255);
  }
  if (!is_masked) return all.append(payload);
  constexpr std::string_view key = "\x12\xfe\x00\x7a"sv;
  all += key;
  for (std::size_t i = 0; i < payload.size(); ++i) all += static_cast<char>(payload[i] ^ key[i % 4]);
  return all;
}
std::string close_frame(int code) {
  return {'\x88', '\x02', static_cast<char>(code >> 8), static_cast<char>(code & 255)};
}
constexpr int text = 0x81, binary = 0x82, closing = 0x88, ping = 0x89, pong = 0x8a, first_text = 0x01,
              first_binary = 0x02, middle = 0x00, last = 0x80;

}  // namespace

TEST_CASE("a request for a WebSocket is answered as RFC 6455 says", "[websocket]") {
  Scene scene;
  auto const request = Scene::request();
  SECTION("at once") {
    scene.sends(request);
  }
  SECTION("byte by byte") {
    for (auto const byte : request.substr(0, request.size() - 1)) {
      scene.sends({&byte, 1});
      REQUIRE(scene.layer->handshake().wait == Layer::Wait::read);
    }
    scene.sends(request.substr(request.size() - 1));
  }
  auto const result = scene.layer->handshake();
  CHECK(!result.error);
  CHECK(result.wait == Layer::Wait::nothing);
  CHECK(scene.gets() ==
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n");
}

TEST_CASE("what comes with the request is not lost", "[websocket]") {
  Scene scene;
  scene.sends(Scene::request() + frame(binary, "early\n") + frame(binary, "bird\n"));
  REQUIRE(scene.layer->handshake().wait == Layer::Wait::nothing);
  CHECK(scene.layer->has_input());
  CHECK(scene.reads() == "early\nbird\n");
}

TEST_CASE("a request for anything else is answered, and the connection is over", "[websocket]") {
  std::string fields;
  for (auto i = 0; i < 65; ++i) fields += "a:b\n";
  struct {
    std::string request;
    std::string_view status;
    WebSocketError error;
  } const rows[] = {
      {"GET / HTTP/1.1\r\n\r\n", "400", WebSocketError::bad_request},
      {"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", "400", WebSocketError::bad_request},
      {"GET / HTTP/1.1\n" + fields, "431", WebSocketError::too_large},  // although it has not ended
      {Scene::request({}, "GET /chat HTTP/1.1"), "404", WebSocketError::not_found},
      {Scene::request({}, "POST / HTTP/1.1"), "405", WebSocketError::bad_method},
      {Scene::request({}, "HEAD / HTTP/1.1"), "400", WebSocketError::bad_request},
      {Scene::request({}, "GET / HTTP/1.0"), "400", WebSocketError::bad_request},
      {Scene::request("Sec-WebSocket-Version: 8\r\n"), "426", WebSocketError::bad_version},
      {Scene::request("Sec-WebSocket-Key: short\r\n"), "400", WebSocketError::bad_request},
      {Scene::request("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"),
       "400", WebSocketError::bad_request},
      {Scene::request("Host: twice\r\n"), "400", WebSocketError::bad_request},
      {Scene::request("Origin: https://elsewhere.example\r\n"), "403", WebSocketError::foreign_origin},
      {Scene::request("Origin: null\r\n"), "403", WebSocketError::foreign_origin},
      {"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
       "Sec-WebSocket-Version: 13\r\n\r\n",
       "400", WebSocketError::bad_request},
      {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "404", WebSocketError::not_found},
      {"slogin:bob\n", "400", WebSocketError::bad_request},
      {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"s, "400", WebSocketError::bad_request},
      {"GET / HTTP/1.1\r\nX: " + std::string(9000, 'x') + "\r\n\r\n", "431", WebSocketError::too_large},
  };
  for (auto const& [request, status, error] : rows) {
    CAPTURE(request);
    Scene scene;
    scene.sends(request);
    CHECK(scene.layer->handshake().wait == Layer::Wait::read);
    auto const answer = scene.gets();
    scene.sends(std::string(10'000, 'x'));  // is dropped
    CHECK(scene.layer->handshake().wait == Layer::Wait::read);
    scene.ends();
    CHECK(scene.layer->handshake().error == make_error_code(error));
    CHECK(answer.starts_with("HTTP/1.1 " + std::string(status) + ' '));
    CHECK(answer.find("\r\nConnection: close\r\n") != answer.npos);
  }
}

TEST_CASE("a page may connect if it comes from here, or its origin is allowed", "[websocket]") {
  auto const may = [](std::string const& origin, std::vector<std::string> origins) {
    Scene scene({.origins = std::move(origins)});
    scene.sends(Scene::request("Origin: " + origin + "\r\n"));
    scene.ends();
    return !scene.layer->handshake().error;
  };
  CHECK(may("http://chat.example.org:8080", {}));
  CHECK(may("https://Chat.Example.org:8080", {}));
  CHECK_FALSE(may("http://chat.example.org", {}));
  CHECK_FALSE(may("http://evil.example", {}));
  CHECK_FALSE(may("http://chat.example.org:8080.evil.example", {}));
  CHECK(may("https://other.example", {"https://one.example", "https://other.example"}));
  CHECK_FALSE(may("http://other.example", {"https://other.example"}));
  CHECK(may("null", {"*"}));
  CHECK(may("https://other.example:443", {"https://Other.example"}));
  CHECK_FALSE(may("https://other.example:80", {"https://other.example"}));
  CHECK_FALSE(may("chat.example.org:8080", {}));
}

TEST_CASE("an origin is its scheme, its host and its port", "[websocket]") {
  using chatproto::detail::Origin;
  auto const same = [](std::string_view a, std::string_view b) { return Origin::parse(a).is_same(Origin::parse(b)); };
  CHECK(same("http://a", "HTTP://A:80"));
  CHECK(same("https://a:443", "https://a"));
  CHECK(same("http://[::1]:80", "http://[::1]"));
  CHECK_FALSE(same("http://a:443", "http://a"));
  CHECK_FALSE(same("http://a", "https://a"));
  CHECK_FALSE(same("http://[::1]:8080", "http://[::1]:8081"));
  CHECK_FALSE(same("null", "null"));
}

TEST_CASE("over an encrypted connection a page must have come by HTTPS", "[websocket]") {
  struct Encrypted final : Layer {
    explicit Encrypted(std::string_view bytes) : input(bytes) {}
    Result handshake() override { return {}; }
    Result read_some(char* bytes, std::size_t size) override {
      auto const n = input.copy(bytes, size);
      input.erase(0, n);
      return {n, n == 0 && is_open ? Wait::read : Wait::nothing, {}};
    }
    Result write(char const*, std::size_t size) override { return {size, Wait::nothing, {}}; }
    Result flush() override { return {}; }
    bool has_input() const noexcept override { return !input.empty(); }
    void close_output() noexcept override { is_open = false; }
    bool is_encrypted() const noexcept override { return true; }
    std::string input;
    bool is_open = true;
  };
  struct Factory final : chatproto::LayerFactory {
    std::unique_ptr<Layer> make_layer(chatproto::NativeSocket, std::string_view) override {
      return std::make_unique<Encrypted>(request);
    }
    std::string request;
  };
  auto const over = std::make_shared<Factory>();
  auto const error_of = [&](std::string const& origin) {
    over->request = Scene::request("Origin: " + origin + "\r\n");
    WebSocketServer server({.over = over});
    return server.make_layer(-1, {})->handshake().error;
  };
  CHECK(!error_of("https://chat.example.org:8080"));
  CHECK(error_of("http://chat.example.org:8080") == WebSocketError::foreign_origin);
}

TEST_CASE("a name that leads to this machine is a known one", "[websocket]") {
  asio::io_context context;
  asio::ip::tcp::acceptor acceptor(context, {asio::ip::address_v4::loopback(), 0});
  std::vector<std::string> origins;
  auto const error_for = [&](std::string const& host) {
    asio::ip::tcp::socket client(context);
    client.connect(acceptor.local_endpoint());
    auto accepted = acceptor.accept();
    WebSocketServer server({.origins = origins});
    auto const layer = server.make_layer(accepted.native_handle(), {});
    auto const request = "GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n";
    asio::write(client, asio::buffer(request));
    client.shutdown(asio::socket_base::shutdown_send);
    return layer->handshake().error;  // there is no page
  };
  for (auto const host : {"localhost", "LocalHost:8080", "chat.localhost", "localhost.", "127.0.0.1", "127.0.0.1:80",
                          "192.0.2.1", "[::1]:8080"}) {
    CAPTURE(host);
    CHECK(error_for(host) == WebSocketError::not_found);
  }
  for (auto const host : {"evil.example", "evil.example:8080", "localhost.evil.example", "evillocalhost",
                          "127.0.0.1.evil.example", "1"}) {
    CAPTURE(host);
    CHECK(error_for(host) == WebSocketError::foreign_host);
  }
  origins = {"https://chat.example.org:8443"};
  CHECK(error_for("Chat.example.org") == WebSocketError::not_found);
  CHECK(error_for("evil.example") == WebSocketError::foreign_host);
  origins = {"*"};
  CHECK(error_for("evil.example") == WebSocketError::not_found);
}

TEST_CASE("a client names the server and the port that it has connected to", "[websocket]") {
  asio::io_context context;
  auto const is_ipv6 = GENERATE(false, true);
  auto const address = is_ipv6 ? asio::ip::address(asio::ip::address_v6::loopback())
                               : asio::ip::address(asio::ip::address_v4::loopback());
  asio::ip::tcp::acceptor acceptor(context, {address, 0});
  asio::ip::tcp::socket client(context);
  client.connect(acceptor.local_endpoint());
  client.non_blocking(true);
  auto const layer = chatproto::WebSocketClient().make_layer(client.native_handle(), is_ipv6 ? "::1" : "chat.example");
  REQUIRE(layer->handshake().wait == Layer::Wait::read);
  std::array<char, 1000> request;
  auto const size = acceptor.accept().read_some(asio::buffer(request));
  auto const host = "\r\nHost: "s + (is_ipv6 ? "[::1]:" : "chat.example:") +
                    std::to_string(acceptor.local_endpoint().port()) + "\r\n";
  CHECK(std::string_view(request.data(), size).find(host) != std::string_view::npos);
}

TEST_CASE("what a client's request names is checked", "[websocket]") {
  using chatproto::WebSocketClient;
  CHECK_THROWS_AS(WebSocketClient({.host = "a\r\nX: y"}), std::invalid_argument);
  CHECK_THROWS_AS(WebSocketClient({.host = "two words"}), std::invalid_argument);
  CHECK_THROWS_AS(WebSocketClient({.origin = "http://a\n"}), std::invalid_argument);
  CHECK_NOTHROW(WebSocketClient({.host = "[::1]:8080", .origin = "http://a"}));
}

TEST_CASE("the page is sent with a policy that allows its own style and script only", "[websocket]") {
  Scene scene({.page = "<html><style>a</style><script>b</script></html>"});
  auto const method = GENERATE("GET"s, "HEAD"s);
  scene.sends(method + " /?from=there HTTP/1.1\r\nHost: x\r\n\r\n");
  CHECK(scene.layer->handshake().wait == Layer::Wait::read);
  auto const answer = scene.gets();
  scene.ends();
  auto const error = scene.layer->handshake().error;
  CHECK(error == make_error_code(WebSocketError::answered));
  CHECK(error == std::errc::not_connected);  // no offence
  CHECK(make_error_code(WebSocketError::not_found) != std::errc::not_connected);
  CHECK(answer.starts_with("HTTP/1.1 200 OK\r\n"));
  CHECK(answer.find("Content-Length: 47\r\n") != answer.npos);
  CHECK(answer.find("style-src 'sha256-ypeBEsobvcr6wjGzmiPcTaeG7/gUfE5yuYB3ha/uSLs='") != answer.npos);
  CHECK(answer.find("script-src 'sha256-PiPoFgA5WUoziU9lZOGxNIu9egCI1CxKy3PurtWcAJ0='") != answer.npos);
  CHECK(answer.ends_with(method == "GET" ? "\r\n\r\n<html><style>a</style><script>b</script></html>" : "\r\n\r\n"));
}

TEST_CASE("each write is a frame", "[websocket]") {
  Scene scene;
  scene.opens();
  for (auto const size : {1u, 125u, 126u, 65535u, 65536u}) {
    CAPTURE(size);
    std::string const payload(size, 'x');
    CHECK(scene.layer->write(payload.data(), size).bytes == size);
    CHECK(scene.gets() == frame(binary, payload, false));
  }
}

TEST_CASE("what the socket does not take is held, and then sent", "[websocket]") {
  Scene scene({}, 4096);
  scene.opens();
  std::string expected, got, payload(50'000, 'x');
  for (auto i = 0; i < 10; ++i) {
    payload[0] = static_cast<char>('0' + i);
    while (scene.layer->flush().wait == Layer::Wait::write) got += scene.gets();
    auto const result = scene.layer->write(payload.data(), payload.size());
    CHECK(result.bytes == payload.size());
    CHECK(result.wait == Layer::Wait::write);
    CHECK(scene.layer->write("x", 1).bytes == 0);
    expected += frame(binary, payload, false);
  }
  while (scene.layer->flush().wait == Layer::Wait::write) got += scene.gets();
  got += scene.gets();
  CHECK(got == expected);
}

// Named after the cases of the Autobahn suite (autobahn-testsuite), as far as they apply: there are no extensions.
TEST_CASE("frames are taken or refused as the cases of Autobahn want", "[websocket]") {
  auto const big = std::string(65536, '*');
  auto const invalid =
      "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80"
      "edited"s;
  auto const valid = "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5"s;
  auto const code = [](int value, std::string_view reason = {}) {
    return std::string{static_cast<char>(value >> 8), static_cast<char>(value & 255)}.append(reason);
  };
  struct {
    std::string_view name;
    std::string sent, read;
    std::string answer = {};  // also after the close of our side; empty: only a close with 1000
  } const rows[] = {
      {"1.1.1", frame(text, ""), "(nothing)"},
      {"1.1.2", frame(text, std::string(125, '*')), std::string(125, '*')},
      {"1.1.3", frame(text, std::string(126, '*')), std::string(126, '*')},
      {"1.1.6", frame(text, std::string(65535, '*')), std::string(65535, '*')},
      {"1.1.7", frame(text, big), big},
      {"1.2.2", frame(binary, std::string(125, '\xfe')), std::string(125, '\xfe')},
      {"1.2.7", frame(binary, big), big},
      {"2.1", frame(ping, ""), "(nothing)", frame(pong, "", false)},
      {"2.3", frame(ping, "\x00\xff\xfe\xfd\xfc\xfb\x00\xff"sv), "(nothing)",
       frame(pong, "\x00\xff\xfe\xfd\xfc\xfb\x00\xff"sv, false)},
      {"2.4", frame(ping, std::string(125, '\xfe')), "(nothing)", frame(pong, std::string(125, '\xfe'), false)},
      {"2.5", frame(ping, std::string(126, '\xfe')), "(refused)", close_frame(1002)},
      {"2.7", frame(pong, ""), "(nothing)"},
      {"2.8", frame(pong, "unsolicited"), "(nothing)"},
      {"2.10", frame(ping, "1") + frame(ping, "2"), "(nothing)", frame(pong, "1", false) + frame(pong, "2", false)},
      {"3.1", frame(text | 0x40, "x"), "(refused)", close_frame(1002)},
      {"3.2", frame(text, "a") + frame(text | 0x20, "x") + frame(ping, ""), "a(refused)", close_frame(1002)},
      {"3.5", frame(binary | 0x50, "x"), "(refused)", close_frame(1002)},
      {"3.6", frame(ping | 0x60, "x"), "(refused)", close_frame(1002)},
      {"3.7", frame(closing | 0x70, ""), "(refused)", close_frame(1002)},
      {"4.1.1", frame(0x83, ""), "(refused)", close_frame(1002)},
      {"4.1.2", frame(0x84, "reserved"), "(refused)", close_frame(1002)},
      {"4.1.5", frame(text, "a") + frame(0x87, "x"), "a(refused)", close_frame(1002)},
      {"4.2.1", frame(0x8b, ""), "(refused)", close_frame(1002)},
      {"4.2.5", frame(text, "a") + frame(0x8f, "x"), "a(refused)", close_frame(1002)},
      {"5.1", frame(0x09, "f") + frame(last, "g"), "(refused)", close_frame(1002)},
      {"5.2", frame(0x0a, "f") + frame(last, "g"), "(refused)", close_frame(1002)},
      {"5.3", frame(first_text, "f") + frame(last, "g"), "fg"},
      {"5.6", frame(first_text, "f") + frame(ping, "p") + frame(last, "g"), "fg", frame(pong, "p", false)},
      {"5.9", frame(last, "x") + frame(text, "y"), "(refused)", close_frame(1002)},
      {"5.11", frame(middle, "x") + frame(text, "y"), "(refused)", close_frame(1002)},
      {"5.15", frame(first_text, "a") + frame(last, "b") + frame(middle, "c") + frame(text, "d"), "ab(refused)",
       close_frame(1002)},
      {"5.18", frame(first_text, "a") + frame(text, "b"), "a(refused)", close_frame(1002)},
      {"5.19",
       frame(first_text, "1") + frame(middle, "2") + frame(ping, "p") + frame(middle, "3") + frame(ping, "q") +
           frame(last, "4"),
       "1234", frame(pong, "p", false) + frame(pong, "q", false)},
      {"6.1.1", frame(text, ""), "(nothing)"},
      {"6.1.3", frame(first_text, "") + frame(middle, "mid") + frame(last, ""), "mid"},
      {"6.2.1", frame(text, valid), valid},
      {"6.2.3", frame(first_text, valid.substr(0, 1)) + frame(last, valid.substr(1)), valid},
      {"6.3.1", frame(text, invalid), "(refused)", close_frame(1007)},
      {"6.4.1", frame(first_text, "\xce\xba\xe1\xbd\xb9"sv) + frame(middle, "\xf4\x90\x80\x80"sv) + frame(last, "x"),
       "\xce\xba\xe1\xbd\xb9(refused)", close_frame(1007)},
      {"6.6.1", frame(text, "\xce"), "(refused)", close_frame(1007)},
      {"6.11.5", frame(text, "\xf4\x8f\xbf\xbf"), "\xf4\x8f\xbf\xbf"},
      {"6.12.1", frame(text, "\xfe"), "(refused)", close_frame(1007)},
      {"6.15.1", frame(text, "\xc0\xaf"), "(refused)", close_frame(1007)},
      {"6.20.1", frame(text, "\xed\xa0\x80"), "(refused)", close_frame(1007)},
      {"7.1.1", frame(text, "Hello") + frame(closing, code(1000)), "Hello(end)", close_frame(1000)},
      {"7.1.3", frame(closing, code(1000)) + frame(ping, "x"), "(end)", close_frame(1000)},
      {"7.3.1", frame(closing, ""), "(end)", close_frame(1000)},
      {"7.3.2", frame(closing, "a"), "(refused)", close_frame(1002)},
      {"7.3.4", frame(closing, code(1000, "Hello World!")), "(end)", close_frame(1000)},
      {"7.3.5", frame(closing, code(1000, std::string(123, '*'))), "(end)", close_frame(1000)},
      {"7.3.6", frame(closing, code(1000, std::string(124, '*'))), "(refused)", close_frame(1002)},
      {"7.5.1", frame(closing, code(1000, invalid)), "(refused)", close_frame(1007)},
      {"7.7.3", frame(closing, code(1002)), "(end)", close_frame(1002)},
      {"7.7.9", frame(closing, code(3000)), "(end)", close_frame(3000)},
      {"7.7.13", frame(closing, code(4999)), "(end)", close_frame(4999)},
      {"7.9.1", frame(closing, code(0)), "(refused)", close_frame(1002)},
      {"7.9.2", frame(closing, code(999)), "(refused)", close_frame(1002)},
      {"7.9.3", frame(closing, code(1004)), "(refused)", close_frame(1002)},
      {"7.9.4", frame(closing, code(1005)), "(refused)", close_frame(1002)},
      {"7.9.5", frame(closing, code(1006)), "(refused)", close_frame(1002)},
      {"7.9.9", frame(closing, code(2999)), "(refused)", close_frame(1002)},
      {"7.13.1", frame(closing, code(5000)), "(refused)", close_frame(1002)},
      {"10.1.1", frame(first_text, big.substr(0, 1300)) + frame(last, big.substr(1300)), big},
      // Not in the suite:
      {"not masked", frame(binary, "x", false), "(refused)", close_frame(1002)},
      {"2^63 bytes", "\x82\xff\x80\x00\x00\x00\x00\x00\x00\x00"s, "(refused)", close_frame(1002)},
      {"a length in more bytes than needed",
       "\x82\xfe\x00\x05"s + "\x00\x00\x00\x00"
                             "abcde"s,
       "(refused)", close_frame(1002)},
  };
  auto const step = GENERATE(std::size_t(0), 1u, 7u);  // 0: all at once
  for (auto const& [name, sent, read, answer] : rows) {
    if (step != 0 && sent.size() > 5000) continue;
    CAPTURE(name, step);
    Scene scene;
    scene.opens();
    std::string got, answers;
    for (std::size_t at = 0; at < sent.size(); at += step == 0 ? sent.size() : step) {
      scene.sends(std::string_view(sent).substr(at, step == 0 ? sent.size() : step));
      auto const piece = scene.reads();
      if (piece != "(nothing)") got += piece;
      answers += scene.gets();
      if (got.ends_with("(end)") || got.ends_with("(refused)")) break;
    }
    if (got.empty()) got = "(nothing)";
    if (step == 0 || answer != close_frame(1007))  // in pieces, some bytes come before the wrong one
      CHECK(got == read);
    else
      CHECK(got.ends_with("(refused)"));
    scene.layer->close_output();
    answers += scene.gets();
    auto const ends = answer.find("\x88"sv) != answer.npos;
    CHECK(answers == answer + (ends ? "" : close_frame(1000)));
    CHECK(scene.layer->write("late", 4).bytes == 4);  // nothing follows a close
    CHECK(scene.gets().empty());
  }
}

/// Takes all bytes at once, and holds them until it may send them.
class Holding final : public Layer {
 public:
  std::string held, sent;
  bool may_send = false;

  Result handshake() override { return {}; }
  Result read_some(char*, std::size_t) override { return {0, Wait::read, {}}; }
  Result write(char const* bytes, std::size_t size) override {
    if (!held.empty()) return {0, Wait::write, {}};
    held.assign(bytes, size);
    return {size, flush().wait, {}};
  }
  Result flush() override {
    if (!held.empty() && !may_send) return {0, Wait::write, {}};
    sent += held;
    return {std::exchange(held, {}).size(), Wait::nothing, {}};
  }
  bool has_input() const noexcept override { return false; }
  void close_output() noexcept override { sent += "(closed)"; }
};

TEST_CASE("output that an inner layer holds is waited for, in order", "[websocket]") {
  struct Silent final : chatproto::detail::WebSocketGreeter {
    ::http_parser_type expects() const noexcept override { return HTTP_REQUEST; }
    Greeting answer(chatproto::detail::HttpMessage const&, bool) override { return {}; }
  };
  auto owned = std::make_unique<Holding>();
  auto& inner = *owned;
  chatproto::detail::WebSocketLayer layer(-1, std::move(owned), std::make_unique<Silent>(), false);
  auto const one = layer.write("one", 3), two = layer.write("two", 3);
  CHECK(one.bytes == 3);
  CHECK(one.wait == Layer::Wait::write);
  CHECK(two.bytes == 0);
  CHECK(two.wait == Layer::Wait::write);
  CHECK(layer.flush().wait == Layer::Wait::write);
  inner.may_send = true;
  CHECK(layer.flush().wait == Layer::Wait::nothing);
  CHECK(layer.write("two", 3).bytes == 3);
  CHECK(inner.sent == frame(binary, "one", false) + frame(binary, "two", false));
}

TEST_CASE("a client's layer and a server's understand each other", "[websocket]") {
  std::array<int, 2> ends{};
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends.data()) == 0);
  WebSocketServer servers;
  chatproto::WebSocketClient clients;
  {
    auto const server = servers.make_layer(ends[0], {}), client = clients.make_layer(ends[1], "chat.example.org");
    auto const shake = [](Layer& layer) {
      auto const result = layer.handshake();
      REQUIRE(!result.error);
      return result.wait;
    };
    REQUIRE(shake(*client) == Layer::Wait::read);
    REQUIRE(shake(*server) == Layer::Wait::nothing);
    REQUIRE(shake(*client) == Layer::Wait::nothing);
    for (auto const& [from, to] : {std::pair(client.get(), server.get()), std::pair(server.get(), client.get())}) {
      std::string expected, got;
      std::vector<char> bytes(4000);
      for (auto i = 0u; i < 200; ++i) {
        std::string const piece(1 + i * 7, static_cast<char>('a' + i % 26));
        expected += piece;
        REQUIRE(from->write(piece.data(), piece.size()).bytes == piece.size());
        for (Layer::Result result; (result = to->read_some(bytes.data(), bytes.size())).bytes > 0;)
          got.append(bytes.data(), result.bytes);
      }
      CHECK(got == expected);
    }
    client->close_output();
    char byte;
    auto const end = server->read_some(&byte, 1);
    CHECK(end.bytes == 0);
    CHECK(end.wait == Layer::Wait::nothing);
    CHECK(!end.error);
  }
  for (auto const each : ends) ::close(each);
}

TEST_CASE("a client refuses what is no WebSocket server's answer", "[websocket]") {
  auto const good = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"s;
  auto const answer = GENERATE_COPY(good + "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n", good + "\r\n",
                                    "HTTP/1.1 200 OK\r\n\r\n"s, "err:not logged in\n"s);
  std::array<int, 2> ends{};
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends.data()) == 0);
  chatproto::WebSocketClient clients;
  {
    auto const client = clients.make_layer(ends[1], "::1");
    REQUIRE(client->handshake().wait == Layer::Wait::read);
    std::array<char, 1000> request;
    auto const size = ::read(ends[0], request.data(), request.size());
    REQUIRE(size > 0);
    CHECK(std::string(request.data(), static_cast<std::size_t>(size)).find("\r\nHost: [::1]\r\n") != std::string::npos);
    REQUIRE(::write(ends[0], answer.data(), answer.size()) > 0);
    CHECK(client->handshake().error == make_error_code(WebSocketError::refused));
  }
  for (auto const each : ends) ::close(each);
}

TEST_CASE("frames that a read had no room for are input", "[websocket]") {
  Scene scene;
  scene.opens();
  scene.sends(frame(binary, "abcd") + frame(binary, "efgh") + frame(ping, ""));
  std::array<char, 4> bytes;
  CHECK(scene.layer->read_some(bytes.data(), 4).bytes == 4);
  CHECK(scene.layer->has_input());
  CHECK(scene.layer->read_some(bytes.data(), 4).bytes == 4);
  CHECK(std::string(bytes.data(), 4) == "efgh");
  CHECK(scene.layer->has_input());
  CHECK(scene.layer->read_some(bytes.data(), 4).wait == Layer::Wait::read);
  CHECK_FALSE(scene.layer->has_input());
  CHECK(scene.gets() == frame(pong, "", false));
}

TEST_CASE("a connection that ends without a close has ended", "[websocket]") {
  Scene scene;
  scene.opens();
  scene.sends(frame(binary, "a\n") + frame(first_binary, "b"));
  scene.ends();
  CHECK(scene.reads() == "a\nb(end)");
}

TEST_CASE("pings whose pongs are not read take no memory", "[websocket]") {
  Scene scene({}, 2048);
  scene.opens();
  auto const payload = std::string(125, 'p');
  for (auto i = 0; i < 1000; ++i) {
    scene.sends(frame(ping, payload.substr(0, 120) + std::to_string(10'000 + i)));
    scene.reads();
  }
  std::string got;
  for (std::string more; !(more = scene.gets()).empty();) {
    got += more;
    scene.layer->flush();
  }
  CHECK(got.size() < 64 * 1024);
  CHECK(got.ends_with(std::to_string(10'999)));  // the latest is answered
}

TEST_CASE("many pings at once do not end a connection", "[websocket]") {
  Scene scene;
  scene.opens();
  std::string many;
  for (int i = 0; i < 700; ++i) many += frame(ping, std::string(125, 'x'));  // more than are taken in one read
  scene.sends(many + frame(binary, "line\n"));
  std::array<char, 100> bytes;
  auto result = scene.layer->read_some(bytes.data(), bytes.size());
  for (auto tries = 0; result.bytes == 0 && tries < 30; ++tries) {
    REQUIRE(result.wait == Layer::Wait::read);
    result = scene.layer->read_some(bytes.data(), bytes.size());
  }
  CHECK(std::string_view(bytes.data(), result.bytes) == "line\n");
  CHECK(scene.gets().ends_with(frame(pong, std::string(125, 'x'), false)));
}

TEST_CASE("a line may come in any frames, and be read in any pieces", "[websocket]") {
  Scene scene;
  scene.opens();
  std::string expected, bytes;
  for (auto i = 0; i < 3000; ++i) {
    auto const piece = std::string(static_cast<std::size_t>(i % 40), static_cast<char>('a' + i % 26));
    expected += piece;
    bytes += frame(i % 3 == 0 ? binary : i % 3 == 1 ? first_binary : last, piece);
  }
  std::string got;
  for (std::size_t at = 0; at < bytes.size(); at += 1000) {
    scene.sends(std::string_view(bytes).substr(at, 1000));
    for (std::string piece; (piece = scene.reads(17)) != "(nothing)";) got += piece;
  }
  CHECK(got == expected);
}

TEST_CASE("what follows a request that is refused does not destroy the answer", "[websocket]") {
  link_scene::Scene<> scene({}, false, std::make_shared<WebSocketServer>());
  scene.far_sends("POST / HTTP/1.1\r\nHost: localhost\r\n\r\n" + std::string(50'000, 'x'));
  scene.begin();
  auto const answer = scene.far_reads_all();
  CHECK(answer.starts_with("HTTP/1.1 405 "));
  CHECK(answer.ends_with("Method Not Allowed\n(end)"));
  scene.far_sends(std::string(50'000, 'x'));
  CHECK_FALSE(scene.ended());
  scene.remote.close();
  CHECK(scene.ends());
}

TEST_CASE("what follows a request is not read for ever", "[websocket]") {
  link_scene::Scene<> scene({}, false, std::make_shared<WebSocketServer>());
  scene.begin();
  scene.far_sends("POST / HTTP/1.1\r\nHost: localhost\r\n\r\n");
  CHECK_THROWS_AS(scene.far_sends(std::string(50'000'000, 'x')), std::system_error);
  CHECK(scene.ends());
}

TEST_CASE("what follows a wrong frame does not destroy the answer", "[websocket]") {
  link_scene::Scene<> scene({}, false, std::make_shared<WebSocketServer>());
  auto& service = scene.begin();
  auto request = Scene::request();
  request.replace(request.find("chat.example.org"), 16, "localhost");
  scene.far_sends(request);
  scene.far_sends(frame(binary, "line\n") + frame(0x83, "") + std::string(50'000, 'x'));
  auto const answer = scene.far_reads_all();
  CHECK(answer.starts_with("HTTP/1.1 101 "));
  CHECK(answer.ends_with(close_frame(1002) + "(end)"));
  CHECK(service.seen == link_scene::Lines{"(open)", "line", "(flush)", "(gone)"});
  scene.far_sends(std::string(1'000'000, 'x'));
  CHECK_FALSE(scene.ended());
  scene.remote.close();
  CHECK(scene.ends());
}
