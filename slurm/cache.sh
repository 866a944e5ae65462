#!/usr/bin/env bash
# slurm/cache.sh CONFIG [key=value…]: the teachers' pass. In an array each task makes its range of the shards; a job without
# one makes those that are missing and completes the cache. Both can be stopped and started again.
# `slurm/cache.sh …` submits itself with the options of env.sh; `sbatch [OPTION…] slurm/cache.sh …` with those below and yours.
#SBATCH --job-name=tnr-cache
#SBATCH --nodes=1 --ntasks-per-node=1
#SBATCH --time=24:00:00
#SBATCH --requeue --open-mode=append
#SBATCH --signal=B:USR2@120
#SBATCH --output=%x-%j.out
here=$(dirname "$0") # in a job this is Slurm's copy of the script; TNR_ROOT is for jobs submitted from elsewhere
[ -f "$here/common.sh" ] || here=${TNR_ROOT:-$SLURM_SUBMIT_DIR}/slurm
. "$here/common.sh" || exit 2
begin all cache "$@"
range=()
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
  shards=$(steps shards "$array_index" "$array_count" "$@")
  if [ -z "$shards" ]; then
    echo "fewer shards than tasks: nothing for this one"
    exit 0
  fi
  range=(--shard-range "$shards")
fi
on_ranks tnr cache "${range[@]}" "$@"
