#!/bin/sh
# What an idle script takes of memory that nobody shares:  spec/bench/workers.sh BUILD_DIR OUT_DIR ROUNDS
#
# 100 scripts sleep, each in a process of its own; a sample is what the kernel counts as private of one of them.
set -eu
build=$1 out=$2/workers.tsv
dir=$(mktemp -d)
pid=
finish() {
  [ -z "$pid" ] || kill "$pid" 2>/dev/null || true
  rm -rf "$dir"
}
trap finish EXIT
trap 'exit 130' INT TERM

printf 'group\tworkers\tMemory of an idle script\tKiB\nrow\tidle script, private memory of its process\n' >"$out"
printf 'print "up"\ntask.sleep(60)\n' >"$dir/idle.lua"
i=0
while [ $i -lt 100 ]; do
  set -- "$@" "$dir/idle.lua"
  i=$((i + 1))
done
shift 3
"$build/regolith" run --quiet "$@" >"$dir/up" 2>"$dir/err" &
pid=$!
for _ in $(seq 100); do
  [ "$(wc -l <"$dir/up")" -lt 100 ] || break
  sleep 0.1
done
# The scripts' processes are grandchildren: of the helper that makes them.
for parent in $(pgrep -P "$pid"); do
  for worker in $(pgrep -P "$parent" -f '^regolith: worker'); do
    awk '/^Private_(Clean|Dirty)/ { n += $2 } END { printf "sample\t%d\n", n }' "/proc/$worker/smaps_rollup" >>"$out" || true
  done
done
grep -q '^sample' "$out" || printf 'skipped\tno process of a script was found\n' >>"$out"
