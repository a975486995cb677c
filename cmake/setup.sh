#!/bin/sh
# sh cmake/setup.sh PACKAGE...: installs the missing ones of these Debian packages, as root or through sudo. Where it
# cannot, it fails and prints what to install. Software from elsewhere, such as a newer CMake, counts as installed.
set -u

# Whether one of these files is in a directory that compilers search.
header() {
  for folder in /usr/include /usr/local/include /opt/homebrew/include /opt/local/include; do
    for file in "$@"; do
      [ -e "$folder/$file" ] && return
    done
  done
  return 1
}

here() {
  case $1 in
    catch2) header catch2/catch.hpp catch2/catch_all.hpp ;;
    doxygen-awesome-css) [ -e /usr/share/doxygen-awesome-css/doxygen-awesome.css ] ;;
    libjs-lunr) [ -e /usr/share/javascript/lunr/lunr.min.js ] ;;
    graphviz) command -v dot ;;
    iproute2) command -v ip ;;
    libbenchmark-dev) header benchmark/benchmark.h ;;
    libasio-dev) header asio/version.hpp ;;
    libcli11-dev) header CLI/CLI.hpp ;;
    libssl-dev) header openssl/ssl.h ;;
    nlohmann-json3-dev) header nlohmann/json.hpp ;;
    libspdlog-dev) header spdlog/spdlog.h ;;
    libhiredis-dev) header hiredis/hiredis.h ;;
    libwslay-dev) header wslay/wslay.h ;;
    libhttp-parser-dev) header http_parser.h ;;
    libsodium-dev) header sodium.h ;;
    libsqlite3-dev) header sqlite3.h ;;
    libedit-dev) header histedit.h ;;
    python3-matplotlib) python3 -c 'import matplotlib' || /usr/bin/python3 -c 'import matplotlib' ;;
    python3-prometheus-client)
      python3 -c 'import prometheus_client' || /usr/bin/python3 -c 'import prometheus_client'
      ;;
    python3-websockets) python3 -c 'import websockets' || /usr/bin/python3 -c 'import websockets' ;;
    libnss-myhostname) grep -qw localhost /etc/hosts || getent ahosts localhost ;; # resolves localhost
    ninja-build) command -v ninja ;;
    systemd) command -v systemd-analyze ;;
    dpkg-dev) command -v dpkg-shlibdeps ;;
    fail2ban) command -v fail2ban-regex ;;
    python3-yaml) python3 -c 'import yaml' || /usr/bin/python3 -c 'import yaml' ;;
    procps) command -v pgrep ;;
    perl) command -v prove ;; # not in the perl-base that is always installed
    nodejs) command -v node ;;
    netcat-openbsd) command -v nc ;;
    g++-mingw-w64-x86-64-posix) command -v x86_64-w64-mingw32-g++-posix ;;
    clang-14 | clang-19) command -v "clang++-${1#clang-}" ;;
    llvm-19) command -v llvm-symbolizer-19 ;;
    libclang-rt-* | libc++*-dev | g++-multilib)
      dpkg-query --show --showformat='${Status}' "$1" | grep -q ' installed$'
      ;;
    *) command -v "$1" ;;
  esac >/dev/null 2>&1
}

cannot() {
  echo "$1. Missing, by their Debian names:$missing" >&2
  exit 1
}

missing=
for package in "$@"; do
  here "$package" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

command -v apt-get >/dev/null || cannot 'There is no apt-get here that could install packages'
if [ "$(id -u)" = 0 ]; then
  root=
elif command -v sudo >/dev/null; then
  root=sudo
else
  cannot 'Installing packages needs root, or sudo'
fi
echo "Installing$missing (this takes a minute or two)"
quiet='DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes'
apt() { # waits up to five minutes for another apt to end
  # shellcheck disable=SC2086 # two words
  $root env $quiet apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 "$@" </dev/null >/dev/null
}
apt update || cannot 'apt-get update failed'
# shellcheck disable=SC2086 # a list
apt install --yes --no-install-recommends $missing || cannot 'apt-get install failed'
