// SPDX-License-Identifier: BSL-1.0
// Parses the text of a scene, and rejects one that does not keep the format.
#include "scene.hpp"

#include <algorithm>
#include <charconv>
#include <csignal>
#include <map>

namespace conformance {
namespace {

bool is_lower(char c) { return c >= 'a' && c <= 'z'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

template <class Number>
bool to_number(std::string_view text, Number& number) {
  auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size();
}

class Parser {
 public:
  explicit Parser(std::string const& file) {
    scene_.file = file;
    scene_.name = name_in(file);
  }

  Scene parse(std::string_view text) {
    while (!text.empty()) {
      std::string line(text.substr(0, text.find('\n')));
      text.remove_prefix(std::min(text.size(), line.size() + 1));
      ++line_;
      if (!line.empty() && line.back() == '\r') line.pop_back();
      if (line.empty() || line.front() == '#') continue;
      if (line.back() == ' ') bad("a blank at the end of a line cannot be seen: write \\x20");
      for (char const c : line)
        if (c < ' ' || c > '~') bad("only printable ASCII here: write other bytes as \\xHH");
      is_digit(line.front()) ? parse_range(line) : parse_line(line);
    }
    check();
    if (scene_.connects()) {
      find_users();
      find_bases();
      if (scene_.provides == Basis::none || scene_.provides == Basis::names) find_uses(scene_);
    }
    return std::move(scene_);
  }

 private:
  [[noreturn]] void bad(std::string const& what) const { bad(what, line_); }

  [[noreturn]] void bad(std::string const& what, std::size_t line) const {
    throw BadScene(scene_.file + ":" + std::to_string(line) + ": " + what);
  }

  void parse_line(std::string const& line) {
    auto const key_end = std::find_if_not(line.begin(), line.end(), [](char c) { return is_lower(c) || c == '-'; });
    if (key_end != line.end() && *key_end == ':' && scene_.steps.empty()) {
      std::string_view value = std::string_view(line).substr(static_cast<std::size_t>(key_end - line.begin()) + 1);
      value.remove_prefix(std::min(value.size(), value.find_first_not_of(' ')));
      parse_header(std::string(line.begin(), key_end), std::string(value));
    } else {
      parse_step(line);
    }
  }

  /// `008-120 STEP`: repeats the step for each number, which replaces `{n}` with as many digits as the first has.
  void parse_range(std::string_view rest) {
    std::string_view const range = cut_word(rest);
    std::size_t const dash = std::min(range.find('-'), range.size());
    unsigned first = 0, last = 0;
    if (dash > 9 || range.size() - dash > 9 || !to_number(range.substr(0, dash), first) ||
        !to_number(range.substr(std::min(dash + 1, range.size())), last) || first > last || last - first > 9999)
      bad("a range counts up, to 10000 numbers at most, as in '001-120 s > sendall:{n}'");
    for (; first <= last; ++first) {
      std::string number = std::to_string(first), line(rest);
      if (number.size() < dash) number.insert(0, dash - number.size(), '0');
      for (std::size_t at = 0; (at = line.find("{n}", at)) != line.npos;) line.replace(at, 3, number);
      parse_step(line);
    }
  }

  void parse_header(std::string const& key, std::string const& value) {
    if (value.empty()) bad("'" + key + ":' without a value");
    if (key == "title")
      scene_.title = value;
    else if (key == "rule") {
      scene_.rule = value;
      scene_.is_about_line_ends = value.starts_with("1 Lines, line ends");
    } else if (key == "level")
      parse_level(value);
    else if (key == "needs" && (value == "login-deadline" || value == "ipv6" || value == "secret" ||
                                value == "history" || value == "presence"))
      scene_.needs = value;
    else if (key == "provides")
      parse_basis(value);
    else if (key == "uses")
      parse_uses(value);
    else if (key == "needs")
      bad("'needs:' is 'login-deadline', 'ipv6', 'secret', 'history' or 'presence'");
    else if (key == "open")
      scene_.open = value;
    else if (key == "must-fail")
      scene_.must_fail = text_of("*: " + value + "*");
    else if (key == "forms" && value == "whole")
      scene_.whole_only = true;
    else if (key == "forms")
      bad("'forms:' can only be 'whole'");
    else if (key == "seconds")
      parse_seconds(value);
    else
      bad("no header is called '" + key + ":'");
  }

  void parse_seconds(std::string const& value) {
    if (!to_number(value, scene_.seconds) || scene_.seconds < 1) bad("'seconds:' is a whole number");
  }

  void parse_uses(std::string_view value) {
    while (!value.empty()) scene_.uses.emplace(cut_word(value));
  }

  void parse_basis(std::string const& value) {
    try {
      scene_.provides = basis_of(value);
    } catch (std::invalid_argument const& error) {
      bad(error.what());
    }
  }

  void parse_level(std::string const& value) {
    try {
      scene_.level = level_of(value);
    } catch (std::invalid_argument const& error) {
      bad(error.what());
    }
  }

  void parse_step(std::string const& line) {
    std::string_view rest = line;
    std::string_view const first = cut_word(rest);
    if (first == "fence") return add_fence(rest);
    Step step;
    step.line = line_;
    step.source = line;
    if (first == "wait") return add_wait(step, rest);
    if (first.empty() || !is_lower(first.front()) ||
        !std::all_of(first.begin(), first.end(), [](char c) { return is_lower(c) || is_digit(c); }))
      bad("a step begins with a name of lower-case letters and digits");
    std::string_view const verb = cut_word(rest);
    step.actor = actor(first, verb);
    add_step(step, verb, rest);
  }

  void add_wait(Step step, std::string_view rest) {
    if (rest.empty() || rest.back() != '%' || !to_number(rest.substr(0, rest.size() - 1), step.number))
      bad("'wait' needs a part of the login deadline, as in 'wait 25%'");
    if (scene_.needs != "login-deadline") bad("only a scene with 'needs: login-deadline' may wait");
    if (scene_.steps.empty()) bad("nobody is there to wait");
    step.verb = Verb::wait;
    scene_.steps.push_back(step);
  }

  /// `fence ROOM RECEIVER...`: a sender of its own says a text in the room, the next line of each receiver.
  void add_fence(std::string_view rest) {
    std::string const room(cut_word(rest)), text = std::to_string(++fences_);
    if (rest.empty()) bad("'fence' needs a room and the receivers in it, as in 'fence {room} r1 r2'");
    if (fences_ == 1) parse_step(std::string(fence_actor) + " ok slogin:fence");
    parse_step(std::string(fence_actor) + " ok join:" + room);
    parse_step(std::string(fence_actor) + " ok sendall:" + text);
    while (!rest.empty()) {
      std::string const receiver(cut_word(rest));
      if (std::none_of(scene_.actors.begin(), scene_.actors.end(), [&](Actor const& a) { return a.name == receiver; }))
        bad("no '" + receiver + "' is there to be fenced");
      parse_step(receiver + " < delivery:" + room + ":fence:" + text);
    }
  }

  /// Returns the actor of that name, a new one if there is none. Its first verb determines its kind.
  std::size_t actor(std::string_view name, std::string_view verb) {
    static std::map<std::string_view, Actor> const kinds{{"connect", {{}, Actor::Kind::client, Terminal::none}},
                                                         {"narrow", {{}, Actor::Kind::client, Terminal::none}},
                                                         {"accept", {{}, Actor::Kind::connection, Terminal::none}},
                                                         {"run", {{}, Actor::Kind::program, Terminal::none}},
                                                         {"pty", {{}, Actor::Kind::program, Terminal::both}},
                                                         {"pty-in", {{}, Actor::Kind::program, Terminal::in}},
                                                         {"pty-out", {{}, Actor::Kind::program, Terminal::out}}};
    auto const begins = kinds.find(verb);
    auto const found =
        std::find_if(scene_.actors.begin(), scene_.actors.end(), [&](Actor const& a) { return a.name == name; });
    auto const index = static_cast<std::size_t>(found - scene_.actors.begin());
    if (found != scene_.actors.end()) {
      if (ended_[index]) bad("'" + std::string(name) + "' has ended before");
      if (begins != kinds.end()) bad("'" + std::string(name) + "' has begun before");
      return index;
    }
    scene_.actors.push_back(begins == kinds.end() ? Actor{} : begins->second);
    scene_.actors.back().name = name;
    ended_.push_back(false);
    if (begins == kinds.end()) {  // a client that begins by sending
      Step step;
      step.line = line_;
      step.actor = index;
      step.source = std::string(name) + " connect";
      push(Verb::connect, step);
    }
    return index;
  }

  void push(Verb verb, Step step) {
    step.verb = verb;
    ended_[step.actor] = verb == Verb::eof || verb == Verb::closed || verb == Verb::close || verb == Verb::reset ||
                         verb == Verb::exit || verb == Verb::kill;
    scene_.steps.push_back(std::move(step));
  }

  void push_send(Text text, Step step) {
    step.text = std::move(text);
    push(Verb::send, std::move(step));
  }

  void push_receive(std::string_view expected, Step step, Verb verb = Verb::receive) {
    step.text = text_of(expected);
    if (expected.find("\\n") != expected.npos) bad("what comes is one line, its end is not written");
    push(verb, std::move(step));
  }

  void add_step(Step const& step, std::string_view verb, std::string_view rest) {
    constexpr char const* kinds[] = {"a client", "a connection", "a program"};
    Actor::Kind const kind = scene_.actors[step.actor].kind;
    bool const known =
        add_line_step(step, verb, rest) ||
        (kind == Actor::Kind::program ? add_program_step(step, verb, rest) : add_connection_step(step, verb, rest));
    if (!known) bad("'" + std::string(verb) + "' is nothing that " + kinds[static_cast<int>(kind)] + " does");
  }

  /// Lines that are sent and received, by any kind of actor.
  bool add_line_step(Step step, std::string_view verb, std::string_view rest) {
    if (verb == ">") {
      push_send(line_of(rest), step);
    } else if (verb == ">>") {
      push_send(bytes_of(rest), step);
    } else if (verb == "<") {
      push_receive(rest, step);
    } else if (verb == "<?") {
      push_receive(rest, step, Verb::maybe);
    } else if (verb.size() == 2 && verb[0] == '<' && verb[1] >= '1' && verb[1] <= '9') {
      step.stream = verb[1] - '0';
      merged_.push_back(step.actor);
      push_receive(rest, step);
    } else if (verb == "same") {
      auto const other =
          std::find_if(merged_.begin(), merged_.end(), [&](std::size_t i) { return scene_.actors[i].name == rest; });
      if (other == merged_.end()) bad("'same' needs an actor with a merge ('<1', '<2', ...) before");
      step.other = *other;
      push(Verb::same, step);
    } else if (verb == "shutdown") {
      nothing(rest);
      push(Verb::shutdown, step);
    } else {
      return false;
    }
    return true;
  }

  bool add_connection_step(Step step, std::string_view verb, std::string_view rest) {
    static std::map<std::string_view, Verb> const plain{{"accept", Verb::accept},
                                                        {"eof", Verb::eof},
                                                        {"closed", Verb::closed},
                                                        {"close", Verb::close},
                                                        {"reset", Verb::reset}};
    if (auto const found = plain.find(verb); found != plain.end()) {
      nothing(rest);
      push(found->second, step);
    } else if (verb == "connect") {
      if (!rest.empty()) step.text = bytes_of(cut_word(rest));
      if (!rest.empty()) step.arguments.push_back(bytes_of(cut_word(rest)));
      nothing(rest);
      push(Verb::connect, step);
    } else if (verb == "narrow") {
      nothing(rest);
      step.narrow = true;
      push(Verb::connect, step);
    } else if (verb == "ok" || verb == "err") {
      push_send(line_of(rest), step);
      push_receive(verb == "ok" ? "ok:*" : "err:*", step);
    } else if (verb == "quit") {
      nothing(rest);
      push_send(line_of("quit:"), step);
      push_receive("ok:*", step);
      push(Verb::eof, step);
    } else if (verb == "fence") {
      nothing(rest);
      push_send(line_of("join:{fence}"), step);
      push_receive("ok:*", step);
    } else {
      return false;
    }
    return true;
  }

  bool add_program_step(Step step, std::string_view verb, std::string_view rest) {
    if (verb == "run" || verb == "pty" || verb == "pty-in" || verb == "pty-out") {
      while (!rest.empty()) {
        std::string_view const word = cut_word(rest);
        step.arguments.push_back(word == "\"\"" ? Text() : bytes_of(word));
      }
      if (step.arguments.empty()) bad("which program?");
      push(Verb::run, step);
    } else if (verb == "2<") {
      push_receive(rest, step, Verb::complain);
    } else if (verb == "prompt") {
      if (scene_.actors[step.actor].terminal != Terminal::both) bad("only a program with 'pty' prompts");
      nothing(rest);
      push(Verb::prompt, step);
    } else if (verb == "exit") {
      step.free_stderr = rest.ends_with(" *");
      if (step.free_stderr) rest.remove_suffix(2);
      if (rest == "nonzero")
        step.number = nonzero;
      else if (!to_number(rest, step.number) || step.number < 0)
        bad("'exit' needs a code or 'nonzero'");
      push(Verb::exit, step);
    } else if (verb == "kill") {
      nothing(rest);
      push(Verb::kill, step);
    } else if (verb == "signal") {
      if (rest != "TERM" && rest != "INT") bad("'signal' knows TERM and INT");
      step.number = rest == "TERM" ? SIGTERM : SIGINT;
      push(Verb::signal, step);
    } else {
      return false;
    }
    return true;
  }

  void nothing(std::string_view rest) const {
    if (!rest.empty()) bad("nothing may follow here, not '" + std::string(rest) + "'");
  }

  Text line_of(std::string_view written) const {
    Text text = bytes_of(written);
    text.add("\n");
    return text;
  }

  Text bytes_of(std::string_view written) const {
    Text text = text_of(written);
    if (text.has_any()) bad("'*' stands for anything, which cannot be sent: write \\*");
    return text;
  }

  Text text_of(std::string_view written) const {
    try {
      return parse_text(written);
    } catch (std::invalid_argument const& error) {
      bad(error.what());
    }
  }

  /// Finds the names with which clients log in. Short ones, and tags, stay as they are written.
  void find_users() {
    static std::set<std::string> const tags{"slogin",   "rlogin", "join", "leave", "sendall",
                                            "senduser", "quit",   "ok",   "err",   "delivery"};
    std::set<std::string> users;
    for (Step const& step : scene_.steps) {
      std::string const name = login_of(step);
      if (name.size() < 3 || name.size() > 8 || tags.contains(name)) continue;
      if (!users.insert(name).second && scene_.provides != Basis::names) scene_.relies_on.insert(Basis::names);
    }
    for (Step& step : scene_.steps) step.text.name_users(users);
  }

  /// Returns the name with which a client logs in by a step, if it is written in letters and digits alone.
  static std::string login_of(Step const& step) {
    for (std::string_view const tag : {"slogin:", "rlogin:"}) {
      std::size_t const at = step.verb == Verb::send ? step.source.find(tag) : std::string::npos;
      if (at == std::string::npos) continue;
      std::string name = step.source.substr(at + tag.size());
      for (std::string_view const end : {"\\r\\n", "\\n"})
        if (step.source.ends_with(end) && name.size() >= end.size()) name.resize(name.size() - end.size());
      if (std::all_of(name.begin(), name.end(),
                      [](char c) { return is_digit(c) || is_lower(c) || (c >= 'A' && c <= 'Z'); }))
        return name;
    }
    return {};
  }

  /// Finds what the scene relies on. A line that is sent alone counts as one that is answered by ok.
  void find_bases() {
    auto const rely_on = [this](Basis basis) {
      if (scene_.provides == Basis::none || basis < scene_.provides) scene_.relies_on.insert(basis);
    };
    std::set<std::size_t> there;  // who is connected
    for (Step const& step : scene_.steps) {
      std::string_view rest = step.source;
      cut_word(rest);
      std::string_view const verb = cut_word(rest);
      bool const sends = verb == "ok" || verb == ">" || verb == ">>";
      if (sends && rest.starts_with("slogin:")) rely_on(Basis::sender);
      if (sends && rest.starts_with("rlogin:")) rely_on(Basis::receiver);
      if (verb == "fence" || (sends && rest.starts_with("join:"))) rely_on(Basis::join);
      if (verb.starts_with('<') && rest.starts_with("delivery:")) rely_on(Basis::delivery);
      if (verb == "err" || (verb.starts_with('<') && rest.starts_with("err:"))) rely_on(Basis::err);
      if (step.verb == Verb::connect) there.insert(step.actor);
      if (there.size() > 1) rely_on(Basis::company);
      if (step.verb == Verb::eof || step.verb == Verb::closed || step.verb == Verb::close || step.verb == Verb::reset)
        there.erase(step.actor);
    }
  }

  void check() const {
    if (scene_.title.empty()) bad("no 'title:'", 1);
    if (scene_.rule.empty()) bad("no 'rule:'", 1);
    if (scene_.steps.empty()) bad("no steps", 1);
    for (std::size_t i = 0; i < scene_.actors.size(); ++i)
      if (!ended_[i] && scene_.actors[i].kind != Actor::Kind::client)
        bad("'" + scene_.actors[i].name + "' is left open: end it, with 'exit', 'kill', 'eof' or 'close'");
    if (scene_.starts_program() && scene_.connects())
      bad("whoever connects in a scene that runs a program names the port: connect {freeport}", 1);
  }

  Scene scene_;
  std::vector<bool> ended_;          ///< by actor
  std::vector<std::size_t> merged_;  ///< actors with a merge
  std::size_t line_ = 0;
  int fences_ = 0;
};

}  // namespace

Scene parse_scene(std::string const& file, std::string_view text) { return Parser(file).parse(text); }

}  // namespace conformance
