#!/bin/sh
# image.sh [--built BUILD | --bare [ROOT_FS]]: carries out the Dockerfile without a container engine. It reads the
# instructions from the file; an unknown instruction is an error.
#
#   --built BUILD  is what ctest runs. Does not build: the programs come from the build folder, by the install component
#                  that install-programs.sh installs; of what .dockerignore lets through it checks only that CMake
#                  configures it.
#   (nothing)      runs the build stage's commands in what .dockerignore lets through, with the packages of this system.
#   --bare         runs both stages in a bare Debian 12, which debootstrap makes or ROOT_FS is (it is copied): this also
#                  shows that the packages named are enough to build, and to run. Needs root.
#
# The last two also check that the server has TLS, secrets and Redis, which a build folder may lack. All three run the
# server by ENTRYPOINT, CMD and USER, on a free port instead of its own, and the HEALTHCHECK; the first two with this
# system's libraries. Only a container engine can show the base image itself and how the port is published.
set -eu
sources=$(cd "$(dirname "$0")/.." && pwd)
mode=${1:-}

fail() {
  echo "image: $1" >&2
  exit 1
}
skip() {
  echo "image: skipped: $1"
  exit 77
}

case $mode in
  '') ;;
  --built) build=$(cd "$2" && pwd) ;;
  --bare)
    base=${2:-}
    [ "$(id -u)" = 0 ] || skip 'only root may change the root file system'
    [ "$base" ] || command -v debootstrap >/dev/null ||
      skip 'there is no debootstrap, and no root file system was named'
    if [ -z "${CHATPROTO_OWN_MOUNTS:-}" ]; then # mounts that end with this process
      unshare --mount true 2>/dev/null || skip 'mounts of our own are not allowed'
      CHATPROTO_OWN_MOUNTS=1 exec unshare --mount sh "$0" "$@"
    fi
    ;;
  *) fail 'usage: image.sh [--built BUILD | --bare [ROOT_FS]]' ;;
esac

scratch=$(mktemp -d)
chmod 755 "$scratch" # the image's user is another one
running= # the server, or a command that takes down all it has started
mounted=
at_exit() {
  [ -z "$running" ] || kill -9 "$running" 2>/dev/null || :
  for folder in $mounted; do umount "$folder"; done
  tries=0
  until rm -rf --one-file-system "$scratch" 2>/dev/null || [ $tries = 50 ]; do # killed processes may still write
    tries=$((tries + 1))
    sleep 0.1
  done
}
trap at_exit EXIT
trap 'exit 1' HUP INT TERM

if [ "$mode" = --bare ] && [ -z "$base" ]; then
  base=$scratch/base
  debootstrap --variant=minbase bookworm "$base" >"$scratch/log" 2>&1 || {
    cat "$scratch/log"
    fail 'debootstrap failed'
  }
fi

# --- The stages -------------------------------------------------------------------------------------------------------
# Each stage is a folder: a whole root file system if --bare, else only what the Dockerfile puts into it.

path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin # as the base image has it

from() { # IMAGE [AS NAME]
  [ "$1" = debian:12-slim ] || fail "another base: $1"
  root=$scratch/${3:-final}
  workdir=/
  user=0:0
  if [ "$mode" = --bare ]; then
    grep -q '^VERSION_ID="12"' "$base/etc/os-release" || fail "no Debian 12: $base"
    cp -a "$base" "$root"
    mount -t proc proc "$root/proc"
    mounted="$mounted $root/proc"
  else
    mkdir "$root"
  fi
}

copy() { # [--from=NAME] SOURCE TARGET
  case $* in
    '. .')
      grep -qx '\*' "$sources/.dockerignore" || fail '.dockerignore lets through more than it names'
      sed -n 's/^!//p' "$sources/.dockerignore" | while read -r name; do
        cp -R "$sources/$name" "$root$workdir"
      done
      ;;
    --from=*' /'*' /'*)
      stage=${1#--from=}
      mkdir -p "$root$3"
      cp -R "$scratch/$stage$2/." "$root$3"
      ;;
    *) fail "cannot play: COPY $*" ;;
  esac
}

