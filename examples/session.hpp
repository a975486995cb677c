// SPDX-License-Identifier: BSL-1.0
/// @file
/// A user of the chat who talks and listens: the two connections of a client, which are made again when they are lost.
#pragma once

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <asio/error.hpp>
#include <asio/io_context.hpp>
#include <asio/steady_timer.hpp>

#include <chatproto/connection.hpp>
#include <chatproto/message.hpp>

#include "client.hpp"

namespace program {

/// What a session tells its user, on its context.
class SessionEvents {
 public:
  virtual ~SessionEvents() = default;
  /// Somebody has said something; `is_old`: before the user came, as asked for by `history:`.
  virtual void on_text(chatproto::Delivery const& delivery, bool is_old) = 0;
  /// The server has answered.
  virtual void on_reply(Message const& request, Message const& reply) = 0;
  /// An error that no request of the user's has caused.
  virtual void on_error(std::string const& reason) = 0;
  /// The user is logged in, in this room (empty: in none).
  virtual void on_login(std::string const& room) = 0;
  /// The connection was lost, or was not made. `unanswered`: these were sent and got no reply.
  virtual void on_loss(std::string const& why, std::vector<Message> const& unanswered) = 0;
  /// The server has answered `quit`.
  virtual void on_end() = 0;
};

/// Talks and listens as one user, on two connections. What the user wants goes to the server in order: texts without
/// waiting for each other's replies, anything else alone.
///
/// Thread safety: distinct objects: safe. Shared objects: unsafe: use it on its context, which one thread runs.
class Session {
 public:
  static constexpr std::size_t most_waiting = 10'000, most_asked = 32;
  static constexpr std::chrono::milliseconds shortest_pause = std::chrono::seconds(1),
                                             longest_pause = std::chrono::seconds(30);

  /// `login` and `events` must outlive the session. Empty `room`: none. Each reply must come within `reply_limit`; 0:
  /// no limit.
  Session(asio::io_context& context, Login const& login, std::optional<chatproto::Secret> secret, std::string room,
          std::chrono::milliseconds reply_limit, SessionEvents& events)
      : context_(context),
        login_(login),
        secret_(std::move(secret)),
        room_(std::move(room)),
        reply_limit_(reply_limit),
        events_(events),
        reply_timer_(context),
        retry_timer_(context) {}

  /// Connects and logs in. Ends in `on_login` or `on_loss`.
  void start() {
    auto const listen_first = [this](std::string const& failure) {
      if (!failure.empty()) return lose(failure);
      log_in(sender_, chatproto::tag::slogin, room_, [this](std::string const& why) {
        if (!why.empty()) return lose(why);
        is_up_ = true;
        up_since_ = std::chrono::steady_clock::now();
        events_.on_login(room_);
        take_reply(sender_);
        if (receiver_) take_text(receiver_);
        pump();
      });
    };
    room_.empty() ? listen_first({}) : log_in(receiver_, chatproto::tag::rlogin, room_, listen_first);
  }
  /// Starts again after a pause, which grows from attempt to attempt. Returns the pause.
  std::chrono::milliseconds start_later() {
    using std::chrono::milliseconds;
    std::uniform_real_distribution<> fraction(0.5, 1);  // so that the clients of a server do not come back all at once
    auto const pause = milliseconds(static_cast<std::int64_t>(static_cast<double>(pause_.count()) * fraction(random_)));
    pause_ = std::min(2 * pause_, longest_pause);
    retry_timer_.expires_after(pause);
    retry_timer_.async_wait([this](std::error_code ec) {
      if (!ec) start();
    });
    return pause;
  }

  /// Sends a message as soon as it is its turn, perhaps after a new login. It must fit a line.
  void ask(Message message) {
    waiting_.push_back(std::move(message));
    pump();
  }

  bool is_up() const noexcept { return is_up_; }
  /// Returns whether the caller should wait before it asks more.
  bool is_full() const noexcept { return waiting_.size() >= most_waiting; }
  /// Returns the room that the user will be in when everything that was asked so far is done; empty: none.
  std::string_view next_room() const noexcept {
    for (auto message = waiting_.rbegin(); message != waiting_.rend(); ++message)
      if (message->tag == chatproto::tag::join || message->tag == chatproto::tag::leave)
        return message->tag == chatproto::tag::join ? std::string_view(message->payload) : std::string_view();
    return joining_.empty() ? room_ : joining_;
  }
  /// Returns what has not been sent yet.
  std::deque<Message> const& waiting() const noexcept { return waiting_; }
  /// Returns what was sent and has no reply yet.
  std::deque<Message> const& asked() const noexcept { return asked_; }

 private:
  using Link = std::shared_ptr<chatproto::Connection>;
  using Done = std::function<void(std::string const& failure)>;

  // --- Logging in ----------------------------------------------------------------------------------------------------

