// SPDX-License-Identifier: BSL-1.0
/// @file
/// Reading files again when a server gets SIGHUP.
#pragma once

#include <csignal>
#include <exception>
#include <functional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <asio/io_context.hpp>
#include <asio/signal_set.hpp>

#include "program.hpp"
#include "service_manager.hpp"

namespace program {

/// Reads a file again, or throws and keeps what it had read before.
using Reloader = std::function<void()>;

/// Calls the reloaders at each SIGHUP, on the context, and notifies the service manager. One that throws costs a line
/// on stderr. Afterwards the signal is ignored.
class ReloadOnHangup {
 public:
  /// `status`: what the service manager shows while nothing is wrong.
  ReloadOnHangup(asio::io_context& context, std::vector<Reloader> reloaders, ServiceManager const& manager,
                 std::string status)
      : reloaders_(std::move(reloaders)), manager_(manager), status_(std::move(status)), signals_(context) {
#ifdef SIGHUP
    signals_.add(SIGHUP);
    wait();
#endif
  }
  ReloadOnHangup(ReloadOnHangup const&) = delete;
  ReloadOnHangup& operator=(ReloadOnHangup const&) = delete;
  ~ReloadOnHangup() {
#ifdef SIGHUP
    std::error_code ignored;
    signals_.clear(ignored);
    std::signal(SIGHUP, SIG_IGN);
#endif
  }

 private:
  void wait() {
    signals_.async_wait([this](std::error_code const& ec, int) {
      if (ec) return;
      manager_.reloading();
      auto status = status_;
      for (auto const& reload : reloaders_) try {
          reload();
        } catch (std::exception const& error) {
          status = "not read again: " + visible(error.what());
          complain(status);
        }
      manager_.reloaded(status);
      wait();
    });
  }

  std::vector<Reloader> const reloaders_;
  ServiceManager const& manager_;
  std::string const status_;
  asio::signal_set signals_;
};

}  // namespace program
