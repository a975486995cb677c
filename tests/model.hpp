// SPDX-License-Identifier: BSL-1.0
// The protocol once more, as plainly as it can be said: no concurrency, no batches, one event at a
// time, everything found by looking at all clients. It shares no code with what it is compared to.
#pragma once

#include <cstddef>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace model {

/// One thing that a client must see next. A reply and a delivery never change places.
struct Sight {
  enum Kind { ok, err, delivery, end };
  Kind kind;
  std::string line = {};  // of a delivery: all its bytes; the text of a reply is free
};

class Chat {
 public:
  enum class Role { guest, newcomer, receiver, sender, closed };

  void connect(int client) { clients_[client] = {}; }

  /// The client sends `bytes`, split or joined as it likes.
  void bytes(int client, std::string_view bytes) {
    auto& from = clients_.at(client);
    for (auto const byte : bytes) {
      if (byte == '\n') {
        auto line = std::exchange(from.unfinished, {});
        if (std::exchange(from.over_long, false)) continue;  // was answered already
        if (!line.empty() && line.back() == '\r') line.pop_back();
        carry_out(from, line);
      } else if (!from.over_long) {
        from.unfinished += byte;
        if (from.unfinished.size() + 1 > 255) {  // even if its terminator came next
          from.unfinished.clear();
          from.over_long = true;
          if (from.role != Role::closed) refuse(from);
        }
      }
    }
  }

  /// The client shuts its side down, and reads on.
  void end_of_input(int client) { close(clients_.at(client)); }
  /// The client is gone, and will see nothing.
  void vanish(int client) { clients_.erase(client); }

  /// What the client must see, in this order, since it was asked before.
  std::vector<Sight> sights(int client) { return std::exchange(clients_.at(client).sights, {}); }
  bool knows(int client) const { return clients_.count(client) != 0; }
  Role role(int client) const { return clients_.at(client).role; }

  /// How many rooms there are: those with somebody in them.
  std::size_t rooms() const {
    std::set<std::string> rooms;
    for (auto const& [number, client] : clients_)
      if (!client.room.empty()) rooms.insert(client.room);
    return rooms.size();
  }

 private:
  struct Client {
    Role role = Role::guest;
    std::string user, room;  // no room: empty, which is no name
    std::string unfinished;  // the line that has no terminator yet
    bool over_long = false;  // that line is too long
    std::vector<Sight> sights;
  };

  static bool is_name(std::string_view text) {
    for (auto const c : text) {
      auto const fits = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
      if (!fits) return false;
    }
    return !text.empty();
  }

  static void ok(Client& client) { client.sights.push_back({Sight::ok}); }
  static void err(Client& client) { client.sights.push_back({Sight::err}); }

  static void close(Client& client) {
    if (client.role == Role::closed) return;
    client.role = Role::closed;
    client.room.clear();
    client.sights.push_back({Sight::end});
  }

  /// Who has not yet said who and where it is has one try only.
  static void refuse(Client& client) {
    err(client);
    if (client.role == Role::guest || client.role == Role::newcomer) close(client);
  }

  void carry_out(Client& from, std::string const& line) {
    if (from.role == Role::closed) return;
    auto const colon = line.find(':');
    if (colon == std::string::npos) return refuse(from);
    auto const tag = line.substr(0, colon);
    auto const payload = line.substr(colon + 1);
    switch (from.role) {
      case Role::guest: return log_in(from, tag, payload);
      case Role::newcomer:
        if (tag != "join" || !is_name(payload)) return refuse(from);
        from.role = Role::receiver;
        return join(from, payload);
      case Role::receiver:
        if (tag == "join") return join(from, payload);
        if (tag == "quit") return quit(from);
        return err(from);
      case Role::sender:
        if (tag == "join") return join(from, payload);
        if (tag == "quit") return quit(from);
        if (tag == "leave") return leave(from);
        if (tag == "sendall") return say(from, payload, nullptr);
        if (tag == "senduser") return whisper(from, payload);
        return err(from);
      case Role::closed: return;
    }
  }

  static void log_in(Client& from, std::string const& tag, std::string const& user) {
    if ((tag != "slogin" && tag != "rlogin") || !is_name(user)) return refuse(from);
    from.role = tag == "slogin" ? Role::sender : Role::newcomer;
    from.user = user;
    ok(from);
  }

  static void join(Client& from, std::string const& room) {
    if (!is_name(room)) return err(from);
    from.room = room;
    ok(from);
  }

  static void leave(Client& from) {
    if (from.room.empty()) return err(from);
    from.room.clear();
    ok(from);
  }

  static void quit(Client& from) {
    ok(from);
    close(from);
  }

  void whisper(Client& from, std::string const& payload) {
    auto const colon = payload.find(':');
    if (colon == std::string::npos) return err(from);
    auto const user = payload.substr(0, colon);
    if (!is_name(user)) return err(from);
    say(from, payload.substr(colon + 1), &user);
  }

  /// Says `text` to the user `to`, or to all but those who are called like the sender.
  void say(Client& from, std::string const& text, std::string const* to) {
    auto const line = "delivery:" + from.room + ":" + from.user + ":" + text + "\n";
    if (from.room.empty() || line.size() > 255) return err(from);
    for (auto& [number, other] : clients_) {
      if (other.role != Role::receiver || other.room != from.room) continue;
      if (to != nullptr ? other.user == *to : other.user != from.user) other.sights.push_back({Sight::delivery, line});
    }
    ok(from);
  }

  std::map<int, Client> clients_;
};

}  // namespace model
