# What demo.sh and cluster.sh share. They read this file in the folder above it.
# shellcheck shell=sh disable=SC2154 # some variables are set by eval, or by the script that reads this
set -eu
bin=build/demo/bin
scratch=$(mktemp -d)
started=  # the processes that are killed in the end
# shellcheck disable=SC2086 # a list
trap 'kill $started 2>/dev/null || :; rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM
trap : PIPE  # a write to a program that has ended fails

build() { # TARGET...: builds these programs
  echo 'Building the programs (a minute or two)'
  mkdir -p build
  cmake --preset dev -B "${bin%/bin}" -DCHATPROTO_BUILD_TESTS=OFF -DCHATPROTO_BUILD_CONFORMANCE=OFF \
    -DCMAKE_COMPILE_WARNING_AS_ERROR=OFF -DCMAKE_CXX_FLAGS_DEBUG=-O1 >build/demo.log || {
    cat build/demo.log
    exit 1
  }
  cmake --build "${bin%/bin}" --target "$@"
}

fail() {
  echo "$(basename "$0" .sh): $1" >&2
  exit 1
}

# wait_until COMMAND...: waits until it succeeds.
wait_until() {
  tries=0
  until "$@"; do
    tries=$((tries + 1))
    [ $tries -lt 600 ] || fail "waited in vain: $*"
    sleep 0.1
  done
}

pace() { # on a terminal: pauses for the reader
  [ ! -t 1 ] || sleep 0.6
}

# --- The actors -------------------------------------------------------------------------------------------------------
# Each actor's output goes to a file of its name: stderr of the server and the senders, both streams of the receivers.
# Actors talk to the server at $port; $place, which may be empty, is shown behind their names.
place=

port_of() { sed -n 's/^listening on port //p' "$scratch/$1"; }

shows() { # WHO VERB WHAT: shows a line of the conversation
  eval "printf '  %-5s%s  %-5s  %s\n' \"\$1\" \"\$place_$1\" \"\$2\" \"\$3\""
}

listen() { # WHO ROOM: returns when WHO is in the room
  : >"$scratch/$1"
  "$bin/receiver" localhost "$port" "$1" "$2" >"$scratch/$1" 2>&1 &
  started="$started $!"
  wait_until heard_a_knock "$1" "$2"
  eval "place_$1=\$place; count_$1=0; pid_$1=$!"
  echo "  $1$place listens in the $2"
}
heard_a_knock() {
  grep -q '^knock' "$scratch/$1" || {
    printf '/join %s\nknock\n' "$2" | "$bin/sender" localhost "$port" knock
    false
  }
}

come() { # WHO DESCRIPTOR: starts a sender that types what is written to the descriptor
  mkfifo "$scratch/$1.types"
  : >"$scratch/$1"
  "$bin/sender" localhost "$port" "$1" <"$scratch/$1.types" 2>"$scratch/$1" &
  started="$started $!"
  eval "exec $2>\"\$scratch/\$1.types\"; fd_$1=$2; place_$1=\$place; count_$1=0; pid_$1=$!"
}

types() { # WHO LINE
  pace
  shows "$1" types "$2"
  eval "fd=\$fd_$1"
  printf '%s\n' "$2" >&"$fd" || fail "$1 has gone"
}

lines() { grep -v '^knock: ' "$scratch/$1" || :; }
has_lines() { [ "$(lines "$1" | wc -l)" -ge "$2" ]; }

sees() { # WHO LINE: waits until LINE is the next that WHO sees
  eval "count=\$((count_$1 + 1)); count_$1=\$count"
  wait_until has_lines "$1" "$count"
  line=$(lines "$1" | sed -n "${count}p")
  pace
  shows "$1" sees "          $line"
  [ "$line" = "$2" ] || fail "$1 should have seen: $2"
}

leaves() { # WHO
  types "$1" /quit
  eval "pid=\$pid_$1"
  wait "$pid" || fail "$1 has ended with exit code $?"
}
