#!/usr/bin/env bash
# slurm/prepare.sh CONFIG [key=value…]: prepare (or first generate) the data set of a configuration, in one process.
# `slurm/prepare.sh …` submits itself with the options of env.sh; `sbatch [OPTION…] slurm/prepare.sh …` with those below and yours.
#SBATCH --job-name=tnr-prepare
#SBATCH --nodes=1 --ntasks-per-node=1
#SBATCH --time=24:00:00
#SBATCH --requeue --open-mode=append
#SBATCH --signal=B:USR2@120
#SBATCH --output=%x-%j.out
here=$(dirname "$0") # in a job this is Slurm's copy of the script; TNR_ROOT is for jobs submitted from elsewhere
[ -f "$here/common.sh" ] || here=${TNR_ROOT:-$SLURM_SUBMIT_DIR}/slurm
. "$here/common.sh" || exit 2
begin one prepare "$@"
on_ranks python "$root/slurm/steps.py" prepare "$@"
