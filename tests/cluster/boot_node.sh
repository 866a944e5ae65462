#!/usr/bin/env bash
# tests/cluster/boot_node.sh DIR NAME: boot the login node (`head`, with slurmctld) or a compute node (`node1`, …, with slurmd)
# of the cluster in DIR. start_cluster.sh does it for all of them; by hand it brings back a node that was killed.
set -euo pipefail
export LC_ALL=C PATH=/usr/sbin:/sbin:/usr/bin:/bin:$PATH
dir=$(cd "$1" && pwd -P) name=$2
address=$(awk -v name="$name" '$2 == name {print $1}' "$dir/hosts")
[ -n "$address" ] || {
  echo "boot_node: $dir has no $name" >&2
  exit 2
}
if [ "$name" = head ]; then
  # Its processes stay in the machine's own list, so that `in` can be used with the caller's.
  pid_namespace=()
  daemon=(slurmctld -D -f "$dir/slurm.conf")
else
  # The first process of the namespace is the node: when it dies, everything on the node does.
  pid_namespace=(--pid --fork --kill-child --mount-proc)
  mkdir -p "$dir/spool/$name"
  daemon=(slurmd -D -N "$name" -f "$dir/slurm.conf")
  # A machine that has booted says so by its uptime, by which Slurm knows that what ran there is gone. The namespace's is the
  # whole machine's, so that slurmd has to say it instead.
  ! grep -q " $name\$" "$dir/pids" 2>/dev/null || daemon+=(-b)
fi
go=$dir/run/$name.go
rm -f "$go"

# It waits for its network, which only the outside can lay, then takes its name and starts the daemon.
setsid env -i PATH="$PATH" unshare --uts --mount --net "${pid_namespace[@]}" bash -ec '
  go=$1 hosts=$2 name=$3
  shift 3
  for _ in $(seq 1500); do [ ! -e "$go" ] || break; sleep 0.02; done
  [ -e "$go" ]
  hostname "$name"
  mount --bind "$hosts" /etc/hosts
  [ $$ = 1 ] || exec "$@"
  "$@" &
  wait $!' node "$go" "$dir/hosts" "$name" "${daemon[@]}" </dev/null >>"$dir/log/$name.out" 2>&1 &
pid=$!

wait_for() { # wait_for COMMAND…: at most 20 seconds
  for _ in $(seq 1000); do
    if "$@"; then return; fi
    kill -0 "$pid" || break
    sleep 0.02
  done
  echo "boot_node: $name did not come up, see $dir/log/$name.out" >&2
  exit 1
}
in_its_namespace() { [ "$(readlink "/proc/$pid/ns/mnt")" != "$(readlink /proc/self/ns/mnt)" ]; }
has_its_first_process() { first=$(pgrep -P "$pid"); }
wait_for in_its_namespace
if [ ${#pid_namespace[@]} -gt 0 ]; then
  wait_for has_its_first_process
  pid=$first
fi
sed -i "/ $name\$/d" "$dir/pids"
echo "$pid $name" >>"$dir/pids"

inside() { # inside PID COMMAND…
  local target=$1
  shift
  nsenter --target "$target" --net "$@"
}
inside "$pid" ip link set lo up
if [ "$name" = head ]; then
  inside "$pid" ip link add br0 type bridge
  inside "$pid" ip addr add "$address/24" dev br0
  inside "$pid" ip link set br0 up
else
  head=$(awk '$2 == "head" {print $1}' "$dir/pids")
  # Left over for a while by a node of that name that was killed.
  inside "$head" ip link delete "to-$name" 2>/dev/null || :
  # A node has the same network card after a boot. With another one the others would send to the address that they remember,
  # for up to a minute, and nothing could be started here.
  mac=$(printf '02:00:%02x:%02x:%02x:%02x' ${address//./ })
  inside "$head" ip link add "to-$name" type veth peer name eth0 address "$mac" netns "$pid"
  inside "$head" ip link set "to-$name" master br0 up
  inside "$pid" ip addr add "$address/24" dev eth0
  inside "$pid" ip link set eth0 up
fi
touch "$go"
