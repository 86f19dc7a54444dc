#!/bin/bash
# Whether /health/ready answers 200 on NSA_HTTP_PORT, or 401, as it does without a key where --protect-probes=on. With TLS only
# whether the port accepts connections. bash does all of it, so that the image needs no program.
set -euo pipefail
exec 3<>"/dev/tcp/127.0.0.1/${NSA_HTTP_PORT:-8000}"
[ -z "${NSA_TLS_CERT:-}" ] || exit 0
printf 'GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
read -r _ status _ <&3
[[ $status = 200 || $status = 401 ]]
