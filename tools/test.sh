#!/bin/sh
# Runs every test against one build and says how it went:  tools/test.sh BUILD_DIR [PATTERN]
#
# Three lanes run side by side: the C unit tests, the same under AddressSanitizer and UBSan, and the pure ones under
# valgrind (the latter two for the plain build only); the Lua specs under our own host, those of spec/e2e last; and
# those of spec/image, which mostly wait for the disk. With PATTERN, only what has it in its path.
#
# Each file runs alone under regolith-guard, which ends it when it takes too long and fails it when a process of it is
# left; after each file mounts, cgroups, namespaces, users and files are compared with those before. Scratch, state and
# home directories are private to a lane. Output of a file is shown when it fails; all of it is in BUILD_DIR/test-logs.
# The last line is "N passed, N failed", with ", N skipped" where something could not run here.
set -u
# As root in a mount namespace of its own: what others mount meanwhile is not ours.
if [ "$(id -u)" -eq 0 ] && [ -z "${REGOLITH_TEST_NS:-}" ] && unshare --mount true 2>/dev/null; then
  REGOLITH_TEST_NS=1 exec unshare --mount --propagation private sh "$0" "$@"
fi
build=${1:?usage: tools/test.sh BUILD_DIR [PATTERN]}
pattern=${2:-}
cd "$(dirname "$0")/.." || exit 2
case $build in /*) ;; *) build=$PWD/$build ;; esac
guard=$build/regolith-guard
logs=$build/test-logs

rm -rf "$logs"
mkdir -p "$logs"
scratch=$(mktemp -d "${TMPDIR:-/tmp}/rgt.XXXXXX") || exit 2 # short: Lua shows 60 characters of a path
chmod 755 "$scratch" # tests run programs as other users
trap 'xargs -r rmdir <"$scratch/groups"; rm -rf "$scratch"' EXIT
: >"$scratch/groups"
trap 'kill $lanes 2>/dev/null; wait; exit 130' INT TERM
lanes=
export REGOLITH_BUILD="$build" LC_ALL=C.UTF-8
# A leak report must fail the test.
export ASAN_OPTIONS="detect_leaks=1:abort_on_error=0:exitcode=98:${ASAN_OPTIONS:-}"
export UBSAN_OPTIONS="print_stacktrace=1:${UBSAN_OPTIONS:-}"

seconds() { awk -v ns="$(($(date +%s%N) - $1))" 'BEGIN { printf "%.1f s", ns / 1e9 }'; }

# PASSED FAILED SKIPPED LINE...: counts for the end, and what there is to say.
count() {
  echo "$1 $2 $3" >>"$scratch/counts"
  shift 3
  printf '%s\n' "$@"
}

# LABEL SECONDS COMMAND...: one run of one test program, whose last counting line is "N passed, N failed[, N skipped]".
# Sets p f s, why and took.
attempt() {
  limit=$2
  shift 2
  sh tools/leftovers.sh list >"$keep/before"
  start=$(date +%s%N)
  "$guard" -t "$limit" "$@" >"$log" 2>&1 </dev/null
  status=$?
  took=$(seconds "$start")
  sh tools/leftovers.sh check "$keep/before" 5 >>"$log"
  left=$?
  [ "$left" -eq 0 ] || empty_lane
  # shellcheck disable=SC2046  # three numbers
  set -- $(sed -nE 's/^([0-9]+) passed, ([0-9]+) failed(, ([0-9]+) skipped)?$/\1 \2 \4/p' "$log" | tail -1)
  p=${1:-0} f=${2:-0} s=${3:-0} why=
  if [ $# -eq 0 ]; then why="ended with status $status without a count"
  elif [ "$status" -ne 0 ] && [ "$f" -eq 0 ]; then why="ended with status $status"
  elif [ "$left" -ne 0 ]; then why="left something over"; fi
  [ -z "$why" ] || f=$((f + 1))
}

# The same, with a second try that is said aloud: three lanes on two processors stall each other, and some tests wait for
# things that happen in time. What is broken fails twice.
run() {
  label=$1 again=
  case $label in *"$pattern"*) ;; *) return ;; esac
  log=$logs/$(echo "$label" | tr '/ ' '__').log
  attempt "$@"
  if [ "$f" -ne 0 ]; then
    mv "$log" "$log.first"
    attempt "$@"
    again="  (second try; the first: ${log#"$PWD/"}.first)"
  fi
  if [ "$f" -eq 0 ]; then word=ok; else word=FAIL; fi
  line=$(printf '%-4s %-40s %4d passed%s%s  %s%s' "$word" "$label" "$p" \
    "$([ "$f" -eq 0 ] || echo ", $f failed")" "$([ "$s" -eq 0 ] || echo ", $s skipped")" "$took" "$again")
  if [ "$f" -eq 0 ]; then
    count "$p" 0 "$s" "$line"
  else
    count "$p" "$f" "$s" "$line" ${why:+"     $label $why"} "$(tail -n 200 "$log" | cut -c1-500 | sed 's/^/     | /')"
  fi
}

# Directories that only this lane uses, and whose contents count as left over.
enter_lane() {
  keep=$scratch/$1.keep lane=$scratch/$1
  mkdir "$keep"
  empty_lane
  enter_groups "$1"
  export TMPDIR="$lane/tmp" HOME="$lane/home" XDG_STATE_HOME="$lane/state"
  export XDG_RUNTIME_DIR="$lane/run" REGOLITH_SCRATCH="$lane"
}

# A control group of its own in each hierarchy that boxes are made in (not where a group with processes cannot have
# limited children: version 2), so that what is left in it is this lane's. Without the right to, lanes share one.
enter_groups() {
  REGOLITH_GROUPS=
  [ "$(id -u)" -eq 0 ] || return
  grep -q ' - cgroup ' /proc/self/mountinfo || return
  me=$(sh -c 'echo $PPID')
  for h in cpu memory pids unified; do
    own=$(sed -nE "s/^[0-9]+:$([ $h = unified ] || echo "([^:]*,)?$h(,[^:]*)?"):(.*)/\\$([ $h = unified ] && echo 1 || echo 3)/p" /proc/self/cgroup)
    group=/sys/fs/cgroup/$h${own%/}/rgt-$1-$$
    mkdir "$group" 2>/dev/null || continue
    echo "$me" >"$group/cgroup.procs" || { rmdir "$group"; continue; }
    REGOLITH_GROUPS="${REGOLITH_GROUPS:+$REGOLITH_GROUPS:}$group"
    echo "$group" >>"$scratch/groups"
  done
  export REGOLITH_GROUPS
}

empty_lane() {
  rm -rf "$lane"
  mkdir "$lane" "$lane/home" "$lane/state" "$lane/run"
  mkdir -m 1777 "$lane/tmp"
}

# Would any C test of this kind run?
wanted() {
  for src in spec/c/test_*.c; do
    case $1/$(basename "$src" .c) in *"$pattern"*) return 0 ;; esac
  done
  return 1
}

c_tests() { # LABEL FOLDER SECONDS
  for src in spec/c/test_*.c; do
    name=$(basename "$src" .c)
    run "$1/$name" "$3" "$2/spec/$name"
  done
}

asan_tests() {
  wanted asan || return
  if make --no-print-directory -s FLAVOUR=asan spec-programs >"$logs/asan-build.log" 2>&1; then
    c_tests asan "$PWD/build/asan" 300
  else
    count 0 1 0 "FAIL the build with AddressSanitizer" "$(tail -20 "$logs/asan-build.log")"
  fi
}

# Those that only compute: what makes namespaces is not valgrind's to follow.
valgrind_tests() {
  wanted valgrind || return
  command -v valgrind >/dev/null || { count 0 0 1 "skip valgrind: not installed"; return; }
  # shellcheck disable=SC2013  # one word a line
  for src in $(grep -l '^ \* valgrind: yes' spec/c/test_*.c); do
    name=$(basename "$src" .c)
    run "valgrind/$name" 300 valgrind -q --leak-check=full --errors-for-leak-kinds=definite,indirect,possible \
      --error-exitcode=97 "$build/spec/$name"
  done
}

c_lane() {
  enter_lane c
  c_tests c "$build" 120
  case $build in
    */build)
      asan_tests
      valgrind_tests
      ;;
  esac
}

