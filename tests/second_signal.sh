#!/bin/sh
# second_signal.sh SERVER SENDER RECEIVER: a draining server waits for a receiver that does not read; a second signal
# ends the server at once. The drain would take longer than ctest's timeout for this test.
set -eu
dir=$(mktemp -d)
"$1" 0 --drain 600 --write-deadline 600 --queue-limit 100000000 2> "$dir/server" &
server=$!
trap 'kill -9 $server ${receiver:-} 2> /dev/null || :; rm -rf "$dir"' EXIT
while ! grep -q '^listening on port' "$dir/server"; do
  kill -0 $server # else it has died
  sleep 0.05
done
port=$(sed 's/[^0-9]//g' "$dir/server")

: > "$dir/alice"
"$3" localhost "$port" alice cafe > "$dir/alice" &
receiver=$!
until grep -q . "$dir/alice"; do
  printf '/join cafe\nhere?\n' | "$2" localhost "$port" bob
done
kill -STOP $receiver
text=$(printf '%0200d' 0)
{
  echo /join cafe
  yes "$text" | head -n 50000 # more than the system's buffers hold
} | "$2" localhost "$port" bob

kill -TERM $server
while "$2" localhost "$port" carol < /dev/null 2> /dev/null; do # until it no longer accepts
  sleep 0.05
done
kill -0 $server # it waits for alice
kill -TERM $server
wait $server
