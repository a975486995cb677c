// SPDX-License-Identifier: BSL-1.0
// Records what many clients sent and received, and judges whether that keeps the protocol's promises 1 to 4.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace history {

/// A moment, comparable between threads. An action with a greater tick began after an action with a smaller one had
/// ended: a tick is taken before a send and after a read.
using Tick = std::uint64_t;

class LogicalClock {
 public:
  Tick next() { return now_.fetch_add(1); }

 private:
  std::atomic<Tick> now_ = 1;
};

/// Identifies a text: the `number`th of the sender called `sender`.
struct TextId {
  std::uint32_t sender = 0, number = 0;
  friend auto operator<=>(TextId const&, TextId const&) = default;
};

/// Returns the bytes of a text: its id, its size, and bytes that cannot be guessed from these.
inline std::string text_of(TextId id, std::size_t size) {
  static auto const noise = [] {
    std::string bytes(4096, ':');
    std::uint32_t state = 1;
    for (auto& byte : bytes) {
      state = state * 1'664'525u + 1'013'904'223u;
      if (auto const any = static_cast<char>(state >> 24); any != '\n' && any != '\r') byte = any;
    }
    return bytes;
  }();
  auto text = std::to_string(id.sender) + '.' + std::to_string(id.number) + '.' + std::to_string(size) + ':';
  auto const from = (id.sender * 2'654'435'761u + id.number * 40'503u) % (noise.size() - 256);
  return text.append(noise, from, size - std::min(size, text.size()));
}

/// Returns the id of a text, or nothing unless it is that text byte for byte.
inline std::optional<TextId> id_of(std::string_view text) {
  std::array<std::uint32_t, 3> parts = {};
  auto const* at = text.data();
  for (auto& part : parts) {
    auto const [end, error] = std::from_chars(at, text.data() + text.size(), part);
    if (error != std::errc() || end == text.data() + text.size()) return std::nullopt;
    at = end + 1;
  }
  TextId const id{parts[0], parts[1]};
  if (parts[2] > 255 || text != text_of(id, parts[2])) return std::nullopt;
  return id;
}

struct Text {
  std::string room;
  std::string to;        // the user; empty: everybody except users with the sender's name
  Tick asked = 0;        // before it was sent
  Tick ok = 0;           // after its ok came; 0: it never came
  bool refused = false;  // its err came
};

struct Sender {
  std::string user;
  std::vector<Text> texts;  // indexed by number
};

struct Receipt {
  TextId id;
  Tick at = 0;
  Tick answered = 0;  // before it sent the last line whose reply it had seen by then
};

/// A receiver's time in one room.
struct Stay {
  std::string room;
  Tick asked = 0;         // before the join was sent
  Tick entered = 0;       // after its ok came
  Tick left = 0;          // before it asked to end its stay, or after it saw the end
  bool complete = false;  // it read everything up to that end
  std::vector<Receipt> got = {};
  std::vector<TextId> past = {};  // what was said before, as one answer to "history:" has told
  bool past_is_whole = false;     // all that was said since the first of these must be there
};

struct Receiver {
  std::string user;
  std::vector<Stay> stays;
};

struct History {
  std::map<std::uint32_t, Sender> senders;
  std::vector<Receiver> receivers;
};

/// Finds violations of the promises.
class Judge {
 public:
  explicit Judge(History const& history) : history_(history) {
    gather();
    for (std::size_t i = 0; i < history_.receivers.size(); ++i) judge_receiver(i);
    for (auto& [name, room] : rooms_) judge_room(name, room);
  }

  /// Returns the first violations, in words.
  std::vector<std::string> const& faults() const { return faults_; }
  /// Returns how many receipts the promises required.
  std::size_t owed() const { return owed_; }

 private:
  static constexpr auto none = static_cast<std::size_t>(-1);

