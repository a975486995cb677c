// SPDX-License-Identifier: BSL-1.0
/// @file
/// Waiting until standard input, of whatever kind, can be read without blocking.
#pragma once

#include <array>
#include <cerrno>
#include <functional>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <utility>

#include <poll.h>
#include <unistd.h>

#include <asio/io_context.hpp>
#include <asio/post.hpp>

namespace program {

/// Tells when a descriptor can be read. Asio would do that itself, but makes the descriptor non-blocking for it: a
/// terminal is shared with the shell, which would suffer. It also takes no files. So a thread polls.
class Readable {
 public:
  /// Does not wait yet. `on_readable` is called on the context.
  Readable(asio::io_context& context, int descriptor, std::function<void()> on_readable)
      : context_(context), descriptor_(descriptor), on_readable_(std::move(on_readable)) {
    if (::pipe(pipe_.data()) != 0) throw std::system_error(errno, std::generic_category(), "pipe");
    thread_ = std::thread([this] { run(); });
  }
  Readable(Readable const&) = delete;
  Readable& operator=(Readable const&) = delete;
  ~Readable() {
    tell('q');
    thread_.join();
    for (auto const end : pipe_) ::close(end);
  }

  /// Waits, unless it does already. `on_readable` is called once for that; the descriptor may also be at its end.
  void wait() {
    if (!std::exchange(waits_, true)) tell('w');
  }

 private:
  void tell(char what) {
    while (::write(pipe_[1], &what, 1) < 0 && errno == EINTR) continue;
  }
  void run() {
    auto waits = false;
    for (;;) {
      std::array<pollfd, 2> files = {{{pipe_[0], POLLIN, 0}, {waits ? descriptor_ : -1, POLLIN, 0}}};
      if (::poll(files.data(), files.size(), -1) < 0) continue;  // EINTR
      if (files[0].revents != 0) {
        char what = 0;
        if (::read(pipe_[0], &what, 1) != 1) continue;
        if (what == 'q') return;
        waits = true;
      } else if (files[1].revents != 0) {
        waits = false;
        asio::post(context_, [this] {
          waits_ = false;
          on_readable_();
        });
      }
    }
  }

  asio::io_context& context_;
  int const descriptor_;
  std::function<void()> const on_readable_;
  std::array<int, 2> pipe_ = {};
  bool waits_ = false;  // used by the context's thread
  std::thread thread_;
};

}  // namespace program
