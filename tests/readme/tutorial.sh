#!/bin/sh
# sh tutorial.sh SOURCE BIN: does what docs/tutorial.md says, step by step, in a scratch folder. BIN has the programs
# that the demo would build.
#
# - A cpp or cmake block is the file that was last named before it.
# - A sh block is run. "# in a terminal of its own" marks one that keeps running.
# - Each line of a text block must have been printed since the last command began, by it or by one that keeps running.
#   If not, or if the command fails, it is repeated for a while: the others may not have been ready.
# The ports differ from the tutorial's.
set -eu
source=$(cd "$1" && pwd)
bin=$(cd "$2" && pwd)
page=$source/docs/tutorial.md
scratch=$(mktemp -d)
started=
# shellcheck disable=SC2086 # a list
trap 'kill $started 2>/dev/null || :; wait; rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM

# Writes each block to a file: 01.cpp, 02.sh, with the name of the file that it is in 01.cpp.name.
awk -v folder="$scratch" '
  /^```$/ && kind != "" { kind = ""; close(file); next }
  /^```[a-z]+$/ {
    kind = substr($0, 4)
    file = sprintf("%s/%02d.%s", folder, ++count, kind)
    print name > (file ".name")
    next
  }
  kind != "" { print > file; next }
  {
    while (match($0, /`[A-Za-z]+\.(cpp|txt)`/)) {
      name = substr($0, RSTART + 1, RLENGTH - 2)
      $0 = substr($0, RSTART + RLENGTH)
    }
  }
' "$page"

mkdir -p "$scratch/chatproto/build/demo"
for file in "$source"/*; do
  [ "${file##*/}" = build ] || ln -s "$file" "$scratch/chatproto/"
done
ln -s "$bin" "$scratch/chatproto/build/demo/bin"
export CXXFLAGS="${CXXFLAGS:-} -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Werror"

first=$((20000 + $$ % 1000 * 10)) # below the ephemeral ports
ports="s/4737\\([0-9]\\)/$((first / 10))\\1/g"
folder=$scratch/chatproto
out=$scratch/out
command=
: >"$out"

# Runs the command. Succeeds if it does and everything expected is printed.
try() {
  from=$(($(wc -c <"$out") + 1))
  sh -ec 'cd "$1"; . "$2"; pwd >"$3"' sh "$folder" "$command" "$scratch/folder" >>"$out" 2>&1 || return 1
  [ -z "$1" ] || for _ in 1 2 3 4 5 6 7 8 9 10; do
    missing=
    while IFS= read -r line; do
      tail -c "+$from" "$out" | grep -qxF -e "$line" || missing=$line
    done <"$1"
    [ -n "$missing" ] || return 0
    sleep 0.1
  done
  [ -z "$1" ]
}
# Runs the pending command until it does what the file says.
run() {
  [ -n "$command" ] || return 0
  tries=0
  until try "${1:-}"; do
    tries=$((tries + 1))
    [ $tries -lt 20 ] || {
      cat "$command" "$out"
      echo "tutorial: this fails, or does not print: ${missing:-}"
      exit 1
    }
    sleep 0.5
  done
  folder=$(sed -n '$p' "$scratch/folder")
  sed 's/^/$ /' "$command"
  command=
}

for block in "$scratch"/[0-9][0-9].*; do
  case $block in
    *.name) ;;
    *.cpp | *.cmake)
      run
      file=$folder/$(cat "$block.name")
      [ ! -e "$file" ] || { # else the sources would be written to
        echo "tutorial: $file is there already"
        exit 1
      }
      sed "$ports" "$block" >"$file"
      ;;
    *.text) run "$block" ;;
    *.sh)
      run
      sed -i "$ports" "$block"
      if [ "$(cat "$block")" = 'sh examples/demo.sh' ]; then
        [ -e "$source/examples/demo.sh" ] # it takes minutes
      elif grep -q '^# in a terminal of its own$' "$block"; then
        sed -i '/^#/d; s/^/exec /' "$block"
        (cd "$folder" && exec sh -e "$block") >>"$out" 2>&1 &
        started="$started $!"
        sed 's/^/$ /' "$block"
      else
        command=$block
      fi
      ;;
    *)
      echo "tutorial: what is $block?"
      exit 1
      ;;
  esac
done
run
