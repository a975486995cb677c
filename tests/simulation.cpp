// SPDX-License-Identifier: BSL-1.0
// The core under a scheduler that is nothing but a seed: no thread, no clock, no socket. Clients come, talk, move, stall and
// vanish, and their links read, write and end, in an order that the seed chooses, down to single lines and partial
// writes. What stands in the queues is checked at every step, and history.hpp judges what all have seen.
//
//   simulation [--seconds S | --histories N] [--first SEED]   many histories, of the seeds from SEED on
//   simulation --seed SEED                                    this one, told step by step
//   simulation --self-test                                    links that are wrong, which must be found
#include <chatproto/chat_service.hpp>
#include <chatproto/line_reader.hpp>
#include <chatproto/message_queue.hpp>
#include <chatproto/peer.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "history.hpp"
#include "sanitized.hpp"
#if CHATPROTO_SANITIZED
#include <sanitizer/common_interface_defs.h>
#endif

namespace simulation {

using chatproto::ChatService;
using chatproto::MessageQueue;
using chatproto::SharedBlock;
using history::TextId;
using history::Tick;

// --- The parts ----------------------------------------------------------------------------------------------------------

/// What a queue holds, seen without a touch: to drain it would be an event of its own.
struct View {
  SharedBlock const& first;
  std::vector<SharedBlock> const& others;
  std::size_t bytes, offset;
  bool stalled;
  MessageQueue::State state;

  std::size_t size() const { return first ? 1 : others.size(); }
  std::string const& operator[](std::size_t i) const { return first ? *first : *others[i]; }
};
View look(MessageQueue const& queue);

template <auto First, auto Others, auto Bytes, auto Offset, auto Stalled, auto State>
struct Window {
  friend View look(MessageQueue const& queue) {
    return {queue.*First, queue.*Others, queue.*Bytes, queue.*Offset, queue.*Stalled, queue.*State};
  }
};
// Only an explicit instantiation may name what is private.
template struct Window<&MessageQueue::first_, &MessageQueue::blocks_, &MessageQueue::bytes_, &MessageQueue::offset_,
                       &MessageQueue::stalled_, &MessageQueue::state_>;

/// Cheap to seed, and the same everywhere.
class Dice {
 public:
  explicit Dice(std::uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u) {}

  std::size_t below(std::size_t end) { return static_cast<std::size_t>(next() % end); }
  bool percent(std::size_t chance) { return below(100) < chance; }
  auto one_of(auto const& range) { return range[below(std::size(range))]; }

 private:
  std::uint64_t next() {  // splitmix64
    auto bits = state_ += 0x9e3779b97f4a7c15u;
    bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9u;
    bits = (bits ^ (bits >> 27)) * 0x94d049bb133111ebu;
    return bits ^ (bits >> 31);
  }
  std::uint64_t state_;
};

/// What a link may do wrong, for the self-test.
enum class Wrong {
  nothing,
  loses_a_byte,        // when a write was partial
  loses_a_block,       // the same
  swaps_blocks,        // of one batch
  writes_twice,        // a batch
  forgets_the_flush,   // at the end of a read
  keeps_the_session,   // when it ends
  ends_early,          // what is queued is not yet written
  carries_out_a_part,  // of a line, at the end of input
  count,
};

/// What happened: a simulation that never comes to something proves nothing about it.
struct Tally {
  std::uint64_t histories = 0, steps = 0, lines = 0, owed = 0, stalls = 0, cuts = 0, resets = 0, ends = 0, quits = 0,
                moves = 0, pauses = 0, waits = 0, drains = 0, floods = 0;

  auto all() const {
    return std::array{std::pair("histories", histories), std::pair("steps", steps),           std::pair("lines", lines),
                      std::pair("receipts owed", owed),  std::pair("stalled writes", stalls), std::pair("cuts", cuts),
                      std::pair("resets", resets),       std::pair("ends of input", ends),    std::pair("quits", quits),
                      std::pair("moves", moves),         std::pair("pauses", pauses),         std::pair("waits", waits),
                      std::pair("drains", drains),       std::pair("floods", floods)};
  }
};

class Client;

/// What all share, and what kind of history it is.
struct World {
  World(std::uint64_t seed, Wrong how, bool aloud, Tally& counts)
      : dice(seed), wrong(how), told(aloud), tally(counts) {}
  ~World();

