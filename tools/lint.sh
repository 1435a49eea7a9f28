#!/bin/sh
# Every static check of the repository, cheapest first. Prints one line per check with its duration, and what is wrong
# where something is. `tools/lint.sh NAME...` runs only the checks named (tools/lint.sh includes words).
#
#   format    clang-format                       includes  the include rules of tools/includes.txt
#   words     tools/words.txt                    targets   the Makefile targets that the documents promise
#   shell     shellcheck                         lua       luacheck
#   tests     the tests that the documents name
#   gcc clang builds without a warning           link      what the binary needs at run time
#   cppcheck  the C files                        tidy      clang-tidy, few checks
set -u
cd "$(dirname "$0")/.." || exit 2
jobs=$(nproc)
failed=0
out=$(mktemp)
trap 'rm -f "$out"' EXIT
# What git knows, and what it does not ignore: new files are checked before they are added.
files() { git ls-files --cached --others --exclude-standard -- "$@" | while read -r f; do [ -f "$f" ] && echo "$f"; done; }

check_format() { files '*.c' '*.h' | xargs -P "$jobs" -n 16 clang-format --dry-run -Werror; }

check_includes() { lua5.4 tools/includes.lua; }

check_words() {
  # One regular expression per line up to the tab.
  sed -e '/^#/d' -e '/^$/d' tools/words.txt | cut -f1 >"$out.words"
  if files | grep -v '^LICENSE$' | xargs grep -nIE -f "$out.words"; then rc=1; else rc=0; fi
  rm -f "$out.words"
  return $rc
}

check_targets() {
  rc=0
  make -pRrqn all >"$out.make" 2>/dev/null
  for t in all run test lint bench asan tsan install deps clean; do
    grep -q "^$t:" "$out.make" || { echo "Makefile: no target \"$t\""; rc=1; }
  done
  # Each command that the makefile or a script of ours calls by path is there.
  grep -ohE 'tools/[a-z_]+\.(sh|lua)' Makefile tools/*.sh | sort -u | while read -r s; do
    [ -f "$s" ] || echo "$s is called, and is not there"
  done >"$out.make"
  if [ -s "$out.make" ]; then cat "$out.make"; rc=1; fi
  rm -f "$out.make"
  return $rc
}

check_shell() {
  list=$(files '*.sh' .ci/run)
  # shellcheck disable=SC2086  # a list of words
  shellcheck $list
}

check_tests() { lua5.4 tools/named_tests.lua; }

check_lua() { files '*.lua' | xargs luacheck --quiet --no-color; }

build() { # NAME COMPILER FLAVOUR
  make --no-print-directory -s -j"$jobs" CI=1 CC="$2" FLAVOUR="$3" BUILD="build/lint-$1" all spec-programs
}
check_gcc() { build gcc gcc release; }
check_clang() { build clang clang debug; }

check_link() {
  bin=build/lint-gcc/regolith
  [ -x "$bin" ] || build gcc gcc release || return 1
  lua=$(make -pRrqn all 2>/dev/null | sed -n 's/^LUA = //p' | head -1)
  rc=0
  for so in $(readelf -d "$bin" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'); do
    case $so in
      libc.so.* | libm.so.* | libpthread.so.* | ld-linux*.so.* | libuv.so.* | libcjson.so.*) ;;
      lib"${lua:-lua5.4}".so.* | liblua*.so.*) ;;
      *) echo "$bin needs $so: only libc, libuv, liblua and cJSON may be linked; open others on first use"; rc=1 ;;
    esac
  done
  # A part is linked with our objects first: a name of ours that its library has too would be called in its place.
  nm -g --defined-only build/lint-gcc/libregolith.a | awk 'NF == 3 { print $3 }' | sort -u >"$out.ours"
  for part in build/lint-gcc/parts/*.so; do
    for so in $(readelf -d "$part" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'); do
      nm -D --defined-only "$(ldd "$part" | awk -v so="$so" '$1 == so { print $3 }')" | awk '{ sub(/@.*/, "", $3); print $3 }' |
        sort -u | comm -12 "$out.ours" - | sed "s|^|$part: of us and of $so: |"
    done
  done >"$out.names"
  if [ -s "$out.names" ]; then cat "$out.names"; rc=1; fi
  rm -f "$out.ours" "$out.names"
  return $rc
}

check_cppcheck() {
  files 'src/*.c' 'spec/*.c' | xargs cppcheck -q -j"$jobs" --std=c11 --platform=unix64 --enable=warning,portability \
    --inline-suppr --suppress=missingIncludeSystem --suppress=normalCheckLevelMaxBranches --error-exitcode=1 \
    -D__x86_64__ "-DluaL_intop(op,a,b)=((a) op (b))" -Isrc -Ispec/c -D_GNU_SOURCE -DREGOLITH_VERSION='"0"' -UREGOLITH_DEBUG 2>&1
}

# Few checks, each of which finds real faults and none of which argues about taste.
# (Not the path-sensitive analyzer: it cannot follow intrusive lists and negative errnos. ASan and valgrind do that.)
tidy='-*,bugprone-infinite-loop,bugprone-misplaced-*'
tidy="$tidy,bugprone-macro-repeated-side-effects,bugprone-posix-return,bugprone-suspicious-*,bugprone-too-small-loop-variable"
tidy="$tidy,bugprone-unused-return-value,misc-redundant-expression"
tidy="$tidy,-bugprone-suspicious-include,-bugprone-suspicious-memory-comparison"
check_tidy() {
  # shellcheck disable=SC2016  # "$@" is the inner shell's
  files 'src/*.c' | grep -v '_gen\.c$' | xargs -P "$jobs" -n 4 sh -c 'exec clang-tidy --quiet --warnings-as-errors="*" \
    --checks="$0" "$@" -- -std=gnu11 -Isrc -Ibuild/lint-gcc/gen -D_GNU_SOURCE -DREGOLITH_VERSION="\"0\"" \
    $(pkg-config --cflags lua5.4 libuv libcjson)' "$tidy" 2>/dev/null
}

[ $# -gt 0 ] || set -- format includes words targets shell lua tests gcc clang link cppcheck tidy
for c in "$@"; do
  start=$(date +%s%N)
  if "check_$c" >"$out" 2>&1; then word=ok; else word=FAIL; failed=$((failed + 1)); fi
  printf 'lint: %-9s %-4s %6d ms\n' "$c" "$word" $((($(date +%s%N) - start) / 1000000))
  [ "$word" = ok ] || sed 's/^/  /' "$out"
done
[ "$failed" -eq 0 ] || { echo "lint: $failed of $# checks failed"; exit 1; }
echo "lint: $# checks passed"
