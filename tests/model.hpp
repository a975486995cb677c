// SPDX-License-Identifier: BSL-1.0
// A model of the protocol, as simple as possible: no concurrency, no batches, one event at a time, and every lookup
// goes through all clients. It shares no code with what it is compared to.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace model {

/// One thing that a client must see next. Replies and deliveries never change places.
struct Sight {
  enum Kind { ok, err, delivery, end };
  Kind kind;
  std::string line = {};  // all its bytes; empty: a reply, whose text is free
};

class Chat {
 public:
  enum class Role { guest, waiting, newcomer, receiver, sender, closed };

  /// `asks`: the server takes secrets, and each login waits for a verdict. `keeps`: how many texts of each room it
  /// keeps; 0: it has no history. `tells`: it tells who is in a room.
  explicit Chat(bool asks = false, std::size_t keeps = 0, bool tells = false)
      : asks_(asks), keeps_(keeps), tells_(tells) {}

  void connect(int client) { clients_[client] = {}; }

  /// The client sends `bytes`, split or joined in any way.
  void bytes(int client, std::string_view bytes) {
    auto& from = clients_.at(client);
    for (auto const byte : bytes) {
      if (byte == '\n') {
        auto line = std::exchange(from.unfinished, {});
        if (std::exchange(from.over_long, false)) continue;  // already answered
        if (!line.empty() && line.back() == '\r') line.pop_back();
        carry_out(from, line);
      } else if (!from.over_long) {
        from.unfinished += byte;
        if (from.unfinished.size() + 1 > 255) {  // even if the terminator came next
          from.unfinished.clear();
          from.over_long = true;
          if (from.role != Role::closed) refuse(from);
        }
      }
    }
  }

  /// The client shuts down sending, and continues to read.
  void end_of_input(int client) { close(clients_.at(client)); }
  /// The client disappears, and sees nothing more.
  void vanish(int client) { clients_.erase(client); }

  /// The verdict on the client's login has come, if it waits for one.
  void verdict(int client, bool accepts) {
    auto& from = clients_.at(client);
    if (from.role != Role::waiting) return;
    if (!accepts) return refuse(from);
    from.role = from.next;
    ok(from);
  }

  /// Returns what the client must see, in this order, since the last call.
  std::vector<Sight> sights(int client) { return std::exchange(clients_.at(client).sights, {}); }
  bool knows(int client) const { return clients_.count(client) != 0; }
  Role role(int client) const { return clients_.at(client).role; }

  /// Returns how many rooms have a member.
  std::size_t rooms() const {
    std::set<std::string> rooms;
    for (auto const& [number, client] : clients_)
      if (!client.room.empty()) rooms.insert(client.room);
    return rooms.size();
  }

 private:
  struct Client {
    Role role = Role::guest, next = Role::guest;  // next: if the verdict is yes
    bool has_secret = false;
    std::string user, room;   // an empty room, which is no valid name: no room
    std::string unfinished;   // the line without a terminator so far
    bool over_long = false;   // the unfinished line is too long
    std::size_t entered = 0;  // how many texts had been said in its room
    std::vector<Sight> sights;
  };
  /// A text, which is for `user` only, or for all others.
  struct Said {
    std::string line, user;
    bool only;
    bool is_for(std::string const& name) const { return (name == user) == only; }
  };
  struct Room {
    std::size_t said = 0;
    std::deque<Said> kept = {};  // the last of them
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

  /// Refuses a line. A client that has not logged in, or a receiver that has not joined, is closed.
  static void refuse(Client& client) {
    err(client);
    if (client.role == Role::guest || client.role == Role::waiting || client.role == Role::newcomer) close(client);
  }

  void carry_out(Client& from, std::string const& line) {
    if (from.role == Role::closed) return;
    auto const colon = line.find(':');
    if (colon == std::string::npos) return refuse(from);
    auto const tag = line.substr(0, colon);
    auto const payload = line.substr(colon + 1);
    switch (from.role) {
      case Role::guest: return asks_ && tag == "pass" ? keep_secret(from, payload) : log_in(from, tag, payload);
      case Role::waiting: return refuse(from);
      case Role::newcomer:
        if (tag != "join" || !is_name(payload)) return refuse(from);
        from.role = Role::receiver;
        return join(from, payload);
      case Role::receiver:
        if (tag == "join") return join(from, payload);
        if (tag == "quit") return quit(from);
        if (tag == "history" && keeps_ > 0) return tell_history(from, payload);
        return err(from);
      case Role::sender:
        if (tag == "join") return join(from, payload);
        if (tag == "quit") return quit(from);
        if (tag == "leave") return leave(from);
        if (tag == "sendall") return say(from, payload, nullptr);
        if (tag == "senduser") return whisper(from, payload);
        if (tag == "who" && tells_ && !from.room.empty()) return ok(from);
        return err(from);
      case Role::closed: return;
    }
  }

  static void keep_secret(Client& from, std::string const& secret) {
    if (secret.empty() || std::exchange(from.has_secret, true)) return refuse(from);
    ok(from);
  }
  void log_in(Client& from, std::string const& tag, std::string const& user) const {
    if ((tag != "slogin" && tag != "rlogin") || !is_name(user)) return refuse(from);
    from.user = user;
    from.next = tag == "slogin" ? Role::sender : Role::newcomer;
    from.role = asks_ ? Role::waiting : from.next;
    if (!asks_) ok(from);
  }

  void join(Client& from, std::string const& room) {
    if (!is_name(room)) return err(from);
    if (from.room != room) from.entered = rooms_[room].said;
    from.room = room;
    ok(from);
  }

  /// The last texts that were said before the client entered its room, of those that are kept.
  void tell_history(Client& from, std::string const& number) {
    std::uint64_t most = 0;
    for (auto const c : number) {
      if (c < '0' || c > '9' || most > 999'999'999'999) return err(from);
      most = 10 * most + static_cast<std::uint64_t>(c - '0');
    }
    if (number.empty() || most > 4'294'967'295) return err(from);
    auto const& room = rooms_[from.room];
    auto at = room.said - room.kept.size();
    std::vector<Sight> found;
    for (auto const& said : room.kept)
      if (at++ < from.entered && said.is_for(from.user)) found.push_back({Sight::delivery, said.line});
    if (found.size() > most) found.erase(found.begin(), found.end() - static_cast<std::ptrdiff_t>(most));
    from.sights.push_back({Sight::ok, "ok:" + std::to_string(found.size()) + "\n"});
    for (auto& sight : found) from.sights.push_back(std::move(sight));
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

  /// Sends `text` to the user `to`, or else to everybody except users with the sender's name.
  void say(Client& from, std::string const& text, std::string const* to) {
    auto const line = "delivery:" + from.room + ":" + from.user + ":" + text + "\n";
    if (from.room.empty() || line.size() > 255) return err(from);
    Said said{line, to != nullptr ? *to : from.user, to != nullptr};
    for (auto& [number, other] : clients_)
      if (other.role == Role::receiver && other.room == from.room && said.is_for(other.user))
        other.sights.push_back({Sight::delivery, line});
    ok(from);
    if (keeps_ == 0) return;
    auto& room = rooms_[from.room];
    ++room.said;
    room.kept.push_back(std::move(said));
    if (room.kept.size() > keeps_) room.kept.pop_front();
  }

  bool const asks_;
  std::size_t const keeps_;
  bool const tells_;
  std::map<std::string, Room> rooms_;
  std::map<int, Client> clients_;
};

}  // namespace model
