// SPDX-License-Identifier: BSL-1.0
// The whole chat without a socket: four clients send any bytes, read slowly, are cut, and come again. Each must see, byte for
// byte but for the text of a reply, what model.hpp says; if its queue overflows, a part of that without a gap.
//
// The bytes of the input go to one client, except:
//   F8 to FB  go on with client 0 to 3
//   FC        this read is over
//   FD        the client is gone and another one comes
//   FE        the client sends no more
//   F7 n      it takes n bytes of what waits for it; FF: all
//   F6        its session pauses after the next line, or goes on
//   F5        it is closed
//   F3        it is aborted
//   F4 n      as FD, but the new one has a queue of 4n bytes
#include "fuzz.hpp"

#include <algorithm>
#include <array>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <chatproto/chat_service.hpp>
#include <chatproto/line_reader.hpp>

#include "../model.hpp"

namespace {

using namespace chatproto;
using model::Sight;
using Role = model::Chat::Role;

class Client {
 public:
  Client(ChatService& service, model::Chat& chat, int number, std::size_t limit = MessageQueue::default_limit)
      : chat_(chat), number_(number), queue_(std::make_shared<Queue>(limit)) {
    chat_.connect(number_);
    session_.reset(new ChatService::Session(service.open(Peer(queue_))));
  }
  ~Client() {
    queue_->finish();
    session_.reset();
    assert(queue_.use_count() == 1);
    if (chat_.knows(number_)) chat_.vanish(number_);
  }

  void send(char byte) { unread_ += byte; }
  void end_read() {
    if (queue_->paused) return;
    untold_ += unread_;
    take_lines(std::exchange(unread_, {}));
  }
  void end_input() {
    if (!queue_->paused) close();
  }
  void close() {
    if (was_cut()) return;
    Peer(queue_).close();
    session_.reset();
    chat_.end_of_input(number_);
  }
  void abort() { Peer(queue_).abort(); }
  void pause_or_resume() {
    if (!queue_->paused) {
      pauses_ = true;
    } else {
      Peer(queue_).resume();
      take_lines(std::exchange(held_, {}));
    }
  }

  /// Takes at most so many bytes of what is queued for it, and compares.
  void take(std::size_t size) {
    if (was_cut()) return;
    auto const state = queue_->drain(batch_);
    auto const nothing_new = batch_.blocks.empty() && state == MessageQueue::State::open;
    assert(queue_->woken || queue_->stalled || nothing_new);  // else nobody would have drained it
    queue_->woken = queue_->stalled = false;
    if (state > MessageQueue::State::closing) {
      assert(batch_.blocks.empty());
      session_.reset();
      return chat_.vanish(number_);
    }
    std::string bytes;
    for (auto const& block : batch_.blocks) bytes += *block;
    bytes.erase(0, batch_.offset);
    unseen_ += bytes.substr(0, size);
    if (size < bytes.size()) {
      queue_->put_back(batch_, size);
      queue_->stalled = true;
    }
    for (auto& sight : chat_.sights(number_)) due_.push_back(std::move(sight));
    for (auto end = unseen_.find('\n'); end != unseen_.npos; end = unseen_.find('\n')) {
      assert(!due_.empty() && end < max_line);
      see(unseen_.substr(0, end + 1));
      unseen_.erase(0, end + 1);
    }
    if (size < bytes.size()) return;
    assert(unseen_.empty() && due_.size() == (state == MessageQueue::State::closing ? 1u : 0u));
    assert(due_.empty() || due_.front().kind == Sight::end);
    if (!due_.empty()) chat_.vanish(number_);
  }
  void take_all() { take(static_cast<std::size_t>(-1)); }

  /// As a link does when it finds the queue aborted.
  void end_if_cut() {
    if (was_cut() || queue_->is_open() || chat_.role(number_) == Role::closed) return;
    take_all();
    assert(was_cut());
  }
  void finish() {
    end_read();
    if (queue_->paused) pause_or_resume();
    end_if_cut();
  }

