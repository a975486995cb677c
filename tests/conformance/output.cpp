// SPDX-License-Identifier: BSL-1.0
#include "output.hpp"

#include <algorithm>
#include <iomanip>
#include <ostream>
#include <set>
#include <string>

namespace conformance {
namespace {

using Kind = Result::Kind;

bool has_level(Results const& results, Level level) {
  return std::any_of(results.tests.begin(), results.tests.end(),
                     [&](Result const& test) { return test.level == level; });
}

/// Counts what has neither passed nor failed as skipped.
std::string counts(std::size_t passed, std::size_t failed, std::size_t all) {
  return std::to_string(passed) + " passed, " + std::to_string(failed) + " failed, " +
         std::to_string(all - passed - failed) + " skipped";
}

std::string counts(Results const& results) {
  return counts(results.count(Kind::passed), results.count(Kind::failed), results.tests.size());
}

std::string counts(Results const& results, Level level) {
  auto const all = std::count_if(results.tests.begin(), results.tests.end(),
                                 [&](Result const& test) { return test.level == level; });
  return counts(results.count(Kind::passed, level), results.count(Kind::failed, level), static_cast<std::size_t>(all));
}

/// Whether a test has no result.
bool is_left_out(Result const& test) { return test.kind == Kind::skipped || test.kind == Kind::unchecked; }

/// Whether a test was skipped because a program was not named.
bool is_without_program(Result const& test) {
  return test.kind == Kind::skipped && test.why.starts_with(needs_program);
}

void write_without_program(std::ostream& out, Results const& results) {
  std::size_t count = 0;
  std::set<std::string> options;
  for (Result const& test : results.tests) {
    if (!is_without_program(test)) continue;
    ++count;
    options.insert(test.why.substr(test.why.find("--")));
  }
  std::string needed;
  for (std::string const& option : options) needed += (needed.empty() ? "" : ", ") + option;
  out << "skipped " << count << " scenes: they need " << needed << " (--verbose lists them)\n";
}

char const* name_of(Kind kind) {
  switch (kind) {
    case Kind::passed: return "passed";
    case Kind::failed: return "failed";
    case Kind::open: return "open";
    case Kind::skipped: return "skipped";
    case Kind::unchecked: break;
  }
  return "unchecked";
}

/// Formats a string for JSON. Other bytes than printable ASCII become \u00XX.
std::string json(std::string_view text) {
  constexpr char const* digits = "0123456789abcdef";
  std::string result = "\"";
  for (char const c : text) {
    auto const byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\')
      result += {'\\', c};
    else if (byte >= ' ' && byte < 0x7f)
      result += c;
    else
      (result += "\\u00") += {digits[byte >> 4U], digits[byte & 15U]};
  }
  return result + '"';
}

/// Formats a list for JSON; each element is formatted by the function.
template <class List, class Function>
std::string json(List const& list, Function format) {
  std::string result;
  for (auto const& element : list) result += (result.empty() ? "" : ", ") + format(element);
  return "[" + result + "]";
}

struct Sum {
  unsigned points = 0, most = 0;
};

/// Adds up the rules that count.
Sum sum_of(std::vector<Marks> const& all) {
  Sum sum;
  for (Marks const& marks : all) {
    sum.points += marks.points;
    if (marks.kind != Kind::skipped) sum.most += marks.rule->points;
  }
  return sum;
}

void write_points(std::ostream& out, Results const& results, Profile const& profile) {
  std::vector<Marks> const all = results.marks(profile);
  for (Marks const& marks : all) {
    if (marks.kind == Kind::skipped) continue;
    out << std::right << std::setw(4) << marks.points << " of " << std::setw(3) << marks.rule->points << "  "
        << marks.rule->name;
    if (marks.kind == Kind::unchecked) out << ": could not be checked";
    bool first = marks.kind == Kind::failed;
    for (Result const* test : marks.tests) {
      if (marks.kind != Kind::failed || test->kind != Kind::failed) continue;
      out << (first ? ": " : " ") << test->name;
      first = false;
    }
    out << '\n';
  }
  Sum const sum = sum_of(all);
  out << sum.points << " of " << sum.most << " points\n";
}

/// Escapes text or an attribute for XML, which cannot contain control characters at all.
std::string xml(std::string const& text) {
  std::string result;
  for (char const c : text) {
    switch (c) {
      case '&': result += "&amp;"; break;
      case '<': result += "&lt;"; break;
      case '>': result += "&gt;"; break;
      case '"': result += "&quot;"; break;
      default: result += c == '\n' || static_cast<unsigned char>(c) >= ' ' ? c : '?';
    }
  }
  return result;
}

/// TAP gives the text after a `#` a meaning.
std::string tap(std::string text) {
  std::replace(text.begin(), text.end(), '#', '.');
  return text;
}

}  // namespace

void write_text(std::ostream& out, Results const& results, Profile const* profile, bool verbose) {
  bool explained = false;
  // A profile with a part about programs has many.
  bool const in_one_line =
      !verbose && std::count_if(results.tests.begin(), results.tests.end(), is_without_program) > 1;
  for (Result const& test : results.tests) {
    if (test.kind == Kind::passed && verbose) out << "passed " << test.name << ": " << test.title << '\n';
    if (is_left_out(test) && !(in_one_line && is_without_program(test)))
      out << name_of(test.kind) << ' ' << test.name << ": " << test.why << '\n';
    if (test.kind != Kind::failed && test.kind != Kind::open) continue;
    if (!explained) out << "(x -> what client x of the suite sent; x <- what it got; * stands for any bytes)\n";
    explained = true;
    out << (test.kind == Kind::failed ? "\nFAILED " : "\nopen ") << test.name << ": " << test.title << '\n'
        << "  rule      " << test.rule << '\n';
    for (std::string const& line : test.told) out << "  " << line << '\n';
    if (!test.why.empty()) out << "  open      not counted as a failure: " << test.why << '\n';
  }
  if (in_one_line) write_without_program(out, results);
  out << '\n';
  if (!results.stopped.empty()) out << "STOPPED: " << results.stopped << '\n';
  for (Level const level : all_levels) {
    if (!has_level(results, level)) continue;
    out << "level " << std::left << std::setw(12) << name_of(level) << counts(results, level) << '\n';
  }
  if (profile != nullptr) write_points(out, results, *profile);
  if (std::size_t const open = results.count(Kind::open); open != 0)
    out << open << " of those skipped differ where the protocol leaves open what is right (--strict: they fail)\n";
  out << results.plays << " plays\n" << counts(results) << std::endl;
}

void write_tap(std::ostream& out, Results const& results) {
  out << "TAP version 13\n1.." << results.tests.size() << '\n';
  std::size_t number = 0;
  for (Result const& test : results.tests) {
    bool const ok = test.kind == Kind::passed || is_left_out(test);
    out << (ok ? "ok " : "not ok ") << ++number << " - " << name_of(test.level) << ' ' << tap(test.name) << ": "
        << tap(test.title);
    if (is_left_out(test)) out << " # SKIP " << tap(test.why);
    if (test.kind == Kind::open) out << " # TODO open: " << tap(test.why);
    out << '\n';
    if (ok) continue;
    out << "  ---\n  rule: |\n    " << test.rule << "\n  told: |\n";
    for (std::string const& line : test.told) out << "    " << line << '\n';
    out << "  ...\n";
  }
  if (!results.stopped.empty()) out << "Bail out!  " << results.stopped << '\n';
  out << "# " << counts(results) << std::endl;
}

void write_junit(std::ostream& out, Results const& results) {
  out << "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"chatproto-conformance\">\n";
  for (Level const level : all_levels) {
    if (!has_level(results, level)) continue;
    std::size_t const failed = results.count(Kind::failed, level);
    std::size_t const skipped =
        results.count(Kind::skipped, level) + results.count(Kind::unchecked, level) + results.count(Kind::open, level);
    out << "  <testsuite name=\"" << name_of(level) << "\" tests=\""
        << failed + skipped + results.count(Kind::passed, level) << "\" failures=\"" << failed
        << "\" errors=\"0\" skipped=\"" << skipped << "\">\n";
    for (Result const& test : results.tests) {
      if (test.level != level) continue;
      out << "    <testcase classname=\"" << name_of(level) << "\" name=\"" << xml(test.name) << "\">\n";
      if (is_left_out(test)) out << "      <skipped message=\"" << xml(test.why) << "\"/>\n";
      if (test.kind == Kind::open) out << "      <skipped message=\"open: " << xml(test.why) << "\"/>\n";
      if (test.kind == Kind::failed) {
        out << "      <failure message=\"" << xml(test.title) << "\" type=\"" << xml(test.rule) << "\">\n";
        for (std::string const& line : test.told) out << xml(line) << '\n';
        out << "</failure>\n";
      }
      out << "    </testcase>\n";
    }
    out << "  </testsuite>\n";
  }
  out << "</testsuites>" << std::endl;
}

void write_json(std::ostream& out, Results const& results, Profile const* profile) {
  out << "{\"schema\": \"chatproto-conformance/1\", \"version\": \"" CONFORMANCE_VERSION "\",\n";
  if (profile != nullptr) {
    std::vector<Marks> const all = results.marks(*profile);
    Sum const sum = sum_of(all);
    out << "\"title\": " << json(profile->title()) << ", \"score\": " << sum.points << ", \"max_score\": " << sum.most
        << ",\n\"rules\": [";
    char const* between = "\n";
    for (Marks const& marks : all) {
      out << between << "{\"name\": " << json(marks.rule->name) << ", \"score\": " << marks.points
          << ", \"max_score\": " << marks.rule->points << ", \"status\": \"" << name_of(marks.kind)
          << "\", \"scenes\": " << json(marks.rule->tests, [](Text const& pattern) { return json(pattern.shown({})); })
          << ", \"tests\": " << json(marks.tests, [](Result const* test) { return json(test->name); }) << "}";
      between = ",\n";
    }
    out << "],\n";
  }
  out << "\"stopped\": " << json(results.stopped) << ", \"exit\": " << results.exit_code() << ",\n\"tests\": [";
  char const* between = "\n";
  for (Result const& test : results.tests) {
    out << between << "{\"name\": " << json(test.name) << ", \"level\": \"" << name_of(test.level)
        << "\", \"title\": " << json(test.title) << ", \"section\": " << json(test.rule) << ", \"status\": \""
        << name_of(test.kind) << "\", \"why\": " << json(test.why)
        << ", \"told\": " << json(test.told, [](std::string const& line) { return json(line); }) << "}";
    between = ",\n";
  }
  out << "]}" << std::endl;
}

}  // namespace conformance
