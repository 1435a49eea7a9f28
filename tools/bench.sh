#!/bin/sh
# Builds and runs the benchmarks: tools/bench.sh BUILD_DIR [--rounds N] [GROUP...]. Results are kept as JSON in BUILD_DIR/bench.json.
set -eu
build=$1
shift
for tool in bwrap crun; do
  command -v "$tool" >/dev/null || echo "note: $tool is not installed, its rows are left out (apt-get install bubblewrap crun)"
done
mkdir -p "$build/spec"
${CC:-gcc} -std=gnu11 -D_GNU_SOURCE -O2 -g -Wall -Wextra -o "$build/spec/bench" spec/bench/bench.c
# The group "image" is a script of its own: its peers are other programs than those of the rest.
[ "$*" = image ] || "$build/spec/bench" "$build/regolith" spec/bench --json "$build/bench.json" "$@"
case "$*" in '' | image) sh spec/bench/image.sh "$build" ;; esac
