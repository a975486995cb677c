// SPDX-License-Identifier: BSL-1.0
/// @file
/// libedit: a line that is edited on a terminal, with a history of lines.
#pragma once

#include <algorithm>
#include <array>
#include <climits>
#include <clocale>
#include <cstddef>
#include <cstdio>
#include <cwchar>
#include <stdexcept>
#include <string>
#include <string_view>

#include <histedit.h>
#include <langinfo.h>
#include <termios.h>
#include <unistd.h>

namespace program {

/// Makes the C library speak UTF-8, whatever the user's locale is. Returns false where it cannot.
inline bool use_utf8() {
  auto const is_utf8 = [] { return std::string_view(::nl_langinfo(CODESET)) == "UTF-8"; };
  for (auto const* const locale : {"", "C.UTF-8", "en_US.UTF-8", "UTF-8"})
    if (std::setlocale(LC_CTYPE, locale) != nullptr && is_utf8()) return true;
  return false;
}

/// Returns wide characters in UTF-8. Needs `use_utf8`.
inline std::string narrow(std::wstring_view text) {
  std::string result;
  std::array<char, MB_LEN_MAX> bytes;
  std::mbstate_t state = {};
  for (auto const letter : text)
    if (auto const size = std::wcrtomb(bytes.data(), letter, &state); size != static_cast<std::size_t>(-1))
      result.append(bytes.data(), size);
  return result;
}

/// An `EditLine` on stdin and stdout, which reads single keys and leaves the rest to its user. It takes over the
/// terminal; the destructor gives it back as it was.
class Editor {
 public:
  using Command = unsigned char (*)(EditLine*, wint_t);
  static constexpr int most_lines = 1000;  ///< in the history

  /// `data` can be had from `EL_CLIENTDATA`.
  Editor(std::string const& name, void* data) {
    if (::tcgetattr(STDIN_FILENO, &found_) != 0 || (edit_ = ::el_init(name.c_str(), stdin, stdout, stderr)) == nullptr)
      throw std::runtime_error("the terminal cannot be used");
    history_ = ::history_winit();
    HistEventW event = {};
    ::history_w(history_, &event, H_SETSIZE, most_lines);
    ::history_w(history_, &event, H_SETUNIQUE, 1);
    ::el_wset(edit_, EL_CLIENTDATA, data);
    ::el_wset(edit_, EL_HIST, ::history_w, history_);
    ::el_wset(edit_, EL_EDITOR, L"emacs");
    for (auto const* const keys : {L"\033[H", L"\033OH", L"\033[1~"}) bind(keys, L"ed-move-to-beg");
    for (auto const* const keys : {L"\033[F", L"\033OF", L"\033[4~"}) bind(keys, L"ed-move-to-end");
    bind(L"\033[3~", L"ed-delete-next-char");
    bind(L"\033[1;5C", L"em-next-word");
    bind(L"\033[1;5D", L"ed-prev-word");
    bind(L"\022", L"ed-search-prev-history");  // Ctrl-R: the usual search, and Ctrl-V, would wait for the next key
    bind(L"\026", L"ed-unassigned");
    ::el_source(edit_, nullptr);  // the user's ~/.editrc
    end_rows();
  }
  Editor(Editor const&) = delete;
  Editor& operator=(Editor const&) = delete;
  ~Editor() {
    ::el_end(edit_);  // also drops what was typed ahead: it is not for the shell
    ::history_wend(history_);
    ::tcsetattr(STDIN_FILENO, TCSADRAIN, &found_);
  }

  EditLine* get() const noexcept { return edit_; }
  /// Returns the width of the terminal for which libedit draws: it hears of another one by `el_resize`.
  std::size_t columns() const {
    int columns = 0;
    ::el_wget(edit_, EL_GETTC, "co", &columns);
    return columns > 1 ? static_cast<std::size_t>(columns) : 80;
  }

  /// Adds a command, and binds it to a key.
  void add(wchar_t key, wchar_t const* name, wchar_t const* help, Command command) {
    ::el_wset(edit_, EL_ADDFN, name, help, command);
    bind_both(key, name);
  }
  void bind(wchar_t const* keys, wchar_t const* name) { ::el_wset(edit_, EL_BIND, keys, name, nullptr); }
  /// Binds a key in vi's command mode too.
  void bind_both(wchar_t key, wchar_t const* name) {
    std::array<wchar_t, 2> const keys = {key, 0};
    bind(keys.data(), name);
    ::el_wset(edit_, EL_BIND, L"-a", keys.data(), name, nullptr);
  }

  /// Returns the line, and what of it is before the cursor.
  std::wstring_view line() const {
    auto const& line = *::el_wline(edit_);
    return {line.buffer, static_cast<std::size_t>(line.lastchar - line.buffer)};
  }
  std::wstring_view before_cursor() const {
    auto const& line = *::el_wline(edit_);
    return {line.buffer, static_cast<std::size_t>(line.cursor - line.buffer)};
  }
  /// Puts this into the line, without drawing it.
  void insert(std::wstring const& text) {
    if (!text.empty()) ::el_winsertstr(edit_, text.c_str());
  }
  /// Puts a line into the history.
  void remember(std::wstring const& line) {
    HistEventW event = {};
    ::history_w(history_, &event, H_ENTER, line.c_str());
  }

  /// Gives the terminal to others, as it was.
  void lend() {
    ::el_wset(edit_, EL_PREP_TERM, 0);
    ::tcsetattr(STDIN_FILENO, TCSADRAIN, &found_);
  }
  void take_back() {
    ::el_wset(edit_, EL_PREP_TERM, 0);  // or libedit does nothing
    ::el_wset(edit_, EL_PREP_TERM, 1);
  }

 private:
  /// Makes libedit end each row but the last with a line end, where it would let the terminal wrap the line. For what
  /// it writes may meet a terminal that has become wider meanwhile, which does not wrap there, or has joined rows: the
  /// cursor would be higher than libedit believes, and the next erasing would erase texts above the line. A terminal
  /// without "xn" goes to the next row at once by itself.
  void end_rows() {
    char const* waits_to_wrap = nullptr;
    ::el_wget(edit_, EL_GETTC, "xn", &waits_to_wrap);
    if (waits_to_wrap != nullptr && std::string_view(waits_to_wrap) == "yes")
      ::el_wset(edit_, EL_SETTC, L"am", L"no", nullptr);
  }

  termios found_ = {};  // as the terminal is for others
  EditLine* edit_ = nullptr;
  HistoryW* history_ = nullptr;
};

}  // namespace program
