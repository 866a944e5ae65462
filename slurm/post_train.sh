#!/usr/bin/env bash
# slurm/post_train.sh CONFIG [key=value…]: domain-specific post-training on the ranks of the job.
# `slurm/post_train.sh …` submits itself with the options of env.sh; `sbatch [OPTION…] slurm/post_train.sh …` with those below and yours.
#SBATCH --job-name=tnr-post-train
#SBATCH --nodes=1 --ntasks-per-node=1
#SBATCH --time=24:00:00
#SBATCH --requeue --open-mode=append
#SBATCH --signal=B:USR2@120
#SBATCH --output=%x-%j.out
here=$(dirname "$0") # in a job this is Slurm's copy of the script; TNR_ROOT is for jobs submitted from elsewhere
[ -f "$here/common.sh" ] || here=${TNR_ROOT:-$SLURM_SUBMIT_DIR}/slurm
. "$here/common.sh" || exit 2
stage post-train post_train "$@"
