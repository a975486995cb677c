#!/bin/sh
# sh tests/fuzz/coverage.sh [-v]: tells how many lines of the headers without I/O the kept corpora run; -v: and which
# lines they do not run.
# shellcheck disable=SC2046,SC2086  # lists are meant to be split
set -eu
cd "$(dirname "$0")/../.."

targets='line_reader message message_queue room_log session'
build=build/fuzz-coverage
flags='-std=c++20 -O0 -g -fprofile-instr-generate -fcoverage-mapping -Iinclude'
mkdir -p $build

# One program for all targets, because counts of several cannot be added.
objects=''
for name in $targets; do
  renamed="-DLLVMFuzzerTestOneInput=fuzz_$name -Dmain=replay_$name"
  clang++-19 $flags $renamed -c tests/fuzz/$name.cpp -o $build/$name.o
  clang++-19 $flags $renamed -c tests/fuzz/replay.cpp -o $build/replay_$name.o
  objects="$objects $build/$name.o $build/replay_$name.o"
done
{
  printf 'int replay_%s(int, char**);\n' $targets
  echo 'int main(int, char** corpora) { return false'
  printf ' || replay_%s(2, corpora++)\n' $targets
  echo '; }'
} > $build/main.cpp
clang++-19 $flags $build/main.cpp $objects -o $build/replay
LLVM_PROFILE_FILE=$build/profraw $build/replay $(printf 'tests/fuzz/corpus/%s ' $targets)
llvm-profdata-19 merge $build/profraw -o $build/profdata

cover() {
  command=$1
  shift
  llvm-cov-19 "$command" $build/replay -instr-profile $build/profdata "$@" \
    $(printf 'include/chatproto/%s.hpp ' error message line_reader message_queue peer room_log room \
      room_table service chat_service detail/server/link_rules)
}
cover report -show-branch-summary=0 -show-region-summary=0
[ "${1-}" != -v ] || cover show | grep -E '^/|^ +[0-9]+\| +0\|'
