#!/bin/sh
# hosts.sh BIN_DIR: runs the programs on three hosts, each with its own network, addresses and link: network namespaces
# connected by a switch (a bridge, in a namespace of its own). Nothing sleeps; what should happen is awaited for 20 s.
#
# The namespaces have no names: they last as long as their processes, and nothing can be left behind. A user that is not
# root becomes root in a user namespace, where the system allows that.
# shellcheck disable=SC2154 # some variables are set by eval
set -eu
bin=$(cd "$1" && pwd)

skip() {
  echo "hosts: skipped: $1"
  exit 77
}
fail() {
  echo "hosts: $1" >&2
  exit 1
}

if [ -z "${CHATPROTO_IN_SWITCH:-}" ]; then
  for tool in ip unshare nsenter; do
    command -v $tool >/dev/null || skip "there is no '$tool' (Debian: iproute2, util-linux)"
  done
  as_root=
  [ "$(id -u)" = 0 ] || as_root='--user --map-root-user'
  # shellcheck disable=SC2086 # words
  unshare $as_root --net true 2>/dev/null || skip 'network namespaces are not allowed'
  # shellcheck disable=SC2086 # words
  CHATPROTO_IN_SWITCH=1 exec unshare $as_root --net sh "$0" "$bin"
fi

scratch=$(mktemp -d)
hosts=
started=
at_exit() {
  code=$?
  if [ $code != 0 ] && [ $code != 77 ]; then
    for file in "$scratch"/*; do
      [ -f "$file" ] && sed "s|^|${file##*/}: |" "$file" | cut -c 1-150 | tail -n 20 >&2
    done
  fi
  # shellcheck disable=SC2086 # lists
  kill -9 $started $hosts 2>/dev/null || :
  rm -rf "$scratch"
}
trap at_exit EXIT
trap 'exit 1' HUP INT TERM

wait_until() { # COMMAND...: waits until it succeeds
  tries=0
  until "$@"; do
    tries=$((tries + 1))
    [ $tries -lt 400 ] || fail "waited in vain: $*"
    sleep 0.05
  done
}
said() { grep -qxF "$2" "$scratch/$1"; } # WHO LINE

# --- The network ------------------------------------------------------------------------------------------------------

ip link add switch type bridge mcast_snooping 0 2>/dev/null || skip 'this system has no bridges'
ip link set switch up
ipv6=yes

has_a_net_of_its_own() { [ "$(readlink "/proc/$1/ns/net")" != "$(readlink /proc/self/ns/net)" ]; }
add_host() { # N: 10.74.0.N and fd00::N
  unshare --net sleep 600 &
  eval "host_$1=$!"
  hosts="$hosts $!"
  wait_until has_a_net_of_its_own $!
  ip link add "port$1" type veth peer name eth0 netns $!
  ip link set "port$1" master switch up
  on "$1" ip link set lo up
  on "$1" ip address add "10.74.0.$1/24" dev eth0
  on "$1" ip address add "fd00::$1/64" dev eth0 nodad 2>/dev/null || ipv6=
  on "$1" ip link set eth0 up
}
become() { # N COMMAND...: executes it on that host, in place of this shell
  eval "net=/proc/\$host_$1/ns/net"
  shift
  exec nsenter --net="$net" "$@"
}
on() { (become "$@"); }

start() { # N WHO PROGRAM ARGUMENT...: starts it there; stdin is the file $types, output goes to the file WHO
  at=$1 who=$2 program=$3
  shift 3
  : >"$scratch/$who"
  become "$at" "$bin/$program" "$@" <"${types:-/dev/null}" >"$scratch/$who" 2>&1 &
  started="$started $!"
  eval "pid_$who=$!"
}
start_server() { # WHO PROGRAM ARGUMENT...: on host 1; sets port
  who=$1 program=$2
  shift 2
  start 1 "$who" "$program" 0 "$@"
  wait_until grep -q '^listening on port' "$scratch/$who"
  port=$(sed -n 's/^listening on port //p' "$scratch/$who")
}
is_over() { ! grep -q '^State:[[:space:]]*[^Z]' "/proc/$1/status" 2>/dev/null; }
ends() { # WHO [CODE]: waits for it to end, with this exit code
  eval "pid=\$pid_$1"
  wait_until is_over "$pid"
  code=0
  wait "$pid" || code=$?
  [ $code = "${2:-0}" ] || fail "$1 has ended with exit code $code"
}
stop() { # WHO
  eval "kill -TERM \$pid_$1"
  ends "$1"
}

for n in 1 2 3; do add_host $n; done
server4=10.74.0.1 server6=fd00::1
[ "$ipv6" ] || {
  echo 'hosts: this system has no IPv6, so all goes over IPv4'
  server6=$server4
}

# --- Echo: each client comes from its own address ---------------------------------------------------------------------

echoes() { # N ADDRESS PATTERN: the server sees the client of host N come from PATTERN
  echo "host $1 to $2" | on "$1" "$bin/echo_client" "$2" "$port" >"$scratch/reply"
  said reply "host $1 to $2"
  wait_until grep "^$3:[0-9]*: host $1 to $2\$" "$scratch/echo"
}
start_server echo echo_server
for n in 2 3; do
  echoes $n $server4 "10\.74\.0\.$n"
  [ -z "$ipv6" ] || echoes $n $server6 "\[fd00::$n\]"
done
stop echo

# --- Who was first ----------------------------------------------------------------------------------------------------
# The server starts reading once both clients are connected, and both send at once. The first line of one of them is too
# long and ignored, so the other is certainly first. Once the server has reported that, the first client sends again.

