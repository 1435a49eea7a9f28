#!/bin/sh
# Many clients of one server over their whole life-cycle:  tools/soak.sh BUILD_DIR [SECONDS] [CLIENTS]
#
# Fails when a sandbox is lost, an answer is wrong, memory grows, what keys were charged is not what they were answered,
# or the server leaves something.
set -eu
build=$1 seconds=${2:-600} clients=${3:-2000}
dir=$(mktemp -d)
pid=
finish() {
  [ -z "$pid" ] || kill "$pid" 2>/dev/null || true
  rm -rf "$dir"
}
trap finish EXIT
trap 'exit 130' INT TERM
keys=
names="one two three four"
for name in $names; do
  key=$("$build/regolith" key add "$name" --credit 100000 --state "$dir/state" | grep -o 'sk-[0-9a-z]*' | head -1)
  keys="$keys $key"
done
"$build/regolith" serve --listen 127.0.0.1:0 --state "$dir/state" --default-image host --default-network none \
  --max-connections 8000 >"$dir/out" &
pid=$!
i=0
until grep -q 'http://' "$dir/out"; do
  i=$((i + 1))
  [ "$i" -lt 100 ] || { echo "soak: the server does not start"; exit 1; }
  sleep 0.1
done
SERVE_URL=$(grep -o 'http://[^ ]*' "$dir/out" | head -1)
SERVE_KEYS=$keys
SERVE_TALLY=$dir/tally
export SERVE_URL SERVE_KEYS SERVE_TALLY PYTHONDONTWRITEBYTECODE=1
python3 spec/serve/load.py soak "$clients" "$seconds"
kill -TERM "$pid"
wait "$pid"
pid=
# shellcheck disable=SC2086  # a list of words
python3 spec/serve/books.py "$build/regolith" "$dir/state" "$SERVE_TALLY" $names
