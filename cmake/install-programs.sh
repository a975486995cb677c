#!/bin/sh
# sh cmake/install-programs.sh PREFIX [conformance]: installs missing packages, builds the programs of examples/ (with
# `conformance`, only chatproto-conformance) and installs them in PREFIX/bin. DESTDIR and CMAKE_BUILD_PARALLEL_LEVEL
# mean what they mean to CMake.
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

if [ "$what" = programs ]; then
  component=programs
  sh cmake/setup.sh cmake ninja-build g++ libasio-dev libcli11-dev libspdlog-dev
  without=CHATPROTO_BUILD_CONFORMANCE
else
  component=tools
  sh cmake/setup.sh cmake ninja-build g++ libasio-dev
  without=CHATPROTO_BUILD_EXAMPLES
fi
echo "Building the programs (a minute or two; what is done goes to $build.log)"
mkdir -p build
{
  cmake --preset release -B $build -DCHATPROTO_BUILD_TESTS=OFF -DCMAKE_COMPILE_WARNING_AS_ERROR=OFF -D$without=OFF &&
    cmake --build $build --parallel "${CMAKE_BUILD_PARALLEL_LEVEL:-$(getconf _NPROCESSORS_ONLN)}" &&
    cmake --install $build --component $component --strip --prefix "$prefix"
} >$build.log 2>&1 || {
  cat $build.log
  echo 'install-programs: it does not build, or cannot be installed' >&2
  exit 1
}
