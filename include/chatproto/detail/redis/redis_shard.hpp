// SPDX-License-Identifier: BSL-1.0
/// @file
/// `RedisShard`: one Redis, and the rooms whose logs it holds.
#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <asio/io_context.hpp>

#include <chatproto/backplane.hpp>
#include <chatproto/detail/backplane/backplane_rules.hpp>
#include <chatproto/detail/redis/redis_connection.hpp>
#include <chatproto/detail/redis/redis_scripts.hpp>
#include <chatproto/redis_options.hpp>
#include <chatproto/token_bucket.hpp>

namespace chatproto::detail {

/// What of Redis' answer to INFO matters.
struct RedisIdentity {
  std::string life;  // changes when its data may have
  std::string version;
  bool is_master = false;
  unsigned replicas = 0;  // that follow it

  explicit RedisIdentity(std::string_view info)
      : life(std::string(field(info, "run_id:")) + ' ' + std::string(field(info, "master_replid:"))),
        version(field(info, "redis_version:")),
        is_master(field(info, "role:") == "master") {
    constexpr std::string_view online = ",state=online,";
    for (auto at = info.find(online); at != info.npos; at = info.find(online, at + online.size())) ++replicas;
  }
  static std::string_view field(std::string_view info, std::string_view name) {
    auto const at = info.find(name);
    if (at == std::string_view::npos) return {};
    auto const rest = info.substr(at + name.size());
    return rest.substr(0, rest.find_first_of("\r\n"));
  }
  /// Returns what is wrong with it; nothing if it can be used. `wanted`: the least number of replicas.
  std::string fault(unsigned wanted) const {
    if (version.empty()) return "does not answer INFO like Redis";
    if (version.find('.') < 2 && version[0] < '7') return "is Redis " + version + ", older than 7.0";
    if (!is_master) return "is a replica";
    if (replicas >= wanted) return {};
    return "has " + std::to_string(replicas) + " of " + std::to_string(wanted) + " replicas";
  }
};

/// Two connections to one Redis: for commands, and for what is published. They fall and rise together. Made anew for
/// each attempt, so nothing of an earlier one can reach it.
///
/// `Owner` is told by `ready(identity)`, `failed(why)`, `replied(reply)` (to commands sent after `ready`) and
/// `published(channel, payload)`, `subscribed(channel)`.
template <class Owner>
class RedisPair {
 public:
  RedisPair(asio::io_context& context, RedisServer const& server, RedisOptions const& options,
            std::string_view own_channel, Owner& owner)
      : options_(options), channel_(own_channel), owner_(owner), commands_(*this, context), messages_(*this, context) {
    for (auto* const end : {&commands_, &messages_}) end->connection->connect(server.host, server.port, options.layer);
  }
  RedisPair(RedisPair const&) = delete;
  RedisPair& operator=(RedisPair const&) = delete;
  ~RedisPair() { close(); }
  void close() noexcept {
    commands_.connection->close();
    messages_.connection->close();
  }

  RedisConnection& commands() noexcept { return *commands_.connection; }
  RedisConnection& messages() noexcept { return *messages_.connection; }

 private:
  struct End final : RedisEvents {
    End(RedisPair& its_pair, asio::io_context& context)
        : pair(its_pair), connection(std::make_shared<RedisConnection>(context, *this)) {}
    ~End() { connection->close(); }

    void connected() override {
      auto const &user = pair.options_.user, &password = pair.options_.password;
      if (!password.empty()) {
        ++skipped;
        user.empty() ? connection->send({"AUTH", password}) : connection->send({"AUTH", user, password});
      }
      connection->send({"INFO", "server", "replication"});
    }
    void replied(::redisReply const& reply) override { pair.replied(*this, reply); }
    void failed(std::string_view why) override { pair.owner_.failed(why); }

    RedisPair& pair;
    std::shared_ptr<RedisConnection> const connection;
    int skipped = 0;  // replies of the handshake before that to INFO
    std::optional<RedisIdentity> identity;
  };

