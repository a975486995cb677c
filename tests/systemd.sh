#!/bin/sh
# systemd.sh UNITS SERVER: checks systemd's units in the folder UNITS: they are right, the server is in a sandbox (an
# exposure of at most 2.0, as systemd counts it), it has a user, and it accepts its default options.
set -eu
units=$(cd "$1" && pwd)
server=$2
command -v systemd-analyze >/dev/null || {
  echo 'systemd: skipped: there is no systemd-analyze'
  exit 77
}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
fail() {
  echo "systemd: $1" >&2
  exit 1
}

# The test below would pass without them.
for unit in chatproto-server.service chatproto-server.socket chatproto-server-tls.socket; do
  [ -s "$units/$unit" ] || fail "$unit is missing"
done
grep -q '^FileDescriptorName=tls$' "$units/chatproto-server-tls.socket" || fail 'the socket for TLS has another name'
if grep -q tls "$units/chatproto-server.service"; then fail 'the server must not need the socket for TLS'; fi
cp "$units"/*.service "$units"/*.socket "$scratch"
sed -i "s#/usr/bin/chatproto-server#$server#" "$scratch"/*.service # where the package is not installed
systemd-analyze verify --man=no "$scratch"/*.service "$scratch"/*.socket >"$scratch/said" 2>&1 ||
  fail "a unit is wrong: $(cat "$scratch/said")"
[ ! -s "$scratch/said" ] || fail "a unit is doubtful: $(cat "$scratch/said")"
for service in "$scratch"/*.service; do
  systemd-analyze security --offline=true --threshold=20 --no-pager "$service" >"$scratch/said" 2>&1 ||
    fail "its sandbox has holes: $(cat "$scratch/said")"
  tail -n 1 "$scratch/said"
done

mkdir -p "$scratch/root/etc"
systemd-sysusers --root="$scratch/root" "$units/chatproto-server.conf" >"$scratch/said" 2>&1 || cat "$scratch/said"
user=$(sed -n 's/^User=//p' "$units/chatproto-server.service")
grep "^$user:" "$scratch/root/etc/passwd" || fail "there is no user '$user'"

folder=$units/chatproto-server.tmpfiles
grep -q "^d /etc/chatproto 2750 root $user " "$folder" || fail "a folder that '$user' cannot read"
if [ "$(id -u)" = 0 ] && command -v systemd-tmpfiles >/dev/null; then
  systemd-tmpfiles --root="$scratch/root" --create "$folder" || fail 'the folder cannot be made'
  [ "$(stat -c %a "$scratch/root/etc/chatproto")" = 2750 ] || fail 'the folder has another mode'
fi

# shellcheck source=/dev/null
. "$units/chatproto-server.default"
# shellcheck disable=SC2086 # words
[ "$("$server" --check $CHATPROTO_OPTIONS)" = ok ] || fail "the server does not accept $CHATPROTO_OPTIONS"
# What is commented out, as far as it goes without a Redis.
commented=$(sed -n 's/^#CHATPROTO_OPTIONS="\(.*\)"$/\1/p' "$units/chatproto-server.default")
[ "$commented" ] || fail 'there is no example for several machines'
for word in $commented; do
  case $word in
    --*) "$server" --help | grep -qw -e "$word" || fail "the server does not know $word" ;;
  esac
done