  /// Makes a connection, logs in and joins the room, if there is one. A handler whose `link` is not the current one any
  /// more does nothing.
  void log_in(Link& place, std::string_view tag, std::string const& room, Done done) {
    auto const link = place = std::make_shared<chatproto::Connection>(context_);
    std::deque<Message> steps = {{tag, login_.user}};
    if (!room.empty()) steps.emplace_back(chatproto::tag::join, room);
    link->time_limit(login_.deadline);
    try {
      login_.tls.set_up(*link);
    } catch (std::exception const& error) {  // a file that has changed since
      return done(error.what());
    }
    link->async_connect(
        login_.host, login_.port, [=, this, &place, done = std::move(done)](std::error_code ec) mutable {
          if (link != place) return;
          if (ec) return done("cannot connect to '" + login_.host + "' port " + login_.port + ": " + ec.message());
          if (!secret_) return step(place, std::move(steps), std::move(done));
          if (!may_send_secret(*link, login_)) return done(secret_not_sent);
          link->async_request({chatproto::tag::pass, secret_->view()}, expect_ok(place, std::move(steps), done));
        });
  }
  void step(Link& place, std::deque<Message> steps, Done done) {
    if (steps.empty()) {
      place->time_limit({});
      return done({});
    }
    auto const message = steps.front();
    steps.pop_front();
    place->async_request(message, expect_ok(place, std::move(steps), std::move(done)));
  }
  std::function<void(std::error_code, Message const&)> expect_ok(Link& place, std::deque<Message> steps, Done done) {
    return [=, this, &place, link = place](std::error_code ec, Message const& reply) mutable {
      if (link != place) return;
      if (ec) return done(describe(ec));
      if (reply.tag != chatproto::tag::ok) return done(reply.payload);
      step(place, std::move(steps), std::move(done));
    };
  }

  void lose(std::string const& why) {
    auto const now = std::chrono::steady_clock::now();
    if (std::exchange(is_up_, false) && now - up_since_ > longest_pause) pause_ = shortest_pause;
    for (auto* const link : {&sender_, &receiver_})
      if (auto const old = std::exchange(*link, nullptr)) old->cancel();
    reply_timer_.cancel();
    retry_timer_.cancel();
    std::vector<Message> unanswered(asked_.begin(), asked_.end());
    std::erase_if(unanswered, [](auto const& message) { return message.tag == chatproto::tag::join; });
    asked_.clear();
    if (!joining_.empty()) waiting_.emplace_front(chatproto::tag::join, joining_);  // tried again after the login
    outgoing_.clear();
    joining_.clear();
    is_sending_ = is_alone_ = false;
    from_receiver_ = nullptr;
    old_texts_ = 0;
    events_.on_loss(why, unanswered);
  }

  // --- Asking --------------------------------------------------------------------------------------------------------

  void pump() {
    while (is_up_ && !is_alone_ && !waiting_.empty() && asked_.size() < most_asked) {
      auto const& tag = waiting_.front().tag;
      is_alone_ = tag != chatproto::tag::sendall && tag != chatproto::tag::senduser;
      if (is_alone_ && !asked_.empty()) {
        is_alone_ = false;
        return;
      }
      auto const message = std::move(waiting_.front());
      waiting_.pop_front();
      if (message.tag == chatproto::tag::join)
        join(message);
      else if (message.tag == chatproto::tag::history)
        ask_receiver(message, [this, message](Message const& reply) { take_history(message, reply); });
      else
        ask_sender(message);
    }
  }

  void ask_sender(Message const& message) {
    asked_.push_back(message);
    outgoing_.push_back(message);
    if (asked_.size() == 1) await_reply();
    send();
  }
  void send() {
    if (outgoing_.empty() || std::exchange(is_sending_, true)) return;
    sender_->async_send(outgoing_.front(), [this, link = sender_](std::error_code ec) {
      if (link != sender_) return;
      if (ec) return lose(describe(ec));
      is_sending_ = false;
      send();
    });
    outgoing_.pop_front();
  }
  void await_reply() {
    if (reply_limit_.count() == 0) return;
    reply_timer_.expires_after(reply_limit_);
    reply_timer_.async_wait([this](std::error_code ec) {
      if (!ec) lose(describe(asio::error::timed_out));
    });
  }