  void replied(End& end, ::redisReply const& reply) {
    if (reply.type == REDIS_REPLY_ERROR && !is_ready_) return owner_.failed(text_of(reply));
    if (end.skipped > 0) return static_cast<void>(--end.skipped);
    if (!end.identity) return identified(end, text_of(reply));
    if (&end == &commands_) return owner_.replied(reply);
    auto const* const kind = element(reply, 0);
    auto const* const channel = element(reply, 1);
    auto const* const payload = element(reply, 2);
    if (kind == nullptr || channel == nullptr || payload == nullptr) return owner_.failed("an unexpected reply");
    auto const is_subscription = text_of(*kind) == "subscribe";
    if (!is_ready_ && (!is_subscription || !commands_.identity)) return owner_.failed("an early message");
    if (text_of(*kind) == "message") return owner_.published(text_of(*channel), text_of(*payload));
    if (!is_subscription) return;
    if (is_ready_) return owner_.subscribed(text_of(*channel));
    is_ready_ = true;
    owner_.ready(*commands_.identity);
  }
  void identified(End& end, std::string_view info) {
    end.identity.emplace(info);
    if (auto const fault = end.identity->fault(options_.replicas); !fault.empty()) return owner_.failed(fault);
    if (!commands_.identity || !messages_.identity) return;
    if (commands_.identity->life != messages_.identity->life)
      return owner_.failed("the two connections have reached different servers");
    messages_.connection->send({"SUBSCRIBE", channel_});
  }

  RedisOptions const& options_;
  std::string const channel_;
  Owner& owner_;
  End commands_, messages_;
  bool is_ready_ = false;
};

/// One Redis. Its functions are called in the context's one thread. It has no timers, for which memory may be short:
/// its owner calls `act` and `rules().tick`.
class RedisShard {
 public:
  using Clock = std::chrono::steady_clock;
  using Rules = BackplaneRules<RedisShard>;

  /// `node`: the name of this server among all that use this Redis.
  RedisShard(asio::io_context& context, RedisServer server, RedisOptions const& options, std::string const& node,
             Backplane::Sink& sink)
      : context_(context),
        server_(std::move(server)),
        options_(options),
        node_(node),
        own_channel_("chat:node:" + node),
        list_(list_of(options)),
        sink_(sink),
        new_rooms_(options.new_rooms, 40. * options.new_rooms),
        past_(past_of(sink.wanted_past())),
        rules_(*this, options.times, room_time() / 3) {}
  RedisShard(RedisShard const&) = delete;
  RedisShard& operator=(RedisShard const&) = delete;

  /// When `act` has to be called.
  Clock::time_point due() const noexcept { return due_; }
  /// Connects if it is time for that, or gives up an attempt that takes too long.
  void act(Clock::time_point now) {
    if (now < due_) return;
    if (waits_) {
      due_ = Clock::time_point::max();
      return tell(RedisEvent::Kind::disconnected, "it is not used before each Redis has been reached");
    }
    if (pair_) return failed("it does not answer");
    due_ = now + options_.times.refuse;
    closed_.reset();
    pair_ = std::make_unique<RedisPair<RedisShard>>(context_, server_, options_, own_channel_, *this);
  }
  Rules& rules() noexcept { return rules_; }

  /// What the servers that use this Redis name as their list: unknown, the same as this server, or another.
  enum class Agreement : std::uint8_t { unknown, same, other };
  Agreement agreement() const noexcept { return agreement_; }
  /// Whether it can be used as far as itself is concerned, and `enter` has not been called.
  bool is_usable() const noexcept { return waits_; }
  /// Each Redis has been found to have the same list: the rooms may be served.
  void enter() {
    if (std::exchange(waits_, false)) connected();
  }
  /// Some Redis has another list: other servers look for rooms elsewhere.
  void leave() {
    agreement_ = Agreement::unknown;
    failed("the servers of another Redis name other Redis servers");
  }

  /// Copies the figures to where other threads may look.
  RedisStats stats() const {
    return {server_.name(), rules_.is_connected(), rules_.silence(), rules_.under_way(), rules_.counts()};
  }