from_cache() { sed -n "s/^$1:[A-Z]*=//p" "$build/CMakeCache.txt"; }
run() { # COMMAND
  case $mode,$1 in
    --bare,*) ;;
    *,apt-get\ *) return ;; # this system's packages serve instead
  esac
  case $mode in
    --bare)
      env -i PATH=$path HOME=/root \
          ${CMAKE_BUILD_PARALLEL_LEVEL+"CMAKE_BUILD_PARALLEL_LEVEL=$CMAKE_BUILD_PARALLEL_LEVEL"} \
        unshare --pid --fork --kill-child chroot "$root" sh -c "cd $workdir && $1" &
      running=$!
      wait $running
      running=
      ;;
    --built)
      script='sh cmake/install-programs.sh'
      case $1 in "$script "/*) ;; *) fail "does not begin with '$script /': RUN $1" ;; esac
      (
        cd "$root$workdir"
        [ -f "${script#sh }" ] || fail ".dockerignore lets no ${script#sh } through"
        cmake -B build -G "$(from_cache CMAKE_GENERATOR)" -DCMAKE_CXX_COMPILER="$(from_cache CMAKE_CXX_COMPILER)" \
          -DCHATPROTO_BUILD_TESTS=OFF -DCHATPROTO_BUILD_CONFORMANCE=OFF
        DESTDIR=$root cmake --install "$build" --component programs --prefix "${1#"$script "}"
      )
      ;;
    *) (cd "$root$workdir" && DESTDIR=$root sh -c "$1") ;;
  esac
}

# ["some", "words"] as words
words() {
  case $1 in '["'*'"]') ;; *) fail "not in the exec form: $1" ;; esac
  printf '%s\n' "$1" | sed 's/^\["//; s/"\]$//; s/", *"/ /g'
}

sed -e ':again' -e '/\\$/ { N; s/\\\n *//; b again' -e '}' "$sources/Dockerfile" >"$scratch/instructions"
while read -r instruction rest <&3; do
  case $instruction in '' | '#'*) continue ;; esac
  echo "$instruction $rest"
  # shellcheck disable=SC2086 # words
  case $instruction in
    FROM) from $rest ;;
    WORKDIR)
      workdir=$rest
      mkdir -p "$root$workdir"
      ;;
    COPY) copy $rest ;;
    RUN) run "$rest" ;;
    USER) user=$rest ;;
    EXPOSE) port=$rest ;;
    HEALTHCHECK) health=${rest#*CMD } ;;
    ENTRYPOINT) entrypoint=$(words "$rest") ;;
    CMD) command=$(words "$rest") ;;
    *) fail "cannot play: $instruction" ;;
  esac
done 3<"$scratch/instructions"

echo
for program in "$sources"/examples/*.cpp; do
  program=$(basename "$program" .cpp)
  [ -x "$root/usr/local/bin/$program" ] || fail "there is no $program in the image"
done

# --- A container ------------------------------------------------------------------------------------------------------

case $user in
  [1-9]*:[1-9]*) ;;
  *) fail "the user is no unprivileged one by number: $user" ;;
esac
case " $command " in *" $port "*) ;; *) fail "CMD does not serve the port of EXPOSE, $port" ;; esac
case " $health " in *" $port "*) ;; *) fail "HEALTHCHECK does not ask at the port of EXPOSE, $port" ;; esac

inside() { # COMMAND...: executes it in the final stage, as its user, in place of this shell
  cd "$root$workdir"
  if [ "$mode" = --bare ]; then
    exec env -i PATH=$path chroot --userspec="$user" "$root" "$@"
  elif [ "$(id -u)" = 0 ]; then
    exec env -i PATH="$root/usr/local/bin:$path" setpriv --reuid "${user%:*}" --regid "${user#*:}" --clear-groups "$@"
  else
    exec env -i PATH="$root/usr/local/bin:$path" "$@"
  fi
}
at_port() { printf '%s\n' "$2" | sed "s/\\b$port\\b/$1/"; }
is_healthy() { (inside sh -c "$(at_port "$free_port" "$health")"); }

: >"$scratch/log"
# shellcheck disable=SC2046,SC2086 # words
(inside $entrypoint $(at_port 0 "$command")) 2>"$scratch/log" &
running=$!
tries=0
until grep -q '^listening on port' "$scratch/log"; do
  tries=$((tries + 1))
  [ $tries -lt 200 ] || fail "the server does not listen: $(cat "$scratch/log")"
  sleep 0.1
done
[ "$mode" = --built ] || for flags in '--passwords /dev/null' '--cert /dev/null --key /dev/null' \
  '--redis 127.0.0.1:1' '--history 1 --history-file /nowhere/x'; do
  # shellcheck disable=SC2086 # words
  told=$( (inside server --check $flags) 2>&1) || : # an empty file is no certificate, and no Redis is there
  case $told in *built*) fail "the image lacks something: $told" ;; esac
done
free_port=$(sed 's/[^0-9]//g' "$scratch/log")
is_healthy || fail 'the HEALTHCHECK fails while the server serves'
echo "healthy: $entrypoint $command (at port $free_port, as $(stat -c 'user %u, group %g' /proc/$running))"
[ "$(id -u)" != 0 ] || [ "$(stat -c %u:%g /proc/$running)" = "$user" ] || fail "the server does not run as $user"

kill -TERM $running
code=0
wait $running || code=$?
running=
[ $code = 0 ] || fail "the server has ended with exit code $code"
[ "$(wc -l <"$scratch/log")" = 1 ] || fail "the server has complained: $(cat "$scratch/log")"
if is_healthy 2>/dev/null; then fail 'the HEALTHCHECK passes without a server'; fi
echo 'stopped by SIGTERM: exit code 0, and no longer healthy'
