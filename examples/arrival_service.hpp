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
#include <chatproto/message_queue.hpp>
#include <chatproto/peer.hpp>

namespace examples {

/// Makes pairs of clients. Takes no line of either before both are there; when each has sent one, tells both in which order
/// the lines came in; then relays what each says to the other, until one says "Bye". Lines of its own begin with "* ".
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
    std::size_t first = 0;             // whose the first of these is
    std::vector<std::string> early;    // what that client has said since: for the other, once both are known
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
      leave();
    }

    void on_line(std::string_view text) {
      std::string const line(text);
      std::lock_guard const lock(pair_->mutex);
      print_(me().address + " says: " + line);
      auto& [mutex, clients, arrived, first, early, over] = *pair_;
      if (over) {
        if (line == "Bye")
          me().peer.close();
        else
          tell(me(), gone);
      } else if (arrived.size() == 2) {
        relay(me_, line);
      } else if (arrived.size() == 1 && first == me_) {
        if (early.size() < most_early)
          early.push_back(line);
        else
          tell(me(), "* not kept: the other has not spoken yet");
      } else if (line == "Bye") {
        leave();
        me().peer.close();
      } else if (line.size() > longest) {
        tell(me(), "* too long: at first at most " + std::to_string(longest) + " bytes");
      } else {
        if (arrived.empty()) first = me_;
        arrived.push_back(line);
        if (arrived.size() < 2) return;
        for (auto const& client : clients) tell(client, arrived[0] + before + arrived[1]);
        for (auto const& each : early) relay(first, each);
      }
    }
    void on_bad_line(std::error_code ec) {
      std::lock_guard const lock(pair_->mutex);
      tell(me(), "* " + ec.message());
    }

   private:
    static constexpr auto before = " received before ", gone = "* the other has gone; Bye leaves";
    static constexpr std::size_t longest = (chatproto::max_line - 1 - std::string_view(before).size()) / 2;
    static constexpr std::size_t most_early = 64;  // lines

    Client const& me() const { return pair_->clients[me_]; }
    void tell(Client const& client, std::string const& line) const {
      if (client.peer.send(line + '\n') == chatproto::PushResult::queued) print_("to " + client.address + ": " + line);
    }
    void relay(std::size_t from, std::string const& line) const {
      if (pair_->over) return;
      tell(pair_->clients[1 - from], line);
      if (line != "Bye") return;
      pair_->over = true;
      for (auto const& client : pair_->clients) client.peer.close();
    }
    void leave() const {
      if (std::exchange(pair_->over, true) || pair_->clients.size() < 2) return;
      tell(pair_->clients[1 - me_], gone);
    }

    Print const& print_;
    std::shared_ptr<Pair> pair_;
    std::size_t me_;
  };

  Session open(chatproto::Peer peer, std::string address) {
    peer.pause();
    std::lock_guard const lock(mutex_);
    print_(address + " has come");
    auto const pair = alone_ ? alone_ : std::make_shared<Pair>();
    std::lock_guard const pair_lock(pair->mutex);
    pair->clients.push_back({peer, std::move(address)});
    if (pair->clients.size() == 1) {
      alone_ = pair;
    } else {
      // Who has waited may have sent something long ago, which was not read. So it is read before the other is.
      alone_ = nullptr;
      pair->clients.front().peer.resume_before(peer);
    }
    return {*this, pair, pair->clients.size() - 1};
  }

 private:
  Print print_;
  std::mutex mutex_;             // of alone_; taken before a pair's
  std::shared_ptr<Pair> alone_;  // whose first client waits for the second
};

}  // namespace examples