  void take_reply(Link const& link) {
    link->async_receive([this, link](std::error_code ec, Message const& reply) {
      if (link != sender_) return;
      auto const is_reply = reply.tag == chatproto::tag::ok || reply.tag == chatproto::tag::err;
      if (!ec && (!is_reply || asked_.empty())) ec = chatproto::Errc::unexpected;
      if (ec) return lose(!is_reply || reply.payload.empty() ? describe(ec) : reply.payload);
      reply_timer_.cancel();
      auto const request = std::move(asked_.front());
      asked_.pop_front();
      if (!asked_.empty()) await_reply();
      auto const is_ok = reply.tag == chatproto::tag::ok;
      if (request.tag == chatproto::tag::quit && is_ok) return events_.on_end();
      take_reply(link);
      if (request.tag == chatproto::tag::join) return joined(request, reply);
      if (request.tag == chatproto::tag::leave && is_ok) {
        if (auto const old = std::exchange(receiver_, nullptr)) old->cancel();
        room_.clear();
      }
      answered(request, reply);
    });
  }
  void answered(Message const& request, Message const& reply) {
    if (request.tag != chatproto::tag::sendall && request.tag != chatproto::tag::senduser) is_alone_ = false;
    events_.on_reply(request, reply);
    pump();
  }

  // --- Listening -----------------------------------------------------------------------------------------------------

  void take_text(Link const& link) {
    link->async_receive([this, link](std::error_code ec, Message const& message) {
      if (link != receiver_) return;
      if (ec) return lose(describe(ec));
      if (message.tag == chatproto::tag::delivery) {
        auto const delivery = chatproto::parse_delivery(message, ec);
        if (ec) return lose(describe(ec));
        auto const is_old = old_texts_ > 0;
        if (is_old) --old_texts_;
        events_.on_text(delivery, is_old);
      } else if (message.tag == chatproto::tag::err && !from_receiver_) {
        events_.on_error(message.payload);
      } else if (auto const then = std::exchange(from_receiver_, nullptr)) {
        reply_timer_.cancel();
        then(message);
      } else {
        return lose(describe(chatproto::Errc::unexpected));
      }
      if (link == receiver_) take_text(link);
    });
  }
  /// Sends a message on the receiver's connection, which must have no other to answer.
  void ask_receiver(Message const& message, std::function<void(Message const&)> then) {
    if (!receiver_) return answered(message, {chatproto::tag::err, "join a room first"});
    from_receiver_ = std::move(then);
    await_reply();
    receiver_->async_send(message, [this, link = receiver_](std::error_code ec) {
      if (link == receiver_ && ec) lose(describe(ec));
    });
  }
  void take_history(Message const& request, Message const& reply) {
    auto const* const end = reply.payload.data() + reply.payload.size();
    std::uint32_t count = 0;
    if (reply.tag == chatproto::tag::ok && std::from_chars(reply.payload.data(), end, count).ec != std::errc())
      return answered(request, {chatproto::tag::err, "the server does not say how many texts follow"});
    if (reply.tag == chatproto::tag::ok) old_texts_ = count;
    answered(request, reply);
  }

  /// Lets first the receiver join, so that nothing is missed, and then the sender.
  void join(Message const& message) {
    joining_ = message.payload;
    if (receiver_)
      return ask_receiver(message, [this, message](Message const& reply) {
        reply.tag == chatproto::tag::ok ? ask_sender(message) : refuse(message, reply);
      });
    log_in(receiver_, chatproto::tag::rlogin, message.payload, [this, message](std::string const& failure) {
      if (failure.empty()) {
        ask_sender(message);
        return take_text(receiver_);
      }
      receiver_ = nullptr;
      refuse(message, {chatproto::tag::err, failure});
    });
  }
  void joined(Message const& request, Message const& reply) {
    if (reply.tag == chatproto::tag::ok) {
      room_ = std::exchange(joining_, {});
      return answered(request, reply);
    }
    if (!room_.empty())  // the receiver goes back to where the sender still is
      return ask_receiver({chatproto::tag::join, room_}, [this, request, reply](Message const& back) {
        back.tag == chatproto::tag::ok ? refuse(request, reply) : lose(back.payload);
      });
    if (auto const old = std::exchange(receiver_, nullptr)) old->cancel();
    refuse(request, reply);
  }
  void refuse(Message const& request, Message const& reply) {
    joining_.clear();
    answered(request, reply);
  }

  asio::io_context& context_;
  Login const& login_;
  std::optional<chatproto::Secret> const secret_;
  std::string room_, joining_;
  std::chrono::milliseconds const reply_limit_;
  SessionEvents& events_;
  asio::steady_timer reply_timer_, retry_timer_;
  std::chrono::milliseconds pause_ = shortest_pause;
  std::chrono::steady_clock::time_point up_since_ = {};
  std::minstd_rand random_{std::random_device()()};
  Link sender_, receiver_;
  bool is_up_ = false, is_sending_ = false;
  bool is_alone_ = false;                              // something is under way that nothing may overtake
  std::deque<Message> waiting_, outgoing_, asked_;     // before, in and after the queue of the sender's connection
  std::function<void(Message const&)> from_receiver_;  // takes the receiver's next reply
  std::uint32_t old_texts_ = 0;                        // these come next, as `history:` has asked for them
};

}  // namespace program
