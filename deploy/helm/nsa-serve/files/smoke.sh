#!/bin/sh
# `helm test`: the server at BASE_URL is ready, names its model and completes a prompt. KEY_FILE, if set, has API keys.
set -eu
ask() {
  curl --fail --silent --show-error --insecure --max-time 60 ${key:+--header "Authorization: Bearer $key"} "$@"
  echo
}
key=""
if [ -n "${KEY_FILE:-}" ]; then
  key=$(sed -n '/^[[:space:]]*[^#[:space:]]/{s/[[:space:]]//g;p;q;}' "$KEY_FILE")
fi
ask "$BASE_URL/health/ready"
ask "$BASE_URL/v1/models"
ask "$BASE_URL/v1/completions" --header "Content-Type: application/json" \
  --data '{"prompt": "Once upon a time", "max_tokens": 4}' | grep '"finish_reason"'
