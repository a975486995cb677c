#!/bin/sh
# sh cmake/install-programs.sh PREFIX: installs the packages that are missing, builds the programs of examples/, and puts
# them into PREFIX/bin. DESTDIR and CMAKE_BUILD_PARALLEL_LEVEL mean what they mean to CMake.
set -eu
[ $# = 1 ] || {
  echo 'usage: sh cmake/install-programs.sh PREFIX' >&2
  exit 2
}
case $1 in
  /*) prefix=$1 ;;
  *) prefix=$PWD/$1 ;;
esac
cd "$(dirname "$0")/.."
build=build/programs

sh cmake/setup.sh cmake ninja-build g++ libasio-dev libcli11-dev libspdlog-dev
echo 'Building the programs (a minute or two)'
mkdir -p build
{
  cmake --preset release -B $build -DCHATPROTO_BUILD_TESTS=OFF &&
    cmake --build $build --parallel "${CMAKE_BUILD_PARALLEL_LEVEL:-$(getconf _NPROCESSORS_ONLN)}" &&
    cmake --install $build --component programs --strip --prefix "$prefix"
} >$build.log 2>&1 || {
  cat $build.log
  echo 'install-programs: it does not build, or cannot be installed' >&2
  exit 1
}
