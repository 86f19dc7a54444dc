#!/bin/sh
# Fetches the archive MODEL_URL (tar or tar.gz), compares its SHA-256 with MODEL_SHA256 and unpacks it to
# MODEL_DIR/model. What is there already, with that checksum, stays. HEADER_FILE, if set, holds a line of a header to send.
set -eu
cd "$MODEL_DIR"
if [ -f checksum ] && [ "$(cat checksum)" = "$MODEL_SHA256" ]; then
  echo "the model is here already"
  exit 0
fi
rm -rf checksum model archive
curl --fail --location --silent --show-error --connect-timeout 20 --retry 5 --retry-connrefused \
  ${HEADER_FILE:+--header "@$HEADER_FILE"} --output archive "$MODEL_URL"
found=$(sha256sum archive | cut -d ' ' -f 1)
if [ "$found" != "$MODEL_SHA256" ]; then
  rm archive
  echo "the archive's SHA-256 is $found, expected $MODEL_SHA256" >&2
  exit 1
fi
mkdir model
case $(head -c 2 archive | od -An -tx1) in
  *1f*8b*) tar -xzf archive -C model ;;
  *) tar -xf archive -C model ;;
esac
rm archive
echo "$MODEL_SHA256" > checksum
