// SPDX-License-Identifier: BSL-1.0
/// @file
/// The server's flags for names that need a secret.
#pragma once

#include <chrono>
#include <cstdio>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include <chatproto/chat_service.hpp>
#ifdef CHATPROTO_PROGRAMS_HAVE_PASSWORDS
#include <chatproto/password_file.hpp>
#endif

#include "program.hpp"
#include "secret.hpp"
#include "serving.hpp"

namespace program {

class PasswordFlags {
 public:
  void add_to(CLI::App& app) {
    auto* const file =
        app.add_option("--passwords", file_,
                       "File of names that need a secret, and their hashed secrets; read again after SIGHUP")
            ->type_name("FILE");
    app.add_flag("--members-only", members_only_, "Only names in the file of --passwords may log in")->needs(file);
    app.add_flag("--insecure-passwords", insecure_,
                 "Accept secrets over connections that are neither encrypted nor from this machine")
        ->needs(file);
    app.add_option_function<std::string>(
           "--hash",
           [](std::string const& name) {
             print_hash(name);
             throw CLI::Success();
           },
           "Read a secret from stdin, print the line with this name for the file of --passwords, and exit")
        ->type_name("NAME");
  }

  /// Reads the file, if there is one, and has `serving` read it again. `refused` is called for each login that is
  /// refused, by any thread. Throws `std::runtime_error`.
  chatproto::ChatOptions options(
      [[maybe_unused]] ServerFlags& serving,
      [[maybe_unused]] std::function<void(std::string_view, std::string_view)> refused) const {
    if (file_.empty()) return {};
#ifdef CHATPROTO_PROGRAMS_HAVE_PASSWORDS
    auto const passwords = std::make_shared<chatproto::PasswordFile>(
        file_, chatproto::PasswordOptions{.members_only = members_only_, .refused = std::move(refused)});
    serving.reloaders.push_back([passwords] { passwords->reload(); });
    return {.authenticate =
                [passwords](chatproto::Credentials credentials, chatproto::Verdict verdict) {
                  passwords->check(std::move(credentials), std::move(verdict));
                },
            .insecure_passwords = insecure_};
#else
    throw std::runtime_error(built_without);
#endif
  }

 private:
#ifdef CHATPROTO_PROGRAMS_HAVE_PASSWORDS
  static void print_hash(std::string const& name) {
    print_or_fail(chatproto::PasswordFile::line(name, new_secret(name).view()));
  }
  static chatproto::Secret new_secret(std::string const& name) {
    if (!is_terminal(stdin)) {
      auto secret = read_secret(0, "stdin");
      if (!secret) throw std::runtime_error("there is no secret on stdin");
      return std::move(*secret);
    }
    auto secret = ask_for_secret("Secret of " + name + ": ");
    if (ask_for_secret("The same again: ").view() != secret.view()) throw std::runtime_error("that was not the same");
    return secret;
  }
#else
  static constexpr auto built_without = "--passwords and --hash need libsodium, without which this server was built";
  static void print_hash(std::string const& /*name*/) { throw std::runtime_error(built_without); }
#endif

  std::string file_;
  bool members_only_ = false, insecure_ = false;
};

}  // namespace program