  /// What is known about a text. Elsewhere a text is represented by its index in `facts_`.
  struct Fact {
    TextId id;
    Text const* text;
    std::string const* from;
    Tick settled;                 // it had its place in its room's order by then; max: unknown
    std::size_t heard_by = none;  // the receiver, of those judged so far, that got it last
    std::size_t place = none;     // in an order of its room that fits all
  };
  /// All texts that one receiver got in one room, in order.
  struct Heard {
    std::size_t receiver;
    std::vector<std::size_t> facts;
    std::vector<std::size_t> stay_ends;  // indexes into `facts`
  };
  struct Room {
    std::vector<std::size_t> facts;  // ordered by `asked`
    std::vector<Heard> heard;
    std::vector<std::pair<std::size_t, std::size_t>> before;  // facts: the first precedes the second
  };

  void fault(std::string what) {
    if (faults_.size() < 10) faults_.push_back(std::move(what));
  }

  static std::string name(TextId id) { return "text " + std::to_string(id.sender) + '.' + std::to_string(id.number); }
  std::string name(std::size_t fact) const { return name(facts_[fact].id); }

  void gather() {
    for (auto const& [number, sender] : history_.senders) {
      first_[number] = facts_.size();
      std::map<std::string_view, std::size_t> last;  // in each room
      for (std::uint32_t i = 0; i < sender.texts.size(); ++i) {
        auto const& text = sender.texts[i];
        auto& room = rooms_[text.room];
        auto const fact = facts_.size();
        if (auto const [at, first] = last.try_emplace(text.room, fact); !first)
          room.before.emplace_back(std::exchange(at->second, fact), fact);
        room.facts.push_back(fact);
        facts_.push_back({{number, i}, &text, &sender.user, text.ok != 0 ? text.ok : ~Tick()});
      }
    }
    for (auto& [name, room] : rooms_)
      std::sort(room.facts.begin(), room.facts.end(),
                [this](auto a, auto b) { return facts_[a].text->asked < facts_[b].text->asked; });
  }

  std::size_t find(TextId id) const {
    auto const sender = history_.senders.find(id.sender);
    if (sender == history_.senders.end() || id.number >= sender->second.texts.size()) return none;
    return first_.at(id.sender) + id.number;
  }

  static bool is_for(Fact const& fact, Receiver const& receiver) {
    return fact.text->to.empty() ? *fact.from != receiver.user : fact.text->to == receiver.user;
  }

  void judge_receiver(std::size_t index) {
    auto const& receiver = history_.receivers[index];
    std::map<std::string_view, Heard> heard;
    for (auto const& stay : receiver.stays) {
      auto const who = receiver.user + " (" + std::to_string(index) + ") in " + stay.room;
      auto& here = heard.try_emplace(stay.room, Heard{index, {}, {}}).first->second;
      auto const begin = here.facts.size();
      for (auto const& receipt : stay.got)
        if (auto const fact = judge_receipt(index, stay, receipt, who); fact != none) here.facts.push_back(fact);
      here.stay_ends.push_back(here.facts.size());
      judge_past(index, stay, {here.facts.begin() + static_cast<std::ptrdiff_t>(begin), here.facts.end()}, who);
      judge_losses(index, stay, here.facts.size() > begin ? here.facts.back() : none, who);
    }
    for (auto& [room, facts] : heard) {
      auto& before = rooms_[std::string(room)].before;
      for (std::size_t i = 1; i < facts.facts.size(); ++i) before.emplace_back(facts.facts[i - 1], facts.facts[i]);
      rooms_[std::string(room)].heard.push_back(std::move(facts));
    }
  }

