#!/usr/bin/env bash
# launch/local.sh N COMMAND…: run COMMAND as N data-parallel ranks on this machine, e.g.
#   launch/local.sh 2 tnr stage2 configs/demo.yaml
# TERM and USR1 reach every rank, and the exit code is the ranks' own (75: preempted after a checkpoint). Started once per
# node (srun --ntasks-per-node=1, mpirun --map-by ppr:1:node) it gives every node N ranks of one common group.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
ranks_and_command "${BASH_SOURCE[0]}" "$@"
exec "$python" -m tnr_dist.launch.local "$ranks" -- "${command_line[@]}"
