#!/bin/sh
# deb.sh --built BUILD | --bare ROOT_FS PACKAGE...: checks the Debian packages.
#
#   --built BUILD  is what ctest runs. Makes the packages from a build folder, unpacks them and checks them: they have
#                  every header and every program with its manual page, and no path of the build; the programs run, and
#                  find_package finds the library.
#   --bare         installs the packages with apt into a copy of a bare Debian 12 (as debootstrap makes it), builds a
#                  user's project there, runs the programs, and removes everything again. Needs root.
set -eu
sources=$(cd "$(dirname "$0")/.." && pwd)
scratch=$(mktemp -d)
running=
mounted=
at_exit() {
  [ -z "$running" ] || kill "$running" 2>/dev/null || :
  for folder in $mounted; do umount "$folder"; done
  rm -rf --one-file-system "$scratch"
}
trap at_exit EXIT
trap 'exit 1' HUP INT TERM

fail() {
  echo "deb: $1" >&2
  exit 1
}

# Holds a conversation with the programs, each run by $1... as `chatproto-server` and so on, found as the caller sets
# up.
converse() {
  "$@" chatproto-server 0 --address 127.0.0.1 >"$scratch/said" 2>&1 &
  running=$!
  tries=0
  until grep -q port "$scratch/said"; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || fail "the server does not begin: $(cat "$scratch/said")"
    sleep 0.1
  done
  port=$(sed 's/.*[^0-9]\([0-9][0-9]*\)[^0-9]*$/\1/' "$scratch/said")
  printf '/join cafe\nhello\n/quit\n' | "$@" chatproto-sender 127.0.0.1 "$port" bob || fail 'the sender fails'
  kill "$running"
  wait "$running" || fail 'the server does not end well'
  running=
}

case ${1:-} in
  --built)
    command -v dpkg-shlibdeps >/dev/null && command -v file >/dev/null || {
      echo 'deb: skipped: dpkg-dev or file is not installed'
      exit 77
    }
    build=$(cd "$2" && pwd)
    (cd "$scratch" && cpack --config "$build/CPackConfig.cmake" -B "$scratch/packages" >log 2>&1) ||
      fail "cpack fails: $(cat "$scratch/log")"
    root=$scratch/root
    for package in "$scratch"/packages/*.deb; do
      dpkg-deb -x "$package" "$root"
      name=$(dpkg-deb -f "$package" Package)
      [ -s "$root/usr/share/doc/$name/copyright" ] || fail "$name has no copyright file"
      dpkg-deb -f "$package" | grep -q '^Description: ..*' || fail "$name has no description"
      echo "$name $(dpkg-deb -f "$package" Architecture): $(dpkg-deb -f "$package" Depends)"
    done >"$scratch/names"
    cat "$scratch/names"
    grep -q '^libchatproto-dev all: libasio-dev ' "$scratch/names" || fail 'libchatproto-dev is not as it should be'
    grep -q '^chatproto-tools .*libc6 ' "$scratch/names" || fail 'chatproto-tools does not know its libraries'
    diff -r "$sources/include/chatproto" "$root/usr/include/chatproto" || fail 'not just our headers'
    for program in "$root"/usr/bin/*; do
      [ -s "$root/usr/share/man/man1/${program##*/}.1" ] || fail "no manual page for ${program##*/}"
    done
    for program in server sender receiver chat conformance; do
      [ -x "$root/usr/bin/chatproto-$program" ] || fail "chatproto-$program is missing"
    done
    [ -s "$root/usr/share/chatproto/fail2ban/chatproto.conf" ] || fail 'the filter for fail2ban is missing'
    for file in usr/lib/systemd/system/chatproto-server.service usr/lib/systemd/system/chatproto-server.socket \
      usr/lib/systemd/system/chatproto-server-tls.socket usr/lib/tmpfiles.d/chatproto-server.conf \
      usr/lib/sysusers.d/chatproto-server.conf etc/default/chatproto-server; do
      [ -s "$root/$file" ] || fail "/$file is missing"
    done
    dpkg-deb --ctrl-tarfile "$scratch"/packages/chatproto-tools_*.deb | tar -x -C "$scratch"
    for script in postinst prerm postrm; do
      [ -x "$scratch/$script" ] && sh -n "$scratch/$script" || fail "$script is not as it should be"
    done
    [ "$(cat "$scratch/conffiles")" = /etc/default/chatproto-server ] || fail 'conffiles are not as they should be'
    if grep -rlF -e "$sources" -e "$scratch" "$root/usr/share" "$root/usr/include" "$root/usr/lib/systemd"; then
      fail 'a path of the build is in them'
    fi
    PATH=$root/usr/bin:$PATH
    converse env
    cmake -S "$sources/tests/consumers/find_package" -B "$scratch/consumer" -DCMAKE_PREFIX_PATH="$root/usr" \
      >"$scratch/log" ||
      fail "the library is not found: $(cat "$scratch/log")"
    grep -q "^chatproto_DIR:PATH=$root/" "$scratch/consumer/CMakeCache.txt" || fail 'another library was found'
    ;;
  --bare)
    [ "$(id -u)" = 0 ] || fail 'only root may do that'
    if [ -z "${CHATPROTO_OWN_MOUNTS:-}" ]; then # mounts that end with this process
      CHATPROTO_OWN_MOUNTS=1 exec unshare --mount sh "$0" "$@"
    fi
    base=$2
    shift 2
    root=$scratch/root
    cp -a "$base" "$root"
    mount -t proc proc "$root/proc"
    mounted=$root/proc
    mkdir "$root/packages"
    cp "$@" "$root/packages"
    cp -r "$sources/tests/consumers" "$root/consumers"
    inside='env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive'
    # shellcheck disable=SC2086 # words
    inside() { chroot "$root" $inside "$@"; }
    inside apt-get -qq update
    inside sh -c 'apt-get -qq install --yes --no-install-recommends g++ cmake make >/dev/null 2>&1'
    inside dpkg --list >"$scratch/before"
    inside find /usr /etc | sort >"$scratch/files_before"
    inside sh -c 'apt-get -qq install --yes --no-install-recommends /packages/*.deb'
    # shellcheck disable=SC2086 # words; no function, which would be a shell between us and the server
    converse chroot "$root" $inside
    for flags in '--cert /dev/null --key /dev/null' '--passwords /dev/null' '--redis 127.0.0.1:1' \
      '--history 1 --history-file /nowhere/x'; do
      # shellcheck disable=SC2086 # words
      inside chatproto-server --check $flags 2>&1 | grep -w built &&
        fail 'it was built without TLS, secrets, Redis or files of histories'
    done
    inside sh -c 'cmake -S /consumers/find_package -B /tmp/build && cmake --build /tmp/build && /tmp/build/consumer' \
      >"$scratch/log" 2>&1 ||
      fail "a user's project does not build: $(cat "$scratch/log")"
    inside sh -c 'apt-get -qq purge --yes libchatproto-dev chatproto-tools && apt-get -qq autoremove --yes --purge'
    inside find /usr /etc | sort >"$scratch/files_after"
    diff "$scratch/files_before" "$scratch/files_after" | grep chatproto && fail 'something was left'
    ;;
  *) fail 'usage: deb.sh --built BUILD | --bare ROOT_FS PACKAGE...' ;;
esac
echo 'deb: all well'
