// SPDX-License-Identifier: BSL-1.0
// However the bytes are split, LineReader must find the same lines as a plain loop over all of them. The first byte of
// the input seeds the splits.
#include "fuzz.hpp"

#include <random>
#include <string>
#include <vector>

#include <chatproto/line_reader.hpp>

namespace {

std::string const too_long = "\n";  // no line can be this

std::vector<std::string> lines_of(std::string_view bytes) {
  std::vector<std::string> lines;
  std::size_t begin = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (bytes[i] != '\n') continue;
    auto line = bytes.substr(begin, i - begin);
    begin = i + 1;
    if (line.size() + 1 > chatproto::max_line) {
      lines.push_back(too_long);
      continue;
    }
    if (line.ends_with('\r')) line.remove_suffix(1);
    lines.emplace_back(line);
  }
  // An over-long line is reported before its end comes.
  if (bytes.size() - begin + 1 > chatproto::max_line) lines.push_back(too_long);
  return lines;
}

}  // namespace

int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  if (size == 0) return 0;
  std::minstd_rand random(data[0]);
  auto const bytes = as_text(data + 1, size - 1);

  std::vector<std::string> lines;
  chatproto::LineReader reader;
  for (auto rest = bytes; !rest.empty();) {
    auto const part = rest.substr(0, 1 + random() % 300);
    rest.remove_prefix(part.size());
    reader.feed(part);
    while (auto const line = reader.next()) lines.emplace_back(line->too_long ? too_long : std::string(line->text));
  }
  assert(lines == lines_of(bytes));
  return 0;
}
