// SPDX-License-Identifier: BSL-1.0
/// @file
/// `Layer`, which the bytes of a connection pass through between its socket and its lines; for example TLS.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>

namespace chatproto {

/// A socket of the system.
#ifdef _WIN32
using NativeSocket = std::uintptr_t;
#else
using NativeSocket = int;
#endif

/// A layer of one connection, which reads from and writes to the connection's socket. No call waits.
///
/// Each step returns what it came to. A step that could not be finished says what the socket must allow before the step
/// is tried again.
///
/// A layer may hold output: bytes that it took and the socket did not, yet. `flush` writes them.
///
/// Thread safety: distinct objects: safe. Shared objects: unsafe.
class Layer {
 public:
  /// What the socket must allow before a step is tried again.
  enum class Wait : std::uint8_t {
    nothing,  ///< the step is done
    read,     ///< input
    write,    ///< output
  };

  /// The result of a step.
  struct Result {
    std::size_t bytes = 0;       ///< bytes read, taken, or written to the socket
    Wait wait = Wait::nothing;   ///< what to wait for
    std::error_code error = {};  ///< why the connection has failed
  };

  Layer() = default;
  Layer(Layer const&) = delete;
  Layer& operator=(Layer const&) = delete;
  virtual ~Layer() = default;

  /// Continues the handshake. Until that is done, no other step but `flush` is called. An error that equals
  /// `std::errc::not_connected` means that the other end got what it wanted, which was no connection for lines.
  virtual Result handshake() = 0;
  /// Reads at most `size` bytes, not 0. No bytes, no wait and no error: the other end has closed its side. An error
  /// that equals `std::errc::protocol_error` means that its bytes make no sense: it gets the output that is left, is
  /// told why by `close_output`, and what it still sends is dropped.
  virtual Result read_some(char* bytes, std::size_t size) = 0;
  /// Takes these bytes; fewer only if the layer then holds output. Takes none while it holds output.
  virtual Result write(char const* bytes, std::size_t size) = 0;
  /// Writes the output that the layer holds. `Wait::write`: it still holds some.
  virtual Result flush() = 0;
  /// Returns whether `read_some` might return more now, although the socket has no input.
  virtual bool has_input() const noexcept = 0;
  /// Tells the other end that nothing follows. The layer may hold that as output.
  virtual void close_output() noexcept = 0;

  /// Returns the bytes of input and output that the layer holds.
  virtual std::size_t held() const noexcept { return 0; }
  /// Returns whether nobody on the way can read the bytes.
  virtual bool is_encrypted() const noexcept { return false; }
  /// Returns the name in the other end's certificate, if there is one and it was verified.
  virtual std::string certificate() const { return {}; }
};

/// Makes the layers of a listener's clients, or of a `Connection`.
///
/// Thread safety: distinct objects: safe. Shared objects: safe.
class LayerFactory {
 public:
  LayerFactory() = default;
  LayerFactory(LayerFactory const&) = delete;
  LayerFactory& operator=(LayerFactory const&) = delete;
  virtual ~LayerFactory() = default;

  /// Returns a layer for a connected, non-blocking socket, which outlives it. `host` is the name or address that a
  /// client connected to; a server's is empty. Throws `std::system_error` or `std::bad_alloc`.
  virtual std::unique_ptr<Layer> make_layer(NativeSocket socket, std::string_view host) = 0;
};

}  // namespace chatproto
