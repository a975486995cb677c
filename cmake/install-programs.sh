#!/bin/sh
# sh cmake/install-programs.sh PREFIX [conformance]: installs missing packages, builds the programs of examples/ (with
# `conformance`, only chatproto-conformance, and chatproto-grade beside it) and installs them in PREFIX/bin. DESTDIR and
# CMAKE_BUILD_PARALLEL_LEVEL mean what they mean to CMake.
set -eu
what=${2:-programs}
case $#,$what in
  1,* | 2,programs | 2,conformance) ;;
  *)
    echo 'usage: sh cmake/install-programs.sh PREFIX [conformance]' >&2
    exit 2
    ;;
esac
case $1 in
  /*) prefix=$1 ;;
  *) prefix=$PWD/$1 ;;
esac
cd "$(dirname "$0")/.."
build=build/$what

static=
if [ "$what" = programs ]; then
  components=programs
  sh cmake/setup.sh cmake ninja-build g++ pkg-config libasio-dev libcli11-dev libspdlog-dev libsodium-dev libssl-dev \
    libhiredis-dev libsqlite3-dev libedit-dev libwslay-dev libhttp-parser-dev
  without=CHATPROTO_BUILD_CONFORMANCE
else
  components='tools grading'
  sh cmake/setup.sh cmake ninja-build g++ libasio-dev libssl-dev make python3
  without=CHATPROTO_BUILD_EXAMPLES
  # It goes to other systems as well, to older ones too. Not every system has the libraries for that.
  if echo 'int main() {}' | g++ -static -x c++ -o /dev/null - 2>/dev/null; then
    static='-DCMAKE_EXE_LINKER_FLAGS=-static -DOPENSSL_USE_STATIC_LIBS=ON'
  fi
fi
echo "Building the programs (a minute or two; what is done goes to $build.log)"
mkdir -p build
build_and_install() {
  cmake --preset release -B $build -DCHATPROTO_BUILD_TESTS=OFF -DCMAKE_COMPILE_WARNING_AS_ERROR=OFF -D$without=OFF \
    $static || return
  cmake --build $build --parallel "${CMAKE_BUILD_PARALLEL_LEVEL:-$(getconf _NPROCESSORS_ONLN)}" || return
  for component in $components; do
    cmake --install $build --component "$component" --strip --prefix "$prefix" || return
  done
}
build_and_install >$build.log 2>&1 || {
  cat $build.log
  echo 'install-programs: it does not build, or cannot be installed' >&2
  exit 1
}
