// SPDX-License-Identifier: BSL-1.0
// Steps of a play for the programs that it starts.
#include "play.hpp"

#include <system_error>

namespace conformance {

void Play::run() {
  std::vector<std::string> arguments;
  for (Text const& argument : step().arguments) arguments.push_back(argument.bytes(fill_));
  arguments.front() = settings_.programs.at(arguments.front());
  try {
    Role& of = role();
    of.process = start_program(executor_, arguments, actor().terminal);
    of.to = std::move(of.process->in);
    of.from = std::move(of.process->out);
    of.errors = std::move(of.process->err);
    of.inbox.open(of.from.get());
    of.complaints.open(of.errors.get());
  } catch (std::system_error const& error) {
    return fail(error.what());
  }
  advance();
}

void Play::complain() {
  role().complaints.wait_for_line(guarded([this] {
    Inbox& complaints = role().complaints;
    if (!complaints.has_line()) return fail(complaints.shown());
    std::string const line = complaints.take_line();
    if (line.empty() || !step().text.matches(line, fill_)) return fail(escaped(line + "\n"));
    advance();
  }));
}

void Play::prompt() {
  role().inbox.wait_for_something(guarded([this] {
    Inbox& inbox = role().inbox;
    if (inbox.bytes().empty() || inbox.has_line()) return fail(inbox.shown());
    inbox.clear();
    advance();
  }));
}

void Play::exit() {
  role().inbox.wait_for_line(guarded([this] {
    Inbox& inbox = role().inbox;
    // A terminal may show prompts, which are free text.
    if (actor().terminal == Terminal::both || scene_.prompts_anywhere) inbox.clear();
    if (!inbox.bytes().empty()) return fail("on stdout: " + inbox.shown());
    if (!inbox.end()) return exit();
    wait_for_exit();
  }));
}

void Play::wait_for_exit() {
  role().complaints.wait_for_line(guarded([this] {
    Inbox& complaints = role().complaints;
    if (step().free_stderr) complaints.clear();
    if (!complaints.bytes().empty()) return fail("on stderr: " + complaints.shown());
    if (!complaints.end()) return wait_for_exit();
    auto const end = role().process->poll();
    if (!end) return pause(std::chrono::milliseconds(1), &Play::wait_for_exit);
    if (end->signal != 0) return fail("it was ended by signal " + std::to_string(end->signal));
    if (step().number == nonzero ? end->code == 0 : end->code != step().number)
      return fail("exit code " + std::to_string(end->code));
    advance();
  }));
}

}  // namespace conformance
