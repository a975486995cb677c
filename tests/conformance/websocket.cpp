// SPDX-License-Identifier: BSL-1.0
#include "websocket.hpp"

#include <stdexcept>

#ifdef CONFORMANCE_HAS_WEBSOCKET

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdint>
#include <map>
#include <new>
#include <utility>

#include <http_parser.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <wslay/wslay.h>
#include <asio/error.hpp>

namespace conformance {
namespace {

/// Values are the codes below, or HTTP's status and close codes of WebSocket, which are larger.
enum : int { truncated = 1, not_http, wrong_answer, large_answer };

class WebSocketCategory : public std::error_category {
 public:
  char const* name() const noexcept override { return "conformance.websocket"; }
  std::string message(int value) const override {
    switch (value) {
      case truncated: return "the end of TCP without WebSocket's close frame";
      case not_http: return "what came is no HTTP";
      case wrong_answer: return "the answer 101 is not one to the request";
      case large_answer: return "the answer's header has more than 64 KiB";
      default:
        if (value < 1000) return "the answer to the request is " + std::to_string(value) + " in place of 101";
        return "a frame that breaks WebSocket's rules (close code " + std::to_string(value) + ')';
    }
  }
};

std::error_code websocket_error(int value) {
  static WebSocketCategory const category;
  return {value, category};
}

std::string base64(unsigned char const* bytes, std::size_t size) {
  std::string text(4 * ((size + 2) / 3) + 1, '\0');  // and a NUL
  EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()), bytes, static_cast<int>(size));
  text.pop_back();
  return text;
}

int make_random(std::uint8_t* bytes, std::size_t size) {
  return RAND_bytes(bytes, static_cast<int>(size)) == 1 ? 0 : -1;
}