  // What the rules ask for:
  void deliver(std::string_view room, Backplane::Said const& said) { sink_.deliver(room, said); }
  void lost(std::string_view room) {
    sink_.lost(room);
    tell(RedisEvent::Kind::room_lost, room);
  }
  void past(std::string_view room, Backplane::Said const& said) { sink_.past(room, said); }
  void left(std::string_view room) { sink_.left(room); }
  void append(std::string_view room, std::uint64_t sequence, std::uint64_t incarnation, bool is_retry,
              std::string_view block) {
    expected_.push_back({Expected::appends, std::string(room), sequence});
    auto const retries = is_retry ? std::to_string(incarnation) : std::string();
    pair_->commands().send({"EVALSHA", append_sha_, "2", hash_of(room), stream_of(room), std::to_string(sequence),
                            retries, block, channel_of(room), std::to_string(options_.stream_bytes),
                            std::to_string(options_.stream_time.count()), std::to_string(room_time().count()), node_});
    if (options_.replicas > 0) wait_for_replicas({Expected::waits, std::string(room), sequence});
  }
  void look(std::string_view room, LogPosition const& at, bool wants_past) {
    expected_.push_back({Expected::looks, std::string(room), 0, at, wants_past});
    auto const is_known = at.incarnation != 0;
    auto const from = is_known ? std::to_string(at.incarnation) : std::string();
    auto const may_begin = is_known || new_rooms_.wait(TokenBucket::Clock::now()) == TokenBucket::Clock::duration();
    auto const past = wants_past ? past_ : std::pair<std::size_t, std::size_t>();
    pair_->commands().send({"EVALSHA", look_sha_, "2", hash_of(room), stream_of(room), from, std::to_string(at.number),
                            most_blocks, std::to_string(room_time().count()), may_begin ? "1" : "0",
                            std::to_string(past.first), std::to_string(past.second)});
  }
  void renew(std::string_view room) {
    expected_.push_back({Expected::renews});
    pair_->commands().send({"EXPIRE", hash_of(room), std::to_string(room_time().count())});
  }
  void subscribe(std::string_view room) { pair_->messages().send({"SUBSCRIBE", channel_of(room)}); }
  void unsubscribe(std::string_view room) { pair_->messages().send({"UNSUBSCRIBE", channel_of(room)}); }
  void beat(std::uint64_t number) {
    expected_.push_back({Expected::beats, {}, number});
    pair_->commands().send(
        {"EVALSHA", beat_sha_, "1", "{chat:}:servers", list_, own_channel_, std::to_string(number), list_time});
  }
  void reconnect() { failed("it is silent"); }

  // What the connections tell:
  void ready(RedisIdentity const& identity) {
    life_ = identity.life;
    load_scripts();
  }
  void failed(std::string_view why) {
    auto const was_connected = rules_.is_connected();
    if (!pair_) return;
    pair_->close();
    closed_ = std::move(pair_);  // it may be calling
    due_ = Clock::now() + (was_connected ? std::chrono::milliseconds(20) : options_.retry);
    expected_.clear();
    is_replica_ = waits_ = false;
    if (was_connected) rules_.disconnected();  // before anything that needs memory
    if (was_connected || last_fault_ != why) tell(RedisEvent::Kind::disconnected, why);
    last_fault_ = why;
  }
  void subscribed(std::string_view channel) {
    if (auto const room = room_of(channel); !room.empty()) rules_.subscribed(room);
  }
  void published(std::string_view channel, std::string_view payload) {
    auto const digits = [&payload](std::uint64_t& value) {
      auto const [end, error] = std::from_chars(payload.data(), payload.data() + payload.size(), value);
      if (error != std::errc()) return false;
      payload.remove_prefix(static_cast<std::size_t>(end - payload.data()));
      return true;
    };
    auto const is = [&payload](char c) {
      if (!payload.starts_with(c)) return false;
      payload.remove_prefix(1);
      return true;
    };
    if (channel == own_channel_) {
      if (std::uint64_t beat = 0; digits(beat)) rules_.beat_came(beat);
      return;
    }
    LogPosition at;
    auto const room = room_of(channel);
    // What is no block is left out: if it was one, the next one's number will tell.
    auto const is_block = digits(at.incarnation) && is(' ') && digits(at.number) && is('\n') && at.incarnation != 0;
    if (!room.empty() && is_block) rules_.came(room, at, payload);
  }
  void replied(::redisReply const& reply) {
    if (expected_.empty()) return failed("a reply without a command");
    auto const expected = std::move(expected_.front());
    expected_.pop_front();
    switch (expected.what) {
      case Expected::beats: return beat_replied(expected, reply);
      case Expected::scripts: return script_loaded(reply);
      case Expected::appends: return append_replied(expected, reply);
      case Expected::waits: return wait_replied(expected, reply);
      case Expected::waits_first: return first_wait_replied(reply);
      case Expected::looks: return look_replied(expected, reply);
      case Expected::renews: return;  // a log that is not there begins with the next text
    }
  }

 private:
  static constexpr std::array all_scripts = {append_script, look_script, beat_script};
  static constexpr std::string_view most_blocks = "64";  // in one look
  static constexpr std::size_t most_past = 960;          // blocks, which is less than a reply may have
  static constexpr std::string_view list_time = "5";     // seconds
  static constexpr std::string_view list_of_one = "only this one";

