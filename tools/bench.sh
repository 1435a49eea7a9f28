#!/bin/sh
# Builds and runs the benchmarks, and draws what they found:  tools/bench.sh BUILD_DIR [--rounds N] [GROUP...]
#
# GROUP is the beginning of a group's name; without any, all are run. Each leaves its samples in BUILD_DIR/bench, and
# BUILD_DIR/bench.json is made of all that lie there (spec/bench/results.lua says what is in both). Then docs/bench.md
# and its plot are drawn.
set -eu
build=$1
shift
rounds=5
if [ "${1:-}" = --rounds ]; then
  rounds=$2
  shift 2
fi
cd "$(dirname "$0")/.."
for tool in bwrap crun podman; do
  command -v "$tool" >/dev/null || echo "note: $tool is not installed, its rows are skipped"
done
mkdir -p "$build/spec" "$build/bench"
${CC:-gcc} -std=gnu11 -D_GNU_SOURCE -O2 -g -Wall -Wextra -o "$build/spec/bench" spec/bench/bench.c
groups=$("$build/spec/bench" "$build/regolith" spec/bench --list)
# These are scripts of their own: their peers are other programs than those of the rest.
families="workers network image serve"
new=$(mktemp -d)
trap 'rm -rf "$new"' EXIT
trap 'exit 130' INT TERM

report() {
  "$build/regolith" run --quiet --trust --allow-read . --allow-write "$build" --allow-write docs spec/bench/report.lua -- "$@"
}

# NAME [GROUP...]: is it one of those asked for?
asked() {
  name=$1
  shift
  [ $# -gt 0 ] || return 0
  for beginning in "$@"; do
    case $name in "$beginning"*) return 0 ;; esac
  done
  return 1
}

machine() {
  fact() { printf '%s\t%s\n' "$1" "$2"; }
  fact processor "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)"
  fact cores "$(nproc)"
  fact memory "$(awk '/^MemTotal/ { printf "%.1f GiB", $2 / 1048576 }' /proc/meminfo)"
  fact kernel "$(uname -sr)"
  fact load "$(cut -d' ' -f1-3 /proc/loadavg): of 1, 5 and 15 minutes, at the end; above the number of cores, times say little"
  fact system "$(sed -n 's/^PRETTY_NAME="\(.*\)"/\1/p' /etc/os-release)"
  fact peers "$(dpkg-query -W -f='${Package} ${Version}, ' bubblewrap crun podman skopeo umoci nginx slirp4netns passt 2>/dev/null | sed 's/, $//')"
}

# What was measured moves in, with when and of what.
keep() {
  for f in "$new"/*.tsv; do
    [ -f "$f" ] || continue
    printf 'measured\t%s\t%s\n' "$(git describe --always --dirty 2>/dev/null || echo unknown)" "$(date -u +%Y-%m-%dT%H:%MZ)" >>"$f"
    mv "$f" "$build/bench/"
  done
}

# The groups that lie there, in the order of their list.
collect() {
  list=
  for g in $groups $families; do
    for f in "$build/bench/$g.tsv" "$build/bench/${g}_"*.tsv; do
      case " $list " in *" $f "*) continue ;; esac
      [ ! -f "$f" ] || list="$list $f"
    done
  done
  machine >"$build/bench/machine"
  # shellcheck disable=SC2086  # a list of files
  report collect "$build/bench.json" "$build/bench/machine" $list
}

# NAME COMMAND...: measures, and shows.
measure() {
  name=$1
  shift
  "$@"
  keep
  collect
  report print "$build/bench.json" "$name"
}
for g in $groups; do
  asked "$g" "$@" || continue
  measure "$g" "$build/spec/bench" "$build/regolith" spec/bench --rounds "$rounds" "$g" "$new/$g.tsv"
done
for f in $families; do
  asked "$f" "$@" || continue
  measure "$f" sh "spec/bench/$f.sh" "$build" "$new" "$rounds"
done
report draw "$build/bench.json" docs/bench.md docs/bench.svg
