// SPDX-License-Identifier: BSL-1.0
/// @file
/// Two clients, and who was first.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <chatproto/message.hpp>
#include <chatproto/peer.hpp>

namespace examples {

/// Makes pairs of clients. Reads from neither before both are there; when each has sent a line, tells both in which order the
/// lines came in; then relays what each says to the other, until one says "Bye".
class ArrivalService {
  struct Client {
    chatproto::Peer peer;
    std::string address;
  };
  /// What two sessions share. Each runs on the executor of its own client, so both may be in here at once.
  struct Pair {
    std::mutex mutex;                  // of the rest
    std::vector<Client> clients;       // in the order in which they connected
    std::vector<std::string> arrived;  // their first lines, in the order in which they came in
    bool over = false;                 // one of them has left
  };

 public:
  /// Prints a line; called by many threads at once.
  using Print = std::function<void(std::string const& line)>;
  explicit ArrivalService(Print print) : print_(std::move(print)) {}

  class Session {
   public:
    Session(ArrivalService& service, std::shared_ptr<Pair> pair, std::size_t me)
        : print_(service.print_), pair_(std::move(pair)), me_(me) {}
    Session(Session const&) = delete;
    Session& operator=(Session const&) = delete;
    ~Session() {
      std::lock_guard const lock(pair_->mutex);
      if (std::exchange(pair_->over, true) || pair_->clients.size() < 2) return;
      tell(other(), gone);
      other().peer.resume();
    }

    void on_line(std::string_view line) {
      std::lock_guard const lock(pair_->mutex);
      print_(me().address + " says: " + std::string(line));
      auto& arrived = pair_->arrived;
      if (pair_->over) {
        line == "Bye" ? me().peer.close() : tell(me(), gone);
      } else if (arrived.size() == 2) {
        tell(other(), line);
        if (line == "Bye") end();
      } else if (line.size() > longest) {
        tell(me(), "* at first at most " + std::to_string(longest) + " bytes");
      } else {
        arrived.emplace_back(line);
        if (arrived.size() == 1) return me().peer.pause();  // until the other has sent one too
        for (auto const& client : pair_->clients) tell(client, arrived[0] + std::string(before) + arrived[1]);
        other().peer.resume();
      }
    }
    void on_bad_line(std::error_code ec) {
      std::lock_guard const lock(pair_->mutex);
      tell(me(), "* " + ec.message());
    }

   private:
    static constexpr std::string_view before = " received before ", gone = "* the other has gone; Bye leaves";
    static constexpr std::size_t longest = (chatproto::max_line - 1 - before.size()) / 2;  // or the news fits no line

    Client const& me() const { return pair_->clients[me_]; }
    Client const& other() const { return pair_->clients[1 - me_]; }
    void tell(Client const& client, std::string_view line) const {
      print_("to " + client.address + ": " + std::string(line));
      client.peer.send(std::string(line) + '\n');
    }
    void end() {
      pair_->over = true;
      for (auto const& client : pair_->clients) client.peer.close();
    }

    Print const& print_;
    std::shared_ptr<Pair> pair_;
    std::size_t me_;
  };

  Session open(chatproto::Peer peer, std::string address) {
    std::lock_guard const lock(mutex_);
    auto const is_first = !alone_;
    if (is_first) alone_ = std::make_shared<Pair>();
    auto const pair = is_first ? alone_ : std::exchange(alone_, nullptr);
    std::lock_guard const pair_lock(pair->mutex);
    is_first ? peer.pause() : pair->clients.front().peer.resume();
    pair->clients.push_back({std::move(peer), std::move(address)});
    return {*this, pair, pair->clients.size() - 1};
  }

 private:
  Print print_;
  std::mutex mutex_;             // of alone_; taken before a pair's
  std::shared_ptr<Pair> alone_;  // whose first client waits for the second
};

}  // namespace examples
