#!/bin/sh
# Installs those of the named Debian packages that are missing. Not root: prints the line that does.
set -eu
missing=
for p in "$@"; do
  dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" -ne 0 ]; then
  echo "Packages are missing. Install them with:" >&2
  echo "  sudo apt-get install -y --no-install-recommends$missing" >&2
  echo "then run the same make command again." >&2
  exit 1
fi
echo "installing:$missing"
# shellcheck disable=SC2086  # a list of words
install() { DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing >/dev/null; }
install 2>/dev/null || { apt-get update >/dev/null && install; }
