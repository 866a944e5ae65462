#!/usr/bin/env bash
# launch/torchrun.sh N COMMAND…: run COMMAND as N ranks on this machine under torchrun, e.g.
#   launch/torchrun.sh 4 tnr stage2 configs/mind_large.yaml
# On several machines start it on each of them with
#   NNODES=2 NODE_RANK=0|1 MASTER_ADDR=first-machine MASTER_PORT=29500
# (under srun with one task per node NNODES and NODE_RANK come from Slurm, and the port from the numbers of job and step). The rendezvous is static, because torchrun's
# c10d one orders the machines by name. torchrun makes every failure exit code 1, 75 (preempted) too: where the code
# matters use launch/local.sh or srun.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
ranks_and_command "${BASH_SOURCE[0]}" "$@"
need torchrun "it comes with torch: put the environment of tnr on PATH"
nodes=${NNODES:-} node=${NODE_RANK:-}
if [ -z "$nodes" ] && [ "${SLURM_STEP_NUM_NODES:-1}" -gt 1 ]; then
  nodes=$SLURM_STEP_NUM_NODES node=$SLURM_NODEID
fi
# torchrun itself would die of USR1 and leave the ranks behind.
options=(--nproc-per-node "$ranks" --signals-to-handle SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 --no-python)
if [ "${nodes:-1}" -gt 1 ]; then
  [ -n "${MASTER_ADDR:-}" ] || die "NNODES=$nodes needs MASTER_ADDR, the name of the first machine"
  [ -n "$node" ] || die "NNODES=$nodes needs NODE_RANK, the number of this machine from 0"
  options+=(--nnodes "$nodes" --node-rank "$node" --master-addr "$MASTER_ADDR" --master-port "${MASTER_PORT:-$(step_port)}")
else
  options+=(--standalone)
fi
exec torchrun "${options[@]}" "${command_line[@]}"
