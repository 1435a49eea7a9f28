#!/bin/sh
# TCP of a sandbox with network "open", into it and out of it:  spec/bench/network.sh BUILD_DIR OUT_DIR ROUNDS
#
# The other side is in a network namespace of its own behind a pair of veth. Peers: a process without a sandbox, and the
# user-mode networks slirp4netns and pasta, each around a process with a network namespace of its own. One row of all after
# another, a second each, every round.
set -eu
build=$1 out=$2 rounds=$3
there=10.77.248.2
for tool in ip unshare nsenter python3; do
  command -v "$tool" >/dev/null || { echo "network: skipped, $tool is not installed"; exit 0; }
done
[ "$(id -u)" -eq 0 ] || { echo "network: skipped, needs root to make an outside"; exit 0; }
dir=$(mktemp -d)
pids=
finish() {
  # shellcheck disable=SC2086  # a list of processes
  [ -z "$pids" ] || kill $pids 2>/dev/null || true
  rm -rf "$dir"
}
trap finish EXIT
trap 'exit 130' INT TERM

wait_for() { until grep -q "$2" "$1"; do sleep 0.05; done; }

unshare --net sh -c 'ip link set lo up; echo up; exec sleep 3600' >"$dir/ns" &
ns=$!
pids=$ns
wait_for "$dir/ns" up
ip link add "rgb$$" type veth peer name eth0 netns "$ns"
ip addr add 10.77.248.1/24 dev "rgb$$"
ip link set "rgb$$" up
nsenter --net="/proc/$ns/ns/net" sh -c "ip addr add $there/24 dev eth0; ip link set eth0 up
  exec python3 spec/bench/wire.py serve $there" >"$dir/server" &
pids="$pids $!"
wait_for "$dir/server" up

slirp=no
if command -v slirp4netns >/dev/null; then
  unshare --net sh -c 'echo up; exec sleep 3600' >"$dir/slirp" &
  inner=$!
  pids="$pids $inner"
  wait_for "$dir/slirp" up
  slirp4netns --configure --mtu=65520 --ready-fd=3 "$inner" tap0 3>"$dir/ready" >/dev/null 2>&1 &
  pids="$pids $!"
  wait_for "$dir/ready" 1
  slirp=$inner
fi

client=$(cat spec/bench/wire.py)
bare() { python3 -c "$client" "$1" $there 1; }
open() { "$build/regolith" exec --network open -- python3 -c "$client" "$1" $there 1; }
slirp4netns_() { nsenter --net="/proc/$slirp/ns/net" python3 -c "$client" "$1" $there 1; }
pasta_() { pasta --config-net --runas 0 --quiet -- python3 -c "$client" "$1" $there 1 2>/dev/null; }

rows='open bare slirp4netns_ pasta_'
name_of() {
  case $1 in
    open) printf 'row\tregolith, network open\n' ;;
    bare) printf 'peer\tno sandbox\n' ;;
    *) printf 'peer\t%s\n' "${1%_}" ;;
  esac
}
there_is() {
  case $1 in
    slirp4netns_) [ "$slirp" != no ] ;;
    pasta_) command -v pasta >/dev/null ;;
  esac
}

for _ in $(seq "$rounds"); do
  for way in in out; do
    for row in $rows; do
      there_is "$row" || continue
      if sample=$("$row" "$way"); then
        printf 'sample\t%s\n' "$sample" >>"$dir/$way.$row"
      fi
    done
  done
done
for way in in out; do
  printf 'group\tnetwork_%s\tTCP %s a sandbox\tMiB/s\n' "$way" "$([ $way = in ] && echo into || echo 'out of')" >"$out/network_$way.tsv"
  for row in $rows; do
    name_of "$row"
    cat "$dir/$way.$row" 2>/dev/null || printf 'skipped\tnot installed\n'
  done >>"$out/network_$way.tsv"
done
