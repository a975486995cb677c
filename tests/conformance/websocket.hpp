// SPDX-License-Identifier: BSL-1.0
// WebSocket to the server under test, by wslay and http-parser if the program was built with them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "channel.hpp"

namespace conformance {

/// Returns WebSocket (RFC 6455), over `over` if that is not null. `host` and `port` are what the request names as
/// `Host`. Throws if the program was built without WebSocket.
///
/// Whole lines that are written at once are one binary message. A piece of a line is a frame of its own, and the next
/// piece continues the message until the line ends: so messages hold whole lines, and frames need not. `finish` sends a
/// close frame and leaves the direction below open; `close` sends a close frame, too; `reset` sends nothing. What is
/// written after a close frame is dropped. A read takes the messages of the server, binary or text, when they are
/// complete, and fails with asio::error::eof only after the server's close frame.
std::shared_ptr<Wrapping const> make_websocket(std::shared_ptr<Wrapping const> over, std::string const& host,
                                               std::uint16_t port);

}  // namespace conformance
