// SPDX-License-Identifier: BSL-1.0
// Two shared libraries that hide their symbols have one error category and one count of held memory.
#include "library.hpp"

int main() {
  auto const is_one_category = one::malformed() == two::malformed();
  auto const is_one_count = one::hold(1) == 1 && two::hold(2) == 3 && one::hold(3) == 6;
  return is_one_category && is_one_count ? 0 : 1;
}