  /// Returns the text that was received, or `none` if there is no such text.
  std::size_t judge_receipt(std::size_t index, Stay const& stay, Receipt const& receipt, std::string const& who) {
    auto const number = find(receipt.id);
    if (number == none) {
      fault(who + " got " + name(receipt.id) + ", which nobody said");
      return none;
    }
    auto& fact = facts_[number];
    auto const& text = *fact.text;
    if (text.room != stay.room) {
      fault(who + " got " + name(number) + ", said in " + text.room);
      return none;
    }
    if (std::exchange(fact.heard_by, index) == index) {
      fault(who + " got " + name(number) + " twice");
      return none;
    }
    if (!is_for(fact, history_.receivers[index])) fault(who + " got " + name(number) + ", which is not for it");
    if (text.refused) fault(who + " got " + name(number) + ", which was refused");
    if (text.asked > receipt.at) fault(who + " got " + name(number) + " before it was said");
    if (text.ok != 0 && text.ok < stay.asked) fault(who + " got " + name(number) + ", which was over before it came");
    if (text.ok != 0 && text.ok < receipt.answered)
      fault(who + " got " + name(number) + " after a reply that must come after it");
    fact.settled = std::min(fact.settled, receipt.at);
    return number;
  }

  /// What was said before the stay, and what came in it, `live`, follow each other without a gap and without a double.
  void judge_past(std::size_t index, Stay const& stay, std::vector<std::size_t> const& live, std::string const& who) {
    if (stay.past.empty()) return;
    auto const& receiver = history_.receivers[index];
    auto& room = rooms_[stay.room];
    std::vector<std::size_t> facts;
    for (auto const id : stay.past) {
      auto const number = find(id);
      auto const told = who + " was told of " + name(id);
      if (number == none) return fault(told + ", which nobody said");
      auto const& fact = facts_[number];
      if (fact.text->room != stay.room) return fault(told + ", said in " + fact.text->room);
      if (!is_for(fact, receiver)) return fault(told + ", which is not for it");
      if (fact.text->refused) return fault(told + ", which was refused");
      if (fact.text->asked > stay.entered) return fault(told + ", which was said later");
      facts.push_back(number);
    }
    auto const past_size = static_cast<std::ptrdiff_t>(facts.size());
    facts.insert(facts.end(), live.begin(), live.end());
    for (std::size_t i = 1; i < facts.size(); ++i) room.before.emplace_back(facts[i - 1], facts[i]);
    if (!stay.past_is_whole) return;
    for (auto const earlier : room.facts) {
      auto const& fact = facts_[earlier];
      if (fact.text->ok == 0 || fact.text->ok > stay.asked || !is_for(fact, receiver)) continue;
      if (std::find(facts.begin(), facts.begin() + past_size, earlier) == facts.begin() + past_size)
        room.before.emplace_back(earlier, facts.front());
    }
    room.heard.push_back({index, facts, {facts.size()}});
  }

  /// Each text whose ok came during the stay must have been received or, if the stay was cut short, be ordered after
  /// all texts that were.
  void judge_losses(std::size_t index, Stay const& stay, std::size_t last, std::string const& who) {
    auto const at = rooms_.find(stay.room);
    if (at == rooms_.end()) return;
    auto& [facts, heard, before] = at->second;
    auto i = std::lower_bound(facts.begin(), facts.end(), stay.entered,
                              [this](auto fact, auto tick) { return facts_[fact].text->asked < tick; });
    for (; i != facts.end() && facts_[*i].text->asked < stay.left; ++i) {
      auto const& fact = facts_[*i];
      if (fact.text->ok == 0 || fact.text->ok > stay.left) continue;
      if (!is_for(fact, history_.receivers[index])) continue;
      ++owed_;
      if (fact.heard_by == index) continue;
      if (stay.complete)
        fault(who + " did not get " + name(*i));
      else if (last != none)
        before.emplace_back(last, *i);
    }
  }

  void judge_room(std::string const& room_name, Room& room) {
    if (!put_in_order(room_name, room)) return;
    for (auto const& heard : room.heard) {
      std::size_t begin = 0;
      for (auto const end : heard.stay_ends) {
        if (end > begin) judge_gaps(room_name, room, heard, begin, end);
        begin = end;
      }
    }
  }

