// SPDX-License-Identifier: BSL-1.0
/// @file
/// A terminal with a line that is being typed, by libedit, and texts that appear above it.
#pragma once

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cwchar>
#include <deque>
#include <exception>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <histedit.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <asio/io_context.hpp>
#include <asio/signal_set.hpp>
#include <asio/steady_timer.hpp>

#include "editor.hpp"
#include "program.hpp"
#include "readable.hpp"

namespace program {

/// A terminal whose last lines are what the user types, on stdin and stdout. It is a loop of its context: libedit asks
/// for keys, and until there are some the handlers of the context run.
///
/// Texts are written while libedit draws the prompt, after it has erased all rows of what is typed. So libedit alone
/// knows where on the screen everything is, and the terminal gets the texts and the line typed in one write.
///
/// Only one may exist at a time. The constructor takes over the terminal, the destructor gives it back as it was. Use
/// it on the context's thread.
class Terminal {
 public:
  struct User {
    std::function<std::wstring()> prompt;             ///< in it, `\1` encloses what is not shown, such as colours
    std::function<bool(std::string const&)> on_line;  ///< returns false if the line is to be edited again
    std::function<void()> on_end;                     ///< Ctrl-D in an empty line, or the terminal has gone
    std::function<bool()> takes_lines;                ///< whether keys may be read now
    /// What may stand where the cursor is, after `before`; only what begins with its last word.
    std::function<std::vector<std::string>(std::string const& before)> completions;
  };
  static constexpr std::size_t most_typed = 1000;  ///< characters in the line; far more than can be sent

  Terminal(asio::io_context& context, std::string const& name, User user)
      : context_(context),
        user_(std::move(user)),
        readable_(context, STDIN_FILENO, [this] { read(); }),
        signals_(context),
        escape_timer_(context),
        editor_(name, this) {
    std::setvbuf(stdout, nullptr, _IOFBF, std::size_t{1} << 16);  // so that what belongs together is one write
    ::el_wset(editor_.get(), EL_PROMPT_ESC, &Terminal::draw_prompt, L'\1');
    ::el_wset(editor_.get(), EL_GETCFN, &Terminal::get_key);
    bind_keys();
    set_signals();
    ::el_wset(editor_.get(), EL_UNBUFFERED, 1);
    show_pastes(true);
  }
  Terminal(Terminal const&) = delete;
  Terminal& operator=(Terminal const&) = delete;
  ~Terminal() {
    show_pastes(false);
    std::fflush(stdout);
  }

  /// Runs until `stop` was called. Rethrows what the handlers of the context throw. Returns the signal that ended it;
  /// 0: none.
  int run() {
    while (!is_last_shown_) {
      is_first_ = true;
      int count = 0;
      ::el_wgets(editor_.get(), &count);
      // A command of libedit's that got no key has taken that for the end, and has put Ctrl-D into the line.
      if (std::exchange(is_cut_, false) && editor_.before_cursor().ends_with(L'\4')) ::el_wdeletestr(editor_.get(), 1);
    }
    if (error_) std::rethrow_exception(error_);
    return signal_;
  }
  void stop() { stopped_ = true; }

  /// Shows a line, which must be harmless, above what is typed.
  void print(std::string_view line) { texts_.append(line).append(1, '\n'); }
  /// Draws the prompt again.
  void refresh() { is_stale_ = true; }
  /// Returns the terminal's width.
  static std::size_t columns() {
    winsize size = {};
    return ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col : 80;
  }

 private:
  // Keys that no terminal sends, as what is above ASCII is not given to libedit as a key.
  static constexpr wchar_t show_key = 0x80, start_over_key = 0x81, refresh_key = 0x82, delete_key = 0x83,
                           end_of_line_key = 0x84;
  static constexpr std::size_t most_texts = std::size_t{1} << 18;
  static constexpr std::string_view paste_begins = "\033[200~", paste_ends = "\033[201~";

  static Terminal& self(EditLine* edit) {
    void* data = nullptr;
    ::el_wget(edit, EL_CLIENTDATA, &data);
    return *static_cast<Terminal*>(data);
  }

  // --- Setting up ----------------------------------------------------------------------------------------------------

