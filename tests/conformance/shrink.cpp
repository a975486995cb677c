// SPDX-License-Identifier: BSL-1.0
#include "shrink.hpp"

#include <algorithm>
#include <iterator>
#include <string_view>
#include <utility>

namespace conformance {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t most_plays = 200;  // for one scene

// In time limits of a step. Many failures show only in that nothing comes, so the steps of smaller scenes have less.
constexpr int most_time = 3;
constexpr int most_time_of_all = 9;
constexpr int part_of_step_limit = 5;

/// Returns a word for what was expected, or came.
std::string kind_of(std::string_view what) {
  if (what.starts_with("the line ")) what.remove_prefix(9);
  for (char const* kind : {"ok:", "err:", "delivery:", "nothing, then", "nothing", "the other end closes"})
    if (what.starts_with(kind)) return kind;
  return "something else";
}

/// A walk without some of its actions.
Walk without(Walk walk, std::size_t first, std::size_t count) {
  auto const begin = walk.actions.begin() + static_cast<std::ptrdiff_t>(first);
  walk.actions.erase(begin, begin + static_cast<std::ptrdiff_t>(std::min(count, walk.actions.size() - first)));
  return walk;
}

Walk without_client(Walk walk, std::size_t client) {
  for (Action& action : walk.actions) std::erase_if(action.inputs, [&](Input const& i) { return i.client == client; });
  std::erase_if(walk.actions, [](Action const& action) { return action.inputs.empty(); });
  return walk;
}

/// Returns simpler lines in the place of one, each of which may fail as well.
std::vector<std::string> simpler(std::string const& line) {
  std::vector<std::string> lines;
  if (line.ends_with("\r\n")) lines.push_back(line.substr(0, line.size() - 2) + "\n");
  std::size_t const colon = line.find(':');
  std::string const tag = line.substr(0, colon);
  std::size_t begin = colon + 1;  // of a text that may be shortened
  if (tag == "senduser") begin = line.find(':', begin) + 1;
  bool const has_text = colon != line.npos && begin != 0 && (tag == "sendall" || tag == "senduser");
  if (has_text && line.ends_with('\n')) {
    std::size_t const size = line.size() - begin - (line.ends_with("\r\n") ? 2 : 1);
    std::string const end = line.substr(begin + size);
    for (char const* text : {"x", "y"})
      if (size > 1) lines.push_back(line.substr(0, begin) + text + end);
    for (std::size_t const part : {size / 2, size / 4, std::size_t{1}}) {
      if (part == 0 || size < 2) continue;
      lines.push_back(line.substr(0, begin) + line.substr(begin + part));
      std::string shorter = line;
      shorter.erase(begin + size - part, part);
      if (!shorter.ends_with("\r\n") || end == "\r\n") lines.push_back(shorter);
    }
  } else if (line.size() > max_line) {
    // Less of its longest run.
    std::size_t const at = line.find("xxxxxxxx");
    for (std::size_t const size : {max_line + 1, std::size_t{512}, line.size() / 2})
      if (at != line.npos && size < line.size() && line.find_first_not_of('x', at) - at > line.size() - size)
        lines.push_back(line.substr(0, at) + line.substr(at + line.size() - size));
  }
  return lines;
}

}  // namespace

std::string Shrinker::way_of(Failure const& failure) {
  if (failure.came.starts_with(server_ended)) return server_ended;
  std::string const came = kind_of(failure.came);
  // A delivery that should not have come shows before whatever is expected next.
  return came == "delivery:" ? came : kind_of(failure.expected) + " / " + came;
}

bool Shrinker::has_enough(Failure const& failure) const {
  std::string const way = way_of(failure);
  return cases_.size() >= enough ||
         std::count_if(cases_.begin(), cases_.end(), [&](Case const& of) { return of.way == way; }) >= enough_of_a_way;
}

void Shrinker::add(Scene const& scene, Failure const& failure) {
  if (!scene.walk) return;
  if (has_enough(failure)) return pass_over(scene, failure);
  Case& added = cases_.emplace_back();
  added.scene = &scene;
  added.way = way_of(failure);
  added.failure = added.first_failure = failure;
  added.original = scene_of(*scene.walk);
  Walk walk = *scene.walk;
  walk.title += ", shrunk";
  added.shortest = scene_of(walk);
}

Settings const& Shrinker::settings() {
  if (!cases_.empty() && cases_.front().confirming) return settings_;
  shorter_ = settings_;
  shorter_.step_limit = std::max(settings_.step_limit / part_of_step_limit, std::chrono::seconds(1));
  return shorter_;
}

