#!/usr/bin/env bash
# launch/deepspeed.sh N COMMAND…: run COMMAND as N ranks per machine under DeepSpeed's own launcher, e.g.
#   launch/deepspeed.sh 4 tnr stage2 configs/mind_large.yaml engine=deepspeed
# HOSTFILE=FILE (lines `host slots=N`) for several machines reached by ssh, MASTER_ADDR and MASTER_PORT as usual. The engine
# does not need this launcher: engine=deepspeed runs under any of them. This one passes TERM on but dies of USR1, and a
# preempted run ends with 1 or 143, not 75: where the code matters use launch/local.sh or srun.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
ranks_and_command "${BASH_SOURCE[0]}" "$@"
need deepspeed "pip install deepspeed (in a checkout make venv does)"
options=(--num_gpus "$ranks" --no_python --no_local_rank)
if [ -n "${HOSTFILE:-}" ]; then
  [ -r "$HOSTFILE" ] || die "HOSTFILE=$HOSTFILE cannot be read"
  # DeepSpeed's launcher tells all machines the port; one that is free here is hardly ever taken on the first of them.
  options+=(--hostfile "$HOSTFILE" --master_port "${MASTER_PORT:-$(free_port)}")
  [ -z "${MASTER_ADDR:-}" ] || options+=(--master_addr "$MASTER_ADDR")
else
  options+=(--hostfile /dev/null --master_addr 127.0.0.1 --master_port "${MASTER_PORT:-$(free_port)}")
fi
# On a machine without GPUs it counts sockets as devices and would take fewer than N.
if [ -z "${DS_ACCELERATOR:-}" ] && ! "$python" -c 'import torch; raise SystemExit(not torch.cuda.is_available())'; then
  export DS_ACCELERATOR=cpu
fi
exec deepspeed "${options[@]}" "${command_line[@]}"
