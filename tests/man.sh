#!/bin/sh
# man.sh PROGRAM PAGE: checks that the manual page describes exactly the options that --help describes.
set -eu
told=$("$1" --help | grep -E '^ +-' | grep -oE -e '--[a-z-]+' | sort -u)
page=$(sed 's/\\-/-/g' "$2" | grep -E '^\.BR? ' | grep -oE -e '--[a-z-]+' | sort -u)
[ "$told" ] || {
  echo "man: $1 --help tells of no option" >&2
  exit 1
}
[ "$told" = "$page" ] || {
  echo "man: $1 --help tells of" $told "but $2 of" $page >&2
  exit 1
}