lua_lane() {
  enter_lane l
  for f in $(find spec -name '*_spec.lua' ! -path 'spec/e2e/*' ! -path 'spec/image/*' | LC_ALL=C sort) \
    $(find spec/e2e -name '*_spec.lua' | LC_ALL=C sort); do
    run "$f" 300 "$build/regolith-spec" "$f"
  done
}

# In mount namespaces of their own: they mount stores and roots, which the other lanes would take for left over.
image_lane() {
  enter_lane i
  for f in $(find spec/image -name '*_spec.lua' | LC_ALL=C sort); do
    # Some 100 MB are fetched and built for this one: only where it is asked for by name (make test-images).
    case $f:$pattern in *programs*:*programs*) ;; *programs*) continue ;; esac
    run "$f" 500 ${REGOLITH_TEST_NS:+unshare --mount --propagation private} "$build/regolith-spec" "$f"
  done
}

: >"$scratch/counts"
c_lane &
lanes="$!"
lua_lane &
lanes="$lanes $!"
image_lane &
lanes="$lanes $!"
wait

awk '{ p += $1; f += $2; s += $3 }
  END {
    printf "%d passed, %d failed", p, f
    if (s) printf ", %d skipped", s
    print ""
    exit f > 0 || p == 0
  }' "$scratch/counts"
