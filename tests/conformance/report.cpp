// SPDX-License-Identifier: BSL-1.0
#include "report.hpp"

#include <ostream>

namespace conformance {

void Report::add(Scene const& scene, Form form, Failure const* failure) {
  Count& count = counts_[&scene];
  if (!scene.must_fail.empty()) {  // a self-test
    Failure const none{1, "(all)", "a failure", "none"};
    if (failure == nullptr) failure = &none;
    std::string const told = std::to_string(failure->line) + ": " + failure->expected + "; came " + failure->came;
    bool const as_meant = failure != &none && scene.must_fail.matches(told, {});
    ++(as_meant ? count.passed : count.failed);
    if (!as_meant) write(scene, form, *failure, "FAILED, but not as it must");
  } else if (failure == nullptr) {
    ++count.passed;
  } else if (!scene.open.empty() && !options_.strict) {
    if (open_failures_[&scene]++ == 0) write(scene, form, *failure, "open");
  } else {
    if (++count.failed <= options_.failures) write(scene, form, *failure, "FAILED");
  }
}

void Report::write(Scene const& scene, Form form, Failure const& failure, char const* word) {
  out_ << word << ' ' << scene.file << ':' << failure.line << ": " << scene.title << '\n'
       << "  rule      " << scene.rule << '\n'
       << "  form      " << form.name(scene) << '\n'
       << "  step      " << failure.step << '\n'
       << "  expected  " << failure.expected << '\n'
       << "  came      " << failure.came << '\n';
  if (!scene.open.empty()) out_ << "  open      " << scene.open << '\n';
  out_ << std::flush;
}

void Report::skip(Scene const& scene, std::string const& why) {
  ++skipped_;
  if (options_.verbose) out_ << "left out " << scene.file << ": " << why << '\n';
}

bool Report::gave_up(Scene const& scene) const {
  auto const found = counts_.find(&scene);
  return found != counts_.end() && found->second.failed >= options_.failures;
}

void Report::stop(std::string const& why) {
  stopped_ = true;
  out_ << "STOPPED: " << why << '\n';
}

int Report::finish() {
  std::size_t passed = 0;
  std::size_t failed = 0;
  std::size_t left_out = 0;
  std::size_t bad_scenes = 0;
  for (auto const& [scene, count] : counts_) {
    passed += count.passed;
    failed += count.failed;
    if (count.failed != 0) ++bad_scenes;
    left_out += count.left_out;
    if (options_.verbose)
      out_ << scene->file << ": " << count.passed << " passed, " << count.failed << " failed, " << count.left_out
           << " not played\n";
  }
  out_ << counts_.size() << " scenes, " << bad_scenes << " with failures";
  if (skipped_ != 0) out_ << "; " << skipped_ << " left out (--verbose tells why)";
  if (!open_failures_.empty())
    out_ << "; " << open_failures_.size() << " that differ where the protocol leaves it open";
  if (left_out != 0)
    out_ << "; " << left_out << " forms not played, their scenes had failed " << options_.failures << " times before";
  out_ << '\n' << passed << " passed, " << failed << " failed" << std::endl;
  return failed == 0 && passed != 0 && !stopped_ ? 0 : 1;
}

}  // namespace conformance
