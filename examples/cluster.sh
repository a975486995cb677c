#!/bin/sh
# sh examples/cluster.sh [BIN]: installs what is missing, builds the programs, and plays a conversation in one room on
# three servers, one of which is killed. With BIN, a folder that has the programs, it installs and builds nothing.
# shellcheck disable=SC2154 # shared.sh sets variables
set -eu
[ $# = 0 ] || programs=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
. examples/shared.sh

if [ $# = 0 ]; then
  command -v redis-server >/dev/null ||
    echo 'With redis-server, Debian starts a service that is not used here: systemctl disable --now redis-server'
  sh cmake/setup.sh cmake ninja-build g++ pkg-config libasio-dev libcli11-dev libspdlog-dev libnss-myhostname \
    libhiredis-dev redis-server
  build server sender receiver
else
  bin=$programs
fi

# --- Redis and three servers ------------------------------------------------------------------------------------------

redis_is_ready() { grep -q 'Ready to accept connections' "$scratch/redis" || ! kill -0 "$redis" 2>/dev/null; }
tries=0
: >"$scratch/redis"
until grep -q 'Ready to accept connections' "$scratch/redis"; do
  tries=$((tries + 1))
  [ $tries -lt 20 ] || fail "Redis does not start: $(cat "$scratch/redis")"
  redis_port=$((20000 + ($$ + 997 * tries) % 10000)) # another program may have it: then Redis ends
  redis-server --port $redis_port --bind 127.0.0.1 --save '' --appendonly no --dir "$scratch" >"$scratch/redis" 2>&1 &
  redis=$!
  started="$started $redis"
  wait_until redis_is_ready
done

start() { # WHICH: starts this server, whose process is then pid_WHICH
  : >"$scratch/$1"
  "$bin/server" 0 --address 127.0.0.1 --redis "127.0.0.1:$redis_port" 2>"$scratch/$1" &
  started="$started $!"
  eval "pid_$1=$!"
  wait_until has_started "$1"
  at "$1"
  [ "$port" ] || fail "server $1 does not start: $(cat "$scratch/$1")"
  wait_until may_speak # not before the server has reached Redis
}
has_started() { grep -q . "$scratch/$1"; }
may_speak() { [ -z "$(printf '/join cafe\nknock\n' | "$bin/sender" localhost "$port" knock 2>&1)" ]; }
at() { # WHICH: the next actors connect to this server
  port=$(port_of "$1")
  place=" at $1"
}

printf '\nRedis listens on port %s. Three servers use it, so that rooms are the same on all of them:\n' "$redis_port"
for server in A B C; do
  start $server
  printf '  server %s listens on port %s\n' $server "$port"
done

# --- The conversation -------------------------------------------------------------------------------------------------

printf '\nThree receivers come into the same room, each at another server:\n'
at A
listen alice cafe
at B
listen dave cafe
at C
listen eve cafe

printf '\nBob talks to server A. What he says comes out at all three:\n'
at A
come bob 4
types bob '/join cafe'
types bob 'hey everybody!'
for receiver in alice dave eve; do sees $receiver 'bob: hey everybody!'; done

printf '\nCarol answers at server B:\n'
at B
come carol 5
types carol '/join cafe'
types carol 'Hello from next door.'
for receiver in alice dave eve; do sees $receiver 'carol: Hello from next door.'; done

texts=1000
printf '\nDan at server A and Fay at server C each type %s lines, both at the same time:\n' $texts
counts() { # WHO
  awk -v n=$texts 'BEGIN { print "/join cafe"; for (i = 1; i <= n; i++) print i; print "/quit" }' |
    "$bin/sender" localhost "$port" "$1"
}
at A
counts dan &
dan=$!
at C
counts fay &
fay=$!
started="$started $dan $fay"
wait $dan || fail 'dan was not heard'
wait $fay || fail 'fay was not heard'
for receiver in alice dave eve; do
  eval "count_$receiver=\$((count_$receiver + 2 * texts)); count=\$count_$receiver"
  wait_until has_lines $receiver "$count"
  lines $receiver | grep -e '^dan: ' -e '^fay: ' >"$scratch/order.$receiver"
  cmp -s "$scratch/order.alice" "$scratch/order.$receiver" || fail "alice and $receiver have seen different orders"
done
turns=$(sed 's/:.*//' "$scratch/order.alice" | uniq | wc -l)
printf '  alice, dave and eve have seen the same %s lines in the same order; dan and fay took %s turns\n' \
  "$(wc -l <"$scratch/order.alice")" "$turns"

printf '\nServer C is killed (kill -9), and Eve is disconnected:\n'
kill -KILL "$pid_C"
wait "$pid_C" 2>/dev/null || :
ended=0
wait "$pid_eve" || ended=$?
[ $ended != 0 ] || fail 'eve has not noticed it'
count_eve=$((count_eve + 1))
shows eve sees "          $(lines eve | sed -n "${count_eve}p")"

printf '\nThe others go on. Nobody waits for the dead server:\n'
types bob 'Where is Eve?'
for receiver in alice dave; do sees $receiver 'bob: Where is Eve?'; done

printf '\nEve connects to another server. She gets what is said from then on:\n'
at B
listen eve cafe
types bob 'There she is!'
for receiver in alice dave eve; do sees $receiver 'bob: There she is!'; done

printf '\nBob and Carol leave, the two servers are stopped, and then Redis:\n'
leaves bob
leaves carol
for server in A B; do
  eval "pid=\$pid_$server"
  kill -TERM "$pid"
  wait "$pid" || fail "server $server has ended with exit code $?"
done
for receiver in alice dave eve; do sees $receiver 'receiver: the server has closed the connection'; done
kill -TERM "$redis"
wait "$redis" || fail "Redis has ended with exit code $?"

cat <<END

Now by hand, in five terminals, each in $PWD:

  redis-server --port 6380 --save ''
  $bin/server 47374 --redis 127.0.0.1:6380
  $bin/server 47375 --redis 127.0.0.1:6380
  $bin/receiver localhost 47375 alice cafe
  $bin/sender localhost 47374 bob

and type into the last one: /join cafe, then hey everybody!, at the end /quit.
END
