#!/bin/sh
# Images against named peers:  spec/bench/image.sh BUILD_DIR [ROUNDS]
#
# Pull and unpack of a small Debian with python (spec/image/fixture.sh) from one docker-registry on loopback, interleaved:
# regolith, skopeo copy + umoci unpack, podman pull (where it is installed). Then creating a sandbox from images of one and
# of twelve layers against image "host". Prints medians, peak memory, and the ratios that matter.
set -eu
case $1 in /*) build=$1 ;; *) build=$PWD/$1 ;; esac
rounds=${2:-7}
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d /var/tmp/regolith-bench.XXXXXX)
pid=
finish() {
  [ -z "$pid" ] || kill "$pid" 2>/dev/null || true
  if command -v podman >/dev/null; then podman_ rmi -af >/dev/null 2>&1 || true; fi
  umount "$dir/pod/overlay" 2>/dev/null || true
  rm -rf "$dir"
}
trap finish EXIT
trap 'exit 130' INT TERM
podman_() { podman --root "$dir/pod" --runroot "$dir/podrun" --storage-driver overlay "$@"; }

sh "$here/../image/fixture.sh" "$dir/fix" || { echo "image: skipped"; exit 0; }
command -v docker-registry >/dev/null || { echo "image: skipped, docker-registry is not installed"; exit 0; }
command -v /usr/bin/time >/dev/null || { echo "image: skipped, time is not installed"; exit 0; }
port=$((20000 + $$ % 10000))
printf 'version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s/registry}}\nhttp: {addr: 127.0.0.1:%d}\n' \
  "$dir" "$port" >"$dir/registry.yml"
docker-registry serve "$dir/registry.yml" >/dev/null 2>&1 &
pid=$!
ref=127.0.0.1:$port/python:3.11
copy() { skopeo --policy "$dir/fix/policy.json" copy -q "$@"; }
for _ in 1 2 3 4 5 6 7 8 9; do
  copy --dest-tls-verify=false "oci:$dir/fix/img:app" "docker://$ref" 2>/dev/null && break
  sleep 0.1
done

# NAME COMMAND...: one timed run; appends "seconds KiB" to NAME's file.
timed() {
  name=$1
  shift
  /usr/bin/time -a -o "$dir/$name" -f '%e %M' "$@" >/dev/null 2>"$dir/err" || { cat "$dir/err"; exit 1; }
}
export XDG_STATE_HOME="$dir/state"
for _ in $(seq "$rounds"); do
  rm -rf "$dir/state" "$dir/oci" "$dir/bundle" "$dir/pod" "$dir/podrun"
  sync
  timed regolith "$build/regolith" image pull -q --plain-http "$ref"
  sync
  # shellcheck disable=SC2016  # $1 and $2 are the inner shell's
  timed skopeo+umoci sh -c 'skopeo --policy "$1/fix/policy.json" copy -q --src-tls-verify=false "docker://$2" "oci:$1/oci:app" &&
    umoci unpack --image "$1/oci:app" "$1/bundle"' sh "$dir" "$ref"
  if command -v podman >/dev/null; then
    sync
    timed podman podman --root "$dir/pod" --runroot "$dir/podrun" --storage-driver overlay pull -q --tls-verify=false "$ref"
    podman_ rmi -af >/dev/null 2>&1 || true
  fi
done
median() { cut -d' ' -f1 "$1" | sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
ours=$(median "$dir/regolith")
best=
echo "pull and unpack, $(du -sm "$dir/fix/root" | cut -f1) MiB, median of $rounds"
for name in regolith skopeo+umoci podman; do
  [ -f "$dir/$name" ] || continue
  m=$(median "$dir/$name")
  printf '  %-14s %6.2f s  peak %5.1f MiB\n' "$name" "$m" "$(sort -n -k2 "$dir/$name" | tail -1 | awk '{ print $2 / 1024 }')"
  [ "$name" = regolith ] || best=$(printf '%s\n%s\n' "${best:-$m}" "$m" | sort -n | head -1)
done
awk -v a="$ours" -v b="$best" 'BEGIN { printf "  ratio to the faster peer %.2f (want at most 0.70)\n", a / b }'

"$build/regolith" image import -q "oci:$dir/fix/img:many" bench/many:1 >/dev/null
"$build/regolith" image import -q "oci:$dir/fix/img:base" bench/base:1 >/dev/null
cat >"$dir/create.lua" <<'X'
local sandbox, task = require "sandbox", require "task"
local names, times = { "host", "bench/base:1", "bench/many:1" }, {}
for i = 1, 100 do
  for _, name in ipairs(names) do
    local t = task.now()
    local sb = sandbox.create { image = name }
    t = task.now() - t
    sb:terminate()
    times[name] = times[name] or {}
    times[name][i] = t * 1000
  end
end
local host
for _, name in ipairs(names) do
  table.sort(times[name])
  local m = times[name][50]
  host = host or m
  print(("  %-14s %6.2f ms  %.2f x host"):format(name, m, m / host))
end
X
echo "create a sandbox, median of 100"
"$build/regolith" run --allow-image 'bench/*' "$dir/create.lua"
