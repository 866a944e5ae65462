#!/usr/bin/env bash
# slurm/evaluate.sh CONFIG [key=value…]: score a split with the student of stage 2, or with evaluate.run=FOLDER.
# `slurm/evaluate.sh …` submits itself with the options of env.sh; `sbatch [OPTION…] slurm/evaluate.sh …` with those below and yours.
#SBATCH --job-name=tnr-evaluate
#SBATCH --nodes=1 --ntasks-per-node=1
#SBATCH --time=24:00:00
#SBATCH --requeue --open-mode=append
#SBATCH --signal=B:USR2@120
#SBATCH --output=%x-%j.out
here=$(dirname "$0") # in a job this is Slurm's copy of the script; TNR_ROOT is for jobs submitted from elsewhere
[ -f "$here/common.sh" ] || here=${TNR_ROOT:-$SLURM_SUBMIT_DIR}/slurm
. "$here/common.sh" || exit 2
stage evaluate evaluate "$@"
