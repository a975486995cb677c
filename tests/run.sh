#!/bin/sh
# sh tests/run.sh: installs what is missing, builds, and runs all tests of the preset dev.
set -eu
cd "$(dirname "$0")/.."

# What is left out without the lines after the first: TLS, secrets, Redis, files of histories, WebSocket, the terminal
# client; and tests: servers in Python, 'hosts', 'metrics', 'package.deb', TAP's 'prove', stunnel, JSON, systemd's
# units, fail2ban, other implementations of TLS and WebSocket, 'package.compose', and 'chat'.
sh cmake/setup.sh cmake ninja-build g++ pkg-config libasio-dev libcli11-dev libspdlog-dev catch2 libnss-myhostname \
  python3 iproute2 python3-prometheus-client dpkg-dev file perl stunnel4 openssl libssl-dev libsodium-dev \
  nlohmann-json3-dev systemd fail2ban socat ncat sslscan libhiredis-dev redis-server haproxy python3-yaml \
  libsqlite3-dev libwslay-dev libhttp-parser-dev libedit-dev tmux procps python3-websockets
jobs=$(getconf _NPROCESSORS_ONLN)
cmake --preset dev
cmake --build --preset dev --parallel "$jobs"
ctest --preset dev --parallel $((jobs * 2))  # many tests wait
