#!/usr/bin/env bash
# slurm/finetune.sh CONFIG [key=value…]: the M teachers, shared among the tasks of the array: task i of n trains teachers
# i, i + n, … so that any array is right, and one of M tasks the fastest.
# `slurm/finetune.sh …` submits itself with the options of env.sh; `sbatch [OPTION…] slurm/finetune.sh …` with those below and yours.
#SBATCH --job-name=tnr-finetune
#SBATCH --nodes=1 --ntasks-per-node=1
#SBATCH --time=24:00:00
#SBATCH --requeue --open-mode=append
#SBATCH --signal=B:USR2@120
#SBATCH --output=%x-%A_%a.out
#SBATCH --array=0-3
here=$(dirname "$0") # in a job this is Slurm's copy of the script; TNR_ROOT is for jobs submitted from elsewhere
[ -f "$here/common.sh" ] || here=${TNR_ROOT:-$SLURM_SUBMIT_DIR}/slurm
. "$here/common.sh" || exit 2
begin all finetune "$@"
teachers=$(steps teachers "$array_index" "$array_count" "$@")
for teacher in $teachers; do
  on_ranks tnr finetune "$@" "finetune.teacher=$teacher"
done