  void bind_keys() {
    editor_.add(L'\n', L"chat-enter", L"Send the line", [](EditLine* edit, wint_t) -> unsigned char {
      self(edit).enter();
      return CC_NORM;
    });
    editor_.add(L'\4', L"chat-end", L"Delete the next character, or end", [](EditLine* edit, wint_t) -> unsigned char {
      auto& terminal = self(edit);
      if (terminal.editor_.line().empty())
        terminal.call(terminal.user_.on_end);
      else
        terminal.keys_.push_back(delete_key);
      return CC_NORM;
    });
    editor_.add(L'\t', L"chat-complete", L"Complete the word", [](EditLine* edit, wint_t) -> unsigned char {
      self(edit).complete();
      return CC_REFRESH;
    });
    editor_.add(show_key, L"chat-show", L"Show what has arrived", [](EditLine* edit, wint_t) -> unsigned char {
      self(edit).is_showing_ = true;
      return CC_REDISPLAY;
    });
    editor_.add(refresh_key, L"chat-refresh", L"Draw the line",
                [](EditLine*, wint_t) -> unsigned char { return CC_REFRESH; });
    editor_.bind_both(L'\r', L"chat-enter");
    editor_.bind_both(start_over_key, L"ed-start-over");
    editor_.bind_both(delete_key, L"ed-delete-next-char");
    editor_.bind_both(end_of_line_key, L"ed-move-to-end");
  }

  /// Makes the terminal tell where a paste begins and ends, so that nothing in it is taken for a key.
  static void show_pastes(bool yes) { std::fputs(yes ? "\033[?2004h" : "\033[?2004l", stdout); }

  // --- Signals -------------------------------------------------------------------------------------------------------

  void set_signals() {
    for (auto const number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT, SIGWINCH}) {
      struct sigaction action = {};
      ::sigaction(number, nullptr, &action);
      if (action.sa_handler == SIG_IGN && number != SIGCONT) continue;  // as nohup does
      signals_.add(number);
      ::sigaction(number, nullptr, &action);
      action.sa_flags |= SA_RESTART;  // or a line would be written in part
      ::sigaction(number, &action, nullptr);
    }
    wait_for_signal();
  }
  void wait_for_signal() {
    signals_.async_wait([this](std::error_code ec, int number) {
      if (ec) return;
      wait_for_signal();
      if (number == SIGTSTP)
        keys_.push_back(end_of_line_key), is_suspending_ = true;
      else if (number == SIGCONT)
        has_woken_ = true;
      else if (number == SIGWINCH)
        is_resized_ = true;
      else
        signal_ = number, stop();
    });
  }

  void suspend() {
    is_suspending_ = false;
    show_pastes(false);
    std::fputs("\r\n", stdout);
    std::fflush(stdout);
    editor_.lend();
    ::raise(SIGSTOP);
  }
  /// The program goes on after it was stopped. Whoever had the terminal meanwhile has left the cursor in a row of its
  /// own.
  void wake() {
    has_woken_ = false;
    editor_.take_back();
    show_pastes(true);
    std::fputs("\r\033[J", stdout);
    ::el_resize(editor_.get());
    ::el_wset(editor_.get(), EL_REFRESH);
  }
  /// Draws what is typed again, in a terminal of another size. Most terminals have then moved the rest of a row that
  /// has become too long into the next row, as is assumed here.
  void resize() {
    is_resized_ = false;
    auto const before = editor_.columns(), now = columns();
    std::size_t rows = 0;              // above the cursor
    std::size_t cells = 0, shown = 0;  // in a row as it was drawn; up to the blanks at its end
    auto hidden = false;
    auto const end_row = [&] {
      rows += std::max<std::size_t>(1, (shown + now - 1) / now);
      cells = shown = 0;
    };
    auto const count = [&](wchar_t letter) {
      if (letter == L'\1') hidden = !hidden;
      auto const width = hidden || letter == L'\1' ? 0 : static_cast<std::size_t>(std::max(0, ::wcwidth(letter)));
      if (cells + width > before) end_row();
      cells += width;
      if (width > 0 && letter != L' ') shown = cells;  // libedit does not draw blanks at the end
    };
    for (auto const letter : prompt_) count(letter);
    hidden = false;
    for (auto const letter : editor_.before_cursor()) count(letter);
    if (cells >= before) end_row();
    if (rows += cells / now; rows > 0) std::fprintf(stdout, "\033[%zuA", rows);
    std::fputs("\r\033[J", stdout);
    ::el_resize(editor_.get());
    ::el_wset(editor_.get(), EL_REFRESH);
  }

