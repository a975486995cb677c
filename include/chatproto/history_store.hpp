// SPDX-License-Identifier: BSL-1.0
/// @file
/// `HistoryStore`: where the histories of rooms outlive the server.
#pragma once

#include <functional>
#include <string_view>

namespace chatproto {

/// Where the histories of rooms outlive the server.
///
/// Thread safety: distinct objects: safe. Shared objects: safe.
class HistoryStore {
 public:
  /// Whole lines of deliveries that one append brought into a room's log, and whom they are for.
  struct Said {
    std::string_view lines;  ///< lines with their terminators
    std::string_view user;   ///< a user's name
    bool only = false;       ///< true: for `user` alone; false: for all others
  };

  HistoryStore() = default;
  HistoryStore(HistoryStore const&) = delete;
  HistoryStore& operator=(HistoryStore const&) = delete;
  virtual ~HistoryStore() = default;

  /// Calls `take` for everything that is kept: within a room in the order in which it was said, and the room that was
  /// used last comes last. Called once, before all others. Throws what the store's constructor documents.
  virtual void load(std::function<void(std::string_view room, Said const& said)> const& take) = 0;
  /// Keeps what a room's log has taken. Called under the room's lock: must neither wait for a disk nor throw.
  virtual void append(std::string_view room, Said const& said) noexcept = 0;
};

}  // namespace chatproto
