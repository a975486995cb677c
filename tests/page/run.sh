#!/bin/sh
# sh tests/page/run.sh [BIN_DIR [SHOTS]]: tests the page that the server serves, in a real browser. Installs what is
# missing. BIN_DIR has the programs server, sender, receiver and chat; without it they are built with the preset dev.
# SHOTS is a folder for pictures of the page.
set -eu
cd "$(dirname "$0")/../.."

sh cmake/setup.sh chromium nodejs npm openssl tmux netcat-openbsd
if [ $# -eq 0 ]; then
  sh cmake/setup.sh cmake ninja-build g++ pkg-config libasio-dev libcli11-dev libspdlog-dev libssl-dev libsodium-dev \
    libwslay-dev libhttp-parser-dev libsqlite3-dev libedit-dev
  cmake --preset dev
  cmake --build --preset dev --target server sender receiver chat
fi
mkdir -p build/page
cp tests/site/package.json tests/site/package-lock.json build/page
npm ci --prefix build/page --no-audit --no-fund
CHATPROTO_SHOTS=${2:+$(mkdir -p "$2" && cd "$2" && pwd)}
export CHATPROTO_SHOTS
NODE_PATH=build/page/node_modules node tests/page/browser.js "${1:-build/dev/bin}"
