#!/bin/sh
# What a run of regolith may leave outside its processes: mounts, cgroups, pinned namespaces, scratch and state files.
#
#   tools/leftovers.sh list              prints what there is now, one line each
#   tools/leftovers.sh check FILE [S]    compares with a list made earlier; waits up to S seconds (5) until nothing is
#                                        new, then prints what is and fails
#
# Control groups are looked for in the groups named in REGOLITH_GROUPS (separated by colons), or everywhere.
# Processes are regolith-guard's to find: it knows its own. Directories to look through besides the usual ones can be
# named in REGOLITH_SCRATCH (separated by colons). Nothing is removed here.
set -u

list() {
  # Any mount at all: the program mounts in namespaces of its own only.
  awk '{ print "mount " $5 " " $9 }' /proc/self/mountinfo | sed 's/ *$//'
  # Namespaces that outlive their processes are held by a bind mount of type nsfs.
  awk '$0 ~ / - nsfs / { print "namespace " $4 " at " $5 }' /proc/self/mountinfo
  if [ -n "${REGOLITH_GROUPS:-}" ]; then
    echo "$REGOLITH_GROUPS" | tr : '\n' | while read -r d; do find "$d" -mindepth 1 -type d; done | sed 's/^/cgroup /'
  else
    # Directories of a warden that lives (w-UID-PID-…) are somebody else's: ours have all ended by now.
    find /sys/fs/cgroup -mindepth 2 -type d -path '*/regolith/w-*' 2>/dev/null | while read -r d; do
      pid=$(echo "$d" | sed -E 's|.*/regolith/w-[0-9]+-([0-9]+)-.*|\1|')
      grep -q '^regolith' "/proc/$pid/comm" 2>/dev/null || echo "cgroup $d"
    done
  fi
  # Users that spec/e2e/users_spec.lua makes.
  sed -nE 's/^(rgtest([0-9]+)[^:]*):.*/\1 \2/p' /etc/passwd | while read -r name pid; do
    grep -qs '^regolith' "/proc/$pid/comm" || echo "user $name"
  done
  old_ifs=$IFS
  IFS=:
  for d in /run/regolith /var/lib/regolith /dev/shm ${REGOLITH_SCRATCH:-}; do
    case $d in
      /dev/shm) find "$d" -maxdepth 1 -name 'regolith*' 2>/dev/null | sed 's/^/file /' ;;
      /run/regolith)
        # The file in which user ids are locked is there while any warden is.
        grep -qs '^regolith-warden' /proc/[0-9]*/comm || find "$d" ! -type d 2>/dev/null | sed 's/^/file /'
        ;;
      # The store of images is kept on purpose.
      *) find "$d" -mindepth 1 ! -type d ! -path '*/regolith/images/*' 2>/dev/null | sed 's/^/file /' ;;
    esac
  done
  IFS=$old_ifs
}

case ${1:-} in
  list) list | LC_ALL=C sort -u ;;
  check)
    before=$2
    now=$before.now
    end=$(($(date +%s) + ${3:-5}))
    while :; do
      list | LC_ALL=C sort -u | LC_ALL=C comm -13 "$before" - >"$now"
      [ -s "$now" ] || { rm -f "$now"; exit 0; }
      [ "$(date +%s)" -lt "$end" ] || break
      sleep 0.2
    done
    sed 's/^/left over: /' "$now" | head -n 40
    rm -f "$now"
    exit 1
    ;;
  *) echo "usage: tools/leftovers.sh list | check FILE [SECONDS]" >&2; exit 2 ;;
esac