  /// Gives each text a place such that all receivers got the texts in this order, each sender sent them in this order,
  /// and a text that was sent after another one had its place comes after it.
  bool put_in_order(std::string const& room_name, Room& room) {
    // Besides a node for each text there is one for each moment at which a text was settled: a chain of moments,
    // ordered by time, expresses with few edges which text precedes which.
    std::vector<std::size_t> moments;
    for (auto const fact : room.facts)
      if (facts_[fact].settled != ~Tick()) moments.push_back(fact);
    std::sort(moments.begin(), moments.end(), [this](auto a, auto b) { return facts_[a].settled < facts_[b].settled; });

    auto const texts = room.facts.size();
    std::map<std::size_t, std::size_t> node_of;  // of a fact
    for (std::size_t i = 0; i < texts; ++i) node_of[room.facts[i]] = i;
    std::vector<std::vector<std::size_t>> after(texts + moments.size());
    std::vector<std::size_t> waits_for(after.size());
    auto const edge = [&](std::size_t from, std::size_t to) {
      after[from].push_back(to);
      ++waits_for[to];
    };
    for (auto const& [first, second] : room.before) edge(node_of.at(first), node_of.at(second));
    for (std::size_t i = 0; i < moments.size(); ++i) {
      edge(node_of.at(moments[i]), texts + i);
      if (i > 0) edge(texts + i - 1, texts + i);
    }
    std::size_t passed = 0;  // room.facts is ordered by `asked`
    for (std::size_t i = 0; i < texts; ++i) {
      auto const asked = facts_[room.facts[i]].text->asked;
      while (passed < moments.size() && facts_[moments[passed]].settled < asked) ++passed;
      if (passed > 0) edge(texts + passed - 1, i);
    }

    std::vector<std::size_t> ready;
    for (std::size_t i = 0; i < after.size(); ++i)
      if (waits_for[i] == 0) ready.push_back(i);
    std::size_t place = 0;
    for (; place < ready.size(); ++place) {
      auto const node = ready[place];
      if (node < texts) facts_[room.facts[node]].place = place;
      for (auto const next : after[node])
        if (--waits_for[next] == 0) ready.push_back(next);
    }
    if (place == after.size()) return true;
    std::string among;
    for (std::size_t i = 0, shown = 0; i < texts && shown < 6; ++i)
      if (waits_for[i] != 0 && ++shown != 0) among += ' ' + name(room.facts[i]);
    fault("no order of the texts in " + room_name + " fits all; among others" + among);
    return false;
  }

  /// Between two texts that a receiver got in one stay there must be no other text for it, as shown by any other
  /// receiver, even if its sender never got the ok.
  void judge_gaps(std::string const& room_name, Room const& room, Heard const& heard, std::size_t begin,
                  std::size_t end) {
    auto const& receiver = history_.receivers[heard.receiver];
    auto const by_place = [this](auto a, auto b) { return facts_[a].place < facts_[b].place; };
    auto const first = heard.facts.begin() + static_cast<std::ptrdiff_t>(begin);
    auto const last = heard.facts.begin() + static_cast<std::ptrdiff_t>(end) - 1;
    for (auto const& other : room.heard) {
      if (&other == &heard) continue;
      auto mine = first;
      auto theirs = std::lower_bound(other.facts.begin(), other.facts.end(), *first, by_place);
      auto common = false;
      auto missed = none;
      for (; theirs != other.facts.end() && !by_place(*last, *theirs); ++theirs) {
        while (by_place(*mine, *theirs)) ++mine;
        if (*mine != *theirs) {
          if (common && missed == none && is_for(facts_[*theirs], receiver)) missed = *theirs;
          continue;
        }
        if (missed != none)
          return fault(receiver.user + " (" + std::to_string(heard.receiver) + ") in " + room_name +
                       " has a gap: " + name(missed));
        common = true;
      }
    }
  }

  History const& history_;
  std::map<std::uint32_t, std::size_t> first_;  // index in facts_ of a sender's first text
  std::vector<Fact> facts_;
  std::map<std::string, Room> rooms_;
  std::vector<std::string> faults_;
  std::size_t owed_ = 0;
};

}  // namespace history
