// SPDX-License-Identifier: BSL-1.0
#include "scene.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>

namespace conformance {
namespace {

namespace fs = std::filesystem;

}  // namespace

std::string name_in(std::string const& file) { return fs::path(file).stem().string(); }

FileText read_file(std::string const& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in) throw BadScene(file + ": cannot be read");
  return {file, std::string(std::istreambuf_iterator<char>(in), {})};
}

Text pattern_of(std::string_view name) {
  Text pattern;
  for (char const c : name) c == '*' ? pattern.add_any() : pattern.add(std::string(1, c));
  return pattern;
}

std::vector<FileText> find_scenes(std::string const& name, std::vector<FileText> const& built_in) {
  std::vector<FileText> found;
  if (fs::is_directory(name)) {
    for (auto const& entry : fs::directory_iterator(name))
      if (entry.path().extension() == ".scene") found.push_back(read_file(entry.path().string()));
    std::sort(found.begin(), found.end(), [](auto const& a, auto const& b) { return a.file < b.file; });
    if (found.empty()) throw BadScene("no *.scene in " + name);
  } else if (fs::exists(name)) {
    found.push_back(read_file(name));
  } else {
    Text const pattern = pattern_of(name);
    for (FileText const& scene : built_in)
      if (pattern.matches(name_in(scene.file), {})) found.push_back(scene);
    if (found.empty())
      throw BadScene(name + ": there is no such file or folder, and no scene of this name (see --list)");
  }
  return found;
}

bool Scene::needs_server() const {
  return connects() || std::any_of(steps.begin(), steps.end(), [](Step const& step) {
           return step.verb == Verb::run && step.source.find("{serverport}") != std::string::npos;
         });
}

bool Scene::connects() const {
  return std::any_of(steps.begin(), steps.end(),
                     [](Step const& step) { return step.verb == Verb::connect && step.text.empty(); });
}

bool Scene::starts_program() const {
  return std::any_of(steps.begin(), steps.end(), [](Step const& step) { return step.verb == Verb::run; });
}

bool Scene::needs_terminal() const {
  return std::any_of(actors.begin(), actors.end(), [](Actor const& actor) { return actor.terminal != Terminal::none; });
}

Level level_of(std::string_view name) {
  for (Level const level : all_levels)
    if (name == name_of(level)) return level;
  throw std::invalid_argument("no level is called '" + std::string(name) + "': basic, robust or concurrent");
}

Basis basis_of(std::string_view name) {
  static std::map<std::string_view, Basis> const names{
      {"sender", Basis::sender},     {"receiver", Basis::receiver}, {"company", Basis::company}, {"join", Basis::join},
      {"delivery", Basis::delivery}, {"err", Basis::err},           {"names", Basis::names}};
  auto const found = names.find(name);
  if (found != names.end()) return found->second;
  throw std::invalid_argument("'provides:' is sender, receiver, company, join, delivery, err or names");
}

char const* name_of(Level level) {
  switch (level) {
    case Level::basic: return "basic";
    case Level::robust: return "robust";
    case Level::concurrent: break;
  }
  return "concurrent";
}

}  // namespace conformance