  /// The reply to a command under way.
  struct Expected {
    enum What : std::uint8_t { scripts, beats, appends, waits, waits_first, looks, renews } what = scripts;
    std::string room = {};
    std::uint64_t sequence = 0;
    LogPosition at = {};
    bool wants_past = false;
  };

  /// All servers must find a room at the same Redis, so their lists are compared. (If there is only one Redis, it does
  /// not matter how they call it.)
  static std::string list_of(RedisOptions const& options) {
    if (options.servers.size() < 2) return std::string(list_of_one);
    std::vector<std::string> names;
    for (auto const& server : options.servers) names.push_back(server.name());
    std::sort(names.begin(), names.end());
    std::string list;
    for (auto const& name : names) list.append(list.empty() ? "" : ", ").append(name);
    return list;
  }
  /// A block has at least one text, and may need half of its bytes for the names of who said them.
  static std::pair<std::size_t, std::size_t> past_of(HistoryLimits const& wanted) {
    if (!wanted) return {};
    return {std::min(wanted.lines, most_past), 2 * std::min(wanted.bytes, HistoryLimits::most_bytes)};
  }
  /// A room is remembered for longer than its texts, also just before it is renewed: a full Redis forgets texts first.
  std::chrono::seconds room_time() const noexcept { return std::max(options_.room_time, 2 * options_.stream_time); }
  static std::string key(std::string_view room, std::string_view rest) {
    std::string all("{chat:");
    return all.append(room).append(1, '}').append(rest);
  }
  static std::string channel_of(std::string_view room) { return key(room, ""); }
  static std::string hash_of(std::string_view room) { return key(room, ":log"); }
  static std::string stream_of(std::string_view room) { return key(room, ":stream"); }
  static std::string_view room_of(std::string_view channel) {
    if (!channel.starts_with("{chat:") || !channel.ends_with('}')) return {};
    return channel.substr(6, channel.size() - 7);
  }

