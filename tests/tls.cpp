// SPDX-License-Identifier: BSL-1.0
#include <chatproto/tls.hpp>

#include <chatproto/connection.hpp>
#include <chatproto/server.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <future>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <asio/buffer.hpp>
#include <asio/error.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/socket_base.hpp>
#include <asio/write.hpp>

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <openssl/rand.h>

#include "catch.hpp"
#include "client.hpp"
#include "judged_crowd.hpp"
#include "sanitized.hpp"
#include "socket_support.hpp"

using namespace std::chrono_literals;
using chatproto::ClientInfo;
using chatproto::Connection;
using chatproto::DisconnectReason;
using chatproto::Layer;
using chatproto::Peer;
using chatproto::TlsClient;
using chatproto::TlsServer;
using test::Client;
using test::Lines;
using test::Reasons;
using test::ServerThread;
using tcp = asio::ip::tcp;

#define POLICIES chatproto::ThreadPerClient, chatproto::ThreadPool, chatproto::StrandPool

namespace {

template <auto free>
using FreeBy = chatproto::detail::FreeBy<free>;
using Certificate = std::unique_ptr<::X509, FreeBy<::X509_free>>;
using Key = std::unique_ptr<::EVP_PKEY, FreeBy<::EVP_PKEY_free>>;
using Context = std::unique_ptr<::SSL_CTX, FreeBy<::SSL_CTX_free>>;
using Session = std::unique_ptr<::SSL_SESSION, FreeBy<::SSL_SESSION_free>>;

/// A certificate with its key.
struct Identity {
  Certificate certificate;
  Key key;
};

/// Makes a certificate of `name`. `names`: as in the extension, "DNS:a,IP:127.0.0.1"; empty: an authority. Without an
/// issuer it is self-signed. `days`: for how long it is valid from yesterday on.
Identity make(std::string const& name, std::string const& names = {}, Identity const* issuer = nullptr, int days = 7) {
  Identity made{Certificate(::X509_new()), Key(::EVP_EC_gen("P-256"))};
  auto* const certificate = made.certificate.get();
  ::X509_set_version(certificate, X509_VERSION_3);
  static auto serial = 1L;
  ::ASN1_INTEGER_set(::X509_get_serialNumber(certificate), ++serial);
  ::X509_gmtime_adj(::X509_getm_notBefore(certificate), -24 * 3600);
  ::X509_gmtime_adj(::X509_getm_notAfter(certificate), (days - 1) * 24L * 3600);
  ::X509_set_pubkey(certificate, made.key.get());
  ::X509_NAME_add_entry_by_txt(::X509_get_subject_name(certificate), "CN", MBSTRING_UTF8,
                               reinterpret_cast<unsigned char const*>(name.c_str()), -1, -1, 0);
  auto const& by = issuer != nullptr ? *issuer : made;
  ::X509_set_issuer_name(certificate, ::X509_get_subject_name(by.certificate.get()));
  auto const add = [&](int what, std::string const& value) {
    ::X509V3_CTX context;
    ::X509V3_set_ctx(&context, by.certificate.get(), certificate, nullptr, nullptr, 0);
    auto* const extension = ::X509V3_EXT_conf_nid(nullptr, &context, what, value.c_str());
    REQUIRE(extension != nullptr);
    ::X509_add_ext(certificate, extension, -1);
    ::X509_EXTENSION_free(extension);
  };
  names.empty() ? add(NID_basic_constraints, "critical,CA:TRUE") : add(NID_subject_alt_name, names);
  REQUIRE(::X509_sign(certificate, by.key.get(), ::EVP_sha256()) > 0);
  return made;
}

/// A folder with certificates and keys that lives as long as the test.
class Files {
 public:
  Files() {
    unsigned char random[8];
    ::RAND_bytes(random, sizeof random);
    std::string name = "chatproto-tls";
    for (auto const c : random) name += "-" + std::to_string(c);
    folder_ = std::filesystem::temp_directory_path() / name;
    std::filesystem::create_directory(folder_);
    write("ca", authority);
    write("other-ca", other);
    write("chat", make("chat", "DNS:localhost,IP:127.0.0.1", &authority));
  }
  ~Files() {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  Files(Files const&) = delete;
  Files& operator=(Files const&) = delete;

  void write(std::string const& name, Identity const& identity) const {
    auto* file = std::fopen(certificate(name).c_str(), "w");
    ::PEM_write_X509(file, identity.certificate.get());
    std::fclose(file);
    file = std::fopen(key(name).c_str(), "w");
    ::PEM_write_PrivateKey(file, identity.key.get(), nullptr, nullptr, 0, nullptr, nullptr);
    std::fclose(file);
  }
  void write(std::string const& name, std::string_view text) const {
    std::ofstream(certificate(name), std::ios::binary) << text;
  }
  std::string certificate(std::string const& name) const { return (folder_ / (name + ".pem")).string(); }
  std::string key(std::string const& name) const { return (folder_ / (name + ".key")).string(); }

  /// Returns the TLS of a server with this certificate.
  std::shared_ptr<TlsServer> server(std::string const& name = "chat") const {
    return std::make_shared<TlsServer>(chatproto::TlsServerOptions{certificate(name), key(name)});
  }
  /// Returns the TLS of a server that looks at its clients' certificates.
  std::shared_ptr<TlsServer> strict_server(bool required) const {
    return std::make_shared<TlsServer>(
        chatproto::TlsServerOptions{certificate("chat"), key("chat"), certificate("ca"), required});
  }
  /// Returns the TLS of a client that trusts `ca` and has the certificate `own`, if that is not empty.
  std::shared_ptr<TlsClient> client(std::string const& ca = "ca", std::string const& own = {}) const {
    chatproto::TlsClientOptions options{certificate(ca)};
    if (!own.empty()) options.certificate = certificate(own), options.key = key(own);
    return std::make_shared<TlsClient>(options);
  }

  Identity authority = make("authority"), other = make("other authority");

 private:
  std::filesystem::path folder_;
};

Files const& files() {
  static Files const made;
  return made;
}

/// Options of a server with a plain and a TLS listener.
chatproto::ServerOptions both(std::shared_ptr<chatproto::LayerFactory> layer, chatproto::Observer* observer = nullptr) {
  auto options = test::patient();
  options.address.clear();
  options.listeners = {{.address = "127.0.0.1"}, {.address = "127.0.0.1", .layer = std::move(layer)}};
  options.observer = observer;
  return options;
}

Connection connect(std::uint16_t port, std::shared_ptr<chatproto::LayerFactory> layer) {
  Connection connection;
  connection.time_limit(test::patience);
  connection.layer(std::move(layer));
  connection.connect("127.0.0.1", std::to_string(port));
  return connection;
}

/// Says what is known of a client, and on request as many numbers as it says.
struct Known {
  struct Session {
    Peer peer;
    ClientInfo info;
    void on_line(std::string_view line) const {
      if (line == "quit") return peer.close();
      if (line == "who") return static_cast<void>(peer.send_line(info.certificate + (info.is_encrypted ? "+" : "-")));
      auto const count = line.starts_with("count:") ? std::stoi(std::string(line.substr(6))) : 0;
      for (auto i = 0; i < count; ++i) peer.send(std::to_string(i) + std::string(90, 'x') + '\n');
      if (count == 0) peer.send(std::string(line) + '\n');
    }
  };
  Session open(Peer peer, ClientInfo info) { return {std::move(peer), std::move(info)}; }
};

/// A TLS client or server of OpenSSL alone, on buffers in memory, over a socket that waits.
class Raw {
 public:
  using Setup = void (*)(::SSL_CTX*);
  explicit Raw(
      tcp::socket socket, Setup set_up = [](::SSL_CTX*) {}, bool is_server = false)
      : socket_(std::move(socket)), context_(::SSL_CTX_new(is_server ? ::TLS_server_method() : ::TLS_client_method())) {
    if (is_server) {
      ::SSL_CTX_use_certificate_file(context_.get(), files().certificate("chat").c_str(), SSL_FILETYPE_PEM);
      ::SSL_CTX_use_PrivateKey_file(context_.get(), files().key("chat").c_str(), SSL_FILETYPE_PEM);
    }
    set_up(context_.get());
    ssl_.reset(::SSL_new(context_.get()));
    ::SSL_set_bio(ssl_.get(), ::BIO_new(::BIO_s_mem()), ::BIO_new(::BIO_s_mem()));
    is_server ? ::SSL_set_accept_state(ssl_.get()) : ::SSL_set_connect_state(ssl_.get());
  }
  /// Connects to a server of this machine.
  explicit Raw(
      std::uint16_t port, Setup set_up = [](::SSL_CTX*) {})
      : Raw(connected(port), set_up) {}

