#!/usr/bin/env bash
# slurm/stage2.sh CONFIG [key=value…]: second-stage distillation on the ranks of the job.
# `slurm/stage2.sh …` submits itself with the options of env.sh; `sbatch [OPTION…] slurm/stage2.sh …` with those below and yours.
#SBATCH --job-name=tnr-stage2
#SBATCH --nodes=1 --ntasks-per-node=1
#SBATCH --time=24:00:00
#SBATCH --requeue --open-mode=append
#SBATCH --signal=B:USR2@120
#SBATCH --output=%x-%j.out
here=$(dirname "$0") # in a job this is Slurm's copy of the script; TNR_ROOT is for jobs submitted from elsewhere
[ -f "$here/common.sh" ] || here=${TNR_ROOT:-$SLURM_SUBMIT_DIR}/slurm
. "$here/common.sh" || exit 2
stage stage2 stage2 "$@"
