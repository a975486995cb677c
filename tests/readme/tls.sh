# tls.sh HOWTO SERVER: the how-to's commands for TLS provide a chat over TLS, on other ports.
set -euo pipefail
command -v stunnel >/dev/null && command -v openssl >/dev/null || exit 77
dir=$(mktemp -d)
server=$(realpath "$2")
started=
trap 'kill $started 2>/dev/null || :; rm -rf "$dir"' EXIT
# Below the ephemeral ports: an attempt to connect to one of these that is free could connect to itself.
plain=$((RANDOM % 10000 + 10000))
tls=$((plain + 10000))
awk '/^## / { inside = /TLS/ } inside && /^```/ { block = !block; next } inside && block' "$1" |
  sed "s/47374/$plain/; s/6697/$tls/" >"$dir/all"
grep -v '^server \|^stunnel \|s_client' "$dir/all" >"$dir/setup"
client=$(grep s_client "$dir/all")
cd "$dir"
sh -eu setup 2>openssl.log

"$server" "$plain" --address 127.0.0.1 2>server.log &
started=$!
stunnel stunnel.conf 2>stunnel.log &
started+=" $!"
for port in "$plain" "$tls"; do
  until (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
    for process in $started; do kill -0 "$process"; done # else it has died
    sleep 0.05
  done
done
coproc CHAT { $client 2>client.log; }
started+=" $CHAT_PID"
printf 'slogin:ann\njoin:cafe\nsendall:hi\n' >&"${CHAT[1]}"
for _ in 1 2 3; do
  read -r line <&"${CHAT[0]}"
  [[ $line == ok:* ]]
done
