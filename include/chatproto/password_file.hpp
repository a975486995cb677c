// SPDX-License-Identifier: BSL-1.0
/// @file
/// `PasswordFile`: a file of names and their hashed secrets, for `ChatOptions::authenticate`. Needs libsodium, and
/// CMake's target `chatproto::passwords`; chatproto/chatproto.hpp does not include this header.
#pragma once

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <sodium.h>
#include <asio/ip/address.hpp>

#include <chatproto/address_limits.hpp>
#include <chatproto/login.hpp>
#include <chatproto/message.hpp>

namespace chatproto {

/// What a check of a secret costs: see `crypto_pwhash` of libsodium. All lines of a file must have the same cost, so
/// that the time of a check does not tell whether a name exists.
struct PasswordCost {
  unsigned long long operations = crypto_pwhash_OPSLIMIT_INTERACTIVE;  ///< passes over the memory
  std::size_t memory = crypto_pwhash_MEMLIMIT_INTERACTIVE;             ///< bytes: 64 MiB, for each thread that checks
};

/// The options of a `PasswordFile`.
struct PasswordOptions {
  /// Whether only the names in the file may log in. Otherwise, all others may too, without a secret.
  bool members_only = false;
  /// The number of threads that check secrets; each check takes some 50 ms of one of them.
  unsigned threads = 1;
  /// How many logins may wait for these threads; further ones are refused.
  std::size_t queue_limit = 128;
  /// How many wrong secrets are allowed at once for an IPv4 address, or for an IPv6 network of 64 bits; ...
  std::size_t guesses = 5;
  /// ... and the time after which one more is. The names do not matter. As several threads check, as many more wrong
  /// secrets may slip through.
  std::chrono::milliseconds guess_interval = std::chrono::seconds(10);
  /// For how many of these addresses wrong secrets are remembered. Beyond that, the one that came longest ago is
  /// forgotten.
  std::size_t most_addresses = 10'000;
  /// If set, called for each login that is refused because of its secret, the lack of one, or too many wrong ones. Any
  /// thread may be the caller, several at once; it must not throw.
  std::function<void(std::string_view name, std::string_view address)> refused = {};
  PasswordCost cost = {};  ///< of each line
};

/// Names and their secrets, from a file of lines `name:hash`, as `line` makes them (argon2id). Empty lines, and those
/// that begin with `#`, do not count.
///
/// A name in the file needs its secret; or a verified certificate for this name. `PasswordOptions::members_only` says
/// whether other names may log in, with or without a certificate. If a client brings a secret, it must be right: with a
/// name that is not in the file it is refused like a wrong one, after the same time.
///
/// @code
/// auto const passwords = std::make_shared<chatproto::PasswordFile>("passwords");
/// chatproto::Server<chatproto::ThreadPool> server({.port = 47374}, chatproto::ChatOptions{
///   .authenticate = [passwords](auto credentials, auto verdict) {
///     passwords->check(std::move(credentials), std::move(verdict));
///   }});
/// @endcode
///
/// Thread safety: distinct objects: safe. Shared objects: safe.
class PasswordFile {
 public:
  /// Reads the file, and starts the threads. Throws `std::runtime_error`, which says what is wrong in which line.
  explicit PasswordFile(std::string path, PasswordOptions options = {})
      : path_(std::move(path)),
        options_(std::move(options)),
        wrong_({.rate = 1000.0 / static_cast<double>(
                                     std::max<std::chrono::milliseconds::rep>(options_.guess_interval.count(), 1)),
                .burst = static_cast<double>(options_.guesses),
                .memory = std::max<std::size_t>(options_.most_addresses, 1)}) {
    std::array<char, 16> nobody;
    start_sodium();
    randombytes_buf(nobody.data(), nobody.size());
    nobody_ = hash({nobody.data(), nobody.size()}, options_.cost);
    reload();
    try {
      for (unsigned i = 0; i < std::max(options_.threads, 1u); ++i) threads_.emplace_back([this] { work(); });
    } catch (...) {
      stop();
      throw;
    }
  }
  PasswordFile(PasswordFile const&) = delete;
  PasswordFile& operator=(PasswordFile const&) = delete;
  /// Refuses all that still waits.
  ~PasswordFile() { stop(); }

  /// Decides a login: at once if that needs no check of a secret, otherwise by a thread of its own. Never blocks.
  void check(Credentials credentials, Verdict verdict) {
    auto const names = this->names();
    auto const is_member = names->contains(credentials.name);
    // The layer of its listener has verified the certificate.
    if (!credentials.client.certificate.empty() && credentials.client.certificate == credentials.name &&
        (is_member || !options_.members_only))
      return verdict.accept();
    if (credentials.secret.empty()) {
      if (!is_member && !options_.members_only) return verdict.accept();
      return refuse(credentials, verdict);
    }
    {
      std::lock_guard const lock(mutex_);
      if (jobs_.size() < options_.queue_limit) {
        jobs_.push_back({std::move(credentials), std::move(verdict)});
        work_.notify_one();
        return;
      }
    }
    verdict.refuse("too many logins at once; try again later");
  }

  /// Reads the file again. If that fails, what was read before stays. Throws as the constructor does. What is under
  /// check is decided by the old file or by the new one.
  void reload() {
    auto names = std::make_shared<Names const>(read());
    std::lock_guard const lock(names_mutex_);
    names_.swap(names);
  }
  /// Returns the number of names in the file.
  std::size_t size() const { return names()->size(); }

