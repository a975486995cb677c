// SPDX-License-Identifier: BSL-1.0
#include "play.hpp"

#include <algorithm>
#include <charconv>
#include <csignal>
#include <random>

#include <asio/error.hpp>
#include <asio/ip/address.hpp>

namespace conformance {
namespace {

/// Returns eight letters and digits that no other play uses in this run or, most likely, in any other.
std::string unique_word() {
  static std::mt19937_64 random{std::random_device{}()};
  constexpr std::uint64_t all = 36ULL * 36 * 36 * 36 * 36 * 36 * 36 * 36;
  static std::uint64_t number = std::uniform_int_distribution<std::uint64_t>(0, all - 1)(random);
  number = (number + 1) % all;
  std::string word(8, '0');
  std::uint64_t rest = number;
  for (char& c : word) {
    c = "0123456789abcdefghijklmnopqrstuvwxyz"[rest % 36];
    rest /= 36;
  }
  return word;
}

std::string reason(std::error_code const& error) {
  return error == asio::error::eof ? "the end of input" : error.message();
}

}  // namespace

Play::Play(asio::any_io_executor const& executor, Scene const& scene, Form form, Settings const& settings, Done done)
    : executor_(executor),
      scene_(scene),
      form_(form),
      settings_(settings),
      done_(std::move(done)),
      cuts_(scene.actors.size()),
      roles_(scene.actors.size()),
      fill_([this](std::string const& name) { return word(name); }),
      ports_(executor),
      limit_(executor),
      pause_(executor) {
  words_.insert(settings.words.begin(), settings.words.end());
  if (form_.kind == Form::Kind::split) cuts_[form_.actor].push_back(form_.at);
  if (form_.kind == Form::Kind::bytewise) cuts_ = cuts_of(scene_, bytewise_everywhere);
}

std::string Play::word(std::string const& name) {
  auto const [found, is_new] = words_.try_emplace(name);
  std::string& word = found->second;
  if (!is_new) return word;
  if (name.starts_with('='))  // a user's name; eight letters suffice to make it distinct
    word = settings_.distinct_names ? unique_word().substr(0, name.size() - 1) : name.substr(1);
  else if (name == "host")
    word = "127.0.0.1";
  else if (name == "port")
    word = std::to_string(ports_.scripted());
  else if (name == "deadport")
    word = std::to_string(ports_.dead());
  else if (name == "busyport")
    word = std::to_string(ports_.busy());
  else if (name == "freeport")
    word = std::to_string(ports_.free());
  else if (name == "serverport")
    word = std::to_string(settings_.server.front().port());
  else
    word = unique_word();
  return word;
}

void Play::advance() {
  ++index_;
  next();
}

void Play::next() {
  if (index_ == scene_.steps.size()) return finish(nullptr);
  limit_step();
  switch (step().verb) {
    case Verb::connect: return connect();
    case Verb::accept:
      return ports_.accept(guarded([this](std::error_code const& error, std::unique_ptr<Channel> channel) {
        connected(error, std::move(channel));
      }));
    case Verb::run: return run();
    case Verb::send: return send();
    case Verb::receive: return step().stream == 0 ? receive() : merge();
    case Verb::maybe: return maybe();
    case Verb::same: return same(0);
    case Verb::complain: return complain();
    case Verb::prompt: return prompt();
    case Verb::eof:
    case Verb::closed: return end();
    case Verb::exit: return exit();
    case Verb::wait: return pause(settings_.login_deadline * step().number / 100, &Play::advance);
    case Verb::close: role().to->close(); break;
    case Verb::shutdown: role().to->finish(); break;
    case Verb::reset: role().to->reset(); break;
    case Verb::kill: role().process.reset(); break;
    case Verb::signal: role().process->signal(step().number == SIGTERM ? settings_.term : step().number); break;
  }
  advance();
}

void Play::open(std::unique_ptr<Channel> channel) {
  role().to = std::move(channel);
  role().from = role().to;
  role().inbox.open(role().from.get());
}

void Play::connect() {
  Endpoints endpoints = settings_.server;
  bool const named = !step().text.empty();
  if (named) {
    std::string const port = step().text.bytes(fill_);
    std::string const host = step().arguments.empty() ? "127.0.0.1" : step().arguments.front().bytes(fill_);
    std::uint16_t number = 0;
    std::from_chars(port.data(), port.data() + port.size(), number);
    std::error_code error;
    asio::ip::address const address = asio::ip::make_address(host, error);
    if (error) return fail("the scene names a host that is no address: " + host);
    endpoints = {{address, number}};
  }
  conformance::connect(executor_, endpoints, step().narrow,
                       guarded([this, named](std::error_code const& error, std::unique_ptr<Channel> channel) {
                         // A program that has just started may not listen yet; a server's backlog may be full; all
                         // ephemeral ports may be in use.
                         bool const refused = error == asio::error::connection_refused;
                         bool const later = (refused && (named || ++refused_ < 100)) || no_port_left(error);
                         if (later) return pause(std::chrono::milliseconds(10), &Play::connect);
                         if (error || named || !settings_.wrapping) return connected(error, std::move(channel));
                         settings_.wrapping->start(
                             std::move(channel),
                             guarded([this](std::error_code const& wrapping_error, std::unique_ptr<Channel> wrapped) {
                               connected(wrapping_error, std::move(wrapped));
                             }));
                       }));
}

void Play::connected(std::error_code const& error, std::unique_ptr<Channel> channel) {
  if (error) return fail(reason(error));
  open(std::move(channel));
  advance();
}

void Play::send() {
  burst_ = burst_at(scene_, index_, fill_);
  send_part(0);
}

void Play::send_part(std::size_t begin) {
  std::vector<std::size_t> const& cuts = cuts_[step().actor];
  auto const cut = std::upper_bound(cuts.begin(), cuts.end(), role().sent + begin);
  std::size_t const part = cut == cuts.end() ? burst_.bytes.size() : std::min(*cut - role().sent, burst_.bytes.size());
  std::size_t const end =
      std::min(part, begin + std::size_t(65536));  // the limit is for no progress, not for much work
  auto const sent = [this, end, part](std::error_code const& error, std::size_t) {
    role().broken = error;  // not a failure yet: the other end may close, and a later step judges that
    if (!error && end < part) {
      limit_step();
      return send_part(end);
    }
    if (!error && end < burst_.bytes.size()) {
      limit_step();
      pause_.expires_after(settings_.pause);
      pause_.async_wait(guarded([this, end](std::error_code const&) { send_part(end); }));
      return;
    }
    role().sent += burst_.bytes.size();
    index_ = burst_.last;
    next();
  };
  if (role().broken) return sent(role().broken, 0);
  role().to->write(std::string_view(burst_.bytes).substr(begin, end - begin), guarded(sent));
}

/// Returns a valid line, or null after a failure.
std::unique_ptr<std::string> Play::take_line() {
  Inbox& inbox = role().inbox;
  if (!inbox.has_line()) {
    fail(inbox.shown());
    return nullptr;
  }
  auto line = std::make_unique<std::string>(inbox.take_line());
  std::string wrong;
  if (actor().kind == Actor::Kind::program) {
    bool const terminal = actor().terminal == Terminal::out || actor().terminal == Terminal::both;
    if (terminal && drives_terminal(*line)) wrong = "a line without control characters on a terminal";
  } else {
    if (actor().kind == Actor::Kind::connection && line->ends_with('\r')) line->pop_back();
    // One rule: a server that ends its lines in \r\n fails the scenes about line ends, and no others.
    bool const beginning = step().text.ends_in_any();  // only the beginning of a reply is known
    if (line->ends_with('\r') && scene_.is_about_line_ends && beginning)
      wrong = "a line that ends in a bare \\n";
    else if (line->ends_with('\r') && !scene_.is_about_line_ends && (beginning || !step().text.matches(*line, fill_)))
      line->pop_back();
    if (line->size() + 1 > max_line) wrong = "a line of at most 255 bytes, its end included";
  }
  if (wrong.empty()) return line;
  fail(wrong, escaped(*line + "\n"));
  return nullptr;
}

void Play::receive() {
  role().inbox.wait_for_line(guarded([this] {
    auto const line = take_line();
    if (!line) return;
    if (!step().text.matches(*line, fill_)) return fail(escaped(*line + "\n"));
    advance();
  }));
}

void Play::maybe() {
  role().inbox.wait_for_line(guarded([this] {
    if (role().inbox.has_line()) {
      auto const line = take_line();
      if (!line) return;
      if (!step().text.matches(*line, fill_)) role().inbox.put_back(*line);
    }
    advance();
  }));
}

void Play::end() {
  role().inbox.wait_for_line(guarded([this] {
    Inbox const& inbox = role().inbox;
    bool const in_order = inbox.end() == asio::error::eof && !role().broken;
    if (!inbox.bytes().empty() || (!in_order && step().verb == Verb::eof))
      return fail(role().broken ? inbox.shown() + "; sending failed: " + reason(role().broken) : inbox.shown());
    role().to->close();
    advance();
  }));
}

void Play::pause(std::chrono::microseconds time, void (Play::*then)()) {
  if (step().verb == Verb::wait) limit_.cancel();
  pause_.expires_after(time);
  pause_.async_wait(guarded([this, then](std::error_code const&) { (this->*then)(); }));
}

void Play::limit_step() {
  auto const limit = std::max(settings_.step_limit, std::chrono::seconds(scene_.seconds)) + settings_.login_deadline;
  limit_.expires_after(limit);
  limit_.async_wait(guarded([this, limit](std::error_code const& error) {
    auto const late = std::chrono::steady_clock::now() - limit_.expiry();
    if (error || late.count() < 0) return;
    if (late > std::chrono::seconds(1)) return limit_step();  // this process was not running
    Inbox const& inbox = step().verb == Verb::complain ? role().complaints : role().inbox;
    auto const seconds = std::chrono::duration_cast<std::chrono::seconds>(limit).count();
    std::string came = inbox.shown() + " within " + std::to_string(seconds) + " s";
    if (role().process && step().verb != Verb::complain && !role().complaints.bytes().empty())
      came += "; on stderr: " + role().complaints.shown();
    fail(came);
  }));
}

std::string Play::expectation() {
  switch (step().verb) {
    case Verb::connect: return "a connection to the server";
    case Verb::accept: return "the program connects";
    case Verb::run: return "the program starts";
    case Verb::send: return "the other end takes " + std::to_string(burst_.bytes.size()) + " bytes";
    case Verb::receive:
    case Verb::maybe: return "the line " + step().text.shown(fill_);
    case Verb::same: return "the lines that '" + scene_.actors[step().other].name + "' got";
    case Verb::complain: return "on stderr the line " + step().text.shown(fill_);
    case Verb::prompt: return "a prompt, not ended by a line end";
    case Verb::eof: return "the other end closes in order";
    case Verb::closed: return "the other end closes";
    case Verb::exit:
      return "nothing more on stdout and stderr, and " +
             (step().number == nonzero ? "an exit code other than 0" : "exit code " + std::to_string(step().number));
    default: return "";
  }
}

void Play::fail(std::string const& came) { fail(expectation(), came); }

void Play::fail(std::string const& expected, std::string const& came) {
  Failure const why = failure(expected, came);
  finish(&why);
}

Failure Play::failure(std::string const& expected, std::string const& came) const {
  Step const& at = scene_.steps[std::min(index_, scene_.steps.size() - 1)];
  bool const no_server = at.verb == Verb::connect && at.text.empty();
  Failure result{at.line, at.source, scene_.actors[at.actor].name, expected, came, {}, no_server};
  for (std::size_t i = 0; i < index_; ++i) {
    Step const& past = scene_.steps[i];
    Actor const& actor = scene_.actors[past.actor];
    bool const goes = past.verb == Verb::send;
    bool const comes = past.verb == Verb::receive && actor.kind != Actor::Kind::program;
    bool const closed = past.verb == Verb::eof || past.verb == Verb::closed;
    if (goes || comes)
      result.before.push_back(actor.name + (goes ? " -> " : " <- ") + past.text.shown(fill_));
    else
      result.before.push_back(closed ? actor.name + " <- (closed)" : past.source);
  }
  return result;
}

void Play::finish(Failure const* failure) {
  clear();
  done_(failure);
}

void Play::abandon() {
  if (!finished_) clear();
}

void Play::clear() {
  finished_ = true;
  limit_.cancel();
  pause_.cancel();
  ports_.close();
  for (Role& of : roles_) {
    for (auto const& channel : {of.to, of.from, of.errors})
      if (channel) channel->close();
    of.process.reset();
  }
}

}  // namespace conformance