  // --- Keys ----------------------------------------------------------------------------------------------------------

  void call(auto const& function) {
    try {
      function();
    } catch (...) {  // not through libedit
      error_ = std::current_exception();
      stop();
    }
  }

  static int get_key(EditLine* edit, wchar_t* key) {
    auto const next = self(edit).next_key();
    *key = next.value_or(0);
    return next ? 1 : 0;
  }

  /// Returns the next key for libedit. Nothing: there will be none, or a key was begun that is not worth waiting for.
  std::optional<wchar_t> next_key() {
    auto const is_first = std::exchange(is_first_, false);  // the first of a command, or within one
    for (;;) {
      if (is_first) {
        if (!keys_.empty()) return pop_key();
        if (is_suspending_) suspend();
        if (has_woken_) wake();
        if (is_resized_) resize();
        if (!back_.empty()) {
          insert(std::exchange(back_, {}));
          return refresh_key;
        }
        if (stopped_ && !is_clear_) return is_clear_ = true, start_over_key;
        if (!texts_.empty() || std::exchange(is_stale_, false)) {
          if (columns() != editor_.columns()) resize();  // the signal may come later
          return show_key;
        }
      }
      if (stopped_) {
        if (!is_first) return std::nullopt;
        return is_last_shown_ ? std::nullopt : (is_last_shown_ = true, std::optional(show_key));
      }
      if (!is_first && texts_.size() > most_texts) return is_cut_ = true, std::nullopt;
      if (!user_.takes_lines || user_.takes_lines()) {
        if (auto const key = take_key(is_first)) return key;
        if (is_first && !keys_.empty()) continue;
        if (!has_ended_) readable_.wait();
      }
      call([this] {
        context_.run_one();
        for (auto more = 0; more < 256 && context_.poll_one() != 0; ++more) continue;
      });
    }
  }
  wchar_t pop_key() {
    auto const key = keys_.front();
    keys_.pop_front();
    return key;
  }

  void read() {
    std::array<char, 4096> buffer;
    auto const count = ::read(STDIN_FILENO, buffer.data(), buffer.size());
    if (count > 0)
      bytes_.append(buffer.data(), static_cast<std::size_t>(count));
    else if (count == 0 || (errno != EINTR && errno != EAGAIN))
      has_ended_ = true, call(user_.on_end);
  }

  /// Returns the next key that was read. What is no key of libedit's is put into the line here.
  std::optional<wchar_t> take_key(bool is_first) {
    if (bytes_.empty()) return std::nullopt;
    if (is_pasting_) return take_paste();
    if (is_first && bytes_.starts_with(paste_begins)) {
      bytes_.erase(0, paste_begins.size());
      is_pasting_ = true;
      return take_paste();
    }
    auto const last = std::exchange(is_escape_over_, false);
    if (is_first && paste_begins.starts_with(bytes_) && !last) return wait_for_escape();
    escape_timer_.cancel();
    if (last && bytes_ == "\033") return bytes_.clear(), std::nullopt;  // the key Esc alone
    auto const letter = take_letter();
    if (!letter || *letter < 0x80 || !is_first) return letter;
    insert({*letter});
    return refresh_key;
  }
  /// A key that sends several bytes may have begun.
  std::nullopt_t wait_for_escape() {
    if (std::exchange(is_escape_waiting_, true)) return std::nullopt;
    escape_timer_.expires_after(std::chrono::milliseconds(500));
    escape_timer_.async_wait([this](std::error_code ec) {
      is_escape_waiting_ = false;
      is_escape_over_ = !ec;
    });
    return std::nullopt;
  }

