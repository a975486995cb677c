# conversation.sh SERVER CLIENT: the README's client speaks with its server, which then ends in order.
set -eu
out=$(mktemp)
"$1" 0 > "$out" &
server=$!
trap 'kill -9 $server 2> /dev/null || :; rm -f "$out"' EXIT
while ! grep -q '^listening on port [0-9]' "$out"; do
  kill -0 $server  # or it has died
  sleep 0.05
done
port=$(sed -n 's/^listening on port //p' "$out")
test "$("$2" "$port")" = "ok: sent"
kill -TERM $server
wait $server
