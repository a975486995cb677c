// SPDX-License-Identifier: BSL-1.0
// Finds out from the steps of a scene what it uses without being about it. Each such thing has a scene of its own.
#include <algorithm>
#include <array>
#include <map>
#include <string_view>

#include "scene.hpp"
#include "walk.hpp"

namespace conformance {
namespace {

/// Adds the scenes about what makes a line special. The line includes its end.
void add_line(std::set<std::string>& uses, std::string_view line) {
  if (line.ends_with("\r\n")) uses.insert("lines-crlf");
  if (line.size() == max_line) uses.insert("lines-255");
  bool const too_long = line.size() > max_line;
  line.remove_suffix(line.ends_with("\r\n") ? 2 : 1);
  if (line.find('\0') != line.npos) uses.insert("lines-payload-nul");
  if (line.find('\r') != line.npos) uses.insert("lines-payload-cr");
  if (std::any_of(line.begin(), line.end(), [](unsigned char c) { return c >= 0x80; }))
    uses.insert("lines-payload-high-bytes");
  std::size_t const colon = line.find(':');
  std::string_view const tag = line.substr(0, colon);
  std::string_view const payload = colon == line.npos ? std::string_view() : line.substr(colon + 1);
  if (too_long)
    uses.insert({"lines-256", "lines-no-colon"});
  else if (colon == line.npos || !std::all_of(tag.begin(), tag.end(), [](char c) { return c >= 'a' && c <= 'z'; }))
    uses.insert("lines-no-colon");
  else if ((tag == "slogin" || tag == "rlogin") && !is_name(payload))
    uses.insert("names-bad-sender");
  else if (tag == "join" && !is_name(payload))
    uses.insert("names-bad-room");
  else if (tag == "sendall" && payload.empty())
    uses.insert("sendall-empty");
  else if (constexpr std::array known{"pass", "slogin", "rlogin", "join", "leave", "sendall", "senduser", "quit",
                                      "history", "who"};
           std::find(known.begin(), known.end(), tag) == known.end())
    uses.insert("lines-unknown-tag");
}

}  // namespace

void find_uses(Scene& scene) {
  std::set<std::string>& uses = scene.uses;
  std::map<std::size_t, std::string> sent;  // by actor, since it last waited for something
  std::map<std::size_t, int> deliveries;
  for (Step const& step : scene.steps) {
    std::string& bytes = sent[step.actor];
    if (step.verb == Verb::send) {
      bytes += step.text.bytes(sample_word);
      continue;
    }
    if (step.verb == Verb::close || step.verb == Verb::reset) bytes.clear();  // nobody judges how these are taken
    std::size_t lines = 0;
    for (std::size_t begin = 0, end = 0; (end = bytes.find('\n', begin)) != bytes.npos; begin = end + 1, ++lines)
      add_line(uses, std::string_view(bytes).substr(begin, end + 1 - begin));
    if (lines > 1) uses.insert("lines-many-in-order");
    if (step.verb == Verb::shutdown) {
      uses.insert("sender-half-close-idle");
      if (!bytes.empty()) uses.insert("sender-half-close");
      if (!bytes.empty() && bytes.back() != '\n') uses.insert("lines-partial-at-end");
    }
    if (step.verb == Verb::eof) uses.insert("sender-quit");
    bytes.clear();
    bool const delivery = step.verb == Verb::receive && step.source.find(" delivery:") != std::string::npos;
    if (delivery && ++deliveries[step.actor] == 2) uses.insert({"promises-ok-then-visible", "lines-many-in-order"});
  }
  uses.erase(scene.name);
}

void check_uses(std::vector<Scene> const& scenes) {
  std::map<std::string, Scene const*> left;  // scenes that may be in a circle
  for (Scene const& scene : scenes) left[scene.name] = &scene;
  for (bool found = true; found;) {
    auto const is_free = [&](auto const& entry) {
      return std::none_of(entry.second->uses.begin(), entry.second->uses.end(),
                          [&](std::string const& used) { return left.contains(used); });
    };
    found = std::erase_if(left, is_free) != 0;
  }
  std::string names;
  for (auto const& [name, scene] : left) names += " " + name;
  if (!left.empty()) throw BadScene("scenes use each other in a circle, so none could blame a server:" + names);
}

}  // namespace conformance
