# news.sh NEWS: the how-to's news reach every connected client, and its server ends with its input.
set -euo pipefail
dir=$(mktemp -d)
mkfifo "$dir/in"
"$1" 0 <"$dir/in" >"$dir/out" &
server=$!
trap 'kill -9 $server 2>/dev/null || :; rm -rf "$dir"' EXIT
exec 9>"$dir/in"
until grep -q '^listening on port [0-9]' "$dir/out"; do
  kill -0 $server # else it has died
  sleep 0.05
done
port=$(sed -n 's/^listening on port //p' "$dir/out")
exec 3<>"/dev/tcp/127.0.0.1/$port" 4<>"/dev/tcp/127.0.0.1/$port"
for reader in 3 4; do # an answer shows that it is connected
  echo hello >&$reader
  read -r line <&$reader
  test "$line" = 'nobody listens to you here'
done
echo 'it rains' >&9
for reader in 3 4; do
  read -r line <&$reader
  test "$line" = 'it rains'
done
exec 9>&-
for reader in 3 4; do
  if read -r line <&$reader; then exit 1; fi
done
exec 3>&- 4>&-
wait $server
