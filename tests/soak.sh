#!/bin/sh
# SPDX-License-Identifier: BSL-1.0
# sh tests/soak.sh MINUTES: random clients load a server for this long; nothing may be lost, and memory, descriptors and
# threads must not grow.
# shellcheck disable=SC2317 # these functions are called, by a trap or by name
set -eu
export LC_ALL=C

usage() {
  cat <<'END'
usage: tests/soak.sh MINUTES [BIN_DIR] [--policy thread-per-client|pool|strand] [--out DIR]

  BIN_DIR    takes the programs server and soak from there instead of building them with the preset release
  --policy   the server's threading policy (pool)
  --out DIR  folder for the samples, soak.csv, which grows during the run, and their picture, soak.svg (build/soak)

In the results, "cut" counts the clients that did not read for a while and that the server therefore disconnected, as it
may. "unexpected" counts replies and ends of connections that the protocol does not allow.
END
}
fail() {
  echo "soak.sh: $1" >&2
  exit "${2:-1}"
}

root=$(cd "$(dirname "$0")/.." && pwd)
minutes='' bin='' policy=pool out=$root/build/soak
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) usage && exit 0 ;;
    --policy | --out)
      [ $# -gt 1 ] || fail "$1 needs a value (see --help)" 2
      [ "$1" = --out ] || policy=$2
      [ "$1" = --policy ] || out=$2
      shift
      ;;
    -*) fail "there is no option $1 (see --help)" 2 ;;
    *)
      if [ -z "$minutes" ]; then
        minutes=$1
      elif [ -z "$bin" ]; then
        bin=$1
      else
        fail "'$1' is one argument too many (see --help)" 2
      fi
      ;;
  esac
  shift
done
case $minutes in
  '' | *[!0-9]* | 0* | ??????*) fail "'$minutes' is not a number of minutes (see --help)" 2 ;;
esac
[ "$(uname)" = Linux ] || fail 'this needs Linux'
mkdir -p "$out"

if [ -z "$bin" ]; then
  bin=$root/build/release/bin
  (
    cd "$root" && # set -e has no effect here
      sh cmake/setup.sh cmake ninja-build g++ libasio-dev libcli11-dev libspdlog-dev catch2 python3 &&
      cmake --preset release -DCHATPROTO_BUILD_TESTS=ON -DCHATPROTO_BUILD_EXAMPLES=ON &&
      cmake --build --preset release --target server soak
  ) >"$out/build.log" 2>&1 || {
    cat "$out/build.log" >&2
    fail 'it does not build'
  }
fi
for program in server soak; do
  [ -x "$bin/$program" ] || fail "there is no $bin/$program"
done

# --- The run ----------------------------------------------------------------------------------------------------------

scratch=$(mktemp -d)
server='' load=''
at_exit() {
  # shellcheck disable=SC2086 # there may be none
  kill -9 $server $load 2>/dev/null || :
  rm -rf "$scratch"
}
trap at_exit EXIT
trap 'exit 1' HUP INT TERM

wait_until() { # COMMAND...: waits until it succeeds
  tries=0
  until "$@"; do
    tries=$((tries + 1))
    [ $tries -lt 1200 ] || fail "waited in vain: $*"
    sleep 0.05
  done
}
is_over() { ! grep -q '^State:[[:space:]]*[^Z]' "/proc/$1/status" 2>/dev/null; }
listens_or_is_over() { grep -q '^listening on port' "$scratch/server" || is_over "$server"; }

: >"$scratch/server"
# A client that stops reading meets these limits soon, so that its backlog does not show in the memory.
"$bin/server" 0 --address 127.0.0.1 --policy "$policy" --write-deadline 2 --queue-limit 65536 2>"$scratch/server" &
server=$!
wait_until listens_or_is_over
port=$(sed -n 's/^listening on port //p' "$scratch/server")
[ -n "$port" ] || fail "$(cat "$scratch/server")"

code=0
echo "$policy, $minutes min; samples in $out/soak.csv"
"$bin/soak" "$port" --pid $server --seconds $((minutes * 60)) --csv "$out/soak.csv" &
load=$!
wait $load || code=1
load=''

ended=0
kill -TERM $server 2>/dev/null || :
wait_until is_over $server
wait $server || ended=$?
server=''
if [ $ended = 0 ]; then
  echo 'SIGTERM ended the server, exit code 0'
else
  echo "WRONG: the server has ended with exit code $ended: $(cat "$scratch/server")"
  code=1
fi

if command -v python3 >/dev/null; then
  python3 "$root/tests/soak.py" "$out/soak.csv" "$out/soak.svg" "$policy" || code=1
else
  echo 'There is no python3, and so no picture'
fi
exit $code
