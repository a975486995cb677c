// SPDX-License-Identifier: BSL-1.0
// Many clients at the same time: crowds, receivers that do not read, and whether the judge of their histories is right.
#include <chatproto/chat_service.hpp>
#include <chatproto/threading.hpp>

#include <cstddef>
#include <cstdint>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "client.hpp"
#include "history.hpp"
#include "judged_crowd.hpp"
#include "socket_support.hpp"
#include "support.hpp"

namespace {

using history::Judge;
using history::LogicalClock;
using history::TextId;
using raw::Random;
using raw::Reading;
using raw::SessionClient;
using raw::Time;
using namespace std::string_literals;

#ifdef __linux__
/// Returns the number of descriptors once it is stable.
auto descriptors_at_rest() {
  auto count = test::descriptors();
  for (auto same = 0; same < 50; ++same) {
    std::this_thread::sleep_for(Time(2));
    if (auto const now = test::descriptors(); std::exchange(count, now) != now) same = 0;
  }
  return count;
}
#endif

/// Options of a server with three threads and queues that hold `queue_limit` bytes.
chatproto::ServerOptions options(std::size_t queue_limit) {
  auto options = test::patient();
  options.threads = 3;
  options.queue_limit = queue_limit;
  return options;
}
constexpr std::size_t plenty = 64 * 1024 * 1024;  // more than is sent

// --- Many clients ---------------------------------------------------------------------------------------------------

TEST_CASE("sessions in many threads keep the promises", "[concurrency]") {
  chatproto::ChatService service;
  auto const connect = [&service] { return std::make_unique<SessionClient>(service); };
  judged::judge_crowd<SessionClient>(connect, judged::lively);
  judged::judge_crowd<SessionClient>(connect, judged::dense);
  CHECK(service.room_count() == 0);
}

TEMPLATE_TEST_CASE("a server keeps its promises to a crowd", "[concurrency]", chatproto::ThreadPerClient,
                   chatproto::ThreadPool, chatproto::StrandPool) {
  test::ServerThread<TestType> server(options(plenty));
  auto const connect = [&server] { return std::make_unique<raw::Client>(server.port()); };
  for (auto i = 0; i < 8; ++i) {  // a thread keeps what it creates for its first client
    auto const first = connect();
    first->write("slogin:first\n");
    CHECK(first->read().kind == Reading::line);
  }
#ifdef __linux__
  auto const at_rest = descriptors_at_rest();
#endif
  judged::judge_crowd<raw::Client>(connect, judged::lively);
  judged::judge_crowd<raw::Client>(connect, judged::dense);
  CHECK(test::eventually([&server] { return server->service().room_count() == 0; }));
#ifdef __linux__
  CHECK(test::eventually([&] { return test::descriptors() <= at_rest; }));
#endif
}

// --- Receivers that do not read -------------------------------------------------------------------

/// One sender, one room, and receivers that read when told to: all in step, in one thread.
template <class Policy>
class Flood {
 public:
  using TestReceiver = judged::TestReceiver<raw::Client>;
  using TestSender = judged::TestSender<raw::Client>;

  explicit Flood(std::size_t queue_limit) : server_(options(queue_limit)) {}

  std::unique_ptr<TestReceiver> receiver(std::string const& user) {
    return std::make_unique<TestReceiver>(connect(), clock_, user, "room");
  }
  std::unique_ptr<TestSender> sender(std::uint32_t number) {
    auto sender = std::make_unique<TestSender>(connect(), clock_, number);
    sender->join("room");
    return sender;
  }
  std::size_t room_count() { return server_->service().room_count(); }

  /// Waits until the server has removed the receiver of this name from the room, which shows when a text to it reaches
  /// nobody. Until then each text takes a place in its queue, so there are few: each pause is twice the last one.
  bool sees_end_of(std::string const& user, TestSender& sender) {
    for (auto pause = Time(1); pause < test::patience; pause *= 2) {
      auto const before = server_->service().deliveries();
      sender.say(24, user);
      sender.send();
      sender.hear_replies();
      if (server_->service().deliveries() == before) return true;
      std::this_thread::sleep_for(pause);
    }
    return false;
  }

