#!/bin/sh
# SPDX-License-Identifier: BSL-1.0
# certificates.sh FOLDER: makes an authority (FOLDER/ca.pem) and a server's certificate for localhost, 127.0.0.1 and ::1
# (FOLDER/cert.pem, key.pem), all valid for a day. Exits with 77 if there is no openssl.
set -eu
command -v openssl >/dev/null || exit 77
mkdir -p "$1"
cd "$1"
new='req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1'
# shellcheck disable=SC2086 # words
{
  openssl $new -x509 -keyout ca.key -out ca.pem -subj '/CN=chatproto test authority' \
    -addext keyUsage=critical,keyCertSign
  openssl $new -x509 -CA ca.pem -CAkey ca.key -keyout key.pem -out cert.pem -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1 -addext basicConstraints=critical,CA:false
} 2>openssl.log || {
  cat openssl.log >&2
  exit 1
}