too_long=$(printf '%0200d' 0)
meet() { # ADDRESS  HOST NAME TEXT  HOST NAME TEXT: both print that the first text was before the second
  start_server arrival arrival_server
  types=$scratch/types
  mkfifo "$types"
  start "$5" second arrival_client "$1" "$port" "$6" "$too_long"
  exec 4>"$types"
  rm "$types"
  types=
  start "$2" first arrival_client "$1" "$port" "$3" "$4"
  wait_until grep -q "says: $3: $4\$" "$scratch/arrival"
  echo "$6: $7" >&4
  exec 4>&-
  ends first
  ends second
  stop arrival
  for who in first second; do
    said $who "received: $3: $4 received before $6: $7" || fail "$who has not seen that $3 was before $6"
  done
  echo "hosts $2 and $5: $3: $4 received before $6: $7"
}
meet $server4 2 X Alice 3 Y Bob
meet $server6 3 Y Bob 2 X Alice

# --- A secret over a connection that others can read ------------------------------------------------------------------

knocks() { # N ADDRESS FLAG...: bob logs in with his secret, from host N; what the sender says is kept
  at=$1 address=$2
  shift 2
  on "$at" "$bin/sender" "$address" "$port" bob --password-file "$scratch/secret" "$@" </dev/null >"$scratch/reply" 2>&1
}
echo 'correct horse' >"$scratch/secret"
if "$bin/server" --hash bob <"$scratch/secret" >"$scratch/passwords" 2>"$scratch/reply"; then
  start_server server server --passwords "$scratch/passwords"
  knocks 1 localhost || fail 'a secret is refused on the machine of the server'
  for address in $server4 $server6; do
    if knocks 2 "$address"; then fail 'a sender has sent a secret'; fi
    said reply 'sender: the secret was not sent: the connection is not encrypted (see --insecure-passwords)'
    if knocks 2 "$address" --insecure-passwords; then fail 'the server has taken a secret'; fi
    said reply 'secrets need an encrypted connection'
  done
  stop server
  start_server server server --passwords "$scratch/passwords" --insecure-passwords
  knocks 2 $server4 --insecure-passwords || fail 'a secret is refused though both sides were told to accept that'
  stop server
  echo 'No secret has left a host, before both sides were told to accept that.'
else
  echo 'hosts: the server has no secrets'
fi

# --- A chat, and a link that goes down --------------------------------------------------------------------------------

# What the kernel buffers for a client has left the server. These buffers are small, so that a drain has something to
# wait for.
on 1 sh -c 'echo 4096 16384 65536 >/proc/sys/net/ipv4/tcp_wmem' 2>/dev/null ||
  echo 'hosts: the size of the send buffers is as it is, so the drain may have nothing to wait for'
start_server server server --drain 1 --write-deadline 600 --queue-limit 100000000

speak() { # N ADDRESS WHO: sends its input to the cafe
  { echo /join cafe && cat; } | on "$1" "$bin/sender" "$2" "$port" "$3"
}
hears() {
  grep -q '^knock: ' "$scratch/$1" || {
    echo knock | speak 1 localhost knock
    false
  }
}
start 2 alice receiver $server4 "$port" alice cafe
start 3 dave receiver $server6 "$port" dave cafe
wait_until hears alice
wait_until hears dave
echo 'from host 3' | speak 3 $server4 bob
echo 'from host 2' | speak 2 $server6 carol
for who in alice dave; do
  for line in 'bob: from host 3' 'carol: from host 2'; do
    wait_until said $who "$line"
    echo "$who sees  $line"
  done
done

numbers() { sed -n "s/^bob: $2 \\([0-9]*\\) .*/\\1/p" "$scratch/$1"; }
seq 2000 >"$scratch/numbers"
speech() { # WORD: more than the server's kernel buffers for a host that does not answer
  { sed "s/\$/ $too_long/" "$scratch/numbers" && echo over; } | sed "s/^/$1 /" | speak 3 $server4 bob
}
heard_all() { # WHO WORD: received everything, once, in order
  wait_until said "$1" "bob: $2 over"
  numbers "$1" "$2" | cmp - "$scratch/numbers"
}

ip link set port2 down
speech down
heard_all dave down
[ -z "$(numbers alice down)" ] || fail 'the link of host 2 is not down'
echo 'The link of host 2 is down: dave on host 3 sees all, alice on host 2 sees nothing.'
ip link set port2 up
heard_all alice down
echo 'It is up again: alice has seen all.'

# With so much left to write to a dead host, only the drain's deadline ends the server.
ip link set port2 down
speech again
heard_all dave again
stop server
ends dave 1
said dave 'receiver: the server has closed the connection'
echo 'It is down again: dave has seen all, and the server, when stopped, has ended.'

# --- A host that disappears silently ----------------------------------------------------------------------------------

sockets() { # N: the server has N sockets
  [ "$(on 1 ls -l "/proc/$pid_server/fd" | grep -c ' socket:')" = "$1" ]
}
ip link set port2 up
start_server server server --write-deadline 1 --queue-limit 100000000
listening=1
until sockets $listening; do listening=$((listening + 1)); done
start 2 erin receiver $server4 "$port" erin cafe
wait_until hears erin
wait_until sockets $((listening + 1))
ip link set port2 down
speech gone
wait_until sockets $listening
echo 'The link of host 2 is down for good: the server has given up erin, for whom texts waited.'
stop server

# No client sends: only TCP can notice, after twice this time.
ip link set port2 up
start_server server server --keepalive 4
listening=1
until sockets $listening; do listening=$((listening + 1)); done
start 2 fred receiver $server4 "$port" fred cafe
wait_until hears fred
wait_until sockets $((listening + 1))
ip link set port2 down
wait_until sockets $listening
echo 'It is down again: the server has noticed that fred, who was silent, is gone.'
stop server