  /// Takes as much of a paste as there is, up to the end of a line.
  std::optional<wchar_t> take_paste() {
    std::wstring letters;
    while (!bytes_.empty()) {
      if (bytes_.front() == '\033' && paste_ends.starts_with(std::string_view(bytes_).substr(0, paste_ends.size()))) {
        if (bytes_.size() < paste_ends.size()) break;
        bytes_.erase(0, paste_ends.size());
        is_pasting_ = false;
        break;
      }
      auto const letter = take_letter();
      if (!letter) break;
      if (*letter == L'\r' || *letter == L'\n') {
        insert(letters);
        enter();
        return pop_key();
      }
      letters += *letter;
    }
    if (letters.empty()) return is_pasting_ ? std::nullopt : take_key(true);
    insert(letters);
    return refresh_key;
  }

  /// Takes one letter; U+FFFD for a byte that is not UTF-8. Nothing: its end has not arrived.
  std::optional<wchar_t> take_letter() {
    auto const lead = static_cast<unsigned char>(bytes_.front());
    std::size_t const size = lead < 0xc0 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    auto const is_rest = [](char byte) { return (static_cast<unsigned char>(byte) & 0xc0u) == 0x80; };
    if (bytes_.size() < size && std::all_of(bytes_.begin() + 1, bytes_.end(), is_rest)) return std::nullopt;
    auto const letter = first_character(bytes_);
    bytes_.erase(0, letter ? letter->size : 1);
    if (letter && letter->value == 0) return L'\ufffd';  // would end the line for libedit
    return letter ? static_cast<wchar_t>(letter->value) : L'\ufffd';
  }

  // --- The line ------------------------------------------------------------------------------------------------------

  void insert(std::wstring text) {
    auto const size = editor_.line().size();
    if (size + text.size() > most_typed) {
      text.resize(most_typed - std::min(most_typed, size));
      if (!std::exchange(is_overfull_, true)) print("! the line is full: only its first 1000 letters were taken");
    }
    editor_.insert(text);
  }

  void enter() {
    std::wstring const line(editor_.line());
    if (line.find_first_not_of(L" \t") != line.npos) editor_.remember(line);
    is_overfull_ = false;
    keys_.push_back(start_over_key);
    call([&] {
      auto const text = narrow(line);
      if (user_.on_line(text)) return;
      if (bytes_.empty() && !is_pasting_)
        back_ = line;
      else  // the next line would be appended
        print("  " + visible(text, "\ufffd"));
    });
  }

  void complete() {
    auto const before = narrow(editor_.before_cursor());
    std::vector<std::string> all;
    call([&] { all = user_.completions(before); });
    if (all.empty()) return;
    auto common = all.front();
    for (auto const& each : all)
      common.resize(static_cast<std::size_t>(
          std::mismatch(common.begin(), common.end(), each.begin(), each.end()).first - common.begin()));
    auto const typed = before.size() - (before.find_last_of(' ') + 1);
    if (common.size() > typed) return insert(std::wstring(common.begin() + std::ptrdiff_t(typed), common.end()));
    std::string list = " ";
    for (std::size_t i = 0; i < std::min<std::size_t>(all.size(), 50); ++i) list += ' ' + all[i];
    print(all.size() > 50 ? list + " ..." : list);
  }

  static wchar_t* draw_prompt(EditLine* edit) {
    auto& terminal = self(edit);
    if (std::exchange(terminal.is_showing_, false)) std::fputs(std::exchange(terminal.texts_, {}).c_str(), stdout);
    terminal.prompt_ = terminal.is_clear_ ? std::wstring() : terminal.user_.prompt();
    return terminal.prompt_.data();
  }

  asio::io_context& context_;
  User const user_;
  Readable readable_;
  asio::signal_set signals_;
  asio::steady_timer escape_timer_;
  Editor editor_;
  std::wstring prompt_, back_;  // back_: to be edited again
  std::string bytes_, texts_;   // read; to be shown
  std::deque<wchar_t> keys_;    // that were not typed
  std::exception_ptr error_;
  int signal_ = 0;
  bool stopped_ = false, is_clear_ = false, is_last_shown_ = false, is_cut_ = false, has_ended_ = false;
  bool is_first_ = false, is_showing_ = false, is_stale_ = false, is_pasting_ = false, is_overfull_ = false;
  bool is_escape_waiting_ = false, is_escape_over_ = false;
  bool is_suspending_ = false, has_woken_ = false, is_resized_ = false;
};

}  // namespace program
