// SPDX-License-Identifier: BSL-1.0
// Whatever the engine of a backplane tells, in whichever order: what is delivered consists of whole lines, each waiter
// is told once, and no memory stays held. Two bytes of the input choose an event; some events take more.
#include "fuzz.hpp"

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <chatproto/backplane.hpp>
#include <chatproto/detail/backplane/backplane_rules.hpp>
#include <chatproto/detail/backplane/block.hpp>
#include <chatproto/detail/held_memory.hpp>
#include <chatproto/message.hpp>

using namespace chatproto::detail;
using chatproto::Backplane;

namespace {

struct Owner {
  void deliver(std::string_view, Backplane::Said const& said) {
    assert(chatproto::is_valid_name(said.from) && (said.to.empty() || chatproto::is_valid_name(said.to)));
    assert(!said.lines.empty() && said.lines.back() == '\n');
    assert(std::count(said.lines.begin(), said.lines.end(), '\n') == static_cast<std::ptrdiff_t>(said.texts));
  }
  void lost(std::string_view) {}
  void past(std::string_view room, Backplane::Said const& said) { deliver(room, said); }
  void left(std::string_view) {}
  void append(std::string_view, std::uint64_t number, std::uint64_t, bool, std::string_view block) {
    assert(!block.empty());
    sequence = number;
  }
  void look(std::string_view, LogPosition const&, bool) {}
  void subscribe(std::string_view) {}
  void unsubscribe(std::string_view) {}
  void renew(std::string_view) {}
  void beat(std::uint64_t number) { beat_number = number; }
  void reconnect() { wants_reconnect = true; }

  std::uint64_t sequence = 0, beat_number = 0;
  bool wants_reconnect = false;
};

struct Waiter : Backplane::Waiter {
  int told = 0;
  void tell(Backplane::Outcome) noexcept override { ++told; }
};

}  // namespace

int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  auto rest = as_text(data, size);
  auto const byte = [&rest] { return take_byte(rest); };
  std::vector<std::shared_ptr<Waiter>> waiters;
  auto const waiter = [&waiters] { return waiters.emplace_back(std::make_shared<Waiter>()); };
  auto const block = [&] {
    std::string_view const lines[] = {"x\n", "delivery:a:ann:hi\n", "x\ny\n"};
    return byte() % 4 == 0 ? std::string(take_text(rest)) : encode_said({"ann", {}, lines[byte() % 2], 1});
  };
  {
    Owner owner;
    BackplaneRules<Owner> rules(owner, {}, std::chrono::seconds(2));
    while (!rest.empty()) {
      auto const event = byte();
      std::string_view const room = event % 2 == 0 ? "a" : "b";
      auto const position = [&] {
        auto const at = byte();
        return LogPosition{at % 4, at / 4};
      };
      switch (event / 2 % 12) {
        case 0: rules.append(room, encode_said({"ann", {}, "x\n", 1}), waiter()); break;
        case 1: rules.follow(room, waiter()); break;
        case 2: rules.unfollow(room); break;
        case 3: rules.at_end(room, waiter()); break;
        case 4: rules.connected(byte() % 2 == 0 ? "one" : "two"); break;
        case 5: rules.disconnected(); break;
        case 6: rules.subscribed(room); break;
        case 7:
          rules.appended(room, owner.sequence - byte() % 2, static_cast<AppendResult>(byte() % 4), byte() % 4);
          break;
        case 8: {
          std::string const first = block(), second = block();
          LogView view{position(), {first, second}, byte()};
          view.blocks.resize(byte() % 3);
          byte() % 8 == 0 ? rules.looked(room, nullptr) : rules.looked(room, &view);
          break;
        }
        case 9: {
          auto const at = position();
          rules.came(room, at, block());
          break;
        }
        case 10: rules.beat_came(owner.beat_number - byte() % 2); break;
        default:
          rules.tick(std::chrono::milliseconds(byte() * 10));
          if (std::exchange(owner.wants_reconnect, false)) rules.disconnected();
      }
    }
  }
  for (auto const& one : waiters) assert(one->told == 1 && one.use_count() == 1);
  assert(HeldMemory::total() == 0);
  return 0;
}