  void load_scripts() {
    scripts_loading_ = all_scripts.size();
    for (auto const script : all_scripts) {
      expected_.push_back({Expected::scripts});
      pair_->commands().send({"SCRIPT", "LOAD", script});
    }
  }
  void script_loaded(::redisReply const& reply) {
    if (reply.type == REDIS_REPLY_ERROR) return failed(text_of(reply));
    *std::array{&append_sha_, &look_sha_, &beat_sha_}[all_scripts.size() - scripts_loading_] = text_of(reply);
    if (--scripts_loading_ == 0 && !rules_.is_connected()) beat(0);  // whose answer ends the handshake
  }
  void connected() {
    due_ = Clock::time_point::max();
    last_fault_.clear();
    tell(RedisEvent::Kind::connected, {});
    rules_.connected(life_);
  }
  /// Whether a reply says that Redis has forgotten the scripts. They are then loaded again, before what is sent next.
  bool has_no_script(::redisReply const& reply) {
    if (reply.type != REDIS_REPLY_ERROR || !text_of(reply).starts_with("NOSCRIPT")) return false;
    if (scripts_loading_ == 0) load_scripts();
    return true;
  }
  /// Errors that come before a script has changed anything.
  static bool is_refusal(std::string_view error) {
    constexpr std::string_view codes[] = {"OOM ",        "READONLY ",    "LOADING ", "MISCONF ",
                                          "NOREPLICAS ", "NOPERM ",      "NOAUTH ",  "BUSY ",
                                          "MASTERDOWN ", "CLUSTERDOWN ", "TRYAGAIN "};
    return std::any_of(std::begin(codes), std::end(codes), [&](auto code) { return error.starts_with(code); });
  }
  void append_replied(Expected const& expected, ::redisReply const& reply) {
    auto result = AppendResult::unknown;
    std::uint64_t incarnation = 0;
    if (has_no_script(reply)) {
      result = AppendResult::again;
    } else if (reply.type == REDIS_REPLY_ERROR) {
      auto const error = text_of(reply);
      if (is_refusal(error)) result = AppendResult::refused;
      tell(RedisEvent::Kind::refused, error);
      if (error.starts_with("READONLY ")) is_replica_ = true;
    } else if (auto const* const outcome = element(reply, 0)) {
      if (text_of(*outcome) == "stored") result = AppendResult::stored;
      if (auto const* const known = element(reply, 1)) incarnation = number(*known);
    }
    if (options_.replicas > 0) {  // its WAIT comes next
      waited_ = {result, incarnation};
      return;
    }
    rules_.appended(expected.room, expected.sequence, result, incarnation);
    if (std::exchange(is_replica_, false)) failed("is a replica");
  }
  void wait_for_replicas(Expected expected) {
    expected_.push_back(std::move(expected));
    pair_->commands().send({"WAIT", std::to_string(options_.replicas),
                            std::to_string(options_.times.refuse.count() / 2)});  // beats wait behind it
  }
  bool are_enough(::redisReply const& replicas) const noexcept {
    return replicas.type == REDIS_REPLY_INTEGER && replicas.integer >= static_cast<long long>(options_.replicas);
  }
  void first_wait_replied(::redisReply const& reply) {
    waits_ = are_enough(reply);
    if (!waits_) failed(reply.type == REDIS_REPLY_ERROR ? text_of(reply) : "its replicas are too slow");
  }
  void wait_replied(Expected const& expected, ::redisReply const& reply) {
    auto [result, incarnation] = waited_;
    if (result == AppendResult::stored && !are_enough(reply)) result = AppendResult::unknown;
    rules_.appended(expected.room, expected.sequence, result, incarnation);
    if (std::exchange(is_replica_, false)) failed("is a replica");
  }
  void beat_replied(Expected const& expected, ::redisReply const& reply) {
    if (has_no_script(reply)) return beat(expected.sequence);
    if (reply.type == REDIS_REPLY_ERROR) return failed(text_of(reply));
    if (reply.type == REDIS_REPLY_INTEGER) {
      agreement_ = Agreement::same;
      if (rules_.is_connected()) return;
      if (options_.replicas == 0) return static_cast<void>(waits_ = true);
      // A replica is "online" some time before it confirms anything. It must have what this beat has written.
      return wait_for_replicas({Expected::waits_first});
    }
    agreement_ = Agreement::other;
    auto const other = text_of(reply);
    failed(other == list_of_one ? "another server names only this Redis, not " + list_
                                : "another server names these Redis servers: " + std::string(other));
  }
  void look_replied(Expected const& expected, ::redisReply const& reply) {
    if (has_no_script(reply)) return look(expected.room, expected.at, expected.wants_past);
    auto const* const incarnation = element(reply, 0);
    auto const* const last = element(reply, 1);
    auto const* const begins = element(reply, 2);
    if (incarnation == nullptr || last == nullptr || begins == nullptr || number(*incarnation) == 0) {
      auto const is_empty = reply.type == REDIS_REPLY_ARRAY && reply.elements == 0;  // what the script says
      tell(RedisEvent::Kind::refused, reply.type == REDIS_REPLY_ERROR ? text_of(reply)
                                      : is_empty                      ? "too many new rooms at once"
                                                                      : "an unexpected reply");
      return rules_.looked(expected.room, nullptr);
    }
    if (number(*begins) == 1) new_rooms_.owe(TokenBucket::Clock::now());
    LogView view;
    view.end = {number(*incarnation), number(*last)};
    view.first = expected.at.number + 1;
    for (std::size_t i = 3; i < static_cast<std::size_t>(reply.elements); ++i)
      view.blocks.push_back(text_of(*element(reply, i)));
    rules_.looked(expected.room, &view);
  }
  static std::uint64_t number(::redisReply const& reply) noexcept {
    std::uint64_t value = 0;
    auto const text = text_of(reply);
    std::from_chars(text.data(), text.data() + text.size(), value);
    return value;
  }
  void tell(RedisEvent::Kind kind, std::string_view what) const {
    constexpr std::size_t most_told = 512;  // bytes; an error of Redis or a room's name has fewer
    if (options_.on_event) options_.on_event({kind, server_, what.substr(0, most_told)});
  }

  asio::io_context& context_;
  RedisServer const server_;
  RedisOptions const& options_;
  std::string const node_, own_channel_, list_;
  Backplane::Sink& sink_;
  Clock::time_point due_{};  // the next attempt to connect, or the time limit of the present one
  std::unique_ptr<RedisPair<RedisShard>> pair_, closed_;
  std::deque<Expected> expected_;
  std::string append_sha_, look_sha_, beat_sha_, life_, last_fault_;
  std::size_t scripts_loading_ = 0;
  bool is_replica_ = false;
  bool waits_ = false;
  Agreement agreement_ = Agreement::unknown;
  std::pair<AppendResult, std::uint64_t> waited_;
  TokenBucket new_rooms_;
  std::pair<std::size_t, std::size_t> const past_;  // blocks and bytes of it that the sink wants
  Rules rules_;
};

}  // namespace chatproto::detail
