// SPDX-License-Identifier: BSL-1.0
#include "profile.hpp"

#include <algorithm>
#include <charconv>
#include <filesystem>

namespace conformance {
namespace {

/// Removes and returns the first word, and all blanks after it.
std::string_view cut_value(std::string_view& rest) {
  std::string_view const value = cut_word(rest);
  while (rest.starts_with(' ')) rest.remove_prefix(1);
  return value;
}

bool any_matches(std::vector<Text> const& patterns, std::string_view test) {
  return std::any_of(patterns.begin(), patterns.end(), [&](Text const& one) { return one.matches(test, {}); });
}

}  // namespace

Profile::Profile(std::string const& file, std::string_view text, std::set<std::string> const& tests) {
  std::size_t number = 0;
  auto const bad = [&](std::string const& what) { throw BadScene(file + ":" + std::to_string(number) + ": " + what); };
  auto const pattern = [&](std::string_view written) {
    Text result = pattern_of(written);
    auto const matched = [&](std::string const& test) { return result.matches(test, {}); };
    if (std::none_of(tests.begin(), tests.end(), matched))
      bad("no scene is called '" + std::string(written) + "' (see --list)");
    return result;
  };
  while (!text.empty()) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    ++number;
    while (line.ends_with(' ') || line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() || line.front() == '#') continue;
    std::string_view const key = cut_value(line);
    if (line.empty()) bad("'" + std::string(key) + "' without a value");
    if (key == "title:") {
      title_ = line;
    } else if (key == "line-ends:") {
      if (line != "either") bad("'line-ends:' can only be 'either'");
      any_line_end_ = true;
    } else if (key == "prompts:") {
      if (line != "anywhere") bad("'prompts:' can only be 'anywhere'");
      prompts_anywhere_ = true;
    } else if (key == "rule:") {
      std::string_view const points = cut_value(line);
      Rule& rule = rules_.emplace_back();
      auto const [end, error] = std::from_chars(points.data(), points.data() + points.size(), rule.points);
      if (error != std::errc() || end != points.data() + points.size() || rule.points > 1'000'000 || line.empty())
        bad("'rule:' needs its points and its name, as in 'rule: 5 Names'");
      rule.name = line;
    } else if (key != "scenes:" && key != "open:") {
      bad("no line begins with '" + std::string(key) + "': title:, line-ends:, prompts:, rule:, scenes: or open:");
    } else if (rules_.empty()) {
      bad("the first 'rule:' comes before");
    } else if (key == "scenes:") {
      while (!line.empty()) rules_.back().tests.push_back(pattern(cut_value(line)));
    } else {
      std::vector<Text> patterns;
      std::string_view value;
      while (!line.empty() && (value = cut_value(line)) != "because") patterns.push_back(pattern(value));
      if (patterns.empty() || line.empty())
        bad("'open:' needs scenes and a reason, as in 'open: names-good because ...'");
      for (char const* const test : common_tests)
        if (any_matches(patterns, test)) bad(std::string("'open:' is for scenes, and ") + test + " is none");
      for (Text const& one : patterns) {
        rules_.back().tests.push_back(one);
        rules_.back().open.push_back({one, std::string(line)});
      }
    }
  }
  if (rules_.empty()) bad("no 'rule:'");
  for (Rule const& rule : rules_)
    if (rule.tests.empty()) bad("the rule '" + rule.name + "' has no scenes");
  for (std::string const& test : tests) {
    auto const has = [&](Rule const& rule) { return any_matches(rule.tests, test); };
    auto const first = std::find_if(rules_.begin(), rules_.end(), has);
    if (first == rules_.end()) continue;
    auto const second = std::find_if(first + 1, rules_.end(), has);
    if (second != rules_.end()) bad(test + " belongs to two rules: '" + first->name + "' and '" + second->name + "'");
  }
}

Rule const* Profile::rule_of(std::string_view test) const {
  auto const found =
      std::find_if(rules_.begin(), rules_.end(), [&](Rule const& rule) { return any_matches(rule.tests, test); });
  return found == rules_.end() ? nullptr : &*found;
}

std::string Profile::open(std::string_view test) const {
  for (Rule const& rule : rules_)
    for (Rule::Open const& open : rule.open)
      if (open.tests.matches(test, {})) return open.why;
  return {};
}

Profile find_profile(std::string const& name, std::set<std::string> const& tests) {
  std::string names;
  for (FileText const& built_in : built_in_profiles()) {
    std::string const own = name_in(built_in.file);
    if (own == name) return Profile(built_in.file, built_in.text, tests);
    names += (names.empty() ? "" : ", ") + own;
  }
  if (!std::filesystem::is_regular_file(name))
    throw BadScene(name + ": there is no such file, and no profile of this name: " + names);
  FileText const found = read_file(name);
  return Profile(found.file, found.text, tests);
}

}  // namespace conformance
