#!/bin/sh
# SPDX-License-Identifier: BSL-1.0
# faults.sh BIN_DIR POLICY: a server gets signals, is killed and restarted, and takes a storm of connections. The
# program soak is the clients, and judges. Nothing sleeps, except while the server is stopped: CHATPROTO_STOP seconds
# (2).
# shellcheck disable=SC2317 # some functions are called by name
set -eu
bin=$(cd "$1" && pwd)
policy=$2

scratch=$(mktemp -d)
server='' others=''
at_exit() {
  code=$?
  rm -f "$scratch/samples"
  [ $code = 0 ] || tail -n 40 "$scratch"/* >&2
  # shellcheck disable=SC2086 # there may be none
  kill -9 $server $others 2>/dev/null || :
  rm -rf "$scratch"
}
trap at_exit EXIT
trap 'exit 1' HUP INT TERM

fail() {
  echo "faults: $1" >&2
  exit 1
}
wait_until() { # COMMAND...: waits until it succeeds
  tries=0
  until "$@"; do
    tries=$((tries + 1))
    [ $tries -lt 1200 ] || fail "waited in vain: $*"
    sleep 0.05
  done
}
is_over() { ! grep -q '^State:[[:space:]]*[^Z]' "/proc/$1/status" 2>/dev/null; }
said() { grep -q "$2" "$scratch/$1"; } # FILE PATTERN

start_server() { # PORT OPTION...: sets server, and port if that is 0
  : >"$scratch/server"
  "$bin/server" "$@" --address 127.0.0.1 --policy "$policy" 2>"$scratch/server" &
  server=$!
  [ "$1" = 0 ] || return 0
  wait_until said server '^listening on port'
  port=$(sed -n 's/^listening on port //p' "$scratch/server")
}
ends() { # CODE: waits for the server's exit code
  wait_until is_over "$server"
  code=0
  wait "$server" || code=$?
  server=''
  [ $code = "$1" ] || fail "the server has ended with exit code $code"
}
listen() { # WHO: sets listener
  : >"$scratch/$1"
  "$bin/receiver" localhost "$port" "$1" cafe --login-deadline 0 >"$scratch/$1" 2>&1 &
  listener=$!
  others="$others $listener"
}
hears() { # WHO
  said "$1" '^carol: ' || printf '/join cafe\nhere?\n' | "$bin/sender" localhost "$port" carol
  said "$1" '^carol: '
}

# --- SIGTERM and SIGINT under load: each text that had its ok is delivered --------------------------------------------

for signal in TERM INT; do
  start_server 0
  "$bin/soak" "$port" --pid "$server" --seconds 1 --end $signal
  ends 0
done

# --- SIGHUP and SIGPIPE, and stopped for a while, under load: nothing is lost, and new clients are served -------------

has_samples() { [ "$(wc -l <"$scratch/samples")" -ge "$1" ]; }
is_stopped() { grep -q '^State:[[:space:]]*T' "/proc/$server/status"; }
stop_time=${CHATPROTO_STOP:-2}
start_server 0
: >"$scratch/samples"
"$bin/soak" "$port" --pid "$server" --calibration 1 --seconds $((stop_time + 4)) --csv "$scratch/samples" \
  >"$scratch/soak" 2>&1 &
load=$!
others="$others $load"
wait_until has_samples 3
kill -HUP "$server"
kill -PIPE "$server"
kill -STOP "$server"
wait_until is_stopped
listen alice
printf '/join cafe\nwhile it was stopped\n' |
  "$bin/sender" localhost "$port" bob --login-deadline 0 --reply-deadline 0 >"$scratch/bob" 2>&1 &
bob=$!
others="$others $bob"
sleep "$stop_time"
kill -CONT "$server"
wait $bob || fail 'who came while the server was stopped was not served'
wait_until hears alice
kill "$listener" # the load waits until no client is left
wait $load || fail 'the load has seen something wrong'
sed -n '/^  [a-z]*  *[0-9]*$/p' "$scratch/soak"

# --- Killed, and started again on the same port, which its old connections still hold ---------------------------------

listen dave
wait_until hears dave
kill -STOP "$listener" # its connection stays half open
kill -9 "$server"
ends 137
start_server "$port"
is_back_or_over() { is_over "$server" || "$bin/sender" localhost "$port" bob </dev/null 2>/dev/null; }
wait_until is_back_or_over
! is_over "$server" || fail "the port is not free: $(cat "$scratch/server")"

# --- All come back at once --------------------------------------------------------------------------------------------

clients=5000
[ "$policy" != thread-per-client ] || clients=500 # a thread and four descriptors for each
# The hard limit, to which the programs raise their own.
fit=$(sed -n 's/^Max open files  *[^ ]*  *\([0-9]*\).*/\1/p' /proc/self/limits)
[ -z "$fit" ] || [ $clients -le $((fit - 100)) ] || clients=$((fit - 100))
"$bin/soak" "$port" --storm $clients

kill -TERM "$server"
ends 0
