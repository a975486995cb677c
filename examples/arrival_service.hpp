// SPDX-License-Identifier: BSL-1.0
/// @file
/// A service that tells two clients whose line came first.
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

/// Pairs up clients. When both are connected and each has sent a line, tells both in which order the lines arrived;
/// then relays the lines of each to the other, until one sends "Bye". The lines of a client that is still alone are
/// kept until its partner connects. The service's own lines begin with "* ".
class ArrivalService {
 public:
  /// Prints a line; several threads may call it at once.
  using Print = std::function<void(std::string const& line)>;
  explicit ArrivalService(Print print) : print_(std::move(print)) {}

 private:
  /// The data shared by two sessions. Each runs on its own client's executor, so both may call it at once.
  class Pair {
   public:
    explicit Pair(Print const& print) : print_(print) {}

    /// Adds a client. Returns its number, or `nobody` if the pair has already ended.
    std::size_t join(chatproto::Peer peer, std::string address) {
      std::lock_guard const lock(mutex_);
      if (over_) return nobody;
      print_(address + " has come");
      clients_.push_back({std::move(peer), std::move(address)});
      if (clients_.size() == 2)
        for (auto const& line : std::exchange(early_, {})) hear(0, line);
      return clients_.size() - 1;
    }
    void on_line(std::size_t who, std::string_view text) {
      std::string line(text);
      std::lock_guard const lock(mutex_);
      if (clients_.size() == 2) return hear(who, line);
      if (early_.empty()) print_(clients_[who].address + " speaks before the other has come");
      keep(who, line, "* not kept: the other has not come yet");
    }
    void on_bad_line(std::size_t who, std::error_code ec) {
      std::lock_guard const lock(mutex_);
      tell(who, "* " + ec.message());
    }
    void leave(std::size_t who) {
      std::lock_guard const lock(mutex_);
      if (std::exchange(over_, true)) return;
      if (clients_.size() == 2)
        tell(1 - who, gone);
      else
        print_(clients_[who].address + " has left before the other has come");
    }

    static constexpr auto nobody = ~std::size_t();

   private:
    static constexpr auto before = " received before ", gone = "* the other has gone; Bye leaves";
    static constexpr std::size_t longest = (chatproto::max_line - 1 - std::string_view(before).size()) / 2;
    static constexpr std::size_t most_early = 64;  // lines

    struct Client {
      chatproto::Peer peer;
      std::string address;
    };

    /// Handles a line when both clients are connected.
    void hear(std::size_t who, std::string const& line) {
      print_(clients_[who].address + " says: " + line);
      if (over_) {
        if (line == "Bye")
          clients_[who].peer.close();
        else
          tell(who, gone);
      } else if (arrived_.size() == 2) {
        relay(who, line);
      } else if (arrived_.size() == 1 && first_ == who) {
        keep(who, line, "* not kept: the other has not spoken yet");
      } else if (line == "Bye") {
        over_ = true;
        tell(1 - who, gone);
        clients_[who].peer.close();
      } else if (line.size() > longest) {
        tell(who, "* too long: at first at most " + std::to_string(longest) + " bytes");
      } else {
        if (arrived_.empty()) first_ = who;
        arrived_.push_back(line);
        if (arrived_.size() < 2) return;
        for (auto const client : {0u, 1u}) tell(client, arrived_[0] + before + arrived_[1]);
        for (auto const& each : early_) relay(first_, each);
      }
    }
    void keep(std::size_t who, std::string const& line, char const* complaint) {
      if (early_.size() < most_early)
        early_.push_back(line);
      else
        tell(who, complaint);
    }
    void tell(std::size_t who, std::string const& line) {
      auto const& client = clients_[who];
      if (client.peer.send(line + '\n') == chatproto::PushResult::queued) print_("to " + client.address + ": " + line);
    }
    void relay(std::size_t from, std::string const& line) {
      if (over_) return;
      tell(1 - from, line);
      if (line != "Bye") return;
      over_ = true;
      for (auto const& client : clients_) client.peer.close();
    }

    Print const& print_;
    std::mutex mutex_;                  // guards the rest
    std::vector<Client> clients_;       // in the order in which they connected
    std::vector<std::string> arrived_;  // their first lines, in the order of arrival
    std::size_t first_ = 0;             // the client whose line arrived first
    std::vector<std::string> early_;    // later lines of that client, or lines of the first client while it was alone
    bool over_ = false;                 // a client has left
  };

 public:
  class Session {
   public:
    Session(std::shared_ptr<Pair> pair, std::size_t me) : pair_(std::move(pair)), me_(me) {}
    Session(Session const&) = delete;
    Session& operator=(Session const&) = delete;
    ~Session() { pair_->leave(me_); }

    void on_line(std::string_view line) { pair_->on_line(me_, line); }
    void on_bad_line(std::error_code ec) { pair_->on_bad_line(me_, ec); }

   private:
    std::shared_ptr<Pair> pair_;
    std::size_t me_;
  };

  Session open(chatproto::Peer peer, std::string address) {
    std::lock_guard const lock(mutex_);
    if (alone_) {
      auto pair = std::exchange(alone_, nullptr);
      if (auto const me = pair->join(peer, address); me != Pair::nobody) return {std::move(pair), me};
    }
    alone_ = std::make_shared<Pair>(print_);
    return {alone_, alone_->join(std::move(peer), std::move(address))};
  }

 private:
  Print print_;
  std::mutex mutex_;             // guards alone_; taken before a pair's mutex
  std::shared_ptr<Pair> alone_;  // its first client waits for the second
};

}  // namespace examples
