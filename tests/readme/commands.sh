#!/bin/sh
# sh commands.sh SOURCE: in the pages of docs/ a shell block only starts scripts that are there, with options that they know. (The
# tutorial's are played, by tutorial.sh. What the scripts do is tested elsewhere, or takes long.)
set -eu
cd "$1"
lines=$(awk '/^```sh$/ { inside = 1; next } /^```$/ { inside = 0 } inside && FILENAME != "docs/tutorial.md" { print }' docs/*.md)
[ -n "$lines" ]
echo "$lines" | while read -r shell script options; do
  echo "$shell $script $options"
  case $shell in
    sh | bash) "$shell" -n "$script" ;;
    *) false ;;
  esac
  for option in $options; do
    case $option in
      --*) grep -qF -e "$option" "$script" ;;
    esac
  done
done
