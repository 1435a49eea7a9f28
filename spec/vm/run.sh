#!/bin/sh
# Runs what depends on the kind of control groups in a small virtual machine with cgroup v2 and all its controllers:
#
#   spec/vm/run.sh BUILD_DIR [SCENARIO]...
#
# The machine is qemu (no KVM needed) with Debian's cloud kernel, which is downloaded and unpacked but not installed, and
# an initial RAM disk made here of busybox and our programs. It boots in about three seconds, runs spec/vm/guest.sh and
# powers off. The last line is "N passed, N failed".
set -eu
build=${1:?usage: spec/vm/run.sh BUILD_DIR [SCENARIO]...}
shift
cd "$(dirname "$0")/../.."
case $build in /*) ;; *) build=$PWD/$build ;; esac
vm=$build/vm
for program in qemu-system-x86_64 busybox cpio dpkg-deb; do
  command -v $program >/dev/null || { echo "$program is missing: make test-vm installs it" >&2; exit 1; }
done

fetch_kernel() {
  package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: *//p' | head -1)
  [ -n "$package" ] || { echo "apt knows no linux-image-cloud-amd64; apt-get update may help" >&2; exit 1; }
  (cd "$vm" && apt-get download "$package" >/dev/null && dpkg-deb -x "$package"_*.deb kernel && rm -f -- *.deb)
}

# The file and every shared library it needs, at the same paths.
take() {
  for f in "$1" $(ldd "$1" 2>/dev/null | sed -nE 's/^.*(=> |^\t)(\/[^ ]+) .*/\2/p'); do
    [ -e "$root$f" ] || { mkdir -p "$root$(dirname "$f")" && cp -L "$f" "$root$f"; }
  done
}

# A service manager with a bus and a user's manager, and no more than that: scenario "systemd".
make_systemd() {
  [ -x /lib/systemd/systemd ] && command -v dbus-daemon >/dev/null || return 0
  lib=$(dpkg -L libsystemd0 | grep '/libsystemd\.so\.0$')
  mkdir -p "$root/usr/lib/systemd" "$root/etc/systemd/system" "$root/etc/systemd/user" "$root/usr/share" "$root/var/lib"
  take /lib/systemd/systemd
  take "$lib"
  take "$(command -v dbus-daemon)"
  cp -r /usr/share/dbus-1 "$root/usr/share/"
  cp spec/vm/units/* "$root/etc/systemd/system/"
  cp spec/vm/units-user/* "$root/etc/systemd/user/"
  : >"$root/etc/machine-id"
}

make_initrd() {
  root=$vm/root
  rm -rf "$root"
  mkdir -p "$root/proc" "$root/sys" "$root/dev" "$root/tmp" "$root/run" "$root/etc" "$root/root" "$root/var" \
    "$root/usr/bin" "$root/usr/lib" "$root/spec" "$root/new"
  for d in bin lib lib64 sbin; do mkdir -p "$root/usr/$d"; ln -s "usr/$d" "$root/$d"; done
  cp "$(command -v busybox)" "$root/usr/bin/busybox"
  for applet in $(busybox --list); do
    [ -e "$root/usr/bin/$applet" ] || ln -s busybox "$root/usr/bin/$applet"
  done
  for name in test_cgroup test_probe test_seccomp test_engine_local; do
    if [ -x "$build/spec/$name" ]; then cp "$build/spec/$name" "$root/spec/"; take "$build/spec/$name"; fi
  done
  cp "$build/regolith" "$root/usr/bin/regolith"
  take "$build/regolith"
  # Real ones where busybox has others by these names; its shell would prefer its own to any in $PATH.
  for program in setpriv head dash; do
    rm -f "$root/usr/bin/$program"
    take /usr/bin/$program
  done
  ln -sf dash "$root/usr/bin/sh"
  # take() put those two at their own paths too, through the libraries' loop.
  rm -rf "${root:?}$build"
  make_systemd
  find "$vm/kernel/lib/modules" -name overlay.ko\* -exec cp {} "$root/spec/" \;
  cat >"$root/etc/passwd" <<'END'
root:x:0:0::/root:/bin/sh
user:x:1000:1000::/tmp:/bin/sh
messagebus:x:100:100::/:/bin/false
nobody:x:65534:65534::/:/bin/false
END
  printf 'root:x:0:\nuser:x:1000:\nmessagebus:x:100:\nnogroup:x:65534:\n' >"$root/etc/group"
  cp spec/vm/guest.sh "$root/init"
  chmod 755 "$root/init"
  (cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$vm/initrd"
}

mkdir -p "$vm"
[ -d "$vm/kernel/boot" ] || fetch_kernel
make_initrd
boot() { # SCENARIO...
  echo "=== ${*:-without a service manager}"
  timeout 300 qemu-system-x86_64 -machine q35 -accel tcg -cpu max -m 1024 -smp 2 -nographic -no-reboot -net none \
    -kernel "$vm"/kernel/boot/vmlinuz-* -initrd "$vm/initrd" \
    -append "console=ttyS0 quiet panic=-1 loglevel=3 systemd.show_status=0 -- $*" </dev/null 2>&1 | tr -d '\r' >"$vm/log"
  sed -n 's/^.*--- /--- /; /^--- /,$p' "$vm/log"
  counts=$(sed -nE 's/^([0-9]+) passed, ([0-9]+) failed in all$/\1 \2/p' "$vm/log")
  [ -n "$counts" ] || { echo "the machine did not come to its end:"; tail -20 "$vm/log"; counts="0 1"; }
  passed=$((passed + ${counts% *})) failed=$((failed + ${counts#* }))
}

passed=0 failed=0
if [ $# -gt 0 ]; then
  boot "$@"
else
  boot
  if [ -x "$vm/root/lib/systemd/systemd" ]; then boot systemd; else echo "skipped: no systemd or dbus-daemon here"; fi
fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
