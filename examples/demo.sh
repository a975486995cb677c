#!/bin/sh
# sh examples/demo.sh: installs what is missing, builds the programs, and plays a conversation with them.
# shellcheck disable=SC2154 # shared.sh sets variables
set -eu
cd "$(dirname "$0")/.."
. examples/shared.sh

needs='cmake ninja-build g++ libasio-dev libcli11-dev libspdlog-dev libnss-myhostname'
programs='server sender receiver echo_server echo_client'
if command -v apt-get >/dev/null || pkg-config --exists libedit 2>/dev/null; then # the terminal client
  needs="$needs pkg-config libedit-dev"
  programs="$programs chat"
fi
# What the server needs for the page; elsewhere it has the page if these are there already.
! command -v apt-get >/dev/null || needs="$needs libssl-dev libwslay-dev libhttp-parser-dev"
# shellcheck disable=SC2086 # lists
sh cmake/setup.sh $needs
# shellcheck disable=SC2086
build $programs

# --- The conversation -------------------------------------------------------------------------------------------------

: >"$scratch/server"
$bin/server 0 --log warn 2>"$scratch/server" &
server=$!
started=$server
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
was_cut() { grep 'event=ended reason=' "$scratch/server"; }
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
started=  # all have ended, so their numbers may be those of other processes now

printf '\nThe same server with another service, which echoes each line until "end":\n'
: >"$scratch/echo"
$bin/echo_server 0 2>"$scratch/echo" >/dev/null &
started=$!
wait_until grep -q '^listening on port' "$scratch/echo"
for line in 'hello' 'end'; do
  pace
  printf '  you    type   %s\n' "$line"
done
printf 'hello\nend\n' | $bin/echo_client localhost "$(port_of echo)" | sed 's/^/  you    see              /'

websocket=
! $bin/server --check 0 --websocket 0 >/dev/null 2>&1 || websocket=' --websocket 8080'
cat <<END

Now by hand, in three terminals, each in $PWD:

  $bin/server 47374$websocket --history 100 --presence
  $bin/receiver localhost 47374 alice cafe
  $bin/sender localhost 47374 bob

and type into the last one: /join cafe, then hey everybody!, at the end /quit.
END
[ ! -x $bin/chat ] || cat <<END

One program that talks and listens, for another terminal or two:

  $bin/chat localhost 47374 carol cafe
END
[ -z "$websocket" ] || cat <<END

The same for a browser, while the server runs: http://localhost:8080/#cafe
END
