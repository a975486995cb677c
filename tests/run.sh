#!/bin/sh
# sh tests/run.sh: installs what is missing, builds, and runs all tests of the preset dev.
set -eu
cd "$(dirname "$0")/.."

sh cmake/setup.sh cmake ninja-build g++ pkg-config libasio-dev libcli11-dev libspdlog-dev catch2 libnss-myhostname
jobs=$(getconf _NPROCESSORS_ONLN)
cmake --preset dev
cmake --build --preset dev --parallel "$jobs"
ctest --preset dev --parallel "$jobs"
