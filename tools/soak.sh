#!/bin/sh
# Many clients of one server over their whole life-cycle:  tools/soak.sh BUILD_DIR [SECONDS] [CLIENTS]
#
# Fails when a sandbox is lost, an answer is wrong, memory grows, the books do not add up, or the server leaves something.
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
for name in one two three four; do
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
export SERVE_URL SERVE_KEYS
python3 spec/serve/load.py soak "$clients" "$seconds"
kill -TERM "$pid"
wait "$pid"
pid=
"$build/regolith" cost --state "$dir/state"
