#!/usr/bin/env bash
# tests/cluster/start_cluster.sh DIR: start a real Slurm on this machine, for the tests. Afterwards
#   DIR/in sbatch …                     runs a command as on the cluster's login node
#   kill -KILL PID-OF-node2 (DIR/pids)  fails a node; boot_node.sh DIR node2 brings it back
#   stop_cluster.sh DIR                 ends everything
# Needs root and Debian's slurmctld slurmd slurm-client munge iproute2; no systemd, cgroups or database. Each node is a
# slurmd in namespaces of its own (host name, processes, mounts, network), so that ports and host names are as on separate
# machines and nothing shows outside. All files lie in DIR, which must be open to other users (not pytest's tmp_path).
# Settings: NODES=2 CPUS=8 (declared, whatever the machine has).
set -euo pipefail
export LC_ALL=C PATH=/usr/sbin:/sbin:/usr/bin:/bin:$PATH
dir=${1:?usage: start_cluster.sh DIR}
nodes=${NODES:-2} cpus=${CPUS:-8}
here=$(cd "$(dirname "$0")" && pwd -P)
packages="slurmctld slurmd slurm-client munge iproute2"

die() {
  echo "start_cluster: $*" >&2
  exit 2
}
[ "$(id -u)" = 0 ] || die "needs root"
for tool in munged mungekey slurmctld slurmd sbatch unshare nsenter ip; do
  command -v "$tool" >/dev/null || die "no $tool: apt-get install --no-install-recommends $packages"
done
mkdir -p "$dir"
dir=$(cd "$dir" && pwd -P)
[ ! -e "$dir/pids" ] || die "$dir holds a running cluster: stop_cluster.sh $dir first"
chmod 755 "$dir"
for name in log run state spool dev; do
  rm -rf "${dir:?}/$name"
  mkdir "$dir/$name"
done
: >"$dir/pids"

failed() {
  trap - ERR
  echo "start_cluster: $1" >&2
  tail -n 5 "$dir"/log/* >&2 || :
  "$here/stop_cluster.sh" "$dir" || :
  exit 1
}
trap 'failed "line $LINENO failed"' ERR

# Addresses: the login node has .1 on a bridge of its own, node i has .(10 + i).
{
  echo "127.0.0.1 localhost"
  echo "10.77.0.1 head"
  for i in $(seq "$nodes"); do echo "10.77.0.$((10 + i)) node$i"; done
} >"$dir/hosts"

cat >"$dir/slurm.conf" <<CONF
ClusterName=tnrtest
SlurmctldHost=head(10.77.0.1)
SlurmUser=root
SlurmdUser=root
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
CredType=cred/munge
# A requeued job waits until its old credential has expired, two minutes by default.
AuthInfo=socket=$dir/run/munge.socket,cred_expire=5
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool/%n
SlurmctldPidFile=$dir/run/slurmctld.pid
SlurmdPidFile=$dir/run/slurmd.%n.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
# Seconds between TERM and KILL at a preemption: three ranks of a busy test machine must find the time for a checkpoint.
KillWait=30
SlurmdTimeout=300
ReturnToService=2
# Ended jobs stay visible to the tests.
MinJobAge=86400
MailProg=/bin/true
PropagateResourceLimits=NONE
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=DEFAULT CPUs=$cpus RealMemory=8192 Gres=gpu:4
$(for i in $(seq "$nodes"); do echo "NodeName=node$i NodeHostname=node$i NodeAddr=10.77.0.$((10 + i))"; done)
PartitionName=DEFAULT Nodes=ALL State=UP MaxTime=60
PartitionName=main Default=YES PriorityTier=10 PreemptMode=REQUEUE
PartitionName=urgent PriorityTier=100 PreemptMode=OFF
CONF
# GPUs for Slurm to count and hand out: device files that lead nowhere.
for i in 0 1 2 3; do mknod "$dir/dev/nvidia$i" c 1 3; done
printf 'AutoDetect=off\nName=gpu File=%s/dev/nvidia[0-3]\n' "$dir" >"$dir/gres.conf"
: >"$dir/plugstack.conf"

(umask 077 && mungekey --create --keyfile "$dir/run/munge.key")
setsid env -i PATH="$PATH" munged --foreground --key-file "$dir/run/munge.key" --socket "$dir/run/munge.socket" \
  --pid-file "$dir/run/munged.pid" --seed-file "$dir/run/munge.seed" --log-file "$dir/log/munged.log" \
  </dev/null >>"$dir/log/munged.out" 2>&1 &
echo "$! munged" >>"$dir/pids"
for _ in $(seq 200); do
  [ ! -S "$dir/run/munge.socket" ] || break
  sleep 0.05
done

"$here/boot_node.sh" "$dir" head
head=$(awk '$2 == "head" {print $1}' "$dir/pids")
cat >"$dir/in" <<IN
#!/bin/sh
# Run a command on the login node: its name, network and Slurm; the caller's user, folder and environment.
export SLURM_CONF=$dir/slurm.conf
exec nsenter --target $head --net --uts --mount sh -c 'cd "\$1" && shift && exec "\$@"' sh "\$PWD" "\$@"
IN
chmod 755 "$dir/in"
for i in $(seq "$nodes"); do "$here/boot_node.sh" "$dir" "node$i"; done

for _ in $(seq 300); do
  while read -r pid name; do kill -0 "$pid" 2>/dev/null || failed "$name (process $pid) has ended"; done <"$dir/pids"
  if [ "$("$dir/in" timeout 5 sinfo -h -t idle -p main -o %D 2>/dev/null)" = "$nodes" ]; then
    echo "$dir/in"
    exit 0
  fi
  sleep 0.2
done
failed "the nodes were not idle within a minute"
