#!/usr/bin/env bash
# Installs what is missing of the packages of tools/packages.txt: install_packages.sh GROUP...
# Says what it installs; does nothing, in a blink, when nothing is missing.
set -euo pipefail
list="$(dirname "$0")/packages.txt"

wanted=()
for group in "$@"; do
  while read -r name; do wanted+=("$name"); done < <(awk -v group="$group" '$1 == group {print $2}' "$list")
done

if ! command -v dpkg-query >/dev/null; then
  echo "This is not a Debian system; please see to it that you have: ${wanted[*]}" >&2
  exit 0
fi

missing=()
for name in "${wanted[@]}"; do
  state="$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null || true)"
  [ "$state" = installed ] || missing+=("$name")
done
[ ${#missing[@]} -gt 0 ] || exit 0

sudo=()
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || { echo "Need root or sudo to install: ${missing[*]}" >&2; exit 1; }
  sudo=(sudo)
fi
echo "Installing Debian packages: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${sudo[@]}" apt-get update -qq
"${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null

# Tests start a Prometheus of their own; Debian's package also makes it a service, which nobody asked for.
if [[ " ${missing[*]} " == *" prometheus "* ]] && command -v systemctl >/dev/null; then
  "${sudo[@]}" systemctl disable --quiet prometheus
  [ ! -d /run/systemd/system ] || "${sudo[@]}" systemctl stop prometheus
fi
