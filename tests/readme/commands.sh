#!/bin/sh
# sh commands.sh SOURCE: checks that what the pages tell a reader to type exists: scripts that parse, the options they
# are given, presets, CMake variables. (tutorial.sh runs the tutorial's commands. What the others do is tested
# elsewhere, or takes long.)
set -eu
cd "$1"
lines=$(awk '/^```sh$/ { inside = 1; next } /^```$/ { inside = 0 }
  inside && FILENAME != "docs/tutorial.md" { sub(/ #.*/, ""); print }' \
  README.md CONTRIBUTING.md docs/*.md examples/README.md tests/conformance/README.md)
[ -n "$lines" ]
set -f

grep -o '^| `--[^|]*' docs/operate.md | grep -o -e '--[a-z-]*' | while read -r flag; do # the table of limits
  echo "$flag"
  grep -rqF "\"$flag\"" examples || exit 1
done

known_to() { # FILE WORD...: whether the file contains all words that begin with --
  for word in "$@"; do
    case $word in
      --) break ;; # another program's
      --*) grep -qF -e "${word%%=*}" "$1" || { echo "$1 does not know $word" >&2 && return 1; } ;;
    esac
  done
}

# Not echo, which may take the backslashes of a command for its own.
printf '%s\n' "$lines" | sed 's/ && /\n/g' | while read -r program rest; do
  printf '%s\n' "$program $rest"
  # shellcheck disable=SC2086 # words
  set -- $rest
  case $program in
    sh | bash)
      "$program" -n "$1" || exit 1
      known_to "$@" || exit 1
      ;;
    cmake | ctest)
      while [ $# -gt 0 ]; do
        case $1 in
          --preset) grep -qF "\"name\": \"$2\"" CMakePresets.json || exit 1 ;;
          -DCHATPROTO_*) name=${1#-D} && grep -qrF "${name%%=*}" CMakeLists.txt cmake || exit 1 ;;
        esac
        shift
      done
      ;;
    *chatproto-conformance) known_to tests/conformance/options.cpp "$@" || exit 1 ;;
    *chatproto-grade) known_to grading/chatproto-grade "$@" || exit 1 ;;
    python3)
      [ -f "$1" ] || exit 1
      script=$1 && shift
      known_to "$script" "$@" || exit 1
      ;;
    server | sender | receiver | chatproto-server | chatproto-sender)
      for word in "$@"; do
        case $word in
          --*) grep -rqF "\"$word\"" examples || { echo "$program does not know $word" >&2 && exit 1; } ;;
        esac
      done
      ;;
    # Commands of others, a continuation of the line before, or programs that the command before has built.
    --* | apt | build/* | docker | pacman | PATH=* | bwrap | mkdir | cp | sed | echo | openssl | systemctl | \
      journalctl | systemd-socket-activate | certbot | ln | chmod | printf) ;;
    *) exit 1 ;;
  esac
done
