#!/bin/sh
# Images against named peers:  spec/bench/image.sh BUILD_DIR OUT_DIR ROUNDS
#
# Pull and unpack of a small Debian with python (spec/image/fixture.sh) from one docker-registry on loopback, interleaved:
# regolith, skopeo copy + umoci unpack, podman pull. Creating a sandbox from images of one and of twelve layers against
# image "host". And the first use of an image when nothing of it is in memory, as after a reboot.
set -eu
case $1 in /*) build=$1 ;; *) build=$PWD/$1 ;; esac
out=$2 rounds=$3
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d /var/tmp/regolith-bench.XXXXXX)
pid=
podman_() { podman --root "$dir/pod" --runroot "$dir/podrun" --storage-driver overlay "$@"; }
finish() {
  [ -z "$pid" ] || kill "$pid" 2>/dev/null || true
  if command -v podman >/dev/null; then podman_ rmi -af >/dev/null 2>&1 || true; fi
  umount "$dir/pod/overlay" 2>/dev/null || true
  rm -rf "$dir"
}
trap finish EXIT
trap 'exit 130' INT TERM

sh "$here/../image/fixture.sh" "$build/image-fixture" || { echo "image: skipped"; exit 0; }
fix=$build/image-fixture
for tool in docker-registry time; do
  command -v "$tool" >/dev/null || { echo "image: skipped, $tool is not installed"; exit 0; }
done
port=$((20000 + $$ % 10000))
printf 'version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s/registry}}\nhttp: {addr: 127.0.0.1:%d}\n' \
  "$dir" "$port" >"$dir/registry.yml"
docker-registry serve "$dir/registry.yml" >/dev/null 2>&1 &
pid=$!
ref=127.0.0.1:$port/python:3.11
for _ in 1 2 3 4 5 6 7 8 9; do
  skopeo --policy "$fix/policy.json" copy -q --dest-tls-verify=false "oci:$fix/img:app" "docker://$ref" 2>/dev/null && break
  sleep 0.1
done
export XDG_STATE_HOME="$dir/state"

# NAME COMMAND...: runs it; appends "milliseconds KiB" to NAME's file, or says there why not.
timed() {
  name=$1
  shift
  [ ! -f "$dir/$name.not" ] || return 0
  begin=$(date +%s%N)
  if /usr/bin/time -a -o "$dir/$name.peak" -f '%M' "$@" >/dev/null 2>"$dir/err"; then
    echo "$(($(date +%s%N) - begin))" >>"$dir/$name.ns"
  else
    tail -1 "$dir/err" | tr '\t' ' ' | cut -c1-150 >"$dir/$name.not"
  fi
}
# KIND ROW NAME FILE DIVISOR: a row, with the numbers of NAME's FILE.
row() {
  printf '%s\t%s\n' "$1" "$2"
  if [ -f "$dir/$3.not" ]; then
    printf 'skipped\t%s\n' "$(cat "$dir/$3.not")"
  else
    awk -v d="$5" '{ printf "sample\t%.3f\n", $1 / d }' "$dir/$3.$4"
  fi
}

# Pull and unpack -----------------------------------------------------------------------------------------------------
command -v podman >/dev/null || echo "podman is not installed" >"$dir/podman.not"
for _ in $(seq "$rounds"); do
  rm -rf "$dir/state" "$dir/oci" "$dir/bundle" "$dir/pod" "$dir/podrun"
  sync
  timed regolith "$build/regolith" image pull -q --plain-http "$ref"
  sync
  # shellcheck disable=SC2016  # $1 and $2 are the inner shell's
  timed umoci sh -c 'skopeo --policy "$1/policy.json" copy -q --src-tls-verify=false "docker://$3" "oci:$2/oci:app" &&
    umoci unpack --image "$2/oci:app" "$2/bundle"' sh "$fix" "$dir" "$ref"
  sync
  timed podman podman --root "$dir/pod" --runroot "$dir/podrun" --storage-driver overlay pull -q --tls-verify=false "$ref"
  podman_ rmi -af >/dev/null 2>&1 || true
done
rows() { # FILE DIVISOR
  row peer "skopeo copy + umoci unpack" umoci "$1" "$2"
  row peer "podman pull" podman "$1" "$2"
  row row "regolith image pull" regolith "$1" "$2"
}
{
  printf 'group\timage_pull\tPull and unpack an image of %d MiB from a registry on loopback\tms\n' "$(du -sm "$fix/root" | cut -f1)"
  rows ns 1000000
} >"$out/image_pull.tsv"
{
  printf 'group\timage_peak\tThe same, peak memory of a process\tMiB\n'
  rows peak 1024
} >"$out/image_peak.tsv"

# Create --------------------------------------------------------------------------------------------------------------
"$build/regolith" image import -q "oci:$fix/img:many" bench/many:1 >/dev/null
"$build/regolith" image import -q "oci:$fix/img:base" bench/base:1 >/dev/null
{
  printf 'group\timage_create\tCreate a sandbox from a stored image\tms\n'
  "$build/regolith" run --quiet --allow-image 'bench/*' "$here/create.lua" -- 100
} >"$out/image_create.tsv"

# First use -----------------------------------------------------------------------------------------------------------
# Caches go with a knob of the whole machine, which not everybody may turn.
forget() { sync && echo 3 >/proc/sys/vm/drop_caches; }
if (forget) 2>/dev/null; then
  for _ in $(seq "$rounds"); do
    forget
    timed chroot.cold chroot "$fix/root" python3 -c 'print(1)'
    timed chroot.warm chroot "$fix/root" python3 -c 'print(1)'
    forget
    timed first.cold "$build/regolith" exec --image bench/base:1 -- python3 -c 'print(1)'
    timed first.warm "$build/regolith" exec --image bench/base:1 -- python3 -c 'print(1)'
    forget
    timed many.cold "$build/regolith" exec --image bench/many:1 -- python3 -c 'print(1)'
  done
else
  for name in chroot.cold chroot.warm first.cold first.warm many.cold; do
    echo "the page cache cannot be dropped here (/proc/sys/vm/drop_caches)" >"$dir/$name.not"
  done
fi
{
  printf 'group\timage_first\tpython prints 1 in an image; "dropped": page cache dropped before, as after a reboot\tms\n'
  row peer "chroot, dropped" chroot.cold ns 1000000
  row row "regolith exec, dropped" first.cold ns 1000000
  row row "regolith exec, twelve layers, dropped" many.cold ns 1000000
  row peer "chroot, again" chroot.warm ns 1000000
  row row "regolith exec, again" first.warm ns 1000000
} >"$out/image_first.tsv"
