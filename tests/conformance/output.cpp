// SPDX-License-Identifier: BSL-1.0
#include "output.hpp"

#include <algorithm>
#include <iomanip>
#include <ostream>
#include <string>

namespace conformance {
namespace {

using Kind = Result::Kind;

bool has_level(Results const& results, Level level) {
  return std::any_of(results.tests.begin(), results.tests.end(),
                     [&](Result const& test) { return test.level == level; });
}

/// A scene that the protocol leaves open has neither passed nor failed.
std::string counts(std::size_t passed, std::size_t failed, std::size_t skipped, std::size_t open) {
  return std::to_string(passed) + " passed, " + std::to_string(failed) + " failed, " + std::to_string(skipped + open) +
         " skipped";
}

std::string counts(Results const& results) {
  return counts(results.count(Kind::passed), results.count(Kind::failed), results.count(Kind::skipped),
                results.count(Kind::open));
}

std::string counts(Results const& results, Level level) {
  return counts(results.count(Kind::passed, level), results.count(Kind::failed, level),
                results.count(Kind::skipped, level), results.count(Kind::open, level));
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

void write_text(std::ostream& out, Results const& results, bool verbose) {
  bool explained = false;
  for (Result const& test : results.tests) {
    if (test.kind == Kind::passed && verbose) out << "passed " << test.name << ": " << test.title << '\n';
    if (test.kind == Kind::skipped) out << "skipped " << test.name << ": " << test.why << '\n';
    if (test.kind != Kind::failed && test.kind != Kind::open) continue;
    if (!explained) out << "(x -> what client x of the suite sent; x <- what it got; * stands for any bytes)\n";
    explained = true;
    out << (test.kind == Kind::failed ? "\nFAILED " : "\nopen ") << test.name << ": " << test.title << '\n'
        << "  rule      " << test.rule << '\n';
    for (std::string const& line : test.told) out << "  " << line << '\n';
    if (!test.why.empty()) out << "  open      not counted as a failure: " << test.why << '\n';
  }
  out << '\n';
  if (!results.stopped.empty()) out << "STOPPED: " << results.stopped << '\n';
  for (Level const level : all_levels) {
    if (!has_level(results, level)) continue;
    out << "level " << std::left << std::setw(12) << name_of(level) << counts(results, level) << '\n';
  }
  if (std::size_t const open = results.count(Kind::open); open != 0)
    out << open << " of those skipped differ where the protocol leaves open what is right (--strict: they fail)\n";
  out << results.plays << " plays\n" << counts(results) << std::endl;
}

void write_tap(std::ostream& out, Results const& results) {
  out << "TAP version 13\n1.." << results.tests.size() << '\n';
  std::size_t number = 0;
  for (Result const& test : results.tests) {
    bool const ok = test.kind == Kind::passed || test.kind == Kind::skipped;
    out << (ok ? "ok " : "not ok ") << ++number << " - " << name_of(test.level) << ' ' << tap(test.name) << ": "
        << tap(test.title);
    if (test.kind == Kind::skipped) out << " # SKIP " << tap(test.why);
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
    std::size_t const skipped = results.count(Kind::skipped, level) + results.count(Kind::open, level);
    out << "  <testsuite name=\"" << name_of(level) << "\" tests=\""
        << failed + skipped + results.count(Kind::passed, level) << "\" failures=\"" << failed
        << "\" errors=\"0\" skipped=\"" << skipped << "\">\n";
    for (Result const& test : results.tests) {
      if (test.level != level) continue;
      out << "    <testcase classname=\"" << name_of(level) << "\" name=\"" << xml(test.name) << "\">\n";
      if (test.kind == Kind::skipped) out << "      <skipped message=\"" << xml(test.why) << "\"/>\n";
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

}  // namespace conformance
