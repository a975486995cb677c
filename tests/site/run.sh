#!/bin/sh
# sh tests/site/run.sh [SHOTS]: installs what is missing, builds the site in build/docs/html and tests it. SHOTS is a
# folder for pictures of it.
set -eu
cd "$(dirname "$0")/../.."

sh cmake/setup.sh cmake ninja-build g++ libasio-dev doxygen graphviz doxygen-awesome-css libjs-lunr python3 \
  chromium nodejs npm
mkdir -p build/docs/site
cp tests/site/package.json tests/site/package-lock.json build/docs/site
npm ci --prefix build/docs/site --no-audit --no-fund
cmake --preset docs
cmake --build --preset docs
CHATPROTO_SHOTS=${1:+$(mkdir -p "$1" && cd "$1" && pwd)}
export CHATPROTO_SHOTS
ctest --preset docs