/// Finds what is smaller than the shortest walk so far: the largest cuts come first.
void Shrinker::find_candidates(Case& of) {
  Walk const& walk = of.shortest.walk;
  of.candidates.clear();
  auto const offer = [&](Walk smaller, std::size_t cut = 0) { of.candidates.push_back({std::move(smaller), cut}); };
  if (auto const* line = of.shortest.at(of.failure.line); line != nullptr && line->action + 1 < walk.actions.size())
    offer(without(walk, line->action + 1, walk.actions.size()));
  for (std::size_t client = 0; client < walk.clients.size(); ++client) {
    Walk smaller = without_client(walk, client);
    if (smaller.actions.size() < walk.actions.size()) offer(std::move(smaller));
  }
  for (std::size_t cut = std::min(of.cut, walk.actions.size() / 2); cut > 0; cut /= 2)
    for (std::size_t first = 0; first < walk.actions.size(); first += cut) offer(without(walk, first, cut), cut);
  for (std::size_t i = 0; i < walk.actions.size(); ++i) {
    Action const& action = walk.actions[i];
    if (action.then != Action::Then::stay) {
      Walk smaller = walk;
      smaller.actions[i].then = Action::Then::stay;
      offer(std::move(smaller));
    }
    if (action.then == Action::Then::stay && action.inputs.size() == 1 && action.inputs.front().lines.size() > 1) {
      Walk smaller = without(walk, i, 1);  // not shorter, but simpler: one line after the other
      for (std::size_t l = action.inputs.front().lines.size(); l > 0; --l)
        smaller.actions.insert(smaller.actions.begin() + static_cast<std::ptrdiff_t>(i),
                               Action{{Input{action.inputs.front().client, {action.inputs.front().lines[l - 1]}}}, {}});
      offer(std::move(smaller));
    }
    for (std::size_t k = 0; k < action.inputs.size(); ++k) {
      auto const& lines = action.inputs[k].lines;
      for (std::size_t l = 0; l < lines.size() && lines.size() > 1; ++l) {
        Walk smaller = walk;
        auto& left = smaller.actions[i].inputs[k].lines;
        left.erase(left.begin() + static_cast<std::ptrdiff_t>(l));
        offer(std::move(smaller));
      }
    }
  }
  for (std::size_t i = 0; i < walk.clients.size(); ++i) {
    if (!walk.clients[i].lazy) continue;
    Walk smaller = walk;
    smaller.clients[i].lazy = false;
    offer(std::move(smaller));
  }
  for (std::size_t i = 0; i < walk.actions.size(); ++i)
    for (std::size_t k = 0; k < walk.actions[i].inputs.size(); ++k)
      for (std::size_t l = 0; l < walk.actions[i].inputs[k].lines.size(); ++l)
        for (std::string& line : simpler(walk.actions[i].inputs[k].lines[l])) {
          Walk smaller = walk;
          smaller.actions[i].inputs[k].lines[l] = std::move(line);
          offer(std::move(smaller));
        }
}

/// Takes the next candidate that has not been played. Returns false if there is none.
bool Shrinker::take_candidate(Case& of) {
  while (!of.candidates.empty()) {
    candidate_ = scene_of(of.candidates.front().walk);
    candidate_cut_ = of.candidates.front().cut;
    of.candidates.pop_front();
    if (!candidate_.lines.empty() && of.tried.insert(candidate_.text).second) return true;
  }
  return false;
}

Scene const* Shrinker::next() {
  while (!cases_.empty()) {
    Case& of = cases_.front();
    if (of.plays == 0) {
      of.begin = Clock::now();
      of.cut = of.original.walk.actions.size();
      of.tried.insert(of.shortest.text);
      find_candidates(of);
    }
    auto const time = Clock::now() - of.begin;
    bool const may_go_on = of.plays < most_plays && time < most_time * settings_.step_limit &&
                           spent_ + time < most_time_of_all * settings_.step_limit;
    if (!of.confirming && may_go_on && take_candidate(of)) {
      ++of.plays;
      current_ = parse_scene(of.scene->file, candidate_.text);
      return &current_;
    }
    of.confirming = true;
    if (!of.shrunk || of.confirmations >= 3) {
      end(false);
      continue;
    }
    ++of.confirmations;
    ++of.plays;
    current_ = parse_scene(of.scene->file, of.shortest.text);
    return &current_;
  }
  return nullptr;
}

void Shrinker::played(Failure const* failure) {
  Case& of = cases_.front();
  if (failure == nullptr || way_of(*failure) != of.way) return;
  of.failure = *failure;
  if (of.confirming) {
    return end(true);
  }
  of.shortest = candidate_;
  of.shrunk = true;
  if (candidate_cut_ != 0) of.cut = candidate_cut_;
  find_candidates(of);
}

/// Ends the current case. It is confirmed if its shortest walk has failed once more.
void Shrinker::end(bool confirmed) {
  Case const& of = cases_.front();
  WalkScene const& scene = confirmed ? of.shortest : of.original;
  std::vector<std::string> remarks;
  if (!confirmed)
    remarks.push_back("shrunk    no: " +
                      std::string(of.shrunk ? "shorter scenes fail only now and then"
                                            : "none of the shorter scenes that were played fails so") +
                      ", in " + std::to_string(of.plays) + " plays");
  else
    remarks.push_back("shrunk    from " + std::to_string(of.original.walk.actions.size()) + " actions to " +
                      std::to_string(scene.walk.actions.size()) + ", in " + std::to_string(of.plays) + " plays");
  remarks.emplace_back("scene     to play it again, save these lines as FILE.scene, without the blanks before them:");
  for (std::size_t begin = 0; begin < scene.text.size();) {
    std::size_t const end = scene.text.find('\n', begin);
    remarks.push_back("    " + scene.text.substr(begin, end - begin));
    begin = end + 1;
  }
  tell(*of.scene, scene, confirmed ? of.failure : of.first_failure, std::move(remarks));
  spent_ += Clock::now() - of.begin;
  cases_.pop_front();
}

void Shrinker::pass_over(Scene const& scene) { pass_over(scene, report_.failure_of(scene)); }

void Shrinker::pass_over(Scene const& scene, Failure failure) {
  failure.before.clear();
  tell(scene, scene_of(*scene.walk), failure, {"shrunk    no: enough scenes fail; to see it: --show " + scene.name});
}

void Shrinker::tell(Scene const& scene, WalkScene const& shown, Failure const& failure,
                    std::vector<std::string> remarks) {
  auto const* line = shown.at(failure.line);
  report_.tell(scene, failure, line != nullptr ? line->rule : scene.rule, parse_scene(scene.file, shown.text).uses,
               std::move(remarks));
}

}  // namespace conformance
