// SPDX-License-Identifier: BSL-1.0
// embed_page FILE: fails if the page that was embedded is not that file.
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>

#include "page.hpp"

int main(int, char** argv) {
  std::ifstream in(argv[1], std::ios::binary);
  std::string const bytes(std::istreambuf_iterator<char>(in), {});
  if (!bytes.empty() && program::page == bytes) return 0;
  std::cerr << "the embedded page differs from " << argv[1] << '\n';
  return 1;
}
