#!/bin/sh
# Runs every test against one build and says how it went:  tools/test.sh BUILD_DIR [PATTERN]
#
# In order: the C unit tests; the same under AddressSanitizer and UBSan, and the pure ones under valgrind (for the plain
# build only); the Lua specs under our own host; those of spec/e2e last. With PATTERN, only what has it in its path.
#
# Each file runs alone under regolith-guard, which ends it when it takes too long and fails it when a process of it is
# left; after each file mounts, cgroups, namespaces and files are compared with those before. Scratch, state and home
# directories are private to the run. Output of a file is shown when it fails; all of it is in BUILD_DIR/test-logs.
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
passed=0 failed=0 skipped=0

rm -rf "$logs"
mkdir -p "$logs"
scratch=$(mktemp -d "${TMPDIR:-/tmp}/regolith-test.XXXXXX") || exit 2
# Other users' runs need to reach it too.
chmod 755 "$scratch"
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM
mkdir -m 1777 "$scratch/tmp"
mkdir "$scratch/home" "$scratch/state" "$scratch/run" "$scratch/keep"
export TMPDIR="$scratch/tmp" HOME="$scratch/home" XDG_STATE_HOME="$scratch/state" XDG_RUNTIME_DIR="$scratch/run"
export REGOLITH_SCRATCH="$TMPDIR:$HOME:$XDG_STATE_HOME:$XDG_RUNTIME_DIR" REGOLITH_BUILD="$build"
export LC_ALL=C.UTF-8
# A leak report must fail the test; the host's own signal handling stays.
export ASAN_OPTIONS="detect_leaks=1:abort_on_error=0:exitcode=98:${ASAN_OPTIONS:-}"
export UBSAN_OPTIONS="print_stacktrace=1:${UBSAN_OPTIONS:-}"

seconds() { awk -v ns="$(($(date +%s%N) - $1))" 'BEGIN { printf "%.1f s", ns / 1e9 }'; }

# LABEL SECONDS COMMAND...: one test program, whose last counting line is "N passed, N failed[, N skipped]".
run() {
  label=$1 limit=$2
  shift 2
  case $label in *"$pattern"*) ;; *) return ;; esac
  log=$logs/$(echo "$label" | tr '/ ' '__').log
  sh tools/leftovers.sh list >"$scratch/keep/before"
  start=$(date +%s%N)
  "$guard" -t "$limit" "$@" >"$log" 2>&1 </dev/null
  status=$?
  took=$(seconds "$start")
  sh tools/leftovers.sh check "$scratch/keep/before" 5 >>"$log"
  left=$?
  # shellcheck disable=SC2046  # three numbers
  set -- $(sed -nE 's/^([0-9]+) passed, ([0-9]+) failed(, ([0-9]+) skipped)?$/\1 \2 \4/p' "$log" | tail -1)
  p=${1:-0} f=${2:-0} s=${3:-0} why=
  if [ $# -eq 0 ]; then why="ended with status $status without a count"
  elif [ "$status" -ne 0 ] && [ "$f" -eq 0 ]; then why="ended with status $status"
  elif [ "$left" -ne 0 ]; then why="left something over"; fi
  [ -z "$why" ] || f=$((f + 1))
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
  if [ "$f" -eq 0 ]; then word=ok; else word=FAIL; fi
  printf '%-4s %-44s %4d passed%s%s  %s\n' "$word" "$label" "$p" \
    "$([ "$f" -eq 0 ] || echo ", $f failed")" "$([ "$s" -eq 0 ] || echo ", $s skipped")" "$took"
  [ "$f" -eq 0 ] && return
  [ -z "$why" ] || echo "     $label $why"
  tail -n 200 "$log" | cut -c1-500 | sed 's/^/     | /'
}

# Would any C test of this kind run?
wanted() {
  for src in spec/c/test_*.c; do
    case $1/$(basename "$src" .c) in *"$pattern"*) return 0 ;; esac
  done
  return 1
}

c_tests() { # LABEL FOLDER SECONDS WRAPPER...
  kind=$1 dir=$2 limit_c=$3
  shift 3
  for src in spec/c/test_*.c; do
    name=$(basename "$src" .c)
    run "$kind/$name" "$limit_c" "$@" "$dir/spec/$name"
  done
}

c_tests c "$build" 120

case $build in
  */build)
    if ! wanted asan; then
      :
    elif make --no-print-directory -s FLAVOUR=asan spec-programs >"$logs/asan-build.log" 2>&1; then
      c_tests asan "$PWD/build/asan" 300
    else
      failed=$((failed + 1))
      echo "FAIL the build with AddressSanitizer"
      tail -20 "$logs/asan-build.log"
    fi
    if command -v valgrind >/dev/null; then
      # Those that only compute: what makes namespaces is not valgrind's to follow.
      for name in $(grep -l '^ \* valgrind: yes' spec/c/test_*.c | xargs -r -n1 basename | sed 's/\.c$//'); do
        run "valgrind/$name" 300 valgrind -q --leak-check=full --errors-for-leak-kinds=definite,indirect,possible \
          --error-exitcode=97 "$build/spec/$name"
      done
    else
      skipped=$((skipped + 1))
      echo "skip valgrind: not installed"
    fi
    ;;
esac

if [ -x "$build/regolith-spec" ]; then
  for f in $(find spec -name '*_spec.lua' ! -path 'spec/e2e/*' | LC_ALL=C sort) \
    $(find spec/e2e -name '*_spec.lua' 2>/dev/null | LC_ALL=C sort); do
    run "$f" 300 "$build/regolith-spec" "$f"
  done
fi

if [ "$skipped" -gt 0 ]; then
  echo "$passed passed, $failed failed, $skipped skipped"
else
  echo "$passed passed, $failed failed"
fi
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
