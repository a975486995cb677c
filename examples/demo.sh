#!/bin/sh
# sh examples/demo.sh: installs what is missing, builds the programs, and plays a conversation with them.
# shellcheck disable=SC2154 # some variables are set by eval
set -eu
cd "$(dirname "$0")/.."
bin=build/demo/bin

sh cmake/setup.sh cmake ninja-build g++ libasio-dev libcli11-dev libspdlog-dev libnss-myhostname
echo 'Building the programs (a minute or two)'
mkdir -p build
cmake --preset dev -B "${bin%/bin}" -DCHATPROTO_BUILD_TESTS=OFF -DCHATPROTO_BUILD_CONFORMANCE=OFF \
  -DCMAKE_COMPILE_WARNING_AS_ERROR=OFF -DCMAKE_CXX_FLAGS_DEBUG=-O1 >build/demo.log || {
  cat build/demo.log
  exit 1
}
cmake --build "${bin%/bin}" --target server sender receiver echo_server echo_client
scratch=$(mktemp -d)
started=
# shellcheck disable=SC2086 # a list
trap 'kill $started 2>/dev/null || :; rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM
trap : PIPE  # a write to a program that has ended fails

fail() {
  echo "demo: $1" >&2
  exit 1
}

# --- The actors -------------------------------------------------------------------------------------------------------
# Each actor's output goes to a file of its name: stderr of the server and the senders, both streams of the receivers.

# wait_until COMMAND...: waits until it succeeds.
wait_until() {
  tries=0
  until "$@"; do
    tries=$((tries + 1))
    [ $tries -lt 200 ] || fail "waited in vain: $*"
    sleep 0.1
  done
}

pace() { # on a terminal: pauses for the reader
  [ ! -t 1 ] || sleep 0.6
}

listen() { # WHO ROOM: returns when WHO is in the room
  : >"$scratch/$1"
  $bin/receiver localhost "$port" "$1" "$2" >"$scratch/$1" 2>&1 &
  started="$started $!"
  wait_until heard_a_knock "$1" "$2"
  echo "  $1 listens in the $2"
}
heard_a_knock() {
  grep -q '^knock' "$scratch/$1" || {
    printf '/join %s\nknock\n' "$2" | $bin/sender localhost "$port" knock
    false
  }
}

come() { # WHO DESCRIPTOR: starts a sender that types what is written to the descriptor
  mkfifo "$scratch/$1.types"
  : >"$scratch/$1"
  $bin/sender localhost "$port" "$1" <"$scratch/$1.types" 2>"$scratch/$1" &
  started="$started $!"
  eval "exec $2>\"\$scratch/\$1.types\"; fd_$1=$2; pid_$1=$!"
}

types() { # WHO LINE
  pace
  printf '  %-5s  types  %s\n' "$1" "$2"
  eval "fd=\$fd_$1"
  printf '%s\n' "$2" >&"$fd" || fail "$1 has gone"
}

lines() { grep -v '^knock: ' "$scratch/$1" || :; }
has_lines() { [ "$(lines "$1" | wc -l)" -ge "$2" ]; }

sees() { # WHO LINE: waits until LINE is the next that WHO sees
  eval "count=\$((\${count_$1:-0} + 1)); count_$1=\$count"
  wait_until has_lines "$1" "$count"
  line=$(lines "$1" | sed -n "${count}p")
  pace
  printf '  %-5s  sees             %s\n' "$1" "$line"
  [ "$line" = "$2" ] || fail "$1 should have seen: $2"
}

leaves() { # WHO
  types "$1" /quit
  eval "pid=\$pid_$1"
  wait "$pid" || fail "$1 has ended with exit code $?"
}

# --- The conversation -------------------------------------------------------------------------------------------------

: >"$scratch/server"
$bin/server 0 --log warn 2>"$scratch/server" &
server=$!
started=$server
port_of() { sed -n 's/^listening on port //p' "$scratch/$1"; }
wait_until grep -q '^listening on port' "$scratch/server"
port=$(port_of server)
printf '\nThe server listens on port %s. Two receivers come, and each joins a room:\n' "$port"
listen alice cafe
listen dave library

printf '\nTwo senders come. A sender must join a room before it speaks:\n'
come bob 4
come carol 5
types bob 'hello?'
sees bob 'join a room first'

printf '\nA text goes to the receivers in its room:\n'
types bob '/join cafe'
types bob 'hey everybody!'
sees alice 'bob: hey everybody!'
types carol '/join library'
types carol 'Hush, I am reading.'
sees dave 'carol: Hush, I am reading.'

printf '\nBob moves to the other room:\n'
types bob '/join library'
types bob 'What is it about?'
sees dave 'bob: What is it about?'
types carol 'Threads.'
sees dave 'carol: Threads.'

printf '\nAn invalid room name is refused, and Bob stays where he is:\n'
types bob '/join the garden'
sees bob 'invalid room name (letters and digits only)'
types bob 'Then I stay.'
sees dave 'bob: Then I stay.'

texts=20000
printf '\nEve joins the cafe, but her receiver is stopped and reads nothing. Dan types %s lines:\n' $texts
listen eve cafe
eve=$!
kill -STOP "$eve"
dan() {
  awk -v n=$texts 'BEGIN { print "/join cafe"; for (i = 1; i <= n; i++) printf "%d %0200d\n", i, 0; print "/quit" }'
}
dan | $bin/sender localhost "$port" dan 2>"$scratch/dan" || fail 'dan was not heard'
has_heard_dan() { [ "$(grep -c '^dan: ' "$scratch/alice")" = $texts ]; }
wait_until has_heard_dan
count_alice=$((count_alice + texts))
printf '  alice  sees             all %s lines\n' $texts
was_cut() { grep 'reason=overflow' "$scratch/server"; }
wait_until was_cut >"$scratch/cut"
printf '  server logs             %s\n' "$(sed 's/^time=[^ ]* //' "$scratch/cut")"
kill -KILL "$eve"

printf '\nBob and Carol leave, and the server is stopped:\n'
leaves bob
leaves carol
kill -TERM "$server"
wait "$server" || fail "the server has ended with exit code $?"
sees alice 'receiver: the server has closed the connection'
sees dave 'receiver: the server has closed the connection'

printf '\nThe same server with another service, which echoes each line until "end":\n'
: >"$scratch/echo"
$bin/echo_server 0 2>"$scratch/echo" >/dev/null &
started="$started $!"
wait_until grep -q '^listening on port' "$scratch/echo"
for line in 'hello' 'end'; do
  pace
  printf '  you    type   %s\n' "$line"
done
printf 'hello\nend\n' | $bin/echo_client localhost "$(port_of echo)" | sed 's/^/  you    see              /'

cat <<END

Now by hand, in three terminals, each in $PWD:

  $bin/server 47374
  $bin/receiver localhost 47374 alice cafe
  $bin/sender localhost 47374 bob

and type into the last one: /join cafe, then hey everybody!, at the end /quit.
END
