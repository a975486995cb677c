// SPDX-License-Identifier: BSL-1.0
// Follows the receivers of a room while they hear, in bounded memory, and counts what breaks a promise (protocol,
// promises 1 to 4), which history.hpp judges from a whole history. For one thread that is all clients.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "history.hpp"

namespace following {

using history::TextId, history::Tick;
using std::uint32_t, std::uint64_t;

constexpr std::size_t most_abandoned = 10'000;

/// What was seen; the second half is wrong if it is not 0.
struct Counts {
  uint64_t connections = 0, texts = 0, deliveries = 0, cut = 0;
  uint64_t lost = 0, duplicated = 0, misordered = 0, corrupt = 0, unexpected = 0;
  uint64_t wrong() const { return lost + duplicated + misordered + corrupt + unexpected; }
};

/// A sender's time in one room: its texts there are numbered.
struct Voice {
  struct Room& room;
  uint32_t number, next = 0;
  std::int64_t heard = -1;  // the last
};

struct Text {
  TextId id;
  bool for_bobs;
  Tick asked, ok;  // ok: 0 until it came
  std::shared_ptr<Voice> voice;
};

/// A receiver's time in one room.
struct Stay {
  struct Item {
    TextId id;
    Tick fence;  // not 0: no text, but proof that all has come that had its ok before
  };
  bool is_bob;
  Tick asked, entered = 0;
  uint64_t place;  // in the room's log: what comes next; first all that nobody had heard when it asked to join
  bool has_begun = false, is_over = false;
  std::deque<Item> heard = {};  // and not yet compared with what the witness heard
  std::set<TextId> missing = {};

  bool wants(Text const& text) const { return !is_bob || text.for_bobs; }
};

/// Has a witness, a receiver who is always there and hears all texts. What it heard is the order with which the others
/// are compared. Who is ahead of the witness waits for it.
struct Room {
  std::string name;
  Counts& counts;
  uint32_t& voices;                            // how many there have been
  std::deque<std::shared_ptr<Text>> log = {};  // what the witness heard, and somebody else still has to
  uint64_t begin = 0;                          // the place of its first
  std::map<TextId, std::shared_ptr<Text>> unheard = {};
  std::map<TextId, std::shared_ptr<Text>> abandoned = {};  // its sender has gone without an ok: it may come or not
  std::set<TextId> lost = {};                              // for the witness
  std::list<Stay> stays = {};
  uint64_t said = 0;
  Tick fence = 0;   // what had its ok before, the witness has heard
  Tick latest = 0;  // of the texts that it heard, the one that was asked last

  uint64_t end() const { return begin + log.size(); }
  Text const& at(uint64_t place) const { return *log[static_cast<size_t>(place - begin)]; }

  void witness_hears(TextId id) {
    auto found = unheard.extract(id);
    if (!found) found = abandoned.extract(id);
    if (!found) return unexpected(id);
    auto const text = found.mapped();
    auto& voice = *text->voice;
    if (voice.heard >= id.number || (text->ok != 0 && text->ok < latest)) ++counts.misordered;
    voice.heard = std::max<std::int64_t>(voice.heard, id.number);
    latest = std::max(latest, text->asked);
    log.push_back(text);
    ++counts.deliveries;
    for (auto& stay : stays) follow(stay);
  }
  void abandon(TextId id) { abandoned.insert(unheard.extract(id)); }
  void witness_was_fenced(Tick asked) {
    fence = asked;
    for (auto it = unheard.begin(); it != unheard.end();) {
      if (it->second->ok == 0 || it->second->ok > asked) {
        ++it;
        continue;
      }
      ++counts.lost;
      lost.insert(it->first);
      it = unheard.erase(it);
    }
    auto first = end();
    for (auto it = stays.begin(); it != stays.end();) {
      follow(*it);
      if (it->is_over && it->heard.empty()) {
        it = stays.erase(it);
      } else {
        first = std::min(first, it->place);
        ++it;
      }
    }
    for (; begin < first; ++begin) log.pop_front();
    while (abandoned.size() > most_abandoned) abandoned.erase(abandoned.begin());
  }

  void hear(Stay& stay, Stay::Item item) {
    stay.heard.push_back(item);
    follow(stay);
  }

  /// Compares what the receiver heard with what the witness did, as far as that goes.
  void follow(Stay& stay) {
    for (; !stay.heard.empty(); stay.heard.pop_front()) {
      auto const id = stay.heard.front().id;  // Clang 14 captures no structured bindings
      auto const fenced = stay.heard.front().fence;
      if (fenced > fence) return;
      auto const is_owed = [&](Text const& text) {
        return stay.wants(text) && stay.entered != 0 && text.asked > stay.entered;
      };
      auto const misses = [&](Text const& text) {
        if (stay.missing.insert(text.id).second) ++counts.lost;
      };
      if (fenced != 0) {
        for (auto place = stay.place; place < end(); ++place)
          if (auto const& text = at(place); is_owed(text) && text.ok != 0 && text.ok < fenced) misses(text);
        continue;
      }
      auto place = stay.place;
      while (place < end() && at(place).id != id) ++place;
      auto const came_late = [&] {
        if (stay.missing.erase(id) == 0) return false;
        --counts.lost;
        ++counts.misordered;
        return true;
      };
      if (place == end()) {
        if (unheard.contains(id) || abandoned.contains(id)) return;
        if (!came_late() && !lost.contains(id)) unexpected(id);
        continue;
      }
      for (; stay.place < place; ++stay.place)
        if (auto const& text = at(stay.place); stay.has_begun ? stay.wants(text) : is_owed(text)) misses(text);
      auto const& text = at(stay.place++);
      came_late();
      ++counts.deliveries;
      if (!stay.wants(text)) ++counts.corrupt;                                           // it was not for it
      if (!stay.has_begun && text.ok != 0 && text.ok < stay.asked) ++counts.misordered;  // it was over
      stay.has_begun = true;
    }
  }

  /// It is not known (any more).
  void unexpected(TextId id) const { ++(id.sender < voices ? counts.duplicated : counts.corrupt); }
};

}  // namespace following
