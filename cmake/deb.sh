#!/bin/sh
# sh cmake/deb.sh: installs missing packages, and builds libchatproto-dev and chatproto-tools in build/deb.
set -eu
cd "$(dirname "$0")/.."
build=build/deb

sh cmake/setup.sh cmake ninja-build g++ dpkg-dev file libasio-dev libcli11-dev libspdlog-dev pkg-config \
  libsodium-dev libssl-dev libhiredis-dev libsqlite3-dev libedit-dev libwslay-dev libhttp-parser-dev
echo "Building the packages (some minutes; what is done goes to $build.log)"
mkdir -p build
{
  cmake --preset release -B $build -DCHATPROTO_BUILD_TESTS=OFF -DCMAKE_COMPILE_WARNING_AS_ERROR=OFF &&
    cmake --build $build --parallel "${CMAKE_BUILD_PARALLEL_LEVEL:-$(getconf _NPROCESSORS_ONLN)}" &&
    (cd $build && rm -f ./*.deb && cpack)
} >$build.log 2>&1 || {
  cat $build.log
  echo 'deb: it does not build' >&2
  exit 1
}
ls $build/*.deb
