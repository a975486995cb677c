// SPDX-License-Identifier: BSL-1.0
#include "run.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

#include <asio/post.hpp>

namespace conformance {
namespace {

/// Returns why the run cannot play a scene, or an empty string if it can.
std::string missing(Scene const& scene, Options const& options, asio::any_io_executor const& executor) {
  if (scene.needs == "login-deadline" && options.settings.login_deadline.count() == 0)
    return "needs --login-deadline MS, how long the server waits for a login";
  if (scene.needs == "ipv6" && !has_ipv6(executor)) return "needs IPv6";
  if (scene.starts_program() && !can_start_programs()) return "this system cannot start programs";
  for (Step const& step : scene.steps)
    if (step.verb == Verb::run && !options.settings.programs.contains(step.arguments.front().bytes({})))
      return std::string(needs_program) + step.arguments.front().bytes({}) + "=FILE";
  if (scene.needs == "secret" && !options.parts.contains(scene.needs))
    return "needs --secret NAME=SECRET, with which NAME may log in";
  if ((scene.needs == "history" || scene.needs == "presence") && !options.parts.contains(scene.needs))
    return "needs --" + scene.needs + ", for a server that has this";
  if (options.settings.wrapping && scene.starts_program() && scene.needs_server())
    return "its programs speak no " + options.settings.wrapping->name();
  if (scene.needs_terminal() && !options.terminal) return "needs a terminal";
  if (scene.needs_server() && !options.tests_server) return "needs a server to test";
  return {};
}

}  // namespace

Run::Run(asio::io_context& io, Options& options, std::vector<Scene> const& scenes, ServerUnderTest& server,
         Report& report)
    : io_(io), options_(options), server_(server), report_(report), shrinker_(report, options.settings) {
  std::vector<std::vector<Form>> forms;
  for (Scene const& scene : scenes) {
    forms.emplace_back();
    if (scene.level > options.level) continue;
    if (std::string const why = missing(scene, options, io.get_executor()); !why.empty())
      report_.skip(scene, why);
    else
      forms.back() = forms_of(scene, options.split, options.bytewise);
  }
  // One form of each scene, then the next form of each, so that different scenes meet at the server.
  for (std::size_t nth = 0, left = 1; left != 0; ++nth) {
    left = 0;
    for (std::size_t i = 0; i < scenes.size(); ++i) {
      if (nth >= forms[i].size()) continue;
      ++left;
      bool const is_basis = scenes[i].provides != Basis::none;
      if (options.only.empty())
        queues_[nth > 0 ? pieces : is_basis ? bases : whole].push_back({&scenes[i], forms[i][nth]});
      else if (forms[i][nth].name(scenes[i]) == options.only)
        queues_[whole].push_back({&scenes[i], forms[i][nth]});
    }
  }
  std::sort(queues_[bases].begin(), queues_[bases].end(),
            [](Entry const& a, Entry const& b) { return a.scene->provides < b.scene->provides; });
}

void Run::start() {
  watch_server();
  asio::post(io_, [this] { play_more(); });
}

void Run::stop(std::string const& why) {
  report_.server(why);
  io_.stop();
}

void Run::play_more() {
  while (auto const entry = take()) play(*entry);
  if (!now_.empty()) return;
  report_.complete();
  io_.stop();
}

/// Returns what to play next, or nothing if that has to wait for the end of a play or nothing is left.
std::optional<Run::Entry> Run::take() {
  if (!suspects_.empty() || alone_) {
    if (!now_.empty()) return {};
    alone_ = !suspects_.empty();
    unexplained_ = !alone_;
    if (alone_) {
      Entry const entry = suspects_.front().entry;
      suspects_.pop_front();
      return entry;
    }
    report_.server("it ended by itself while several scenes were played at once, and by none of them alone");
  }
  while (playing_ < options_.jobs) {
    bool const one_at_a_time =
        stage_ == bases || stage_ == alone || stage_ == smaller || missing_.contains(Basis::company);
    if (one_at_a_time && !now_.empty()) return {};
    if (stage_ == smaller) {
      if (Scene const* const scene = shrinker_.next()) return Entry{scene, {Form::Kind::alone, 0, 0}};
      ++stage_;
      continue;
    }
    auto& queue = queues_.at(stage_);
    if (queue.empty()) {
      if (!now_.empty() || stage_ + 1 == stages) return {};
      ++stage_;
      continue;
    }
    // Alone, what others use comes first. Scenes use each other in no circle.
    auto const waits = [&](Entry const& waiting) {
      return stage_ == alone && std::any_of(queue.begin(), queue.end(), [&](Entry const& other) {
               return waiting.scene->uses.contains(other.scene->name);
             });
    };
    auto const next = std::find_if_not(queue.begin(), queue.end(), waits);
    Entry const entry = *next;
    queue.erase(next);
    if (stage_ == alone && entry.scene->walk && shrinker_.has_enough(*entry.scene)) {
      shrinker_.pass_over(*entry.scene);
      continue;
    }
    auto const& relies_on = entry.scene->relies_on;
    auto const lost =
        std::find_if(relies_on.begin(), relies_on.end(), [this](Basis b) { return missing_.contains(b); });
    if (lost != relies_on.end()) {
      report_.cannot_check(*entry.scene, missing_.at(*lost));
      if (entry.scene->provides != Basis::none) missing_.emplace(entry.scene->provides, missing_.at(*lost));
    } else if (stage_ == alone && uses_lost(*entry.scene)) {
      lost_.insert(entry.scene->name);  // its failure says nothing, so it need not be played again
    } else if (entry.form.kind == Form::Kind::alone || !report_.gave_up(*entry.scene, entry.form)) {
      return entry;
    }
  }
  return {};
}

bool Run::uses_lost(Scene const& scene) const {
  return std::any_of(scene.uses.begin(), scene.uses.end(), [this](auto const& used) { return lost_.contains(used); });
}

void Run::play(Entry const& entry) {
  std::size_t const id = next_id_++;
  Settings const& settings = stage_ == smaller ? shrinker_.settings() : options_.settings;
  auto const play = std::make_shared<Play>(io_.get_executor(), *entry.scene, entry.form, settings,
                                           [this, id](Failure const* failure) { ended(id, failure); });
  Current& current = now_[id];
  current.entry = entry;
  current.play = play;
  ++playing_;
  play->start();
}

void Run::ended(std::size_t id, Failure const* failure) {
  Current& current = now_.at(id);
  current.ended = true;
  if (failure != nullptr) current.failure = *failure;
  --playing_;
  current.moment = std::make_unique<asio::steady_timer>(io_);
  bool const may_end_it = server_.started() && (stage_ != smaller || shrinker_.server_ends());
  current.moment->expires_after(std::chrono::milliseconds(may_end_it ? 150 : 0));
  current.moment->async_wait([this, id](std::error_code const& error) {
    if (!error) settle(id);
  });
  asio::post(io_, [this] { play_more(); });
}

void Run::settle(std::size_t id) {
  auto const found = now_.find(id);
  if (found == now_.end()) return;  // the server has died at this very moment
  Current const& current = found->second;
  if (current.failure && current.failure->no_server && !server_.started()) {
    std::string names;
    for (auto const& [other_id, other] : now_) names += " " + other.entry.scene->name;
    return stop("nobody takes connections there any more (" + current.failure->came + "); these scenes came last:" +
                names + "; to see which it was, let this program start the server: -- COMMAND {port}");
  }
  add(current.entry, current.failure ? &*current.failure : nullptr);
  now_.erase(found);
  play_more();
}

void Run::add(Entry const& entry, Failure const* failure) {
  if (stage_ == smaller) return shrinker_.played(failure);
  Scene const& scene = *entry.scene;
  if (report_.add(scene, entry.form, failure)) return;
  if (entry.form.kind == Form::Kind::alone || scene.provides != Basis::none) lost_.insert(scene.name);
  if (scene.provides != Basis::none) missing_.emplace(scene.provides, scene.name);
  if (scene.provides == Basis::names) options_.settings.distinct_names = true;
  if (stage_ == whole && entry.form.kind == Form::Kind::whole && options_.only.empty())
    queues_[alone].push_back({&scene, {Form::Kind::alone, 0, 0}});
  if (entry.form.kind == Form::Kind::alone) shrinker_.add(scene, *failure);
}

void Run::watch_server() {
  server_.watch([this](std::string const& how) { server_ended(how); });
}

void Run::server_ended(std::string const& how) {
  if (now_.empty() || (now_.size() > 1 && unexplained_)) return stop("it ended by itself, " + how);
  for (auto const& [id, current] : now_) current.play->abandon();
  if (now_.size() == 1) {
    Current const& last = now_.begin()->second;
    Failure failure = last.failure ? *last.failure : last.play->failure("the server goes on", {});
    failure.came = "the server ended, " + how;
    Entry const entry = {last.entry.scene, {Form::Kind::alone, 0, 0}};
    add(last.entry.form.kind == Form::Kind::whole ? entry : last.entry, &failure);  // it needs no company
    for (Current const& cleared : suspects_) {
      if (cleared.ended && !cleared.failure)
        add(cleared.entry, nullptr);
      else
        queues_.at(stage_).push_front(cleared.entry);
    }
    suspects_.clear();
  } else {
    suspect_all();
  }
  alone_ = false;
  now_.clear();
  playing_ = 0;
  try {
    options_.settings.server = server_.start();
  } catch (std::exception const& error) {
    return stop(error.what());
  }
  watch_server();
  play_more();
}

/// Plays that have passed come last.
void Run::suspect_all() {
  for (bool const passed : {false, true})
    for (auto& [id, current] : now_)
      if ((current.ended && !current.failure) == passed) suspects_.push_back(std::move(current));
}

}  // namespace conformance
