// SPDX-License-Identifier: BSL-1.0
#include "report.hpp"

#include <algorithm>
#include <iterator>
#include <set>
#include <utility>

namespace conformance {
namespace {

/// Shortens long runs of one character, in the notation of scenes.
std::string compact(std::string const& text) {
  constexpr std::size_t least = 20;
  std::string result;
  for (std::size_t i = 0; i < text.size();) {
    std::size_t const end = std::min(text.find_first_not_of(text[i], i), text.size());
    bool const run = end - i >= least;
    result.append(text, i, run ? 1 : end - i);
    if (run) result.append("{").append(std::to_string(end - i)).append("}");
    i = end;
  }
  return result;
}

void cut_off(Result& result) {
  result.kind = Result::Kind::unchecked;
  result.why = "could not be checked, because the run ended before";
  result.cut_off = true;
}

std::string could_not_check(std::string const& failed) { return "could not be checked, because " + failed + " failed"; }

}  // namespace

bool Report::add(Scene const& scene, Form form, Failure const* failure) {
  Outcome& outcome = outcomes_[&scene];
  ++outcome.plays;
  auto const kind = static_cast<std::size_t>(form.kind);
  outcome.played[kind] = true;
  Failure not_as_meant;
  if (!scene.must_fail.empty()) {  // a self-test
    if (failure == nullptr) {
      not_as_meant = {1, "(all)", "all", "a failure", "none", {}, false};
    } else {
      std::string const text = std::to_string(failure->line) + ": " + failure->expected + "; came " + failure->came;
      if (!scene.must_fail.matches(text, {})) not_as_meant = *failure;
    }
    failure = not_as_meant.line == 0 ? nullptr : &not_as_meant;
  }
  if (failure != nullptr && !outcome.failed[kind]) outcome.failed[kind] = Failed{form, *failure};
  return failure == nullptr;
}

void Report::tell(Scene const& scene, Failure const& failure, std::string const& rule, std::set<std::string> uses,
                  std::vector<std::string> remarks) {
  Outcome& outcome = outcomes_[&scene];
  outcome.failed.front() = Failed{{}, failure};
  outcome.rule = rule;
  outcome.uses = std::move(uses);
  outcome.remarks = std::move(remarks);
}

/// A scene that fails only while others are played has not failed: all these are one test.
bool Report::failed(Outcome const& outcome) {
  bool const tried_alone = outcome.played[static_cast<std::size_t>(Form::Kind::alone)];
  return of(outcome, Form::Kind::alone) || (of(outcome, Form::Kind::whole) && !tried_alone);
}

bool Report::gave_up(Scene const& scene, Form form) const {
  auto const found = outcomes_.find(&scene);
  return found != outcomes_.end() && (of(found->second, Form::Kind::whole) || of(found->second, form.kind));
}

std::vector<std::string> Report::told(Scene const& scene, Failed const& failed) const {
  constexpr std::size_t most = 40;  // steps before the failure
  Failure const& failure = failed.failure;
  std::vector<std::string> lines;
  if (failed.form.kind != Form::Kind::whole) lines.push_back("form      " + failed.form.name(scene));
  std::size_t const first = failure.before.size() > most ? failure.before.size() - most : 0;
  for (std::size_t i = first; i < failure.before.size(); ++i)
    lines.push_back((i != first   ? "          "
                     : first == 0 ? "so far    "
                                  : "so far .. ") +
                    compact(failure.before[i]));
  lines.push_back("expected  " + failure.actor + ": " + compact(failure.expected));
  lines.push_back("came      " + compact(failure.came));
  lines.push_back("step      " + failure.step + "  (line " + std::to_string(failure.line) + " of " + scene.file + ")");
  return lines;
}

Result Report::of_scene(Scene const& scene) const {
  Result result{Result::Kind::passed, scene.level, scene.name, scene.title, scene.rule, {}, {}};
  auto const found = outcomes_.find(&scene);
  Outcome const outcome = found == outcomes_.end() ? Outcome() : found->second;
  bool const open = !scene.open.empty() && !options_.strict;
  bool const any_form = open || !options_.only.empty();
  auto const failed = std::find_if(outcome.failed.begin(), outcome.failed.end(), [](auto const& one) { return !!one; });
  if (!outcome.unchecked.empty()) {
    result.kind = Result::Kind::unchecked;
    result.why = could_not_check(outcome.unchecked);
  } else if (outcome.plays == 0 && outcome.skipped.empty() && !options_.only.empty() && complete_) {
    result.kind = Result::Kind::skipped;
    result.why = "it has no form '" + options_.only + "'";
  } else if (!outcome.skipped.empty()) {
    result.kind = Result::Kind::skipped;
    result.why = outcome.skipped;
  } else if (outcome.plays == 0) {
    cut_off(result);
  } else if (failed != outcome.failed.end() && (Report::failed(outcome) || any_form)) {
    result.kind = open ? Result::Kind::open : Result::Kind::failed;
    if (open) result.why = scene.open;
    result.told = told(scene, **failed);
    result.told.insert(result.told.end(), outcome.remarks.begin(), outcome.remarks.end());
    if (!outcome.rule.empty()) result.rule = outcome.rule;
  }
  return result;
}

/// Makes one test of what many scenes have in common: a server that fails so breaks one rule, not a hundred.
Result Report::all_scenes(Result result, Form::Kind kind, std::size_t played, std::vector<Scene const*> const& failed,
                          std::string const& how) const {
  if (failed.empty()) return result;
  result.kind = Result::Kind::failed;
  std::string names;
  for (Scene const* scene : failed) names += (names.empty() ? "" : " ") + scene->name;
  result.told.push_back("scenes    " + std::to_string(failed.size()) + " of " + std::to_string(played) + " " + how +
                        ": " + names);
  result.told.push_back("such as   " + failed.front()->name + ": " + failed.front()->title);
  auto const lines = told(*failed.front(), *of(outcomes_.at(failed.front()), kind));
  result.told.insert(result.told.end(), lines.begin(), lines.end());
  return result;
}

std::optional<Result> Report::in_pieces(Form::Kind kind) const {
  bool const split = kind == Form::Kind::split;
  if (!options_.only.empty() || !(split ? options_.split : options_.bytewise)) return {};
  Result result;
  result.level = Level::robust;
  result.name = split ? "split" : "bytewise";
  result.title = split ? "The scenes again, the bytes of one client cut in two, at every place"
                       : "The scenes again, all bytes one at a time";
  result.rule = "1 Lines, split and joined";
  std::size_t played = 0;
  bool is_due = false;
  std::vector<Scene const*> failed;
  for (Scene const& scene : scenes_) {
    if (scene.level > options_.level || (!scene.open.empty() && !options_.strict)) continue;
    auto const found = outcomes_.find(&scene);
    Outcome const outcome = found == outcomes_.end() ? Outcome() : found->second;
    bool const can_be = outcome.skipped.empty() && outcome.unchecked.empty() && !of(outcome, Form::Kind::whole);
    is_due = is_due || (can_be && !scene.whole_only);
    if (!outcome.played[static_cast<std::size_t>(kind)]) continue;
    ++played;
    if (of(outcome, kind)) failed.push_back(&scene);
  }
  if (!complete_ && is_due && failed.empty()) {
    cut_off(result);
    return result;
  }
  if (played == 0) return {};
  return all_scenes(result, kind, played, failed, "pass in one piece but not so");
}

/// A failure, if scenes have failed only while others were played.
std::optional<Result> Report::together() const {
  std::vector<Scene const*> failed;
  for (Scene const& scene : scenes_)
    if (auto const found = outcomes_.find(&scene); found != outcomes_.end())
      if (of(found->second, Form::Kind::whole) && !Report::failed(found->second)) failed.push_back(&scene);
  if (failed.empty()) return {};
  Result result;
  result.level = Level::concurrent;
  result.name = "together";
  result.title = "The scenes at the same time: clients of other rooms change nothing";
  result.rule = "6 Promises 2 and 4";
  return all_scenes(result, Form::Kind::whole, scenes_.size(), failed, "pass alone but not so");
}

/// A scene that fails where it uses what another scene is about, and that one has failed as well, shows nothing of its
/// own.
void Report::excuse(std::vector<Result>& tests) const {
  std::map<std::string, std::set<std::string>> uses{{"together", {"promises-rooms-apart", "lines-many-in-order"}}};
  for (Scene const& scene : scenes_) {
    auto const told = outcomes_.find(&scene);
    uses[scene.name] = told == outcomes_.end() || told->second.rule.empty() ? scene.uses : told->second.uses;
  }
  std::set<std::string> without;  // what has failed, or uses what has
  for (Result const& test : tests)
    if (test.kind == Result::Kind::failed || test.kind == Result::Kind::open ||
        (test.kind == Result::Kind::unchecked && !test.cut_off))
      without.insert(test.name);
  for (Result& test : tests) {
    std::set<std::string> const& of_test = uses[test.name];
    auto const used =
        std::find_if(of_test.begin(), of_test.end(), [&](auto const& name) { return without.contains(name); });
    if (test.kind != Result::Kind::failed || used == of_test.end()) continue;
    test.kind = Result::Kind::unchecked;
    test.why = could_not_check(*used);
  }
}

Results Report::results() const {
  Results results;
  results.stopped = stopped_;
  for (auto const& [scene, outcome] : outcomes_) results.plays += outcome.plays;
  for (Scene const& scene : scenes_)
    if (scene.level <= options_.level) results.tests.push_back(of_scene(scene));
  for (Form::Kind const kind : {Form::Kind::split, Form::Kind::bytewise})
    if (auto const result = in_pieces(kind)) results.tests.push_back(*result);
  if (auto const result = together()) results.tests.push_back(*result);
  if (!server_.empty())
    results.tests.push_back({Result::Kind::failed,
                             Level::concurrent,
                             "server",
                             "The server goes on until it is told to end",
                             "6 Promises 4",
                             {},
                             {"came      " + server_}});
  excuse(results.tests);
  // By level, else in the order of arrival. (Clang 19 calls std::stable_sort of GCC's library deprecated.)
  std::vector<Result> by_level;
  for (Level const level : {Level::basic, Level::robust, Level::concurrent})
    std::copy_if(results.tests.begin(), results.tests.end(), std::back_inserter(by_level),
                 [&](Result const& test) { return test.level == level; });
  results.tests = std::move(by_level);
  return results;
}

std::size_t Results::count(Result::Kind kind) const {
  return static_cast<std::size_t>(
      std::count_if(tests.begin(), tests.end(), [&](Result const& test) { return test.kind == kind; }));
}

std::size_t Results::count(Result::Kind kind, Level level) const {
  return static_cast<std::size_t>(std::count_if(
      tests.begin(), tests.end(), [&](Result const& test) { return test.kind == kind && test.level == level; }));
}

std::vector<Marks> Results::marks(Profile const& profile) const {
  std::vector<Marks> all;
  for (Rule const& rule : profile.rules()) {
    Marks& marks = all.emplace_back();
    marks.rule = &rule;
    for (Result const& test : tests)
      if (profile.rule_of(test.name) == &rule) marks.tests.push_back(&test);
    auto const any = [&](auto const& is) {
      return std::any_of(marks.tests.begin(), marks.tests.end(), [&](Result const* test) { return is(*test); });
    };
    // What is left open does not count.
    if (any([](Result const& test) { return test.kind == Result::Kind::failed; }))
      marks.kind = Result::Kind::failed;
    else if (any([](Result const& test) { return test.cut_off; }))
      marks.kind = Result::Kind::unchecked;
    else if (any([](Result const& test) { return test.kind == Result::Kind::passed; }))
      marks.kind = Result::Kind::passed;
    else if (any([](Result const& test) { return test.kind == Result::Kind::unchecked; }))
      marks.kind = Result::Kind::unchecked;
    if (marks.kind == Result::Kind::passed) marks.points = rule.points;
  }
  return all;
}

int Results::exit_code() const {
  if (!stopped.empty()) return 2;
  if (count(Result::Kind::failed) != 0) return 1;
  return count(Result::Kind::passed) + count(Result::Kind::open) != 0 ? 0 : 2;
}

}  // namespace conformance
