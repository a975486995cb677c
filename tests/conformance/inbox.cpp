// SPDX-License-Identifier: BSL-1.0
#include "inbox.hpp"

#include <utility>

#include <asio/error.hpp>

#include "scene.hpp"

namespace conformance {

void Inbox::wait_for_line(std::function<void()> ready) {
  constexpr std::size_t most = 64 * 1024;  // no line is that long: waiting for its end would only take memory
  wait([this] { return has_line() || bytes_.size() > most; }, std::move(ready));
}

void Inbox::wait_for_something(std::function<void()> ready) {
  wait([this] { return !bytes_.empty(); }, std::move(ready));
}

void Inbox::wait(std::function<bool()> enough, std::function<void()> ready) {
  if (enough() || end_) {
    ready();
    return;
  }
  channel_->read(buffer_.data(), buffer_.size(),
                 [this, enough = std::move(enough), ready = std::move(ready)](std::error_code const& error,
                                                                              std::size_t size) mutable {
                   bytes_.append(buffer_.data(), size);
                   end_ = error;
                   wait(std::move(enough), std::move(ready));
                 });
}

std::string Inbox::take_line() {
  std::size_t const end = bytes_.find('\n');
  std::string line = bytes_.substr(0, end);
  bytes_.erase(0, end + 1);
  return line;
}

std::string Inbox::shown() const {
  std::string what = bytes_.empty() ? "nothing" : escaped(bytes_);
  if (!end_) return what;
  return what + (end_ == asio::error::eof ? ", then the end of input" : ", then " + end_.message());
}

}  // namespace conformance
