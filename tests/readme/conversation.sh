# conversation.sh SERVER CLIENT LISTENER: the how-to's client sends, its listener receives that, and its server shuts
# down cleanly.
set -eu
out=$(mktemp)
heard=$(mktemp)
"$1" 0 > "$out" &
server=$!
listener=
trap 'kill -9 $server $listener 2> /dev/null || :; rm -f "$out" "$heard"' EXIT
while ! grep -q '^listening on port [0-9]' "$out"; do
  kill -0 $server  # else it has died
  sleep 0.05
done
port=$(sed -n 's/^listening on port //p' "$out")
"$3" "$port" > "$heard" &
listener=$!
until test -s "$heard"; do  # it may not have joined yet
  test "$("$2" "$port")" = "ok: sent"
  sleep 0.05
done
wait $listener
test "$(cat "$heard")" = "bob: hey everybody!"
kill -TERM $server
wait $server