 private:
  struct Queue final : MessageQueue {
    using MessageQueue::MessageQueue;
    void wake() override {
      assert(!woken && (!stalled || !is_open()));
      woken = true;
    }
    void pause_input() override { paused = true; }
    void resume_input(std::shared_ptr<MessageQueue>) override { paused = false; }

    bool woken = false, stalled = false, paused = false;
  };

  bool was_cut() const { return !chat_.knows(number_); }

  void take_lines(std::string const& bytes) {
    if (!session_) return;
    reader_.feed(bytes);
    while (queue_->is_open() && !queue_->paused) {
      auto const line = reader_.next();
      if (!line) {  // and no line was overlooked
        assert(std::count(untold_.begin(), untold_.end(), '\n') <= (too_long_ ? 1 : 0));
        break;
      }
      tell_model();
      if (line->too_long)
        session_->on_bad_line(Errc::line_too_long);
      else
        session_->on_line(line->text);
      if (std::exchange(pauses_, false)) Peer(queue_).pause();
    }
    if (queue_->is_open() && queue_->paused) held_ = reader_.take_rest();
    session_->flush();
    if (!queue_->is_open()) return session_.reset();
    auto const role = session_->role();
    assert((role == session_->sender) == (chat_.role(number_) == Role::sender));
    assert((role == session_->receiver) == (chat_.role(number_) == Role::receiver));
    assert(session_->logged_in() == (chat_.role(number_) != Role::guest));
  }

  /// The model gets the next line. Of one that is too long the reader speaks before its end has come.
  void tell_model() {
    auto const tell = [this] {
      auto const line = untold_.substr(0, untold_.find('\n'));
      auto const ends = line.size() < untold_.size();
      chat_.bytes(number_, ends ? line + '\n' : line);
      untold_.erase(0, line.size() + (ends ? 1 : 0));
      return ends;
    };
    if (too_long_) tell();
    too_long_ = !tell();
  }

  void see(std::string const& line) {
    auto const due = std::move(due_.front());
    due_.pop_front();
    if (due.kind == Sight::delivery)
      assert(line == due.line);
    else
      assert(due.kind != Sight::end && line.starts_with(due.kind == Sight::ok ? "ok:" : "err:"));
  }

  model::Chat& chat_;
  int const number_;
  std::shared_ptr<Queue> queue_;
  std::unique_ptr<ChatService::Session> session_;
  LineReader reader_;
  MessageQueue::Batch batch_;
  std::string unread_, held_, untold_, unseen_;  // read, but the session has paused; read, but the model has not got it
  std::deque<Sight> due_;
  bool pauses_ = false, too_long_ = false;
};

}  // namespace

int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  ChatService service;
  {
    model::Chat chat;
    std::array<std::optional<Client>, 4> clients;
    for (auto i = 0; i < 4; ++i) clients[static_cast<std::size_t>(i)].emplace(service, chat, i);
    auto number = 0;
    auto const settle = [&] {
      for (auto& client : clients) client->end_if_cut();
      assert(service.room_count() == chat.rooms());
    };
    for (std::size_t i = 0; i < size; ++i) {
      auto& client = clients[static_cast<std::size_t>(number)];
      auto const byte = data[i];
      switch (byte) {
        case 0xF8:
        case 0xF9:
        case 0xFA:
        case 0xFB: number = byte - 0xF8; continue;
        case 0xFC: client->end_read(); break;
        case 0xFD:
          client.reset();
          client.emplace(service, chat, number);
          break;
        case 0xFE: client->end_input(); break;
        case 0xF7:
          if (++i == size || data[i] == 0xFF)
            client->take_all();
          else
            client->take(data[i]);
          break;
        case 0xF6: client->pause_or_resume(); break;
        case 0xF5: client->close(); break;
        case 0xF3: client->abort(); break;
        case 0xF4:
          client.reset();
          client.emplace(service, chat, number, ++i < size ? data[i] * 4u : 0u);
          break;
        default: client->send(static_cast<char>(byte)); continue;
      }
      settle();
    }
    for (auto& client : clients) client->finish();
    settle();
    for (auto& client : clients) client->take_all();
  }
  assert(service.room_count() == 0);
  return 0;
}
