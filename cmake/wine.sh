#!/bin/sh
# wine.sh PROGRAM.exe ARGUMENT...: runs a Windows program with Wine, quietly and without a display. The program replaces
# this process, so signals and the exit code are its own.
set -eu
command -v wine wineserver >/dev/null || { echo 'wine.sh: there is no wine (Debian: wine, wine64)' >&2; exit 127; }
export WINEDEBUG=-all LC_ALL=C.UTF-8  # the arguments are UTF-8
unset DISPLAY WAYLAND_DISPLAY

# The first program would start Wine's own processes, which would keep its stderr open. So they are started here, and
# stay until a minute after the last program. That also creates WINEPREFIX.
prefix=${WINEPREFIX:-$HOME/.wine}
mkdir -p "$prefix"
{
  flock 9
  wineserver -k0 || {
    wineserver -p60 9>&-
    wine wineboot 9>&-
  }
} 9>"$prefix/wine.sh.lock" </dev/null >/dev/null 2>&1

exec wine "$@"
