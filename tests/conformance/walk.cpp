// SPDX-License-Identifier: BSL-1.0
#include "walk.hpp"

#include <algorithm>
#include <set>
#include <utility>

namespace conformance {
namespace {

bool is_whole(std::string_view line) { return line.ends_with('\n'); }

/// Returns bytes in the notation of scenes.
std::string written(std::string_view bytes) {
  constexpr char const* digits = "0123456789abcdef";
  constexpr std::size_t least = 12;  // of a run
  std::string result;
  for (std::size_t i = 0; i < bytes.size();) {
    if (bytes.substr(i).starts_with(room_word)) {
      result += "{room}";
      i += room_word.size();
      continue;
    }
    char const c = bytes[i];
    auto const byte = static_cast<unsigned char>(c);
    bool const last = i + 1 == bytes.size();
    if (c == '\r' || c == '\t') {
      result += c == '\r' ? "\\r" : "\\t";
    } else if (byte < 0x20 || byte > 0x7e || c == '\\' || (c == ' ' && last)) {
      result += "\\x";
      result += digits[byte >> 4U];
      result += digits[byte & 15U];
    } else {
      if (c == '{' || c == '*') result += '\\';
      result += c;
    }
    std::size_t const end = std::min(bytes.find_first_not_of(c, i), bytes.size());
    bool const run = end - i >= least;
    if (run) result += "{" + std::to_string(end - i) + "}";
    i = run ? end : i + 1;
  }
  return result;
}

std::string written_line(std::string_view line) {
  bool const whole = is_whole(line);
  if (whole) line.remove_suffix(1);
  return (whole ? "> " : ">> ") + written(line);
}

}  // namespace

bool is_name(std::string_view text) {
  auto const good = [](char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'); };
  return !text.empty() && std::all_of(text.begin(), text.end(), good);
}

void Model::add(WalkClient const& client) { clients_.push_back({client, {}, {}}); }

std::string Model::name(std::size_t client) const {
  return (clients_[client].walks.receiver ? "r" : "s") + std::to_string(client + 1);
}

void Model::step(std::size_t client, std::string const& what, std::string const& rule) {
  std::string line = name(client) + " " + what;
  if (line.ends_with(' ')) line.pop_back();  // an empty line is sent
  lines_.push_back({std::move(line), rule, actions_});
}

bool Model::act(Action const& action) {
  bool done = false;
  if (action.inputs.size() == 1) {
    done = act_alone(action.inputs.front(), action.then);
  } else {
    // What a receiver sends is answered before or after a text that comes at the same time: nobody knows.
    std::vector<Input> inputs;
    for (Input const& input : action.inputs) {
      Client const& client = clients_[input.client];
      if (client.walks.receiver || client.state.is == Is::gone || input.lines.empty()) continue;
      inputs.push_back(input);
    }
    if (inputs.size() == 1) done = act_alone(inputs.front(), Action::Then::stay);
    if (inputs.size() > 1) done = act_together(inputs);
  }
  if (!done) return false;
  for (std::size_t i = 0; i < clients_.size(); ++i)
    if (!clients_[i].walks.lazy) read_waiting(i);
  ++actions_;
  return true;
}

void Model::read_waiting(std::size_t client) {
  for (Delivery const& delivery : std::exchange(clients_[client].waiting, {}))
    step(client, "< " + written(delivery.line), delivery.rule);
}

bool Model::act_alone(Input const& input, Action::Then then) {
  using Then = Action::Then;
  Client& client = clients_[input.client];
  State& state = client.state;
  if (state.is == Is::gone || (state.is != Is::absent && input.lines.empty() && then == Then::stay)) return false;
  bool const vanishes = then == Then::close || then == Then::reset;
  bool const partial = !input.lines.empty() && !is_whole(input.lines.back());
  if (partial && then == Then::stay) return false;
  std::string const ends = state.is == Is::receiver || client.walks.receiver ? "5 Receiver, " : "4 Sender, ";
  rule_ = partial                  ? "1 Lines, a partial line at end of input"
          : then == Then::shutdown ? ends + "end of input"
          : vanishes               ? ends + (then == Then::reset ? "a reset" : "a disconnect")
                                   : "3 Login";
  std::string const end_rule = rule_;
  if (state.is == Is::absent) state.is = Is::connected;

  std::vector<Reply> const replies = carry_out(input, 0);
  if (!replies.empty()) rule_ = replies.back().rule;
  bool const closes = !replies.empty() && replies.back().closes;
  bool const is_quit = closes && replies.back().ok;
  bool const ignored = replies.size() < input.lines.size();  // by a server that closes, or as a part of a line
  if (input.lines.empty() && then == Then::stay) {
    step(input.client, "connect", rule_);
  } else if (input.lines.size() == 1 && replies.size() == 1 && client.waiting.empty() && then != Then::shutdown) {
    std::string_view const line = input.lines.front();
    if (is_quit && line == "quit:\n") {
      step(input.client, "quit", rule_);
      state.is = Is::gone;
      return true;
    }
    step(input.client, (replies.front().ok ? "ok " : "err ") + written(line.substr(0, line.size() - 1)), rule_);
  } else {
    // Nobody knows whether the replies to a client that vanishes still come: it waits for them.
    bool const later = partial && vanishes && !closes;
    for (std::size_t i = 0; i < input.lines.size(); ++i)
      if (is_whole(input.lines[i]) || !later)
        step(input.client, written_line(input.lines[i]), i < replies.size() ? replies[i].rule : rule_);
    if (then == Then::shutdown) step(input.client, "shutdown", end_rule);
    if (!vanishes || !replies.empty()) read_waiting(input.client);
    read_replies(input.client, replies);
    if (later) step(input.client, written_line(input.lines.back()), end_rule);
  }
  if (closes || then == Then::shutdown) {
    step(input.client, ignored || (closes && !is_quit) ? "closed" : "eof", closes ? rule_ : end_rule);
  } else if (vanishes) {
    step(input.client, then == Then::close ? "close" : "reset", end_rule);
  }
  if (closes || then != Then::stay) {
    state.is = Is::gone;
    client.waiting.clear();
    if (!closes) rule_ = end_rule;
  }
  return true;
}

void Model::read_replies(std::size_t client, std::vector<Reply> const& replies) {
  for (Reply const& reply : replies) step(client, reply.ok ? "< ok:*" : "< err:*", reply.rule);
}

bool Model::act_together(std::vector<Input> const& inputs) {
  Model const before = *this;
  std::vector<std::vector<Reply>> replies;
  std::size_t longest = 0;
  std::set<std::size_t> speak;
  for (std::size_t i = 0; i < clients_.size(); ++i) read_waiting(i);
  bool possible = inputs.size() <= 9;
  for (Input const& input : inputs) {
    State& state = clients_[input.client].state;
    if (state.is == Is::absent) state.is = Is::connected;
    replies.push_back(carry_out(input, replies.size() + 1));
    longest = std::max(longest, input.lines.size());
    possible =
        possible && speak.insert(input.client).second && is_whole(input.lines.back()) && state.is != Is::receiver;
  }
  if (!possible) {
    *this = before;
    return false;
  }
  for (std::size_t i = 0; i < longest; ++i)
    for (std::size_t k = 0; k < inputs.size(); ++k)
      if (i < inputs[k].lines.size())
        step(inputs[k].client, written_line(inputs[k].lines[i]), replies[k][std::min(i, replies[k].size() - 1)].rule);
  for (std::size_t k = 0; k < inputs.size(); ++k) {
    read_replies(inputs[k].client, replies[k]);
    Reply const& last = replies[k].back();
    if (!last.closes) continue;
    bool const ignored = replies[k].size() < inputs[k].lines.size();
    step(inputs[k].client, last.ok && !ignored ? "eof" : "closed", last.rule);
    clients_[inputs[k].client].state.is = Is::gone;
  }
  rule_ = "6 Promises 3, one order per room";
  if (read_streams(inputs.size())) return concurrent_ = true;
  *this = before;
  return false;
}

/// Every receiver reads what came from several senders at the same time. Returns false if it cannot be told from whom a
/// line came.
bool Model::read_streams(std::size_t streams) {
  std::vector<std::pair<std::size_t, std::vector<Delivery>>> merged;  // by receiver
  for (std::size_t i = 0; i < clients_.size(); ++i) {
    std::vector<Delivery> const waiting = std::exchange(clients_[i].waiting, {});
    std::set<std::size_t> from;
    for (Delivery const& delivery : waiting) {
      from.insert(delivery.stream);
      for (Delivery const& other : waiting)
        if (other.stream != delivery.stream && other.line == delivery.line) return false;
    }
    auto const same = std::find_if(merged.begin(), merged.end(), [&](auto const& other) {
      return std::equal(waiting.begin(), waiting.end(), other.second.begin(), other.second.end(),
                        [](Delivery const& a, Delivery const& b) { return a.line == b.line; });
    });
    if (from.size() > 1 && same != merged.end()) {
      step(i, "same " + name(same->first), rule_);
      continue;
    }
    for (std::size_t stream = 1; stream <= streams; ++stream)
      for (Delivery const& delivery : waiting)
        if (delivery.stream == stream)
          step(i, (from.size() > 1 ? "<" + std::to_string(stream) : "<") + " " + written(delivery.line),
               from.size() > 1 ? rule_ : delivery.rule);
    if (from.size() > 1) merged.emplace_back(i, waiting);
  }
  return true;
}

/// Carries out the whole lines until the server closes. Each carried out has a reply.
std::vector<Model::Reply> Model::carry_out(Input const& input, std::size_t stream) {
  std::vector<Reply> replies;
  for (std::string const& line : input.lines) {
    if (!is_whole(line)) break;
    Reply reply = carry_out(input.client, line, stream);
    if (line.size() <= max_line) {
      if (line.size() + 3 > max_line) reply.rule.insert(0, "1 Lines, at most 255 bytes; ");
      if (line.ends_with("\r\n")) reply.rule.insert(0, "1 Lines, line ends; ");
    }
    if (input.lines.size() > 1) reply.rule.insert(0, "1 Lines, split and joined; ");
    replies.push_back(std::move(reply));
    if (replies.back().closes) {
      clients_[input.client].state.room.clear();  // no text reaches it any more
      break;
    }
  }
  return replies;
}

Model::Reply Model::carry_out(std::size_t index, std::string_view line, std::size_t stream) {
  State& state = clients_[index].state;
  bool const is_receiver = state.is == Is::receiver;
  bool const logged_in = is_receiver || state.is == Is::sender;
  bool const is_first = !logged_in || (is_receiver && state.room.empty());
  auto const refuse = [&](std::string const& rule) {
    std::string const first = logged_in ? "5 Receiver, join" : "3 Login, anything else as the first message";
    return Reply{false, !is_first ? rule : rule.empty() ? first : first + "; " + rule, is_first};
  };
  if (line.size() > max_line) return refuse("1 Lines, longer than 255 bytes");
  line.remove_suffix(line.ends_with("\r\n") ? 2 : 1);
  std::size_t const colon = line.find(':');
  std::string_view const tag = line.substr(0, colon);
  auto const is_lower = [](char c) { return c >= 'a' && c <= 'z'; };
  if (colon == line.npos || tag.empty() || !std::all_of(tag.begin(), tag.end(), is_lower))
    return refuse("1 Lines, malformed");
  std::string_view const payload = line.substr(colon + 1);
  if (!logged_in) return log_in(state, tag, payload);
  if (is_first && tag != "join") return refuse("");
  if (tag == "join") return join(state, payload);
  if (tag == "quit") return {true, is_receiver ? "5 Receiver, quit" : "4 Sender, quit", true};
  if (is_receiver) return refuse("5 Receiver, anything else after the join");
  if (tag == "leave") return {!std::exchange(state.room, {}).empty(), "4 Sender, leave", false};
  if (tag == "sendall") return deliver(state, payload, nullptr, stream);
  if (tag == "senduser") {
    std::string const user(payload.substr(0, payload.find(':')));
    if (user.size() == payload.size() || !is_name(user)) return {false, "4 Sender, senduser", false};
    return deliver(state, payload.substr(user.size() + 1), &user, stream);
  }
  return refuse("1 Lines, unknown tag");
}

Model::Reply Model::log_in(State& state, std::string_view tag, std::string_view payload) {
  if (tag != "slogin" && tag != "rlogin") return {false, "3 Login, anything else as the first message", true};
  if (!is_name(payload)) return {false, "2 Names; 3 Login", true};
  state.is = tag == "slogin" ? Is::sender : Is::receiver;
  state.name = payload;
  return {true, "3 Login, " + std::string(tag), false};
}

Model::Reply Model::join(State& state, std::string_view room) {
  std::string const rule = state.is == Is::receiver ? "5 Receiver, join" : "4 Sender, join";
  if (!is_name(room)) return {false, "2 Names; " + rule, state.is == Is::receiver && state.room.empty()};
  state.room = room;
  return {true, rule, false};
}

/// Without `to`, all receivers with another name than the sender's get the text.
Model::Reply Model::deliver(State const& from, std::string_view text, std::string const* to, std::size_t stream) {
  std::string rule = to != nullptr ? "4 Sender, senduser" : "4 Sender, sendall";
  if (from.room.empty()) return {false, rule, false};
  std::string line = "delivery:" + from.room + ":" + from.name + ":";
  line += text;
  if (line.size() + 1 > max_line) return {false, rule + ", longer than 255 bytes", false};
  bool const plain = std::all_of(text.begin(), text.end(),
                                 [](char c) {
                                   return is_name({&c, 1}) || c == ' ';
                                 }) &&
                     !text.starts_with(' ') && !text.ends_with(' ');
  for (Client& client : clients_)
    if (client.state.is == Is::receiver && client.state.room == from.room &&
        (to != nullptr ? client.state.name == *to : client.state.name != from.name))
      client.waiting.push_back({line, plain ? rule : "1 Lines, the payload byte for byte; " + rule, stream});
  return {true, rule, false};
}

void Model::finish() {
  for (std::size_t i = 0; i < clients_.size(); ++i) read_waiting(i);
  std::vector<std::pair<std::string, std::string>> rooms;  // and the receivers in them
  for (std::size_t i = 0; i < clients_.size(); ++i) {
    State const& state = clients_[i].state;
    if (state.is == Is::sender) step(i, "fence", rule_);
    if (state.is != Is::receiver || state.room.empty()) continue;
    auto const found = std::find_if(rooms.begin(), rooms.end(), [&](auto const& r) { return r.first == state.room; });
    if (found == rooms.end())
      rooms.emplace_back(state.room, name(i));
    else
      found->second += " " + name(i);
  }
  for (auto const& [room, receivers] : rooms)
    lines_.push_back({"fence " + written(room) + " " + receivers, rule_, actions_});
}

namespace {
constexpr std::size_t header_lines = 4;
}

Model::Line const* WalkScene::at(std::size_t line) const {
  return line > header_lines && line <= header_lines + lines.size() ? &lines[line - header_lines - 1] : nullptr;
}

WalkScene scene_of(Walk const& walk) {
  WalkScene scene;
  scene.walk = walk;
  scene.walk.actions.clear();
  Model model;
  for (WalkClient const& client : walk.clients) model.add(client);
  for (Action const& action : walk.actions)
    if (model.act(action)) scene.walk.actions.push_back(action);
  model.finish();
  scene.lines = model.lines();
  // The rule is not "1 Lines": only scenes about line ends insist on them.
  scene.text = "title: " + walk.title +
               "\nrule: 6 Promises 2\nlevel: " + (model.is_concurrent() ? "concurrent" : "robust") + "\nforms: whole\n";
  for (Model::Line const& line : scene.lines) scene.text += line.step + "\n";
  return scene;
}

}  // namespace conformance