  /// Returns a line of such a file. Takes some 50 ms. Throws `std::runtime_error` for an invalid name, for a secret
  /// that no client can send, or if memory is short.
  static std::string line(std::string_view name, std::string_view secret, PasswordCost cost = {}) {
    if (!is_valid_name(name))
      throw std::runtime_error("'" + std::string(name) + "' is no name: letters and digits only");
    if (secret.empty()) throw std::runtime_error("the secret is empty");
    if (check_text(secret, tag::pass.size() + 1)) throw std::runtime_error("no client can send this secret");
    start_sodium();
    return std::string(name) + ':' + hash(secret, cost).data();
  }

 private:
  using Hash = std::array<char, crypto_pwhash_STRBYTES>;  // a text, terminated by NULs
  using Names = std::map<std::string, Hash, std::less<>>;
  struct Job {
    Credentials credentials;
    Verdict verdict;
  };

  static void start_sodium() {
    if (sodium_init() < 0) throw std::runtime_error("libsodium cannot be used");
  }
  static Hash hash(std::string_view secret, PasswordCost const& cost) {
    Hash hash{};
    if (crypto_pwhash_str(hash.data(), secret.data(), secret.size(), cost.operations, cost.memory) != 0)
      throw std::runtime_error("no memory to hash a secret");
    return hash;
  }

  Names read() const {
    errno = 0;
    std::ifstream in(path_, std::ios::binary);
    auto const fail = [&](std::string const& what) { throw std::runtime_error("'" + path_ + "': " + what); };
    if (!in) fail("cannot be read: " + std::generic_category().message(errno));
    Names names;
    std::string line;
    for (auto number = 1; std::getline(in, line); ++number) {
      if (line.ends_with('\r')) line.pop_back();
      if (line.empty() || line.front() == '#') continue;
      if (auto const wrong = add(names, line); !wrong.empty()) fail("line " + std::to_string(number) + ": " + wrong);
    }
    if (in.bad()) fail("cannot be read: " + std::generic_category().message(errno));
    return names;
  }
  /// Returns what is wrong, if anything is.
  std::string add(Names& names, std::string_view line) const {
    auto const colon = line.find(':');
    auto const name = line.substr(0, colon);
    if (colon == line.npos || !is_valid_name(name)) return "not NAME:HASH (a name has letters and digits only)";
    auto const text = line.substr(colon + 1);
    Hash hash{};
    if (!text.starts_with("$argon2id$") || text.size() >= hash.size()) return "no argon2id hash";
    std::copy(text.begin(), text.end(), hash.begin());
    switch (crypto_pwhash_str_needs_rehash(hash.data(), options_.cost.operations, options_.cost.memory)) {
      case 0: break;
      case 1: return "a hash of another cost, whose time would tell that the name exists";
      default: return "no argon2id hash";
    }
    return names.emplace(name, hash).second ? "" : "the name is there twice";
  }
  std::shared_ptr<Names const> names() const {
    std::lock_guard const lock(names_mutex_);
    return names_;
  }

  void refuse(Credentials const& credentials, Verdict& verdict, std::string reason = {}) const {
    if (options_.refused) options_.refused(credentials.name, credentials.client.address);
    verdict.refuse(std::move(reason));
  }

  void work() {
    std::unique_lock lock(mutex_);
    for (;;) {
      work_.wait(lock, [this] { return stops_ || !jobs_.empty(); });
      if (stops_) return;
      {
        auto job = std::move(jobs_.front());
        jobs_.pop_front();
        lock.unlock();
        try {
          decide(job);
        } catch (...) {  // out of memory: the verdict refuses
        }
      }
      lock.lock();
    }
  }
  void decide(Job& job) {
    auto& [credentials, verdict] = job;
    if (!verdict.is_wanted()) return;
    auto const address = address_of(credentials.client.address);
    if (wrong_.wait(address, AddressLimits::Clock::now()) > AddressLimits::Clock::duration::zero())
      return refuse(credentials, verdict, "too many wrong secrets from your address; wait a while");
    auto const names = this->names();
    auto const at = names->find(credentials.name);
    // An unknown name costs the same time.
    auto const& hash = at != names->end() ? at->second : nobody_;
    auto const secret = credentials.secret.view();
    errno = 0;
    auto const matches = crypto_pwhash_str_verify(hash.data(), secret.data(), secret.size()) == 0;
    if (matches && at != names->end()) return verdict.accept();
    if (!matches && errno == ENOMEM) return verdict.refuse("out of memory; try again later");
    wrong_.owe(address, AddressLimits::Clock::now());
    refuse(credentials, verdict);
  }

  /// Returns the address that wrong secrets are counted for; 0.0.0.0 if the client's is not known.
  static asio::ip::address address_of(std::string_view address_and_port) {
    auto text = address_and_port.substr(0, address_and_port.rfind(':'));
    if (text.starts_with('[') && text.ends_with(']')) text = text.substr(1, text.size() - 2);
    std::error_code ec;
    return asio::ip::make_address(std::string(text), ec);
  }

  void stop() noexcept {
    {
      std::lock_guard const lock(mutex_);
      stops_ = true;
      work_.notify_all();
    }
    for (auto& thread : threads_) thread.join();
  }

  std::string const path_;
  PasswordOptions const options_;
  Hash nobody_;
  mutable std::mutex names_mutex_;  // guards names_
  std::shared_ptr<Names const> names_;
  AddressLimits wrong_;  // secrets
  std::mutex mutex_;     // guards what follows, but the threads
  std::condition_variable work_;
  std::deque<Job> jobs_;
  bool stops_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace chatproto
