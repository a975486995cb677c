// SPDX-License-Identifier: BSL-1.0
// Follows the receivers of a room while they receive, in bounded memory, and counts violations of the protocol's
// promises 1 to 4, which history.hpp judges from a whole history. For a single thread that plays all clients.
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

/// What was seen; a nonzero number in the second row is an error.
struct Counts {
  uint64_t connections = 0, texts = 0, deliveries = 0, cut = 0;
  uint64_t lost = 0, duplicated = 0, misordered = 0, corrupt = 0, unexpected = 0;
  uint64_t wrong() const { return lost + duplicated + misordered + corrupt + unexpected; }
};

/// A sender's time in one room, whose texts are numbered.
struct Voice {
  struct Room& room;
  uint32_t number, next = 0;
  std::int64_t heard = -1;  // number of the last text that was heard
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
    Tick fence;  // not 0: not a text, but proof that every text with an earlier ok has come
  };
  bool is_bob;
  Tick asked, entered = 0;
  uint64_t place;  // of the next text in the room's log; at first, the end of the log when it asked to join
  bool has_begun = false, is_over = false;
  std::deque<Item> heard = {};  // not yet compared with what the witness heard
  std::set<TextId> missing = {};

  bool wants(Text const& text) const { return !is_bob || text.for_bobs; }
};

/// A room has a witness, a receiver that is always in it and gets all texts. The order in which the witness gets them
/// is the one with which other receivers are compared. A receiver that is ahead of the witness waits for it.
struct Room {
  std::string name;
  Counts& counts;
  uint32_t& voices;                            // how many there have been
  std::deque<std::shared_ptr<Text>> log = {};  // the witness heard these, and another receiver has not yet
  uint64_t begin = 0;                          // the place of the log's first text
  std::map<TextId, std::shared_ptr<Text>> unheard = {};
  std::map<TextId, std::shared_ptr<Text>> abandoned = {};  // their sender left without an ok: they may come or not
  std::set<TextId> lost = {};                              // the witness did not hear these
  std::list<Stay> stays = {};
  uint64_t said = 0;
  Tick fence = 0;   // the witness has heard every text whose ok came before
  Tick latest = 0;  // `asked` of the last-asked text that it heard

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

  /// Compares what the receiver heard with what the witness heard so far.
  void follow(Stay& stay) {
    for (; !stay.heard.empty(); stay.heard.pop_front()) {
      auto const id = stay.heard.front().id;  // Clang 14 cannot capture structured bindings
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
      if (!stay.wants(text)) ++counts.corrupt;                                           // not meant for this receiver
      if (!stay.has_begun && text.ok != 0 && text.ok < stay.asked) ++counts.misordered;  // its ok came before the join
      stay.has_begun = true;
    }
  }

  /// The text is unknown, or known no more.
  void unexpected(TextId id) const { ++(id.sender < voices ? counts.duplicated : counts.corrupt); }
};

}  // namespace following
