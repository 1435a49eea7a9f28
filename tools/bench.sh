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
# The groups "image" and "serve" are scripts of their own: their peers are other programs than those of the rest.
case $* in image | serve) ;; *) "$build/spec/bench" "$build/regolith" spec/bench --json "$build/bench.json" "$@" ;; esac
case "$*" in '' | image) sh spec/bench/image.sh "$build" ;; esac
case "$*" in '' | serve) sh spec/bench/serve.sh "$build" ;; esac
