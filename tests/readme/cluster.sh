#!/bin/sh
# cluster.sh SOURCE BIN: plays examples/cluster.sh with the programs in BIN. It must say what was seen, and leave no
# process behind.
set -eu
command -v redis-server >/dev/null || {
  echo 'cluster: skipped: there is no redis-server'
  exit 77
}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
code=0
# All processes inherit descriptor 3. While one of them runs, this does not end.
left=$(sh "$1/examples/cluster.sh" "$2" 3>&1 >"$scratch/shown" 2>"$scratch/errors") || code=$?
cat "$scratch/shown" "$scratch/errors"
[ "$code" = 0 ] && [ ! "$left" ] || exit 1

expect() { # COUNT PATTERN
  [ "$(grep -c "$2" "$scratch/shown")" = "$1" ] || {
    echo "cluster: not $1 times: $2" >&2
    exit 1
  }
}
for who in 'alice at A' 'dave  at B' 'eve   at C'; do
  expect 1 "$who  sees  *bob: hey everybody!"
  expect 1 "$who  sees  *carol: Hello from next door."
done
expect 1 'alice, dave and eve have seen the same 2000 lines in the same order'
expect 1 'eve   at C  sees  *receiver: '
for who in 'alice at A' 'dave  at B' 'eve   at B'; do expect 1 "$who  sees  *bob: There she is!"; done