std::string lower_case(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

/// The answer to the request.
class Answer {
 public:
  Answer() {
    http_parser_init(&parser_, HTTP_RESPONSE);
    parser_.data = this;
  }
  Answer(Answer const&) = delete;
  Answer& operator=(Answer const&) = delete;

  bool is_complete = false;

  /// Returns how many of the bytes belong to it. Sets an error if they are no HTTP.
  std::size_t feed(std::string_view bytes, std::error_code& error) {
    http_parser_settings settings;
    http_parser_settings_init(&settings);
    settings.on_header_field = [](http_parser* parser, char const* at, std::size_t size) {
      Answer& self = of(parser);
      if (std::exchange(self.in_value_, false)) self.field_.clear();
      self.field_.append(at, size);
      return 0;
    };
    settings.on_header_value = [](http_parser* parser, char const* at, std::size_t size) {
      Answer& self = of(parser);
      std::string& value = self.fields_[lower_case(self.field_)];
      if (!std::exchange(self.in_value_, true) && !value.empty()) value += ", ";
      value.append(at, size);
      return 0;
    };
    settings.on_headers_complete = [](http_parser* parser) {
      of(parser).is_complete = true;
      return 2;  // what follows is no HTTP
    };
    std::size_t const taken = http_parser_execute(&parser_, &settings, bytes.data(), bytes.size());
    bytes_ += taken;
    if (!is_complete && (HTTP_PARSER_ERRNO(&parser_) != HPE_OK || taken < bytes.size()))
      error = websocket_error(not_http);
    else if (!is_complete && bytes_ > std::size_t(65536))
      error = websocket_error(large_answer);
    return taken;
  }

  /// Returns why this does not make the connection a WebSocket for the client that sent `key`.
  [[nodiscard]] std::error_code error(std::string const& key) const {
    if (parser_.status_code != 101) return websocket_error(static_cast<int>(parser_.status_code));
    std::string const source = key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";  // RFC 6455, section 1.3
    std::array<unsigned char, EVP_MAX_MD_SIZE> hash{};
    unsigned size = 0;
    if (EVP_Digest(source.data(), source.size(), hash.data(), &size, EVP_sha1(), nullptr) != 1) throw std::bad_alloc();
    bool const is_right = lower_case(field("upgrade")) == "websocket" &&
                          lower_case(field("connection")).find("upgrade") != std::string::npos &&
                          field("sec-websocket-accept") == base64(hash.data(), size) &&
                          field("sec-websocket-extensions").empty() && field("sec-websocket-protocol").empty();
    return is_right ? std::error_code() : websocket_error(wrong_answer);
  }

 private:
  static Answer& of(http_parser* parser) { return *static_cast<Answer*>(parser->data); }

  [[nodiscard]] std::string field(std::string const& name) const {
    auto const found = fields_.find(name);
    if (found == fields_.end()) return {};
    std::size_t const end = found->second.find_last_not_of(" \t");
    return found->second.substr(0, end == std::string::npos ? 0 : end + 1);
  }

  http_parser parser_{};
  std::string field_;
  bool in_value_ = false;
  std::size_t bytes_ = 0;
  std::map<std::string, std::string> fields_;
};

/// One connection's WebSocket. wslay takes messages and makes frames from and in memory; the channel below carries
/// that. Its callbacks hold a reference.
class WebSocketState : public std::enable_shared_from_this<WebSocketState> {
 public:
  using Then = std::function<void(std::error_code const&)>;

  explicit WebSocketState(std::unique_ptr<Channel> below) : below_(std::move(below)) {
    // Messages are taken by one context, which also answers pings and a close frame. Ours are made by another, since
    // only this gives each piece a frame of its own.
    wslay_event_callbacks events{};
    events.recv_callback = [](wslay_event_context_ptr context, std::uint8_t* bytes, std::size_t size, int, void* self) {
      std::string& input = of(self).input_;
      if (input.empty()) wslay_event_set_error(context, WSLAY_ERR_WOULDBLOCK);
      std::size_t const taken = std::min(size, input.size());
      std::copy_n(input.data(), taken, bytes);
      input.erase(0, taken);
      return taken == 0 ? ssize_t(-1) : static_cast<ssize_t>(taken);
    };
    events.send_callback = [](wslay_event_context_ptr, std::uint8_t const* bytes, std::size_t size, int, void* self) {
      return of(self).take(bytes, size);
    };
    events.genmask_callback = [](wslay_event_context_ptr, std::uint8_t* bytes, std::size_t size, void*) {
      return make_random(bytes, size);
    };
    events.on_msg_recv_callback = [](wslay_event_context_ptr, wslay_event_on_msg_recv_arg const* message, void* self) {
      if (wslay_is_ctrl_frame(message->opcode)) return;
      of(self).ready_.append(reinterpret_cast<char const*>(message->msg), message->msg_length);
    };
    wslay_frame_callbacks frames{};
    frames.send_callback = [](std::uint8_t const* bytes, std::size_t size, int, void* self) {
      return of(self).take(bytes, size);
    };
    frames.genmask_callback = [](std::uint8_t* bytes, std::size_t size, void*) { return make_random(bytes, size); };
    if (wslay_event_context_client_init(&events_, &events, this) != 0) throw std::bad_alloc();
    if (wslay_frame_context_init(&frames_, &frames, this) != 0) {
      wslay_event_context_free(events_);
      throw std::bad_alloc();
    }
  }
  WebSocketState(WebSocketState const&) = delete;
  WebSocketState& operator=(WebSocketState const&) = delete;
  ~WebSocketState() {
    wslay_event_context_free(events_);
    wslay_frame_context_free(frames_);
  }

  void handshake(std::string const& host, Then then) {
    std::array<unsigned char, 16> bytes{};
    if (make_random(bytes.data(), bytes.size()) != 0) throw std::runtime_error("no random bytes");
    key_ = base64(bytes.data(), bytes.size());
    output_ = "GET / HTTP/1.1\r\nHost: " + host +
              "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: " + key_ +
              "\r\nSec-WebSocket-Version: 13\r\n\r\n";
    flush([self = shared_from_this(), then = std::move(then)](std::error_code const& error) mutable {
      error ? then(error) : self->read_answer(std::move(then));
    });
  }

  void read(char* data, std::size_t size, Channel::Done done) {
    bool const is_sound = wslay_event_recv(events_) == 0;
    if (wslay_event_want_write(events_) == 0) return read_on(is_sound, data, size, std::move(done));
    wslay_event_send(events_);  // a pong, or a close frame
    flush([=, self = shared_from_this(), done = std::move(done)](std::error_code const&) mutable {
      self->read_on(is_sound, data, size, std::move(done));
    });
  }

  void write(std::string_view bytes, Channel::Done done) {
    std::size_t const size = bytes.size();
    std::size_t const lines = bytes.rfind('\n') + 1;  // 0 if there is none
    if (lines > 0) send_frame(bytes.substr(0, lines), true);
    if (lines < size) send_frame(bytes.substr(lines), false);
    flush([size, done = std::move(done)](std::error_code const& error) { done(error, error ? 0 : size); });
  }

  /// Sends a close frame, if that has not been sent.
  void finish() {
    if (wslay_event_queue_close(events_, WSLAY_CODE_NORMAL_CLOSURE, nullptr, 0) != 0) return;
    wslay_event_send(events_);
    flush(nullptr);
  }

  void close() { below_->close(); }
  void reset() { below_->reset(); }

 private:
  static WebSocketState& of(void* self) { return *static_cast<WebSocketState*>(self); }

  ssize_t take(std::uint8_t const* bytes, std::size_t size) {
    output_.append(reinterpret_cast<char const*>(bytes), size);
    return static_cast<ssize_t>(size);
  }

  void read_on(bool is_sound, char* data, std::size_t size, Channel::Done done) {
    if (!ready_.empty()) {
      std::size_t const taken = std::min(size, ready_.size());
      std::copy_n(ready_.data(), taken, data);
      ready_.erase(0, taken);
      return done({}, taken);
    }
    if (wslay_event_get_close_received(events_) != 0) return done(asio::error::eof, 0);
    if (!is_sound || wslay_event_get_read_enabled(events_) == 0) {
      // wslay has sent a close frame, for some faults one without a code.
      int const code = wslay_event_get_status_code_sent(events_);
      return done(websocket_error(code == WSLAY_CODE_NO_STATUS_RCVD ? int(WSLAY_CODE_PROTOCOL_ERROR) : code), 0);
    }
    receive([=, this, done = std::move(done)](std::error_code const& error) mutable {
      error ? done(error, 0) : read(data, size, std::move(done));
    });
  }

  void read_answer(Then then) {
    receive([this, then = std::move(then)](std::error_code error) mutable {
      if (!error) input_.erase(0, answer_.feed(input_, error));
      if (error) return then(error);
      answer_.is_complete ? then(answer_.error(key_)) : read_answer(std::move(then));
    });
  }

  void send_frame(std::string_view payload, bool ends_message) {
    if (wslay_event_get_close_sent(events_) != 0) return;
    wslay_frame_iocb frame{};
    frame.fin = ends_message ? 1 : 0;
    frame.opcode = std::exchange(in_message_, !ends_message) ? WSLAY_CONTINUATION_FRAME : WSLAY_BINARY_FRAME;
    frame.mask = 1;
    frame.payload_length = frame.data_length = payload.size();
    frame.data = reinterpret_cast<std::uint8_t const*>(payload.data());
    if (wslay_frame_send(frames_, &frame) < 0) throw std::bad_alloc();
  }

  /// Writes the output, one write at a time, and then calls back, if there is something to call.
  void flush(Then then) {
    if (then) waiting_.push_back(std::move(then));
    if (is_writing_) return;
    if (output_.empty() || failed_) {
      for (Then const& each : std::exchange(waiting_, {})) each(failed_);
      return;
    }
    is_writing_ = true;
    writing_ = std::exchange(output_, {});
    below_->write(writing_, [self = shared_from_this()](std::error_code const& error, std::size_t) {
      self->is_writing_ = false;
      self->failed_ = error;
      self->flush(nullptr);
    });
  }

  /// Waits for input.
  void receive(Then then) {
    below_->read(received_.data(), received_.size(),
                 [self = shared_from_this(), then = std::move(then)](std::error_code const& error, std::size_t size) {
                   if (error) return then(error == asio::error::eof ? websocket_error(truncated) : error);
                   self->input_.append(self->received_.data(), size);
                   then({});
                 });
  }

  std::unique_ptr<Channel> below_;
  wslay_event_context_ptr events_ = nullptr;
  wslay_frame_context_ptr frames_ = nullptr;
  bool in_message_ = false;  // ours, whose last line has not ended
  std::string key_;
  Answer answer_;
  std::string input_;          // from the other end
  std::string ready_;          // of its messages
  std::string output_;         // for the other end,
  std::string writing_;        // of which this is being written
  bool is_writing_ = false;    //
  std::error_code failed_;     // the last write
  std::vector<Then> waiting_;  // for all output to be written
  std::array<char, 4096> received_{};
};

class WebSocketChannel : public Channel {
 public:
  explicit WebSocketChannel(std::shared_ptr<WebSocketState> state) : state_(std::move(state)) {}
  WebSocketChannel(WebSocketChannel const&) = delete;
  WebSocketChannel& operator=(WebSocketChannel const&) = delete;
  ~WebSocketChannel() override { state_->close(); }

  void read(char* data, std::size_t size, Done done) override { state_->read(data, size, std::move(done)); }
  void write(std::string_view bytes, Done done) override { state_->write(bytes, std::move(done)); }
  void finish() override { state_->finish(); }
  void close() override {
    state_->finish();  // most likely sent at once: the channel below tries to write before it waits
    state_->close();
  }
  void reset() override { state_->reset(); }

 private:
  std::shared_ptr<WebSocketState> state_;
};

class WebSocket : public Wrapping {
 public:
  WebSocket(std::shared_ptr<Wrapping const> over, std::string host) : over_(std::move(over)), host_(std::move(host)) {}

  [[nodiscard]] std::string name() const override { return over_ ? "WebSocket over " + over_->name() : "WebSocket"; }

  void start(std::unique_ptr<Channel> channel, ConnectDone done) const override {
    if (!over_) return begin(host_, std::move(channel), std::move(done));
    over_->start(std::move(channel), [host = host_, done = std::move(done)](std::error_code const& error,
                                                                            std::unique_ptr<Channel> inner) mutable {
      error ? done(error, nullptr) : begin(host, std::move(inner), std::move(done));
    });
  }

 private:
  static void begin(std::string const& host, std::unique_ptr<Channel> channel, ConnectDone done) {
    auto const state = std::make_shared<WebSocketState>(std::move(channel));
    state->handshake(host, [state, done = std::move(done)](std::error_code const& error) {
      done(error, error ? nullptr : std::make_unique<WebSocketChannel>(state));
    });
  }

  std::shared_ptr<Wrapping const> over_;
  std::string host_;
};

}  // namespace

std::shared_ptr<Wrapping const> make_websocket(std::shared_ptr<Wrapping const> over, std::string const& host,
                                               std::uint16_t port) {
  std::string const name = host.find(':') == std::string::npos ? host : '[' + host + ']';  // an IPv6 address
  return std::make_shared<WebSocket>(std::move(over), name + ':' + std::to_string(port));
}

}  // namespace conformance

#else

namespace conformance {

std::shared_ptr<Wrapping const> make_websocket(std::shared_ptr<Wrapping const>, std::string const&, std::uint16_t) {
  throw std::runtime_error("--websocket needs wslay and http-parser, without which this program was built");
}

}  // namespace conformance

#endif