  /// Returns whether the handshake succeeds.
  bool shake() {
    return go([this] { return ::SSL_do_handshake(ssl_.get()); }) == 1;
  }
  void say(std::string_view text) {
    encrypt(text);
    send(output());
  }
  void encrypt(std::string_view text) { ::SSL_write(ssl_.get(), text.data(), static_cast<int>(text.size())); }
  /// Returns the next line, "(end)" after a close_notify, or "(error)".
  std::string hear() {
    for (;;) {
      if (auto const end = input_.find('\n'); end != std::string::npos) {
        auto line = input_.substr(0, end);
        input_.erase(0, end + 1);
        return line;
      }
      char bytes[16 * 1024];
      auto const n = go([&] { return ::SSL_read(ssl_.get(), bytes, sizeof bytes); });
      if (n <= 0) return ::SSL_get_error(ssl_.get(), n) == SSL_ERROR_ZERO_RETURN ? "(end)" : "(error)";
      input_.append(bytes, static_cast<std::size_t>(n));
    }
  }
  std::string asks(std::string const& line) {
    say(line + '\n');
    return hear();
  }

  /// Returns what OpenSSL wants to send.
  std::string output() {
    std::string bytes(::BIO_ctrl_pending(::SSL_get_wbio(ssl_.get())), '\0');
    if (!bytes.empty()) ::BIO_read(::SSL_get_wbio(ssl_.get()), bytes.data(), static_cast<int>(bytes.size()));
    return bytes;
  }
  /// Sends these bytes as they are.
  void send(std::string_view bytes) {
    std::error_code ignored;  // the other end may have closed
    asio::write(socket_, asio::buffer(bytes), ignored);
  }
  /// Gives OpenSSL what comes. Returns false at the end.
  bool receive() {
    char bytes[16 * 1024];
    std::error_code ec;
    auto const n = socket_.read_some(asio::buffer(bytes), ec);
    if (!ec) ::BIO_write(::SSL_get_rbio(ssl_.get()), bytes, static_cast<int>(n));
    return !ec;
  }
  void close() { socket_.close(); }
  void reset() {
    socket_.set_option(asio::socket_base::linger(true, 0));
    socket_.close();
  }
  ::SSL* ssl() { return ssl_.get(); }
  tcp::socket& socket() { return socket_; }

