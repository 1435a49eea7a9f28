#!/bin/sh
# Process 1 of the virtual machine of spec/vm/run.sh. Each scenario is a place for regolith to be started in, as far as
# control groups go; in each the tests that depend on it run. Arguments: the scenarios to run, none = all.
export PATH=/usr/bin:/usr/sbin HOME=/root
case $1 in
  inside | service) ;;
  *)
    # The initial RAM disk cannot be pivoted away from, which sandboxes need: move to a tmpfs.
    mount -t tmpfs -o mode=755 none /new
    for d in usr etc spec root var init; do cp -a "/$d" /new/; done
    for d in bin lib lib64 sbin; do ln -s "usr/$d" "/new/$d"; done
    mkdir -p /new/proc /new/sys /new/dev /new/run /new/tmp
    insmod /spec/overlay.ko
    case " $* " in *" systemd "*) exec switch_root /new /lib/systemd/systemd ;; esac
    exec switch_root /new /init inside "$@"
    ;;
esac

cg=/sys/fs/cgroup
passed=0 failed=0

run() { # LABEL COMMAND...: one test program
  label=$1
  shift
  echo "--- $label"
  "$@" >/tmp/out 2>&1
  status=$?
  counts=$(sed -nE 's/^([0-9]+) passed, ([0-9]+) failed.*/\1 \2/p' /tmp/out | tail -1)
  p=${counts% *} f=${counts#* }
  [ "$p" != 0 ] || [ "$f" != 0 ] || { f=1; echo "ran no case" >>/tmp/out; }
  [ -n "$counts" ] || { p=0 f=1; echo "ended with status $status without a count" >>/tmp/out; }
  passed=$((passed + p)) failed=$((failed + f))
  cat /tmp/out
  left=$(find $cg -type d -name 'w-*')
  [ -z "$left" ] || { echo "left over: $left"; failed=$((failed + 1)); }
}

expect() { # LABEL PATTERN COMMAND...: output that must match
  label=$1 pattern=$2
  shift 2
  echo "--- $label"
  "$@" >/tmp/out 2>&1
  if grep -q "$pattern" /tmp/out; then passed=$((passed + 1)); else
    failed=$((failed + 1))
    echo "not ok: $label: no line matches $pattern:"
    cat /tmp/out
  fi
}

finish() {
  echo "$passed passed, $failed failed in all"
  poweroff -f
}

if [ "$1" = service ]; then # a unit of the service manager runs us: groups are its to give
  run "systemd: cgroup" /spec/test_cgroup
  expect "systemd: a scope" "base .*/system.slice/regolith-[0-9]*.scope" /spec/test_cgroup probe
  expect "systemd: doctor" "control groups.*version 2: cpu, memory, pids" regolith doctor
  run "systemd: sandboxes" /spec/test_engine_local limits
  as_user() { /usr/bin/setpriv --reuid user --regid user --clear-groups env HOME=/tmp "$@"; }
  run "systemd, a user: cgroup" as_user /spec/test_cgroup
  expect "systemd, a user: a scope" "base .*/user@1000.service/.*regolith-[0-9]*.scope" as_user /spec/test_cgroup probe
  run "systemd, a user: sandboxes" as_user /spec/test_engine_local limits
  finish
fi

shift
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs -o mode=1777 tmp /tmp
mount -t tmpfs run /run
ip link set lo up
words=$*
wanted() { [ -z "$words" ] || case " $words " in *" $1 "*) ;; *) return 1 ;; esac; }

mount -t cgroup2 -o nsdelegate none $cg # as service managers do
echo "+cpu +memory +pids" >$cg/cgroup.subtree_control

# Alone in a group, as in a delegated scope.
alone() { # GROUP USER COMMAND...
  group=$1 user=$2
  shift 2
  mkdir -p $cg/"$group"
  if [ "$user" != root ]; then
    chown "$user" $cg/"$group" $cg/"$group"/cgroup.procs $cg/"$group"/cgroup.subtree_control
  fi
  sh -c 'echo 0 >"$1"; user=$2; shift 2
    [ "$user" = root ] || exec /usr/bin/setpriv --reuid "$user" --regid "$user" --clear-groups "$@"
    exec "$@"' sh $cg/"$group"/cgroup.procs "$user" "$@"
  status=$?
  rmdir $cg/"$group" 2>/dev/null || echo "the group $group is not empty"
  return $status
}

if wanted root; then # the root group, as on a machine without a service manager
  run "root group: cgroup" /spec/test_cgroup
  expect "root group: probe" "control groups.*version 2: cpu, memory, pids" regolith doctor
  expect "root group: leaves" "memory events" regolith doctor
fi
if wanted alone; then
  run "own group: cgroup" alone svc root /spec/test_cgroup
fi
if wanted user; then
  run "delegated group of a user: cgroup" alone usr user /spec/test_cgroup
fi
if wanted shared; then # others in the group: controllers cannot be passed on
  mkdir -p $cg/shared
  sh -c "echo 0 >$cg/shared/cgroup.procs; exec sleep 1000" &
  sleeper=$!
  sleep 0.2
  chown user $cg/shared $cg/shared/cgroup.procs $cg/shared/cgroup.subtree_control
  expect "shared group: probe" "other processes share" \
    sh -c "echo 0 >$cg/shared/cgroup.procs; exec /usr/bin/setpriv --reuid user --regid user --clear-groups regolith doctor"
  kill $sleeper
  wait $sleeper 2>/dev/null
  rmdir $cg/shared
fi
if wanted none; then
  umount $cg
  run "no groups: cgroup" /spec/test_cgroup
  expect "no groups: probe" "no control groups are mounted" regolith doctor
  mount -t cgroup2 none $cg
fi
# Without the cases that need more than busybox, or move more bytes than an emulated machine can.
cases="create_exec_kill outcomes users kill_takes_all children_live_on limits many_at_once kills_race agent_dies
  warden_dies inside close_ends_all"
if wanted sandbox; then
  for c in $cases; do run "sandboxes: $c" /spec/test_engine_local "$c"; done
  for c in kill_takes_all limits inside; do
    run "sandboxes of an own group: $c" alone svc root /spec/test_engine_local "$c"
    run "sandboxes of a user: $c" alone usr user /spec/test_engine_local "$c"
  done
  run "seccomp" /spec/test_seccomp
  run "probe" /spec/test_probe
fi
finish
