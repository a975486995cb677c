#!/usr/bin/env bash
# SPDX-License-Identifier: BSL-1.0
# bash bench/compile.sh [ROUNDS]: measures the library's compile time and code size, next to a bare minimum with Asio
# alone. The compiler is $CXX, or g++; $CXXFLAGS can add include directories and the like. Needs GNU tools (xargs -d,
# sed, strip).
set -euo pipefail
export LC_ALL=C

fail() {
  echo "compile.sh: $1" >&2
  exit "${2:-2}"
}
rounds=${1:-5}
[[ $# -le 1 && $rounds =~ ^[1-9][0-9]{0,2}$ ]] || fail 'usage: bench/compile.sh [ROUNDS]'
root=$(cd "$(dirname "$0")/.." && pwd)
cxx=${CXX:-g++}
command -v "${cxx%% *}" >/dev/null || fail "there is no compiler $cxx" 1

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM

run_compiler() {
  # shellcheck disable=SC2086 # words
  $cxx -std=c++20 -O2 -DASIO_STANDALONE -DASIO_NO_DEPRECATED -pthread -I"$root/include" ${CXXFLAGS:-} "$@"
}

cat >"$scratch/empty.cpp" <<'END'
#include <string>
int main() {}
END

cat >"$scratch/message.cpp" <<'END'
#include <string>
#include <chatproto/message.hpp>
int main() {}
END

cat >"$scratch/server.cpp" <<'END'
#include <chatproto/server.hpp>

int main() {
  chatproto::Server<chatproto::ThreadPool> server;
  server.run();
}
END

{ echo '#define CHATPROTO_COMPILED' && cat "$scratch/server.cpp"; } >"$scratch/user.cpp"
echo '#include <chatproto/compiled.hpp>' >"$scratch/compiled.cpp"

# With the Asio headers that server.hpp includes, directly or through another header of the library: their cost is not
# the library's.
run_compiler -MM "$scratch/server.cpp" | sed 's|[ \\]|\n|g' | grep -F "$root/include/chatproto/" >"$scratch/headers" ||
  fail 'the compiler does not find the headers' 1
{
  xargs -d '\n' grep -hoE '^#include <asio/[a-z_/]+\.hpp>' <"$scratch/headers" |
    grep -vE '<asio/(detail|windows)/' | sort -u
  cat <<'END'
#include <functional>
#include <system_error>
#include <utility>

int main() {
  asio::io_context context;
  asio::ip::tcp::acceptor acceptor(context, {asio::ip::tcp::v4(), 0});
  std::function<void()> accept = [&] {
    acceptor.async_accept([&](std::error_code ec, asio::ip::tcp::socket socket) {
      if (!ec) asio::ip::tcp::socket(std::move(socket)).close();
      accept();
    });
  };
  accept();
  context.run();
}
END
} >"$scratch/asio.cpp"

compile() { # NAME: prints the compiler's CPU time in seconds
  local TIMEFORMAT='%U %S'
  { time run_compiler -c "$scratch/$1.cpp" -o "$scratch/$1.o" 2>"$scratch/log"; } 2>&1 | awk '{ print $1 + $2 }'
}
median() { sort -n "$1" | awk '{ v[NR] = $1 } END { print (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2 }'; }
size_of() { # FILE: its bytes without symbols
  strip -o "$scratch/stripped" "$1"
  wc -c <"$scratch/stripped"
}

units=(empty message asio server user compiled)
for ((round = 1; round <= rounds; ++round)); do
  for unit in "${units[@]}"; do
    compile "$unit" >>"$scratch/$unit.times" || { cat "$scratch/log" >&2 && fail "$unit.cpp does not compile" 1; }
  done
done
for unit in asio server; do run_compiler "$scratch/$unit.o" -o "$scratch/$unit"; done
run_compiler "$scratch/user.o" "$scratch/compiled.o" -o "$scratch/user"

row() { printf '%-58s %10s %12s\n' "$1" "$2" "${3:-}"; }
time_of() { median "$scratch/$1.times"; }
echo "$($cxx --version | head -n 1), -O2, medians of $rounds"
row '' 'CPU, s' 'stripped, B'
row 'a  <string>' "$(time_of empty)"
row 'b  <string>, <chatproto/message.hpp>' "$(time_of message)"
row "c  Asio's headers, an accept loop" "$(time_of asio)" "$(size_of "$scratch/asio")"
row 'd  <chatproto/server.hpp>, a Server<ThreadPool>' "$(time_of server)" "$(size_of "$scratch/server")"
row 'e  the same, linked to chatproto::compiled' "$(time_of user)" "$(size_of "$scratch/user")"
row 'f  chatproto::compiled, once for a program' "$(time_of compiled)"
row 'b - a' "$(awk "BEGIN { printf \"%.2f\", $(time_of message) - $(time_of empty) }")"
row 'd / c' "$(awk "BEGIN { printf \"%.2f\", $(time_of server) / $(time_of asio) }")" \
  "$(awk "BEGIN { printf \"%.2f\", $(size_of "$scratch/server") / $(size_of "$scratch/asio") }")"
row 'e / c' "$(awk "BEGIN { printf \"%.2f\", $(time_of user) / $(time_of asio) }")" \
  "$(awk "BEGIN { printf \"%.2f\", $(size_of "$scratch/user") / $(size_of "$scratch/asio") }")"
for program in server echo_server poke_server arrival_server; do
  file=build/release/bin/$program
  [[ ! -x $root/$file ]] || row "$file" '' "$(size_of "$root/$file")"
done