  void run();
  void look_at_queues();
  Tick tick() { return ++now; }
  void tell(auto const&... parts) const {
    if (!told) return;
    std::cout << now;
    ((std::cout << ' ' << parts), ...);
    std::cout << '\n';
  }
  void fault(std::string what) {
    tell("FAULT:", what);
    if (faults.size() < 5) faults.push_back(std::move(what));
  }

  Dice dice;
  Wrong const wrong;
  bool const told;
  Tally& tally;
  ChatService service;
  std::vector<std::shared_ptr<Client>> clients;
  std::vector<Client*> present;
  Client* acting = nullptr;
  Tick now = 0;
  std::vector<std::string> faults;
  bool last_call = false, draining = false, drained = false;

  std::size_t const limit = dice.one_of(std::array{4u, 12u, 300u, 600u, 1500u, 262'144u});  // of a queue
  chatproto::Overflow const overflow =
      dice.percent(40) ? chatproto::Overflow::block_sender : chatproto::Overflow::disconnect;
  std::size_t const rooms = dice.one_of(std::array{1u, 1u, 2u, 3u});    // how many
  std::size_t const users = dice.one_of(std::array{1u, 3u, 4u, 4u});    // how many
  std::size_t const most_clients = 3 + dice.below(6);                   // at a time
  std::size_t const most_lines = dice.one_of(std::array{1u, 4u, 12u});  // in one write
  // Chances, in percent:
  std::size_t const turns = dice.one_of(std::array{3u, 50u});  // that after a line it is somebody else's turn
  std::size_t const stuck = dice.one_of(std::array{0u, 10u, 40u});
  std::size_t const slow = dice.one_of(std::array{0u, 30u, 80u});
  std::size_t const restless = dice.one_of(std::array{1u, 5u, 25u});  // that a line is a join
  std::size_t const fickle = dice.one_of(std::array{1u, 10u});        // in a thousand: to leave, each time
  std::size_t const pauses = dice.one_of(std::array{0u, 0u, 5u});     // after a line

 private:
  void step();
  void judge();
};

constexpr std::array<std::string_view, 4> users = {"ann", "bob", "eve", "Ann7"};
constexpr std::array<std::string_view, 3> rooms = {"a", "cafe", "Cafe"};

/// A line that a client has sent, and what must come of it.
struct Said {
  enum What { other, text, enter, quit } what = other;  // enter: a receiver, and another room than where it is
  bool ok = false;
  std::string room = {}, to = {};
  std::uint32_t number = 0;  // of a text
  std::size_t size = 0;      // of its delivery
  Tick at = 0;               // when the session got it
};

// --- A client: both ends of its connection, and what is known of it -----------------------------------------------------

class Client final : public MessageQueue, public std::enable_shared_from_this<Client> {
 public:
  Client(World& world, std::uint32_t number)
      : MessageQueue(world.limit, world.overflow), world_(world), dice_(world.dice), number_(number) {
    me.user = sender.user = users[dice_.below(world.users)];
  }

  history::Receiver me;
  history::Sender sender;

  // The link: what detail/link.hpp does, one step at a time.

  void start() {
    world_.tell(number_, "comes:", me.user, talks_ ? "talks," : "listens,",
                stuck_   ? "stuck"
                : eager_ ? "eager"
                         : "slow");
    session_.reset(new ChatService::Session(world_.service.open(chatproto::Peer(shared_from_this()))));
  }

  /// Does one of the things that it has to do, if there is any.
  void act() {
    if (busy_ == Busy::with_lines) return hand_over();
    if (busy_ == Busy::with_a_write) return write();
    std::array<void (Client::*)(), 7> due = {};
    std::size_t count = 0;
    auto const reads = !paused_ && !input_ended_ && !waits_for_peer();
    if (!paused_ && !input_ended_ && vanished_) due[count++] = &Client::cut;
    if (reads && !input_.empty()) due[count++] = &Client::read;
    if (reads && input_.empty() && half_closed_) due[count++] = &Client::end_of_input;
    if (woken_ || (stalled_ && (vanished_ || appetite() > 0))) due[count++] = &Client::flush;
    if (to_unpause_) due[count++] = &Client::unpause;
    if (!resumes_.empty()) due[count++] = &Client::resume;
    if (asked_to_stop_) due[count++] = &Client::stop_reading;
    if (count > 0) (this->*due[dice_.below(count)])();
  }

  /// Its time is over, if it is at anything that has a deadline.
  void overdue() {
    if (busy_ != Busy::no) return;
    if (stalled_ || lingers_) return cut();
    if (session_ && session_->logged_in() != (begun_ > 0)) fault("is wrongly taken to be logged in, or not to");
    if (session_ && begun_ == 0) close_it();
  }
  /// Somebody closes it, or aborts it: at any moment.
  void close_it(bool at_once = false) {
    world_.tell(number_, at_once ? "is aborted" : "is closed");
    leaves();
    unanswered_ = unanswered_ || busy_ == Busy::with_lines || paused_;
    given_up_ = given_up_ || at_once;
    auto const peer = chatproto::Peer(shared_from_this());
    at_once ? peer.abort() : peer.close();
  }
  void ask_to_stop() { asked_to_stop_ = true; }
  bool asked_to_stop() const { return asked_to_stop_; }
  bool ended() const { return ended_; }
  void forget_session() { session_.reset(); }

 private:
  void wake() override {
    woken_ = true;
    world_.look_at_queues();  // so an ok that comes before what it promises is seen
  }
  void pause_input() override { paused_ = true; }
  void resume_input(std::shared_ptr<MessageQueue> then) override {
    if (!ended_)
      resumes_.push_back(std::move(then));
    else if (then)
      then->resume_input(nullptr);
  }

  void read() {
    auto const size = dice_.percent(50) ? input_.size() : 1 + dice_.below(std::min<std::size_t>(input_.size(), 600));
    auto bytes = input_.substr(0, size);
    input_.erase(0, size);
    if (session_ && reads_lines_) take_lines(std::move(bytes));
  }
  void take_lines(std::string bytes) {
    busy_ = Busy::with_lines;
    read_ = std::move(bytes);
    reader_.feed(read_);
    if (!dice_.percent(world_.turns)) hand_over();
  }
  void hand_over() {
    do {
      if (!is_open() || paused_) return end_of_lines();
      auto const line = reader_.next();
      if (!line) return end_of_lines();
      if (!gone_) begins();  // else it is ignored
      if (line->too_long)
        session_->on_bad_line(chatproto::Errc::line_too_long);
      else
        session_->on_line(line->text);
      if (!gone_) has_begun();
      if (dice_.percent(world_.pauses)) {
        ++world_.tally.pauses;
        chatproto::Peer(shared_from_this()).pause();
        to_unpause_ = true;
      }
      world_.look_at_queues();
    } while (!dice_.percent(world_.turns));
  }
  void end_of_lines() {
    busy_ = Busy::no;
    if (is_open() && paused_) held_ = reader_.take_rest();
    auto const was_paused = paused_;
    if (world_.wrong != Wrong::forgets_the_flush || dice_.percent(80)) session_->flush();
    world_.look_at_queues();
    pending_ = 0;
    if (paused_ && !was_paused) ++world_.tally.waits;
    if (is_open() && !paused_ && replies_ != begun_) fault("has a line without its reply");
    if (!is_open()) session_.reset();
    if (then_) std::exchange(then_, nullptr)->resume_input(nullptr);
  }

  void unpause() {
    to_unpause_ = false;
    chatproto::Peer(shared_from_this()).resume();
  }
  void resume() {
    then_ = std::move(resumes_.front());
    resumes_.erase(resumes_.begin());
    if (std::exchange(paused_, false) && goes_on()) return;
    if (then_) std::exchange(then_, nullptr)->resume_input(nullptr);
  }
  bool waits_for_peer() const { return stalled_ && world_.overflow == chatproto::Overflow::block_sender; }
  /// Takes what was read before it had to wait, if it need not wait still.
  bool goes_on() {
    if (paused_ || waits_for_peer() || !session_) return false;
    auto held = std::exchange(held_, {});
    take_lines(reads_lines_ ? std::move(held) : std::string());
    return true;
  }

  void flush() {
    woken_ = was_stalled_ = false;
    state_ = drain(batch_);
    looked_ = bytes_ = 0;
    if (state_ > State::closing) return cut();
    if (state_ == State::closing) {
      leaves();
      session_.reset();
    }
    busy_ = Busy::with_a_write;
    if (!dice_.percent(world_.turns)) write();
  }
  void write() {
    busy_ = Busy::no;
    if (vanished_) return cut();
    if (world_.wrong == Wrong::swaps_blocks && batch_.blocks.size() > 2) std::swap(batch_.blocks[1], batch_.blocks[2]);
    std::string bytes;
    for (auto const& block : batch_.blocks) bytes += *block;
    bytes.erase(0, batch_.offset);
    auto const size = std::min(bytes.size(), appetite());
    if (!eager_) takes_ -= size;
    world_.tell(number_, "is sent", size, "bytes of", bytes.size());
    auto const was_waiting = waits_for_peer();
    stalled_ = size < bytes.size();
    bytes.resize(size);
    sees(bytes);
    if (stalled_) {
      ++world_.tally.stalls;
      if (world_.wrong == Wrong::loses_a_block && batch_.blocks.size() > 1) batch_.blocks.pop_back();
      put_back(batch_, size + (world_.wrong == Wrong::loses_a_byte ? 1 : 0));
      auto const view = look(*this);
      looked_ = view.size();
      bytes_ = view.bytes;
      was_stalled_ = true;
      if (world_.wrong != Wrong::ends_early) return;
    }
    batch_.clear();
    if (world_.wrong == Wrong::writes_twice && dice_.percent(5)) sees(bytes);
    if (state_ != State::closing) {
      if (was_waiting) goes_on();
      return;
    }
    if (input_ended_) return end(true);
    sees_end();
    lingers_ = true;
    paused_ = false;
  }

  void end_of_input() {
    world_.tell(number_, "sends no more");
    input_ended_ = true;
    if (world_.wrong == Wrong::carries_out_a_part && session_ && is_open()) {
      reader_.feed("\n");
      while (auto const line = reader_.next()) session_->on_line(line->text);
      session_->flush();
    }
    leaves();
    session_.reset();
    if (lingers_) return end(true);
    close();
  }
  void stop_reading() { asked_to_stop_ = reads_lines_ = false; }
  void cut() { end(false); }
  void end(bool in_order) {
    world_.tell(number_, in_order ? "has ended" : "is cut");
    leaves();
    given_up_ = ended_ = true;
    asked_to_stop_ = false;
    batch_.clear();
    finish();
    if (world_.wrong != Wrong::keeps_the_session) session_.reset();
    if (in_order && !vanished_ && !saw_end_) sees_end();
    for (auto const& then : std::exchange(resumes_, {}))
      if (then) then->resume_input(nullptr);
  }

  // The client itself.

 public:
  void live() {
    if (vanished_) return;
    if (dice_.percent(40) && !stuck_) takes_ += dice_.below(500);
    auto const goes = dice_.below(1000);
    if ((!world_.last_call && goes < world_.fickle) || (world_.last_call && stuck_ && goes < 100)) return vanish();
    if (saw_end_ || goes < 2 * world_.fickle || (world_.last_call && !world_.draining && goes < 200))
      return half_close();
    auto const starts = role_ == Role::guest || role_ == Role::newcomer;
    if (!world_.last_call && dice_.percent(starts ? 90 : talks_ ? 60 : world_.restless)) speak();
  }

 private:
  enum class Role { guest, newcomer, receiver, sender, gone };  // after all that it has said

  std::size_t appetite() const { return eager_ ? static_cast<std::size_t>(-1) : takes_; }

  void vanish() {
    world_.tell(number_, "vanishes");
    ++world_.tally.resets;
    vanished_ = true;
    leaves();
    if (dice_.percent(50)) input_.clear();
  }
  void half_close() {
    if (std::exchange(half_closed_, true)) return;
    ++world_.tally.ends;
    if (dice_.percent(30)) input_ += "sendall:nobody may hear this";
  }

  void speak() {
    if (half_closed_) return;
    auto const flood = talks_ && dice_.below(300) == 0;  // more than a session keeps back
    if (flood) ++world_.tally.floods;
    for (auto lines = flood ? 180 : 1 + dice_.below(world_.most_lines); lines > 0; --lines) {
      auto const begin = input_.size();
      said_.push_back(line(flood));
      auto const& said = said_.back();
      if (world_.told) world_.tell(number_, said.ok ? "says" : "wrongly says", shown(input_.substr(begin, 30)));
      input_ += dice_.percent(85) ? "\n" : "\r\n";
      if (said.what == Said::quit || (!said.ok && (role_ == Role::guest || role_ == Role::newcomer)))
        role_ = Role::gone;
    }
  }
  static std::string shown(std::string text) {
    for (auto& byte : text)
      if (byte < ' ' || byte > '~') byte = '?';
    return text;
  }
  /// Makes a line, which it appends to what is on its way.
  Said line(bool flood) {
    using namespace std::string_literals;
    static std::array const nonsense = {""s,
                                        "x"s,
                                        ":"s,
                                        "ok:"s,
                                        "Join:a"s,
                                        "slogin:a b"s,
                                        "join:"s,
                                        "join:a b"s,
                                        "\r"s,
                                        ":a"s,
                                        "err:x"s,
                                        "delivery:a:b:c"s,
                                        std::string(255, 'x'),
                                        "join:" + std::string(250, 'x'),
                                        std::string(600, ':')};
    if (role_ == Role::gone || dice_.percent(3)) {
      input_ += nonsense[dice_.below(nonsense.size())];
      return {};
    }
    if (role_ == Role::guest) {
      role_ = talks_ ? Role::sender : Role::newcomer;
      input_.append(talks_ ? "slogin:" : "rlogin:").append(me.user);
      return {Said::other, true};
    }
    auto const die = flood ? 99 : dice_.below(100);
    if (die < 1 && role_ != Role::newcomer) {
      ++world_.tally.quits;
      input_ += "quit:";
      return {Said::quit, true};
    }
    if (role_ != Role::sender || (room_.empty() && die < 80) || dice_.percent(flood ? 0 : world_.restless)) {
      std::string const next(rooms[dice_.below(world_.rooms)]);
      auto const stays = std::exchange(room_, next) == next;
      input_ += "join:" + next;
      if (role_ == Role::sender || stays) return {Said::other, true};
      role_ = Role::receiver;
      return {Said::enter, true, next};
    }
    if (die < 5) {
      input_ += "leave:";
      return {Said::other, !std::exchange(room_, {}).empty()};
    }
    auto const room_left = chatproto::max_line - 12 - room_.size() - me.user.size();  // for the text of a delivery
    auto const whispers = dice_.percent(flood ? 0 : 30);
    auto const size = dice_.percent(4)             ? room_left + dice_.below(2)
                      : flood || dice_.percent(10) ? 190 + dice_.below(30)
                                                   : 12 + dice_.below(30);
    Said said{Said::other, false, room_, whispers ? std::string(dice_.one_of(users)) : ""s};
    input_ += whispers ? "senduser:" + said.to + ":" : "sendall:"s;
    input_ += history::text_of({number_, texts_}, size);
    if (room_.empty() || size > room_left) return said;
    said.what = Said::text;
    said.ok = true;
    said.number = texts_++;
    said.size = chatproto::max_line - room_left + size;
    return said;
  }

  void sees(std::string_view bytes) {
    while (!bytes.empty()) {
      auto const end = bytes.find('\n');
      unread_ += bytes.substr(0, end);
      if (end == bytes.npos) return;
      bytes.remove_prefix(end + 1);
      auto const line = std::exchange(unread_, {});
      if (line.starts_with("delivery:"))
        hears(line);
      else
        is_answered(line);
    }
  }
  void is_answered(std::string_view line) {
    if (answers_ == begun_) return fault("gets a reply too many");
    auto const& said = said_[answers_++];
    if (!line.starts_with(said.ok ? "ok:" : "err:")) fault("gets as a reply " + std::string(line.substr(0, 40)));
    if (said.what == Said::text) sender.texts[said.number].ok = tick();
    if (said.what != Said::enter) return;
    if (stays_begun_ > 0) me.stays[stays_begun_ - 1].complete = true;
    if (stays_begun_ > 0) ++world_.tally.moves;
    me.stays[stays_begun_++].entered = tick();
  }
  void hears(std::string_view line) {
    if (stays_begun_ == 0) return fault("gets a delivery before it is in a room");
    auto& stay = me.stays[stays_begun_ - 1];
    auto const start = "delivery:" + stay.room + ':';
    auto const colon = line.find(':', start.size());
    if (!line.starts_with(start) || line.size() >= chatproto::max_line || colon == line.npos)
      return fault("gets a strange delivery");
    auto const id = history::id_of(line.substr(colon + 1));
    auto const from = line.substr(start.size(), colon - start.size());
    if (!id || id->sender >= world_.clients.size() || world_.clients[id->sender]->sender.user != from)
      return fault("gets a delivery of what nobody said");
    stay.got.push_back({*id, tick()});
  }
  void sees_end() {
    saw_end_ = true;
    if (!unread_.empty()) fault("sees the end within a line");
    if (answers_ != begun_ && !unanswered_) fault("sees the end before its replies");
    if (stays_begun_ > 0) me.stays[stays_begun_ - 1].complete = true;
  }

  // What is known of it.

  Tick tick() { return world_.tick(); }
  void fault(std::string const& what) { world_.fault(std::to_string(number_) + ' ' + what); }

  void begins() {
    if (begun_ == said_.size()) {
      fault("is taken to say more lines than it did");
      said_.emplace_back();
    }
    ++world_.tally.lines;
    auto& said = said_[begun_++];
    said.at = tick();
    world_.tell(number_, "is heard, line", begun_);
    if (said.what == Said::text) {
      sender.texts.push_back({said.room, said.to, said.at});
      stands_.push_back(0);
      pending_ += said.size;
    }
    if (said.what == Said::enter || said.what == Said::quit) leaves();
    if (said.what == Said::enter) me.stays.push_back({said.room, said.at, ~Tick()});
  }
  void has_begun() {
    gone_ = session_->role() == ChatService::Session::gone;
    if (auto const& said = said_[begun_ - 1]; said.what == Said::enter) {
      listens_in_ = said.room;
      since_ = tick();
    }
  }
  void leaves() {
    listens_in_.clear();
    if (!me.stays.empty() && me.stays.back().left == 0) me.stays.back().left = tick();
  }

 public:
  void look_at_queue() {
    auto const view = look(*this);
    if (view.state > State::closing) {
      if (view.size() > 0 || view.bytes > 0) fault("has something queued that will never be written");
      if (!std::exchange(given_up_, true)) is_cut();
    } else if (view.size() < looked_) {
      fault("has lost what was queued for it");
    } else if (view.size() > looked_) {
      std::size_t bytes = 0;
      for (std::size_t i = 0; i < view.size(); ++i) {
        if (i >= looked_) look_at_block(view[i]);
        bytes += view[i].size() + entry_cost;
      }
      bytes -= view.offset;
      if (bytes != view.bytes) fault("has its bytes counted wrongly");
      // Where senders wait, each may have put one block more, of what a session keeps back.
      auto const blocks = world_.overflow == chatproto::Overflow::block_sender ? world_.clients.size() * 34'000 : 0;
      if (bytes > (view.stalled ? 1 : burst) * world_.limit + blocks) fault("has more queued than the limit lets it");
      if (view.stalled != was_stalled_) fault("is wrongly taken to stall, or not to");
      looked_ = view.size();
      bytes_ = bytes;
    }
  }
  /// An ok promises that the text stands in the queue of all who have been in the room since before it was said.
  void look_at_replies() {
    for (; judged_ < std::min(replies_, begun_); ++judged_) {
      auto const& said = said_[judged_];
      if (said.what != Said::text) continue;
      for (auto const* other : world_.present) {
        if (other->listens_in_ != said.room || other->since_ > said.at || !other->is_open()) continue;
        if (said.to.empty() ? other->me.user == me.user : other->me.user != said.to) continue;
        if ((stands_[said.number] >> other->number_ & 1) == 0)
          fault("gets ok for a text that " + std::to_string(other->number_) + " will not get");
      }
    }
  }

 private:
  void look_at_block(std::string_view block) {
    if (!block.ends_with('\n')) fault("has half a line queued");
    while (!block.empty()) {
      auto const line = block.substr(0, block.find('\n') + 1);
      block.remove_prefix(line.size());
      if (line.size() > chatproto::max_line) fault("has too long a line queued");
      if (!line.starts_with("delivery:")) {
        if (++replies_ > begun_) fault("has a reply too many queued");
        continue;
      }
      TextId id;
      auto const text = line.find(':', line.find(':', 9) + 1) + 1;
      auto const [dot, error] = std::from_chars(line.data() + text, line.data() + line.size(), id.sender);
      if (error == std::errc()) std::from_chars(dot + 1, line.data() + line.size(), id.number);
      if (error != std::errc() || id.sender >= world_.clients.size() ||
          id.number >= world_.clients[id.sender]->stands_.size())
        fault("has something queued that nobody said");
      else
        world_.clients[id.sender]->stands_[id.number] |= std::uint64_t(1) << number_;
    }
  }
  /// The queue broke its limit: by what can have been pushed in this step.
  void is_cut() {
    ++world_.tally.cuts;
    auto const& from = *world_.acting;
    auto const most = bytes_ + from.pending_ + 2 * entry_cost + (&from == this ? (begun_ - replies_) * 255 : 0);
    if (most <= (was_stalled_ ? 1 : burst) * world_.limit) fault("is cut within its limit");
    if (world_.overflow == chatproto::Overflow::block_sender && begun_ == replies_)
      fault("is cut for what others have said");
  }

  World& world_;
  Dice& dice_;
  std::uint32_t const number_;

  // The link's
  enum class Busy { no, with_lines, with_a_write };
  std::unique_ptr<ChatService::Session> session_;  // so that a sanitizer sees who still uses it
  chatproto::LineReader reader_;
  std::string input_;  // is on its way
  std::string read_;   // the reader works on it
  std::string held_;   // read, but the session has paused
  Batch batch_;
  State state_ = State::open;                           // as the last drain found it
  std::vector<std::shared_ptr<MessageQueue>> resumes_;  // posted
  std::shared_ptr<MessageQueue> then_;                  // to be resumed after these lines
  Busy busy_ = Busy::no;
  bool woken_ = false, stalled_ = false, paused_ = false, to_unpause_ = false, asked_to_stop_ = false;
  bool reads_lines_ = true, input_ended_ = false, lingers_ = false, ended_ = false;

  // The client's
  bool const talks_ = dice_.percent(45);
  bool const stuck_ = dice_.percent(world_.stuck);             // never reads
  bool const eager_ = !stuck_ && !dice_.percent(world_.slow);  // reads at once
  std::size_t takes_ = dice_.below(300);                       // so many bytes, if it is not eager
  Role role_ = Role::guest;
  std::string room_;             // after all that it has said
  std::vector<Said> said_;       // all lines
  std::uint32_t texts_ = 0;      // how many of them
  std::string unread_;           // an unfinished line
  std::size_t answers_ = 0;      // that it has seen
  std::size_t stays_begun_ = 0;  // as far as it has seen
  bool half_closed_ = false, vanished_ = false, saw_end_ = false;

  // What is known
  std::size_t begun_ = 0;              // lines that its session got
  std::vector<std::uint64_t> stands_;  // for each text: in the queues of these clients, by bits
  std::string listens_in_;             // this room; none: empty
  Tick since_ = 0;
  std::size_t pending_ = 0;               // so many bytes of deliveries, at most, are kept back
  std::size_t looked_ = 0;                // blocks in its queue that have been looked at
  std::size_t bytes_ = 0;                 // in its queue
  bool was_stalled_ = false;              // as its queue must see it
  std::size_t replies_ = 0, judged_ = 0;  // that have stood in its queue; that were judged
  bool gone_ = false;                     // has quit, or was refused: it is not heard any more
  bool given_up_ = false;                 // its queue was aborted
  bool unanswered_ = false;               // it was closed before its replies were queued
};

// --- The scheduler ------------------------------------------------------------------------------------------------------

World::~World() {
  for (auto const& client : clients) client->forget_session();
}

void World::look_at_queues() {
  for (auto* client : present) client->look_at_queue();
  for (auto* client : present) client->look_at_replies();
}

void World::step() {
  ++tally.steps;
  if (!last_call && present.size() < most_clients && clients.size() < 60 && (present.empty() || dice.percent(5))) {
    clients.push_back(std::make_shared<Client>(*this, static_cast<std::uint32_t>(clients.size())));
    present.push_back(clients.back().get());
    return clients.back()->start();
  }
  auto& turn = present[dice.below(present.size())];
  acting = turn;
  auto const die = dice.below(1000);
  if (die < 3)
    acting->overdue();
  else if (die < 6 && !last_call)
    acting->close_it(dice.percent(60));
  else if (die < 300)
    acting->live();
  else
    acting->act();
  look_at_queues();
  if (acting->ended()) {
    turn = present.back();
    present.pop_back();
  }
}

void World::run() {
  for (auto steps = 50 + dice.below(600); steps > 0 && faults.empty(); --steps) step();
  last_call = true;
  draining = dice.percent(40);
  if (draining) ++tally.drains;
  if (draining)
    for (auto* client : present) client->ask_to_stop();
  for (auto steps = 0; !present.empty() && faults.empty(); ++steps) {
    if (draining && !drained &&
        std::none_of(present.begin(), present.end(), [](auto* client) { return client->asked_to_stop(); })) {
      drained = true;
      for (auto* client : present) client->close_it();
    }
    if (steps == 20'000) return fault("It never ends.");
    step();
  }
  if (faults.empty()) judge();
}

void World::judge() {
  if (service.room_count() != 0) fault("A room is left.");
  history::History history;
  for (auto const& client : clients) {
    if (client.use_count() != 1) fault("A client is still held by something.");
    if (auto const view = look(*client); view.size() != 0) fault("A queue still holds blocks.");
    history.senders.emplace(static_cast<std::uint32_t>(history.senders.size()), std::move(client->sender));
    history.receivers.push_back(std::move(client->me));
  }
  history::Judge const judge(history);
  for (auto const& what : judge.faults()) fault(what);
  tally.owed += judge.owed();
}

// --- The program --------------------------------------------------------------------------------------------------------

std::uint64_t seed = 1;  // of the history that goes on
char const* program = "simulation";

/// Lets a history happen; whether nothing was wrong.
bool happens(Wrong wrong, bool told, Tally& tally) {
  World world(seed, wrong, told, tally);
  world.run();
  ++tally.histories;
  if (wrong == Wrong::nothing && !told)
    for (auto const& fault : world.faults) std::cerr << fault << '\n';
  return world.faults.empty();
}

void tell_how_to_repeat() {
  std::cerr << "seed " << seed << " fails. Again: " << program << " --seed " << seed << '\n';
}

int self_test() {
  auto missed = 0;
  for (auto wrong = 1; wrong < static_cast<int>(Wrong::count); ++wrong) {
    Tally tally;
    for (seed = 1; seed <= 2000 && happens(static_cast<Wrong>(wrong), false, tally); ++seed) {
    }
    if (seed > 2000) ++missed;
    std::cout << "wrong link " << wrong << (seed > 2000 ? ": NOT found" : ": found") << " after " << tally.histories
              << " histories\n";
  }
  return missed == 0 ? 0 : 1;
}

int main(int argc, char** argv) {
  program = argv[0];
  std::optional<std::uint64_t> seconds, one;
  std::uint64_t histories = 3000;
  for (auto i = 1; i < argc; ++i) {
    std::string_view const option = argv[i];
    if (option == "--self-test") return self_test();
    char* rest = nullptr;
    auto const value = i + 1 < argc ? std::strtoull(argv[++i], &rest, 10) : 0;
    if (option == "--seconds")
      seconds = value;
    else if (option == "--histories")
      histories = value;
    else if (option == "--first")
      seed = value;
    else if (option == "--seed")
      one = value;
    else
      rest = nullptr;
    if (rest == nullptr || rest == argv[i] || *rest != '\0') {
      std::cerr << "usage: simulation [--seconds S | --histories N] [--first SEED] | --seed SEED | --self-test\n";
      return 1;
    }
  }
#if CHATPROTO_SANITIZED
  __sanitizer_set_death_callback(tell_how_to_repeat);
#endif
  for (auto const signal : {SIGABRT, CHATPROTO_SANITIZED ? SIGABRT : SIGSEGV})  // an assertion, or worse
    std::signal(signal, [](int number) {
      std::signal(number, SIG_DFL);
      tell_how_to_repeat();
    });

  Tally tally;
  if (one) {
    seed = *one;
    return happens(Wrong::nothing, true, tally) ? 0 : 1;
  }
  auto const end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds.value_or(0));
  for (; seconds ? tally.histories % 64 != 0 || std::chrono::steady_clock::now() < end : tally.histories < histories;
       ++seed)
    if (!happens(Wrong::nothing, false, tally)) return tell_how_to_repeat(), 1;
  auto complete = true;
  for (auto const& [what, count] : tally.all()) {
    std::cout << count << ' ' << what << '\n';
    if (count == 0 && tally.histories >= 1000) complete = false;
  }
  if (!complete) std::cerr << "something never happened\n";
  return complete ? 0 : 1;
}

}  // namespace simulation

int main(int argc, char** argv) { return simulation::main(argc, argv); }
