// SPDX-License-Identifier: BSL-1.0
// The notation for bytes in a scene.
#include "scene.hpp"

#include <algorithm>
#include <charconv>

namespace conformance {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

[[noreturn]] void bad(std::string const& what) { throw std::invalid_argument(what); }

/// Removes the first character or escape, and returns its byte.
char cut_byte(std::string_view& rest) {
  char const c = rest.front();
  rest.remove_prefix(1);
  if (c != '\\') return c;
  if (rest.empty()) bad("'\\' at the end of a line");
  char const code = rest.front();
  rest.remove_prefix(1);
  switch (code) {
    case 'n': return '\n';
    case 'r': return '\r';
    case 't': return '\t';
    case '0': return '\0';
    case '\\':
    case '{':
    case '*': return code;
    case 'x': {
      unsigned value = 0;
      auto const digits = rest.substr(0, 2);
      auto const [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
      if (error != std::errc() || end != digits.data() + 2) bad("'\\x' needs two hexadecimal digits");
      rest.remove_prefix(2);
      return static_cast<char>(static_cast<unsigned char>(value));
    }
    default: bad(std::string("'\\") + code + "' is no escape");
  }
}

/// Removes the count in `{250}`, and returns it, or 1 if there is none.
std::size_t cut_count(std::string_view& rest) {
  if (rest.size() < 2 || rest.front() != '{' || !is_digit(rest[1])) return 1;
  std::size_t const end = std::min(rest.find('}'), rest.size());
  std::size_t count = 0;
  auto const [stop, error] = std::from_chars(rest.data() + 1, rest.data() + end, count);
  if (error != std::errc() || stop != rest.data() + end || end == rest.size()) bad("'{' with a bad count");
  if (count > 16U * 1024 * 1024) bad("a count of more than 16 Mi");
  rest.remove_prefix(end + 1);
  return count;
}

}  // namespace

std::string sample_word(std::string const& word) {
  return word.starts_with('=') ? word.substr(1) : std::string(8, 'w');
}

std::string_view cut_word(std::string_view& rest) {
  std::string_view const word = rest.substr(0, rest.find(' '));
  rest.remove_prefix(std::min(rest.size(), word.size() + 1));
  return word;
}

Text parse_text(std::string_view written) {
  auto const is_lower = [](char c) { return c >= 'a' && c <= 'z'; };
  Text text;
  while (!written.empty()) {
    if (written.front() == '*') {
      text.add_any();
      written.remove_prefix(1);
    } else if (written.front() == '{') {
      std::string const word(written.substr(1, written.find('}') == written.npos ? 0 : written.find('}') - 1));
      if (word.empty() || !is_lower(word.front()) ||
          !std::all_of(word.begin(), word.end(), [&](char c) { return is_lower(c) || is_digit(c); }))
        bad("'{' begins a word as in {room}, or after a byte a count as in x{250}: write \\{");
      text.add_word(word);
      written.remove_prefix(word.size() + 2);
    } else {
      std::string const byte(1, cut_byte(written));
      text.add(byte, cut_count(written));
    }
  }
  return text;
}

void Text::add(std::string const& bytes, std::size_t times) {
  if (times == 1 && !parts_.empty() && parts_.back().kind == Kind::bytes && parts_.back().times == 1)
    parts_.back().text += bytes;
  else
    parts_.push_back({Kind::bytes, bytes, times});
}

void Text::add_word(std::string const& word) { parts_.push_back({Kind::word, word, 1}); }

void Text::add_any() { parts_.push_back({Kind::any, "*", 1}); }

void Text::name_users(std::set<std::string> const& users) {
  auto const in_name = [](char c) { return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  std::vector<Part> parts;
  parts.swap(parts_);
  for (Part& part : parts) {
    if (part.kind != Kind::bytes || part.times != 1) {
      parts_.push_back(std::move(part));
      continue;
    }
    for (auto at = part.text.cbegin(); at != part.text.cend();) {
      auto const other =
          in_name(*at) ? std::find_if_not(at, part.text.cend(), in_name) : std::find_if(at, part.text.cend(), in_name);
      std::string const piece(at, other);
      users.contains(piece) ? add_word("=" + piece) : add(piece);
      at = other;
    }
  }
}

std::string Text::bytes(Words const& words) const {
  std::string result;
  for (Part const& part : parts_) {
    if (part.kind == Kind::word)
      result += words(part.text);
    else
      for (std::size_t i = 0; i < part.times; ++i) result += part.text;
  }
  return result;
}

bool Text::matches(std::string_view line, Words const& words) const {
  std::vector<std::string> pieces(1);  // the parts between the stars
  for (Part const& part : parts_) {
    if (part.kind == Kind::any)
      pieces.emplace_back();
    else if (part.kind == Kind::word)
      pieces.back() += words(part.text);
    else
      for (std::size_t i = 0; i < part.times; ++i) pieces.back() += part.text;
  }
  if (pieces.size() == 1) return line == pieces.front();
  if (line.size() < pieces.front().size() + pieces.back().size()) return false;
  if (!line.starts_with(pieces.front()) || !line.ends_with(pieces.back())) return false;
  line.remove_prefix(pieces.front().size());
  line.remove_suffix(pieces.back().size());
  for (std::size_t i = 1; i + 1 < pieces.size(); ++i) {
    std::size_t const at = line.find(pieces[i]);
    if (at == std::string_view::npos) return false;
    line.remove_prefix(at + pieces[i].size());
  }
  return true;
}

std::string Text::shown(Words const& words) const {
  std::string result;
  std::string bytes;  // up to the next star; shortened together
  for (Part const& part : parts_) {
    if (part.kind == Kind::any) {
      result += escaped(bytes) + "*";
      bytes.clear();
    } else if (part.kind == Kind::word) {
      bytes += words(part.text);
    } else {
      for (std::size_t i = 0; i < part.times; ++i) bytes += part.text;
    }
  }
  return result + escaped(bytes);
}

bool Text::has_any() const {
  return std::any_of(parts_.begin(), parts_.end(), [](Part const& part) { return part.kind == Kind::any; });
}

bool Text::ends_in_any() const { return !parts_.empty() && parts_.back().kind == Kind::any; }

std::string escaped(std::string_view bytes) {
  constexpr std::size_t most = 600;  // more than two of the longest lines
  if (bytes.size() > most) return escaped(bytes.substr(0, most)) + " ... (" + std::to_string(bytes.size()) + " bytes)";
  constexpr char const* digits = "0123456789abcdef";
  std::string result;
  for (char const c : bytes) {
    auto const byte = static_cast<unsigned char>(c);
    switch (c) {
      case '\n': result += "\\n"; break;
      case '\r': result += "\\r"; break;
      case '\t': result += "\\t"; break;
      case '\0': result += "\\0"; break;
      case '\\': result += "\\\\"; break;
      default:
        if (byte >= 0x20 && byte < 0x7f) {
          result += c;
        } else {
          result += "\\x";
          result += digits[byte >> 4U];
          result += digits[byte & 15U];
        }
    }
  }
  return result;
}

bool drives_terminal(std::string_view line) {
  unsigned more = 0;  // bytes still missing of a UTF-8 character
  for (std::size_t i = 0; i < line.size(); ++i) {
    auto const byte = static_cast<unsigned char>(line[i]);
    if (byte < 0x80) {
      more = 0;
      if ((byte < 0x20 && byte != '\t') || byte == 0x7f) return true;
    } else if (byte < 0xa0) {
      if (more == 0 || static_cast<unsigned char>(line[i - 1]) == 0xc2) return true;
      --more;
    } else if (byte < 0xc0) {
      more = more == 0 ? 0 : more - 1;
    } else {
      more = byte >= 0xf0 ? 3 : byte >= 0xe0 ? 2 : 1;
    }
  }
  return false;
}

}  // namespace conformance