 private:
  static asio::io_context& context() {
    static asio::io_context mine;
    return mine;
  }
  static tcp::socket connected(std::uint16_t port) {
    tcp::socket socket(context());
    socket.connect({asio::ip::address_v4::loopback(), port});
    socket.set_option(tcp::no_delay(true));
    return socket;
  }
  int go(auto const& call) {
    for (;;) {
      auto const result = call();
      send(output());
      if (result > 0 || ::SSL_get_error(ssl_.get(), result) != SSL_ERROR_WANT_READ || !receive()) return result;
    }
  }

  tcp::socket socket_;
  Context context_;
  std::unique_ptr<::SSL, FreeBy<::SSL_free>> ssl_;
  std::string input_;
};

void only_tls_1_2(::SSL_CTX* context) { ::SSL_CTX_set_max_proto_version(context, TLS1_2_VERSION); }

}  // namespace

// --- Server and Connection -------------------------------------------------------------------------------------------

TEMPLATE_TEST_CASE("clients with and without TLS meet in one room", "[tls]", POLICIES) {
  ServerThread<TestType> server(both(files().server()));
  CHECK(test::converse(server->port(0)).empty());
  auto alice = connect(server->port(1), files().client()), bob = connect(server->port(1), files().client());
  auto carol = test::receiver(server->port(0), "carol", "cafe");
  auto dave = test::sender(server->port(0), "dave", "cafe");
  for (auto const& line : {"rlogin:alice", "join:cafe"}) CHECK(alice.request(chatproto::parse(line)).tag == "ok");
  for (auto const& line : {"slogin:bob", "join:cafe", "sendall:hi"})
    CHECK(bob.request(chatproto::parse(line)).tag == "ok");
  CHECK(dave.asks("sendall:ho") == "ok");
  CHECK(carol.next(2) == Lines{"delivery:cafe:bob:hi", "delivery:cafe:dave:ho"});
  CHECK(alice.receive_line() == "delivery:cafe:bob:hi");
  CHECK(alice.receive_line() == "delivery:cafe:dave:ho");
  CHECK(bob.request(chatproto::parse("quit:")).tag == "ok");
  std::error_code ec;
  bob.receive(ec);
  CHECK(ec == asio::error::eof);  // the server's close_notify
}

TEMPLATE_TEST_CASE("a server keeps its promises to a crowd over TLS", "[tls][concurrency]", POLICIES) {
  ServerThread<TestType> server([] {
    auto options = both(files().server());
    options.threads = 3;
    options.queue_limit = 64 * 1024 * 1024;  // more than is sent
    return options;
  }());
  auto const layers = files().client();
  auto const connect = [&] { return std::make_unique<raw::Client>(server->port(1), layers.get()); };
  judged::judge_crowd<raw::Client>(connect, judged::lively);
  CHECK(test::eventually([&server] { return server->service().room_count() == 0; }));
}

TEST_CASE("much output passes through TLS, to a client that reads late", "[tls]") {
  auto options = both(files().server());
  options.queue_limit = 64'000'000;
  options.send_buffer = 8 * 1024;
  ServerThread<chatproto::ThreadPool, Known> server(options);
  auto client = connect(server->port(1), files().client());
  auto other = connect(server->port(1), files().client());
  constexpr auto count = CHATPROTO_SANITIZED ? 20'000 : 80'000;
  client.send_line("count:" + std::to_string(count));
  client.send_line("last");
  other.send_line("hi");
  CHECK(other.receive_line() == "hi");  // although the first one does not read
  auto wrong = 0;
  for (auto i = 0; i < count; ++i) wrong += client.receive_line() != std::to_string(i) + std::string(90, 'x');
  CHECK(wrong == 0);
  CHECK(client.receive_line() == "last");
}

TEST_CASE("a client accepts only the certificate of the server that it wanted", "[tls]") {
  struct {
    char const* certificate;
    char const* authority;
    char const* name;
    int error;
  } const cases[] = {
      {"chat", "ca", "example.org", X509_V_ERR_HOSTNAME_MISMATCH},
      {"chat", "ca", "127.0.0.2", X509_V_ERR_IP_ADDRESS_MISMATCH},
      {"named", "ca", "", X509_V_ERR_IP_ADDRESS_MISMATCH},
      {"chat", "other-ca", "", X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY},
      {"self-signed", "ca", "", X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT},
      {"expired", "ca", "", X509_V_ERR_CERT_HAS_EXPIRED},
      {"chat", "ca", "", X509_V_OK},
      {"chat", "ca", "localhost", X509_V_OK},
      {"named", "ca", "localhost", X509_V_OK},
  };
  auto const& authority = files().authority;
  files().write("named", make("chat", "DNS:localhost", &authority));
  files().write("self-signed", make("chat", "DNS:localhost,IP:127.0.0.1"));
  files().write("expired", make("chat", "DNS:localhost,IP:127.0.0.1", &authority, 0));
  for (auto const& each : cases) {
    CAPTURE(each.certificate, each.authority, each.name);
    ServerThread<chatproto::ThreadPool, Known> server(both(files().server(each.certificate)));
    Connection connection;
    connection.time_limit(test::patience);
    connection.layer(
        std::make_shared<TlsClient>(chatproto::TlsClientOptions{files().certificate(each.authority), each.name}));
    std::error_code ec;
    connection.connect("127.0.0.1", std::to_string(server->port(1)), ec);
    CHECK(ec.value() == each.error);
    if (!ec) continue;
    CHECK(&ec.category() == &chatproto::certificate_category());
    CHECK(ec.message().starts_with("certificate not accepted: "));
    CHECK_FALSE(connection.is_open());
  }
}

TEST_CASE("TLS 1.1 is refused", "[tls]") {
  Reasons reasons;
  ServerThread<chatproto::ThreadPool, Known> server(both(files().server(), &reasons));
  Raw old(server->port(1), [](::SSL_CTX* context) {
    ::SSL_CTX_set_min_proto_version(context, TLS1_VERSION);
    ::SSL_CTX_set_max_proto_version(context, TLS1_1_VERSION);
    ::SSL_CTX_set_security_level(context, 0);
  });
  CHECK_FALSE(old.shake());
  CHECK(test::eventually([&] { return reasons.all() == Lines{"handshake"}; }));
  Raw current(server->port(1), only_tls_1_2);
  CHECK(current.shake());
  CHECK(current.asks("hi") == "hi");
}

TEST_CASE("a server asks for its clients' certificates", "[tls]") {
  auto const required = GENERATE(true, false);
  files().write("alice", make("alice", "DNS:alice", &files().authority));
  files().write("foreign", make("mallory", "DNS:mallory", &files().other));
  Reasons reasons;
  ServerThread<chatproto::ThreadPool, Known> server(both(files().strict_server(required), &reasons));
  auto const who = [&](std::string const& own) {
    try {
      auto connection = connect(server->port(1), files().client("ca", own));
      connection.send_line("who");
      return connection.receive_line();
    } catch (std::system_error const&) {
      return std::string("(refused)");
    }
  };
  CHECK(who("alice") == "alice+");
  CHECK(who("foreign") == "(refused)");
  CHECK(who("") == (required ? "(refused)" : "+"));
  CHECK(Client(server->port(0)).asks("err:") == "err");
  CHECK(test::eventually([&] {
    auto const all = reasons.all();
    return std::count(all.begin(), all.end(), "handshake") == (required ? 2 : 1);
  }));
}

TEST_CASE("a client learns why its certificate was refused", "[tls]") {
  ServerThread<chatproto::ThreadPool, Known> server(both(files().strict_server(true)));
  auto connection = connect(server->port(1), files().client());  // its part of the handshake is done
  std::error_code ec;
  connection.receive(ec);
  CHECK(&ec.category() == &chatproto::tls_category());
  CHECK(ec.message().find("certificate required") != std::string::npos);
}

TEST_CASE("each file that is wrong is reported, however many are", "[tls]") {
  auto const errors = [](std::string const& certificate, std::string const& key, std::string const& authorities = {}) {
    return TlsServer::errors({certificate, key, authorities});
  };
  auto const certificate = files().certificate("chat"), key = files().key("chat"), ca = files().certificate("ca");
  auto const none = files().certificate("none"), garbage = files().certificate("garbage");
  files().write("garbage", "no PEM\n");
  CHECK(errors(certificate, key).empty());
  CHECK(errors(certificate, key, ca).empty());
  auto const all = errors(none, garbage, none);
  REQUIRE(all.size() == 3);
  CHECK(all[0] == "certificate '" + none + "': No such file or directory");
  CHECK(all[1].starts_with("key '" + garbage + "': "));
  CHECK(all[2] == "authorities '" + none + "': No such file or directory");
  {
    auto* const file = std::fopen(files().key("locked").c_str(), "w");
    auto const locked = make("locked", "DNS:localhost", &files().authority);
    ::PEM_write_PrivateKey(file, locked.key.get(), ::EVP_aes_128_cbc(), nullptr, 0, nullptr,
                           const_cast<char*>("pass phrase"));
    std::fclose(file);
    CHECK(errors(certificate, files().key("locked")).size() == 1);  // nobody was asked for the pass phrase
  }
  auto const two = errors(garbage, key, garbage);
  REQUIRE(two.size() == 2);
  CHECK(two[0].starts_with("certificate '" + garbage + "': "));
  CHECK(two[1].starts_with("authorities '" + garbage + "': "));
  auto const pair = errors(certificate, files().key("ca"), ca);  // each is right, but they do not belong together
  REQUIRE(pair.size() == 1);
  CHECK(pair[0].find("mismatch") != std::string::npos);
}

TEST_CASE("files that are read again hold for new clients; broken ones change nothing", "[tls]") {
  files().write("turn", make("first", "IP:127.0.0.1", &files().authority));
  auto const tls = files().server("turn");
  ServerThread<chatproto::ThreadPool, Known> server(both(tls));
  auto const shown = [](Raw& client) {
    char name[64] = "";
    ::X509_NAME_get_text_by_NID(::X509_get_subject_name(::SSL_get0_peer_certificate(client.ssl())), NID_commonName,
                                name, sizeof name);
    return std::string(name);
  };
  Raw old(server->port(1));
  REQUIRE(old.shake());
  CHECK(shown(old) == "first");

  files().write("turn", make("second", "IP:127.0.0.1", &files().authority));
  tls->reload();
  Raw current(server->port(1));
  REQUIRE(current.shake());
  CHECK(shown(current) == "second");

  auto const what_of_reload = [&]() -> std::string {
    try {
      tls->reload();
    } catch (std::system_error const& error) {
      return error.what();
    }
    return "(nothing)";
  };
  files().write("turn", "no certificate\n");
  CHECK(what_of_reload().find(files().certificate("turn")) != std::string::npos);
  files().write("turn", make("third", "IP:127.0.0.1", &files().authority));
  std::filesystem::copy_file(files().key("chat"), files().key("turn"),
                             std::filesystem::copy_options::overwrite_existing);
  auto const mismatch = what_of_reload();
  CHECK(mismatch.find("key '" + files().key("turn") + '\'') != std::string::npos);
  CHECK(mismatch.find("mismatch") != std::string::npos);
  std::filesystem::remove(files().certificate("turn"));
  CHECK(what_of_reload().find("No such file") != std::string::npos);
  Raw late(server->port(1));
  REQUIRE(late.shake());
  CHECK(shown(late) == "second");
  for (auto* each : {&old, &current, &late}) CHECK(each->asks("hi") == "hi");
}

TEST_CASE("a session is resumed, with what its certificate said", "[tls]") {
  auto const set_up = [](::SSL_CTX* context) {
    ::SSL_CTX_use_certificate_file(context, files().certificate("alice").c_str(), SSL_FILETYPE_PEM);
    ::SSL_CTX_use_PrivateKey_file(context, files().key("alice").c_str(), SSL_FILETYPE_PEM);
  };
  auto const version = GENERATE(TLS1_2_VERSION, TLS1_3_VERSION);
  files().write("alice", make("alice", "DNS:alice", &files().authority));
  auto const tls = files().strict_server(true);
  ServerThread<chatproto::ThreadPool, Known> server(both(tls));
  auto const begin = [&](::SSL_SESSION* session) {
    auto client = std::make_unique<Raw>(server->port(1), set_up);
    ::SSL_set_max_proto_version(client->ssl(), version);
    if (session != nullptr) ::SSL_set_session(client->ssl(), session);
    REQUIRE(client->shake());
    CHECK(client->asks("who") == "alice+");
    return client;
  };
  auto const first = begin(nullptr);
  CHECK(::SSL_session_reused(first->ssl()) == 0);
  Session const session(::SSL_get1_session(first->ssl()));
  CHECK(::SSL_session_reused(begin(session.get())->ssl()) == 1);
  Session const later(::SSL_get1_session(first->ssl()));
  tls->reload();
  CHECK(::SSL_session_reused(begin(later.get())->ssl()) == 0);
}

// --- How it ends -----------------------------------------------------------------------------------------------------

TEST_CASE("each end says that it closes", "[tls]") {
  Reasons reasons;
  ServerThread<chatproto::ThreadPool, Known> server(both(files().server(), &reasons));
  SECTION("the server") {
    Raw client(server->port(1));
    REQUIRE(client.shake());
    CHECK(client.asks("quit") == "(end)");
    client.close();
  }
  SECTION("a Connection") {
    auto connection = connect(server->port(1), files().client());
    connection.send_line("hi");
    CHECK(connection.receive_line() == "hi");
    connection.close();
  }
  SECTION("a client that still listens") {
    Raw client(server->port(1));
    REQUIRE(client.shake());
    client.encrypt("last\n");
    ::SSL_shutdown(client.ssl());
    client.send(client.output());
    CHECK(client.hear() == "last");
    CHECK(client.hear() == "(end)");
  }
  CHECK(test::eventually([&] { return reasons.all() == Lines{"closed"}; }));
}

TEST_CASE("a connection that ends without close_notify is an error", "[tls]") {
  std::error_code const truncated(1, chatproto::tls_category());
  SECTION("for the server") {
    Reasons reasons;
    ServerThread<chatproto::ThreadPool, Known> server(both(files().server(), &reasons));
    Raw client(server->port(1));
    REQUIRE(client.shake());
    CHECK(client.asks("hi") == "hi");
    client.close();
    CHECK(test::eventually([&] { return reasons.all() == Lines{"lost"}; }));
    CHECK(reasons.errors.at(0) == truncated);
  }
  SECTION("for a Connection") {
    asio::io_context context;
    tcp::acceptor acceptor(context, tcp::endpoint(asio::ip::address_v4::loopback(), 0));
    auto done = std::async(std::launch::async, [&] {
      Raw server(
          acceptor.accept(), [](::SSL_CTX*) {}, true);
      server.shake();
      server.say("last\n");
      server.close();
    });
    auto connection = connect(acceptor.local_endpoint().port(), files().client());
    CHECK(connection.receive_line() == "last");
    std::error_code ec;
    connection.receive_line(ec);
    CHECK(ec == truncated);
    CHECK(ec.message().find("close_notify") != std::string::npos);
  }
}

// --- Hostile and broken clients --------------------------------------------------------------------------------------

TEST_CASE("what is no handshake is refused, and others are served", "[tls]") {
  Reasons reasons;
  ServerThread<chatproto::ThreadPool, Known> server(both(files().server(), &reasons));
  Raw hello(server->port(1));
  ::SSL_do_handshake(hello.ssl());
  auto const bytes = hello.output();
  Client client(server->port(1));
  SECTION("lines") {
    client.send("slogin:bob\njoin:cafe\n");
  }
  SECTION("a request of HTTP") {
    client.send("GET / HTTP/1.1\r\n\r\n");
  }
  SECTION("any bytes") {
    std::string garbage(100'000, '\0');
    for (auto i = 0u; i < garbage.size(); ++i) garbage[i] = static_cast<char>(i * 2654435761u >> 13);
    client.try_send(garbage);
  }
  SECTION("a hello with wrong bytes") {
    auto wrong = bytes;
    for (auto i = 9u; i < wrong.size(); i += 7) wrong[i] = static_cast<char>(wrong[i] ^ 0x55);
    client.send(wrong);
  }
  SECTION("a client that vanishes within its hello") {
    client.send(bytes.substr(0, bytes.size() / 2));
    client.reset();
  }
  SECTION("a client that ends its output within its hello") {
    client.send(bytes.substr(0, bytes.size() / 2));
    client.end_output();
  }
  CHECK(test::eventually([&] { return reasons.all() == Lines{"handshake"}; }));
  CHECK(reasons.errors.at(0));
  CHECK_FALSE(reasons.errors.at(0).message().empty());
  auto other = connect(server->port(1), files().client());
  other.send_line("hi");
  CHECK(other.receive_line() == "hi");
}

TEST_CASE("a Connection with TLS to a server without it, and the reverse, get errors", "[tls]") {
  ServerThread<chatproto::ThreadPool> server(both(files().server()));
  Connection connection;
  connection.time_limit(test::patience);
  std::error_code ec;
  SECTION("with TLS") {
    connection.layer(files().client());
    connection.connect("127.0.0.1", std::to_string(server->port(0)), ec);
    CHECK(&ec.category() == &chatproto::tls_category());
    CHECK(ec.message() == "TLS: wrong version number");
  }
  SECTION("without") {
    connection.connect("127.0.0.1", std::to_string(server->port(1)));
    connection.send_line("slogin:bob");
    connection.receive(ec);
    CHECK(ec);
  }
}

TEST_CASE("a handshake whose bytes come one at a time succeeds", "[tls]") {
  ServerThread<chatproto::ThreadPool, Known> server(both(files().server()));
  Raw client(server->port(1), GENERATE(Raw::Setup(only_tls_1_2), Raw::Setup([](::SSL_CTX*) {})));
  for (auto result = 0; (result = ::SSL_do_handshake(client.ssl())) != 1;) {
    REQUIRE(::SSL_get_error(client.ssl(), result) == SSL_ERROR_WANT_READ);
    for (auto const c : client.output()) client.send({&c, 1});
    REQUIRE(client.receive());
  }
  client.encrypt("hi\n");
  for (auto const c : client.output()) client.send({&c, 1});
  CHECK(client.hear() == "hi");
}

TEST_CASE("records of one byte", "[tls]") {
  ServerThread<chatproto::ThreadPool, Known> server(both(files().server()));
  Raw client(server->port(1));
  REQUIRE(client.shake());
  std::string all;
  for (auto i = 0; i < 1000; ++i) all += std::to_string(i) + '\n';
  for (auto const c : all) client.encrypt({&c, 1});
  client.send(client.output());
  auto wrong = 0;
  for (auto i = 0; i < 1000; ++i) wrong += client.hear() != std::to_string(i);
  CHECK(wrong == 0);
}

TEST_CASE("an error after a line in one read is told as it is", "[tls]") {
  Reasons reasons;
  ServerThread<chatproto::ThreadPool, Known> server(both(files().server(), &reasons));
  Raw client(server->port(1));
  REQUIRE(client.shake());
  CHECK(client.asks("hi") == "hi");
  client.encrypt("line\n");
  auto bytes = client.output();
  client.encrypt("broken\n");
  auto broken = client.output();
  broken.back() = static_cast<char>(broken.back() ^ 1);
  client.send(bytes + broken);
  CHECK(test::eventually([&] { return reasons.all() == Lines{"lost"}; }));
  CHECK(reasons.errors.at(0).message() == "TLS: decryption failed or bad record mac");
  CHECK(server->stats().lines_in == 2);
}

TEST_CASE("a renegotiation is refused", "[tls]") {
  ServerThread<chatproto::ThreadPool, Known> server(both(files().server()));
  Raw client(server->port(1), only_tls_1_2);
  REQUIRE(client.shake());
  CHECK(client.asks("hi") == "hi");
  REQUIRE(::SSL_renegotiate(client.ssl()) == 1);
  CHECK_FALSE(client.shake());
  CHECK(ERR_GET_REASON(::ERR_get_error()) == SSL_R_NO_RENEGOTIATION);
  Raw other(server->port(1));
  REQUIRE(other.shake());
  CHECK(other.asks("hi") == "hi");
}

TEST_CASE("a client may ask for new keys, but not again and again", "[tls]") {
  Reasons reasons;
  ServerThread<chatproto::ThreadPool, Known> server(both(files().server(), &reasons));
  Raw client(server->port(1));
  REQUIRE(client.shake());
  auto const ask = [&](int times) {
    for (auto i = 0; i < times; ++i) {
      auto const kind = i % 2 == 0 ? SSL_KEY_UPDATE_REQUESTED : SSL_KEY_UPDATE_NOT_REQUESTED;
      REQUIRE(::SSL_key_update(client.ssl(), kind) == 1);
      REQUIRE(::SSL_do_handshake(client.ssl()) == 1);
    }
  };
  ask(32);
  CHECK(client.asks("hi") == "hi");
  CHECK(client.asks("ho") == "ho");
  ask(300);
  CHECK(client.asks("ha") == "(error)");
  REQUIRE(test::eventually([&] { return !reasons.all().empty(); }));
  std::lock_guard const lock(reasons.mutex);
  CHECK(reasons.seen.front() == "lost");
  CHECK(reasons.errors.front().message() == "TLS: too many key updates");
}

TEMPLATE_TEST_CASE("hundreds of handshakes at once", "[tls]", POLICIES) {
  ServerThread<TestType> server(both(files().server()));
  constexpr auto all = CHATPROTO_SANITIZED ? 50 : 300;
  std::list<Raw> clients;
  for (auto i = 0; i < all; ++i) {
    ::SSL_do_handshake(clients.emplace_back(server->port(1)).ssl());
    clients.back().send(clients.back().output());
  }
  auto good = 0;
  for (auto& each : clients) good += each.shake() && each.asks("slogin:bob").starts_with("ok");
  CHECK(good == all);
}

// --- The layer alone -------------------------------------------------------------------------------------------------

#ifndef _WIN32

namespace {

/// The layer of a server, and its client.
struct Ends {
  explicit Ends(Raw::Setup set_up = [](::SSL_CTX*) {}) : tls(files().server()) {
    tcp::acceptor acceptor(context, tcp::endpoint(asio::ip::address_v4::loopback(), 0));
    tcp::socket far(context);
    far.open(tcp::v4());
    far.set_option(asio::socket_base::receive_buffer_size(4 * 1024));
    far.connect(acceptor.local_endpoint());
    near = acceptor.accept();
    near.set_option(asio::socket_base::send_buffer_size(8 * 1024));
    near.set_option(asio::socket_base::receive_buffer_size(1024 * 1024));
    near.non_blocking(true);
    layer = tls->make_layer(near.native_handle(), {});
    client.emplace(std::move(far), set_up);
  }
  /// Continues the handshake of both ends until it is done.
  void meet() {
    for (;;) {
      auto const done = ::SSL_do_handshake(client->ssl());
      client->send(client->output());
      auto const result = layer->handshake();
      REQUIRE_FALSE(result.error);
      if (done == 1 && result.wait == Layer::Wait::nothing) return;
      if (done != 1 && client->socket().available() > 0) client->receive();
    }
  }
  /// Fills the socket, so that the layer must hold what it sends.
  void fill() {
    std::string const bytes(64 * 1024, 'x');
    for (auto i = 0; i < 3; ++i) {  // the system may move some of it on
      std::error_code ec;
      while (!ec) near.write_some(asio::buffer(bytes), ec);
      std::this_thread::sleep_for(5ms);
    }
  }

  asio::io_context context;
  std::shared_ptr<TlsServer> tls;
  tcp::socket near{context};
  std::unique_ptr<Layer> layer;
  std::optional<Raw> client;
};

}  // namespace

TEST_CASE("one step does not handle all messages of TLS that a client sends", "[tls]") {
  Ends ends(GENERATE(Raw::Setup(only_tls_1_2), Raw::Setup([](::SSL_CTX*) {})));
  ends.meet();
  for (auto i = 0; i < 5000; ++i) {
    if (::SSL_version(ends.client->ssl()) == TLS1_3_VERSION) {
      ::SSL_key_update(ends.client->ssl(), SSL_KEY_UPDATE_REQUESTED);
      ::SSL_do_handshake(ends.client->ssl());
    } else {
      ends.client->encrypt("x");
    }
  }
  ends.client->send(ends.client->output());
  REQUIRE(test::eventually([&] { return ends.near.available() > 100'000; }));
  auto const arrived = ends.near.available();
  char bytes[64 * 1024];
  auto const result = ends.layer->read_some(bytes, sizeof bytes);
  CHECK(bool(result.error) == (::SSL_version(ends.client->ssl()) == TLS1_3_VERSION));
  CHECK(ends.near.available() > arrived - 40'000);
}

namespace {

using Bytes = std::vector<unsigned char>;

Bytes hmac(Bytes const& key, Bytes const& text) {
  Bytes result(32);
  ::HMAC(::EVP_sha256(), key.data(), static_cast<int>(key.size()), text.data(), text.size(), result.data(), nullptr);
  return result;
}
/// HKDF-Expand-Label of RFC 8446, 7.1, without a context, for at most 32 bytes.
Bytes derive(Bytes const& secret, std::string const& label, unsigned char size) {
  Bytes info{0, size, static_cast<unsigned char>(6 + label.size())};
  for (auto const c : "tls13 " + label) info.push_back(static_cast<unsigned char>(c));
  info.push_back(0);
  info.push_back(1);
  auto result = hmac(secret, info);
  result.resize(size);
  return result;
}

/// The secret that a TLS 1.3 client encrypts its lines with; of the last client that has shaken hands.
Bytes client_secret;

void only_aes_128_with_known_secret(::SSL_CTX* context) {
  ::SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256");
  ::SSL_CTX_set_keylog_callback(context, [](::SSL const*, char const* line) {
    std::string_view const text(line);
    if (!text.starts_with("CLIENT_TRAFFIC_SECRET_0 ")) return;
    client_secret.clear();
    for (auto at = text.rfind(' ') + 1; at < text.size(); at += 2)
      client_secret.push_back(static_cast<unsigned char>(std::stoi(std::string(text.substr(at, 2)), nullptr, 16)));
  });
}

/// Returns the first record of such a client: with a part of a handshake message, as no library sends it.
std::string first_record_of_handshake(Bytes const& part) {
  auto const key = derive(client_secret, "key", 16);
  auto const iv = derive(client_secret, "iv", 12);  // of record 0
  auto const size = static_cast<unsigned char>(part.size() + 1 + 16);
  Bytes const header{0x17, 3, 3, 0, size};
  auto plain = part;
  plain.push_back(SSL3_RT_HANDSHAKE);
  Bytes sealed(plain.size()), tag(16);
  std::unique_ptr<::EVP_CIPHER_CTX, FreeBy<::EVP_CIPHER_CTX_free>> const made(::EVP_CIPHER_CTX_new());
  auto* const cipher = made.get();
  int n = 0;
  ::EVP_EncryptInit_ex(cipher, ::EVP_aes_128_gcm(), nullptr, key.data(), iv.data());
  ::EVP_EncryptUpdate(cipher, nullptr, &n, header.data(), static_cast<int>(header.size()));
  ::EVP_EncryptUpdate(cipher, sealed.data(), &n, plain.data(), static_cast<int>(plain.size()));
  ::EVP_EncryptFinal_ex(cipher, sealed.data() + n, &n);
  ::EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_GCM_GET_TAG, 16, tag.data());
  std::string record(header.begin(), header.end());
  record.append(sealed.begin(), sealed.end());
  record.append(tag.begin(), tag.end());
  return record;
}

}  // namespace

TEST_CASE("what is written between the parts of a message of TLS is never neither taken nor refused", "[tls]") {
  Ends ends(only_aes_128_with_known_secret);
  ends.meet();
  ends.client->send(first_record_of_handshake({SSL3_MT_KEY_UPDATE, 0, 0, 1}));  // and one byte is missing
  char bytes[100];
  REQUIRE(test::eventually([&] {
    auto const result = ends.layer->read_some(bytes, sizeof bytes);
    REQUIRE_FALSE(result.error);
    return ends.near.available() == 0;
  }));
  CHECK(ends.layer->read_some(bytes, sizeof bytes).wait == Layer::Wait::read);
  auto const result = ends.layer->write("ok:\n", 4);
  CHECK(result.bytes == 0);
  CHECK(result.error.message() == "TLS: unexpected message");
  CHECK(ends.layer->read_some(bytes, sizeof bytes).error == result.error);
}

TEST_CASE("a write after the other end has gone fails", "[tls]") {
  Ends ends(GENERATE(Raw::Setup(only_tls_1_2), Raw::Setup([](::SSL_CTX*) {})));
  ends.meet();
  char bytes[100];
  CHECK(ends.layer->read_some(bytes, sizeof bytes).wait == Layer::Wait::read);
  ends.client->reset();
  CHECK(test::eventually([&] { return bool(ends.layer->write("ok:\n", 4).error); }));
}

TEST_CASE("a handshake whose end cannot be sent fails when the client has gone", "[tls]") {
  Ends ends;
  ::SSL_do_handshake(ends.client->ssl());
  ends.client->send(ends.client->output());
  CHECK(test::eventually([&] {
    static_cast<void>(ends.layer->handshake());
    return ends.client->socket().available() > 0;
  }));
  while (::SSL_do_handshake(ends.client->ssl()) != 1) REQUIRE(ends.client->receive());
  ends.client->send(ends.client->output());
  ends.fill();
  CHECK(test::eventually([&] { return ends.layer->handshake().wait == Layer::Wait::write; }));  // holds its tickets
  ends.client->reset();
  CHECK(test::eventually([&] { return bool(ends.layer->handshake().error); }));
}

#endif
