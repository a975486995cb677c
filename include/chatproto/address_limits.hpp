// SPDX-License-Identifier: BSL-1.0
/// @file
/// `AddressLimits`: how many clients one address may have, and how many new ones.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <mutex>
#include <optional>
#include <utility>

#include <asio/ip/address.hpp>

#include <chatproto/detail/addresses.hpp>
#include <chatproto/observer.hpp>
#include <chatproto/token_bucket.hpp>

namespace chatproto {

/// Limits, for each address, the number of clients at once, and the rate of new ones (by a `TokenBucket`). All IPv6
/// addresses with the same first 64 bits count as one address, because a single user has as many.
///
/// @code
/// chatproto::AddressLimits limits({.most = 64, .rate = 1, .burst = 32});
/// chatproto::AddressLimits::Place place;  // held as long as the client is connected
/// auto const now = chatproto::TokenBucket::Clock::now();
/// if (limits.admit(asio::ip::make_address("192.0.2.7"), now, place)) std::cout << "refused\n";
/// @endcode
///
/// Its memory is bounded: it knows the addresses of clients that hold a place, and of those that hold none the `memory`
/// latest whose bucket is not full. An address that is forgotten has a full bucket again, so an attacker with more than
/// `memory` addresses gains no more than these addresses give it anyway: `burst` clients from each of them.
///
/// Thread safety: distinct objects: safe. Shared objects: safe. It must outlive its places.
class AddressLimits {
  struct Entry;
  using Entries = std::list<Entry>;

 public:
  using Clock = TokenBucket::Clock;  ///< the clock of the rate

  /// The limits for one address.
  struct Options {
    std::size_t most = 0;        ///< clients at once; 0: no limit
    double rate = 0;             ///< new clients per second in the long run; 0: no limit
    double burst = 1;            ///< new clients at once before `rate` applies
    std::size_t memory = 16384;  ///< addresses that have no client and are remembered for `rate`
  };

  /// A client's place among those of its address, free again when this is destroyed. Movable; empty by default.
  class Place {
   public:
    Place() = default;  ///< no place
    /// Takes over the place of `other`, which is then empty.
    Place(Place&& other) noexcept : limits_(std::exchange(other.limits_, nullptr)), entry_(other.entry_) {}
    /// Frees its own place and takes over the place of `other`.
    Place& operator=(Place other) noexcept {
      std::swap(limits_, other.limits_);
      std::swap(entry_, other.entry_);
      return *this;
    }
    ~Place() {
      if (limits_ != nullptr) limits_->leave(entry_);
    }

   private:
    friend class AddressLimits;
    Place(AddressLimits& limits, Entries::iterator entry) noexcept : limits_(&limits), entry_(entry) {}

    AddressLimits* limits_ = nullptr;
    Entries::iterator entry_ = {};
  };

  /// Constructs the limits; no address has a client.
  explicit AddressLimits(Options options) : options_(options) {}
  AddressLimits(AddressLimits const&) = delete;
  AddressLimits& operator=(AddressLimits const&) = delete;

  /// Returns whether there is any limit.
  bool is_on() const noexcept { return options_.most > 0 || options_.rate > 0; }

  /// Gives a client of `address` a place. Otherwise returns why there is none: `RefusalReason::too_many` or `too_fast`.
  /// A refused client does not count. Throws `std::bad_alloc`.
  std::optional<RefusalReason> admit(asio::ip::address const& address, Clock::time_point now, Place& place) {
    if (!is_on()) return {};
    auto const key = key_of(address);
    std::unique_lock lock(mutex_);
    auto const entry = find_or_add(key, now);  // also if it is refused: who comes again and again is not forgotten
    if (options_.most > 0 && entry->clients >= options_.most) return RefusalReason::too_many;
    if (options_.rate > 0 && !entry->bucket.take(now)) return RefusalReason::too_fast;
    if (std::exchange(entry->is_idle, false)) busy_.splice(busy_.end(), idle_, entry);
    ++entry->clients;
    lock.unlock();  // the old place, if there is one, needs it
    place = Place(*this, entry);
    return {};
  }

  /// Returns how long it takes until the rate allows `address` one more client; 0 if it does. Does not count one.
  Clock::duration wait(asio::ip::address const& address, Clock::time_point now) {
    auto const key = key_of(address);
    std::lock_guard const lock(mutex_);
    auto const at = index_.find(key);
    if (at == index_.end() || options_.rate <= 0) return {};
    move_to_end(at->second);
    return at->second->bucket.wait(now);
  }
  /// Counts for the rate what is no client, such as a wrong secret, even if the rate is exceeded, which delays what
  /// follows. Throws `std::bad_alloc`.
  void owe(asio::ip::address const& address, Clock::time_point now) {
    if (options_.rate <= 0) return;
    auto const key = key_of(address);
    std::lock_guard const lock(mutex_);
    find_or_add(key, now)->bucket.owe(now);
    forget_beyond_memory();
  }

  /// Returns the number of addresses that it knows.
  std::size_t size() const {
    std::lock_guard const lock(mutex_);
    return index_.size();
  }

 private:
  using Key = std::pair<bool, std::array<std::uint8_t, 8>>;

  struct Entry {
    Entry(Key const& k, Options const& options)
        : key(k), bucket(options.rate > 0 ? options.rate : 1, std::max(options.burst, 1.0)) {}
    Key key;
    TokenBucket bucket;
    std::size_t clients = 0;
    bool is_idle = true;  // in idle_
  };

  static Key key_of(asio::ip::address const& any) {
    auto const address = detail::unmapped(any);
    Key key(address.is_v4(), {});
    auto const copy = [&](auto const& bytes, std::size_t count) {
      std::copy_n(bytes.begin(), count, key.second.begin());
    };
    address.is_v4() ? copy(address.to_v4().to_bytes(), 4) : copy(address.to_v6().to_bytes(), 8);
    return key;
  }

  /// Returns the entry of an address, which is now the last to be forgotten. A new one is idle.
  Entries::iterator find_or_add(Key const& key, Clock::time_point now) {
    forget_full_buckets(now);
    auto const [at, is_new] = index_.try_emplace(key);
    if (!is_new) {
      move_to_end(at->second);
      return at->second;
    }
    try {
      return at->second = idle_.insert(idle_.end(), Entry{key, options_});
    } catch (...) {
      index_.erase(at);
      throw;
    }
  }
  void move_to_end(Entries::iterator entry) noexcept {
    auto& list = entry->is_idle ? idle_ : busy_;
    list.splice(list.end(), list, entry);
  }
  void leave(Entries::iterator entry) noexcept {
    std::lock_guard const lock(mutex_);
    if (--entry->clients > 0) return;
    entry->is_idle = true;
    idle_.splice(idle_.end(), busy_, entry);
    if (options_.rate <= 0) return forget(entry);
    forget_beyond_memory();
  }
  void forget_beyond_memory() noexcept {
    if (idle_.size() > options_.memory) forget(idle_.begin());
  }
  /// Two at each step, so that they become fewer and no step takes long.
  void forget_full_buckets(Clock::time_point now) noexcept {
    for (auto i = 0; i < 2 && !idle_.empty() && idle_.front().bucket.is_full(now); ++i) forget(idle_.begin());
  }
  void forget(Entries::iterator entry) noexcept {
    index_.erase(entry->key);
    idle_.erase(entry);
  }

  Options const options_;
  mutable std::mutex mutex_;                // guards the following members
  std::map<Key, Entries::iterator> index_;  // not a hash table: clients may choose their addresses
  Entries busy_, idle_;                     // with clients and without; the latest at the end
};

}  // namespace chatproto
