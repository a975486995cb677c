#!/bin/sh
# sh examples/demo.sh: installs what is missing, builds the programs, and plays a conversation with them.
# shellcheck disable=SC2154 # some variables are set by eval
set -eu
cd "$(dirname "$0")/.."
bin=build/demo/bin

sh cmake/setup.sh libnss-myhostname
sh cmake/install-programs.sh "${bin%/bin}"
scratch=$(mktemp -d)
started=
# shellcheck disable=SC2086 # a list
trap 'kill $started 2>/dev/null || :; rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM
trap : PIPE  # a write to somebody who has gone fails

fail() {
  echo "demo: $1" >&2
  exit 1
}

# --- The actors -------------------------------------------------------------------------------------------------------
# What each of them prints goes to a file of that name: of the server and the senders stderr, of the receivers both.

# wait_until COMMAND...: until it succeeds.
wait_until() {
  tries=0
  until "$@"; do
    tries=$((tries + 1))
    [ $tries -lt 200 ] || fail "waited in vain: $*"
    sleep 0.1
  done
}

listen() { # WHO ROOM: returns when WHO hears the room
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

come() { # WHO DESCRIPTOR: a sender that types what is written to the descriptor
  mkfifo "$scratch/$1.types"
  : >"$scratch/$1"
  $bin/sender localhost "$port" "$1" <"$scratch/$1.types" 2>"$scratch/$1" &
  started="$started $!"
  eval "exec $2>\"\$scratch/\$1.types\"; fd_$1=$2; pid_$1=$!"
}

types() { # WHO LINE
  printf '  %-5s  types  %s\n' "$1" "$2"
  eval "fd=\$fd_$1"
  printf '%s\n' "$2" >&"$fd" || fail "$1 has gone"
}

lines() { grep -v '^knock: ' "$scratch/$1" || :; }
has_lines() { [ "$(lines "$1" | wc -l)" -ge "$2" ]; }

sees() { # WHO LINE: the next that WHO sees is LINE
  eval "count=\$((\${count_$1:-0} + 1)); count_$1=\$count"
  wait_until has_lines "$1" "$count"
  line=$(lines "$1" | sed -n "${count}p")
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
$bin/server 0 2>"$scratch/server" &
server=$!
started=$server
wait_until grep -q '^listening on port' "$scratch/server"
port=$(sed 's/[^0-9]//g' "$scratch/server")
printf '\nThe server listens on port %s. Two receivers come, each to a room:\n' "$port"
listen alice cafe
listen dave library

printf '\nTwo senders come. Who is in no room yet is refused:\n'
come bob 4
come carol 5
types bob 'hello?'
sees bob 'join a room first'

printf '\nA text goes to those who listen in its room:\n'
types bob '/join cafe'
types bob 'hey everybody!'
sees alice 'bob: hey everybody!'
types carol '/join library'
types carol 'Hush, I am reading.'
sees dave 'carol: Hush, I am reading.'

printf '\nBob goes to the other room:\n'
types bob '/join library'
types bob 'What is it about?'
sees dave 'bob: What is it about?'
types carol 'Threads.'
sees dave 'carol: Threads.'

printf '\nWhat is no name of a room is refused, and Bob stays where he is:\n'
types bob '/join the garden'
sees bob 'invalid room name (letters and digits only)'
types bob 'Then I stay.'
sees dave 'bob: Then I stay.'

printf '\nBoth leave, and the server is stopped:\n'
leaves bob
leaves carol
kill -TERM "$server"
wait "$server" || fail "the server has ended with exit code $?"
sees alice 'receiver: the server has closed the connection'
sees dave 'receiver: the server has closed the connection'

cat <<END

Now by hand, in three terminals, each in $PWD:

  $bin/server 47374
  $bin/receiver localhost 47374 alice cafe
  $bin/sender localhost 47374 bob

and type into the last one: /join cafe, then hey everybody!, at the end /quit.
END
