// SPDX-License-Identifier: BSL-1.0
// The client's end of TLS 1.3 for bench_load. It shares no code with chatproto/tls.hpp, so that neither can hide the
// other's faults.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace tls {

/// TLS on a connected socket that does not block.
class Stream {
 public:
  enum class Step : std::uint8_t { done, wants_to_read, wants_to_write, failed };

  virtual ~Stream() = default;

  /// Goes on with the handshake. To be called again when the socket is ready.
  virtual Step shake_hands() = 0;
  /// As recv() and send(): bytes, 0 at the end, or -1 and errno, which is EPROTO for an error of TLS.
  virtual ssize_t receive(char* to, std::size_t size) = 0;
  virtual ssize_t send(char const* from, std::size_t size) = 0;
  /// Whether it has read bytes from the socket that receive() has not returned, which epoll does not show.
  virtual bool has_pending() const = 0;
  /// Sends close_notify.
  virtual void say_end() = 0;
  /// Why the last call failed.
  virtual std::string why() const = 0;
};

/// Returns a stream for a connected socket. It trusts any certificate, offers TLS 1.3 alone, with the key exchange and
/// the cipher that OpenSSL's clients prefer, so that all servers do the same work, and never resumes a session. Throws
/// if the program was built without OpenSSL.
std::unique_ptr<Stream> open(int fd);

}  // namespace tls