 private:
  std::unique_ptr<raw::Client> connect() { return std::make_unique<raw::Client>(server_.port()); }

  test::ServerThread<Policy> server_;
  LogicalClock clock_;
};

// A flood goes in rounds. One round is less than the queue of a receiver that reads can hold; all rounds are more than
// the system's own buffers can.
constexpr std::size_t text_size = 230;
constexpr std::size_t per_round = 200;  // texts
constexpr std::size_t rounds = 9'000'000 / text_size / per_round;

template <class TestReceiver>
bool hear_round(TestReceiver& receiver) {
  for (std::size_t i = 0; i < per_round; ++i)
    if (receiver.hear() != receiver.delivery) return false;
  return true;
}

template <class TestSender>
void say_round(TestSender& sender) {
  for (std::size_t i = 0; i < per_round; ++i) {
    sender.say(text_size);
    if (i % 20 == 0) sender.send();
  }
  sender.send();
  sender.hear_replies();
}

TEMPLATE_TEST_CASE("receivers that do not read harm only themselves", "[concurrency]", chatproto::ThreadPerClient,
                   chatproto::ThreadPool, chatproto::StrandPool) {
  // Ten rounds never fill a queue, however little the system's buffers hold: a text counts at most 255 bytes.
  Flood<TestType> scene(1024 * 1024);
  using TestReceiver = typename Flood<TestType>::TestReceiver;
  std::vector<std::unique_ptr<TestReceiver>> readers, stuck;
  for (auto i = 0; i < (raw::instrumented ? 3 : 10); ++i) readers.push_back(scene.receiver("reader"));
  for (auto i = 0; i < 3; ++i) stuck.push_back(scene.receiver("stuck"));
  auto slow = scene.receiver("slow");
  auto resets = scene.receiver("resets");
  auto half_closes = scene.receiver("halfcloses");
  auto sender = scene.sender(1);

  auto slow_reads = true, all_read = true;
  for (std::size_t i = 0; i < rounds; ++i) {
    say_round(*sender);
    for (auto& receiver : readers) all_read = all_read && hear_round(*receiver);
    for (auto lines = 0; lines < 20 && slow_reads; ++lines) slow_reads = slow->hear() == slow->delivery;
    if (i == 9) {  // much is on its way to them, but less than their queues hold
      half_closes->half_close();
      resets->vanish(true);
      // Until the server has read the end of input, this is a receiver that does not read, and may be disconnected like
      // any other.
      REQUIRE(scene.sees_end_of("halfcloses", *sender));
    }
  }
  CHECK(all_read);
  for (auto& receiver : readers) receiver->quit();

  history::History history;
  auto const keep = [&history](TestReceiver& receiver) { history.receivers.push_back(std::move(receiver.record)); };
  for (auto& receiver : readers) keep(*receiver);
  for (auto* const receiver : {stuck[0].get(), stuck[1].get(), stuck[2].get(), slow.get()}) {
    // What it has not read yet is a prefix of all texts, without a gap.
    if (receiver != slow.get() || slow_reads) {
      auto const end = receiver->hear_out();
      CHECK((end == receiver->end || end == receiver->broken));
    }
    receiver->was_cut();
    CHECK(receiver->record.stays.back().got.size() < rounds * per_round);
    CHECK(receiver->record.stays.back().got.size() > 0);
    keep(*receiver);
  }
  keep(*resets);
  // A receiver that has only shut down its sending side gets what was queued for it, however late it reads.
  half_closes->hear_end();
  CHECK(half_closes->record.stays.back().got.size() >= per_round);
  keep(*half_closes);

  sender->quit();
  sender->send();
  sender->hear_replies();
  sender->hear_end();
  history.senders.emplace(1, std::move(sender->record));
  Judge const judge(history);
  INFO(judged::lines_of(judge.faults()));
  CHECK(judge.faults().empty());
  CHECK(judge.owed() >= readers.size() * rounds * per_round);
  CHECK(test::eventually([&scene] { return scene.room_count() == 0; }));
}

TEMPLATE_TEST_CASE("receivers that read late get everything that their queues can hold", "[concurrency]",
                   chatproto::ThreadPerClient, chatproto::ThreadPool, chatproto::StrandPool) {
  auto const seed = raw::seed();
  INFO("CHATPROTO_SEED=" << seed);
  Flood<TestType> scene(plenty);
  using TestReceiver = typename Flood<TestType>::TestReceiver;
  std::vector<std::unique_ptr<TestReceiver>> receivers;
  for (auto i = 0; i < 4; ++i) receivers.push_back(scene.receiver("late"));
  auto sender = scene.sender(1);

  // In the first half of the flood no receiver reads. Then they do, unevenly, while it goes on, so that their queues
  // fill and empty many times; one of them has shut down its sending side.
  for (std::size_t i = 0; i < rounds / 2; ++i) say_round(*sender);
  receivers.front()->half_close();
  std::vector<std::future<void>> readers;
  for (std::size_t i = 0; i < receivers.size(); ++i) {
    readers.push_back(
        std::async(std::launch::async, [&receiver = *receivers[i], i, random = Random(seed + i)]() mutable {
          if (i == 0) return receiver.hear_end();
          for (auto lines = rounds * per_round; lines > 0; --lines) {
            if (receiver.hear() != receiver.delivery) throw judged::Violation("a late receiver hears no delivery");
            if (random.below(2'000) == 0) std::this_thread::sleep_for(Time(random.below(4)));
          }
          receiver.quit();
        }));
  }
  for (auto i = rounds / 2; i < rounds; ++i) say_round(*sender);
  for (auto& reader : readers) reader.get();

  history::History history;
  history.senders.emplace(1, std::move(sender->record));
  for (auto& receiver : receivers) history.receivers.push_back(std::move(receiver->record));
  Judge const judge(history);
  INFO(judged::lines_of(judge.faults()));
  CHECK(judge.faults().empty());
  CHECK(judge.owed() >= rounds / 2 * per_round * history.receivers.size());
}

// --- Tests of the judge ---------------------------------------------------------------------------

/// A small valid history, to be spoilt: two senders, two receivers that stay, one that is disconnected, one that moves.
class Story {
 public:
  Story() {
    history.senders = {{1, {"ann", {}}}, {2, {"bob", {}}}};
    history.receivers = {{"eve", {{"r", 1, 2, 1000, true}}},
                         {"kim", {{"r", 3, 4, 1000, true}}},
                         {"cut", {{"r", 5, 6, 1000, false}}},
                         {"ann", {{"r", 7, 8, 45, true}, {"s", 46, 47, 1000, true}}}};
    // Each text: its sender and room, when it was sent, when its ok came.
    say(1, "r", 10, 12);
    say(2, "r", 20, 29);
    say(1, "r", 21, 28);  // at the same time
    say(2, "r", 40, 42);
    say(1, "r", 50, 52);
    say(2, "s", 60, 62);
    for (std::size_t receiver = 0; receiver < 2; ++receiver)
      hear(receiver, 0, {{1, 0}, {1, 1}, {2, 0}, {2, 1}, {1, 2}});
    hear(2, 0, {{1, 0}, {1, 1}, {2, 0}});
    hear(3, 0, {{2, 0}, {2, 1}});
    hear(3, 1, {{2, 2}});
  }

  std::vector<std::string> faults() const { return Judge(history).faults(); }

  void say(std::uint32_t sender, std::string const& room, history::Tick asked, history::Tick ok,
           std::string const& to = {}) {
    history.senders.at(sender).texts.push_back({room, to, asked, ok});
  }
  void hear(std::size_t receiver, std::size_t stay, std::vector<TextId> const& ids) {
    auto& got = history.receivers.at(receiver).stays.at(stay).got;
    got.clear();
    for (auto const id : ids) got.push_back({id, 900});
  }

  history::History history;
};

TEST_CASE("the judge accepts what the protocol allows", "[concurrency]") {
  Story story;
  SECTION("as it is") {
  }
  SECTION("a text that came while a receiver left was not heard") {
    story.history.receivers[0].stays[0].left = 51;
    story.hear(0, 0, {{1, 0}, {1, 1}, {2, 0}, {2, 1}});
  }
  SECTION("a text that came while a receiver entered was not heard") {
    story.history.receivers[0].stays[0].entered = 11;
    story.hear(0, 0, {{1, 1}, {2, 0}, {2, 1}, {1, 2}});
  }
  SECTION("a text that never got its ok was heard by all who heard more") {
    story.history.senders.at(1).texts[2].ok = 0;
    story.hear(0, 0, {{1, 0}, {1, 1}, {2, 0}, {2, 1}});
  }
  SECTION("the other order of what was said at the same time") {
    for (std::size_t receiver = 0; receiver < 2; ++receiver)
      story.hear(receiver, 0, {{1, 0}, {2, 0}, {1, 1}, {2, 1}, {1, 2}});
    story.hear(2, 0, {{1, 0}, {2, 0}});
  }
  SECTION("a text and a reply to a line that was sent before its ok came, in the other order") {
    story.history.receivers[0].stays[0].got[4].answered = 51;
  }
  SECTION("who was cut heard nothing at all") {
    story.hear(2, 0, {});
  }
  SECTION("a text for one user, the sender's own name") {
    story.history.senders.at(1).texts[2] = {"r", "ann", 30, 31};
    story.hear(3, 0, {{2, 0}, {1, 2}, {2, 1}});
    for (std::size_t receiver = 0; receiver < 2; ++receiver) story.hear(receiver, 0, {{1, 0}, {1, 1}, {2, 0}, {2, 1}});
  }
  auto const faults = story.faults();
  INFO(judged::lines_of(faults));
  CHECK(faults.empty());
}

TEST_CASE("the judge finds what the protocol forbids", "[concurrency]") {
  Story story;
  auto expected = "";
  SECTION("a text is lost, the first, one in the middle or the last") {
    auto const lost = GENERATE(0, 2, 4);
    auto& got = story.history.receivers[0].stays[0].got;
    got.erase(got.begin() + lost);
    expected = "did not get";
  }
  SECTION("a text is lost when a receiver moves") {
    story.hear(3, 0, {{2, 0}});
    expected = "did not get text 2.1";
  }
  SECTION("a text comes twice") {
    story.hear(0, 0, {{1, 0}, {1, 1}, {2, 0}, {2, 0}, {2, 1}, {1, 2}});
    expected = "twice";
  }
  SECTION("a text comes again, in a later stay") {
    story.history.receivers[0].stays[0].left = 51;
    story.history.receivers[0].stays.push_back({"r", 55, 56, 1000, true});
    story.hear(0, 1, {{2, 1}});
    expected = "twice";
  }
  SECTION("a text that nobody said, of a sender or of nobody") {
    auto const invented = GENERATE(TextId{1, 3}, TextId{3, 0});
    story.hear(3, 1, {{2, 2}, invented});
    expected = "nobody said";
  }
  SECTION("a text of another room") {
    story.hear(3, 1, {{2, 2}, {1, 2}});
    expected = "said in r";
  }
  SECTION("a receiver hears its own name's text") {
    story.hear(3, 0, {{1, 1}, {2, 0}, {2, 1}});
    expected = "not for it";
  }
  SECTION("a text for another user") {
    story.history.senders.at(2).texts[1].to = "eve";
    expected = "not for it";
  }
  SECTION("a text was over before the receiver came") {
    story.history.receivers[0].stays[0] = {"r", 13, 14, 1000, true};
    story.hear(0, 0, {{1, 0}, {1, 1}, {2, 0}, {2, 1}, {1, 2}});
    expected = "over before it came";
  }
  SECTION("a text is heard before it is said") {
    story.history.receivers[0].stays[0].got[4].at = 49;
    expected = "before it was said";
  }
  SECTION("a text is overtaken by the reply to a line that was sent when it had its ok") {
    story.history.receivers[0].stays[0].got[4].answered = 53;
    expected = "after a reply";
  }
  SECTION("two receivers hear two orders") {
    story.hear(1, 0, {{1, 0}, {2, 0}, {1, 1}, {2, 1}, {1, 2}});
    expected = "no order";
  }
  SECTION("three receivers, no two of whom disagree, hear three orders") {
    story.history.senders = {
        {1, {"ann", {{"r", "", 10, 20}}}}, {2, {"bob", {{"r", "", 10, 20}}}}, {3, {"kim", {{"r", "", 10, 20}}}}};
    story.history.receivers = {
        {"ann", {{"r", 1, 2, 1000, true}}}, {"bob", {{"r", 1, 2, 1000, true}}}, {"kim", {{"r", 1, 2, 1000, true}}}};
    story.hear(0, 0, {{2, 0}, {3, 0}});
    story.hear(1, 0, {{3, 0}, {1, 0}});
    story.hear(2, 0, {{1, 0}, {2, 0}});
    expected = "no order";
  }
  SECTION("a sender's texts change places, for everybody") {
    for (std::size_t receiver = 0; receiver < 2; ++receiver)
      story.hear(receiver, 0, {{1, 1}, {1, 0}, {2, 0}, {2, 1}, {1, 2}});
    story.hear(2, 0, {});
    story.history.senders.at(1).texts[1].asked = 10;
    expected = "no order";
  }
  SECTION("a text comes before one that had its ok, for everybody") {
    for (std::size_t receiver = 0; receiver < 2; ++receiver)
      story.hear(receiver, 0, {{2, 0}, {1, 0}, {1, 1}, {2, 1}, {1, 2}});
    story.hear(2, 0, {});
    expected = "no order";
  }
  SECTION("a text comes before one that another had heard, which never got its ok") {
    story.history.senders.at(1).texts[2].ok = 0;
    story.history.receivers[0].stays[0].got[4].at = 55;
    story.say(2, "r", 56, 57);
    story.hear(1, 0, {{1, 0}, {1, 1}, {2, 0}, {2, 1}, {2, 3}, {1, 2}});
    story.history.receivers[0].stays[0].left = 56;
    expected = "no order";
  }
  SECTION("who was cut has a gap") {
    story.hear(2, 0, {{1, 0}, {2, 0}});
    expected = "no order";
  }
  SECTION("who was cut has not the first") {
    story.hear(2, 0, {{1, 1}});
    expected = "no order";
  }
  SECTION("a text that never got its ok was heard by some only") {
    story.history.senders.at(1).texts[1].ok = 0;
    story.hear(1, 0, {{1, 0}, {2, 0}, {2, 1}, {1, 2}});
    expected = "has a gap: text 1.1";
  }
  auto const faults = story.faults();
  INFO(judged::lines_of(faults));
  REQUIRE_FALSE(faults.empty());
  CHECK(faults[0].find(expected) != std::string::npos);
}

TEST_CASE("a text's bytes identify it", "[concurrency]") {
  TextId const id{70'001, 512};
  for (std::size_t size : {24u, 25u, 100u, 230u}) {
    auto text = history::text_of(id, size);
    CHECK(text.size() == size);
    CHECK(history::id_of(text) == id);
    CHECK_FALSE(history::id_of(text + "x"));
    CHECK_FALSE(history::id_of(text.substr(0, size - 1)));
    text[size - 1] ^= 1;
    CHECK_FALSE(history::id_of(text));
  }
  CHECK_FALSE(history::id_of(""));
  CHECK_FALSE(history::id_of("1.2"));
  CHECK_FALSE(history::id_of("too late"));
}

}  // namespace
