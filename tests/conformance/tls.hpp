// SPDX-License-Identifier: BSL-1.0
// TLS to the server under test, by OpenSSL if the program was built with it.
#pragma once

#include <memory>
#include <string>

#include "channel.hpp"

namespace conformance {

/// Whose certificates the suite accepts.
struct TlsOptions {
  bool is_on = false;       ///< otherwise plain TCP
  bool verifies = true;     ///< otherwise any certificate will do
  std::string authorities;  ///< a PEM file; empty: those of the system
};

/// Returns TLS. `name`: what the server's certificate must prove, a name or an address. Throws if that is not possible.
///
/// Each write is a record of its own (or several, if it is long), so that bytes sent in pieces arrive as pieces;
/// `finish` sends close_notify and leaves TCP's direction open; `close` sends close_notify, too; `reset` sends nothing.
/// A read fails with asio::error::eof only after the other end's close_notify.
std::shared_ptr<Wrapping const> make_tls(TlsOptions const& options, std::string const& name);

}  // namespace conformance
