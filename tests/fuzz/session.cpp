// SPDX-License-Identifier: BSL-1.0
// The whole chat without a socket: four clients send any bytes, are cut, and come again. Each line gets one reply,
// whatever is sent is a line of the protocol, and nothing is left when all are gone.
//
// The bytes of the input go to one client, except: F8 to FB, go on with client 0 to 3; FC, this read is over;
// FD, the client is gone and another one comes.
#include "fuzz.hpp"

#include <array>
#include <memory>
#include <optional>
#include <string>

#include <chatproto/chat_service.hpp>
#include <chatproto/line_reader.hpp>

namespace {

using namespace chatproto;

class Client {
 public:
  explicit Client(ChatService& service) : session_(service, Peer(queue_)) {}

  void read(std::string_view bytes) {
    reader_.feed(bytes);
    while (auto const line = reader_.next()) {
      if (queue_->is_open()) ++lines_;  // those after a close are ignored
      if (line->too_long)
        session_.on_bad_line(Errc::line_too_long);
      else
        session_.on_line(line->text);
    }
    session_.flush();
    check_output();
    assert(replies_ == lines_);
  }

  void check_output() {
    MessageQueue::Batch batch;
    queue_->drain(batch);
    LineReader output;
    for (auto const& block : batch.blocks) {
      assert(block->ends_with('\n'));  // whole lines
      output.feed(*block);
      while (auto const line = output.next()) {
        assert(!line->too_long);
        auto const tag = parse(line->text).tag;
        assert(tag == tag::ok || tag == tag::err || tag == tag::delivery);
        assert(tag != tag::delivery || session_.role() == ChatService::Session::receiver || !queue_->is_open());
        if (tag != tag::delivery) ++replies_;
      }
    }
  }

 private:
  struct Queue final : MessageQueue {
    void wake() override {}
  };

  std::shared_ptr<Queue> queue_ = std::make_shared<Queue>();
  ChatService::Session session_;
  LineReader reader_;
  std::size_t lines_ = 0, replies_ = 0;
};

}  // namespace

int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  ChatService service;
  {
    std::array<std::optional<Client>, 4> clients;
    for (auto& client : clients) client.emplace(service);
    std::array<std::string, 4> unread;
    std::size_t now = 0;
    auto const end_read = [&](std::size_t which) {
      clients[which]->read(unread[which]);
      unread[which].clear();
      for (auto& client : clients) client->check_output();
    };
    for (std::size_t i = 0; i < size; ++i) {
      auto const byte = data[i];
      if (byte >= 0xF8 && byte <= 0xFB) {
        now = byte - 0xF8u;
      } else if (byte == 0xFC) {
        end_read(now);
      } else if (byte == 0xFD) {
        end_read(now);
        clients[now].emplace(service);
      } else {
        unread[now].push_back(static_cast<char>(byte));
      }
    }
    for (std::size_t which = 0; which < clients.size(); ++which) end_read(which);
  }
  assert(service.room_count() == 0);
  return 0;
}
