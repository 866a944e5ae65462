#!/usr/bin/env bash
# slurm/reproduce_level.sh STUDY LEVEL CONFIG [key=value…]: one task of a level of `tnr reproduce`; submitted by reproduce.sh.
#SBATCH --job-name=tnr-reproduce
#SBATCH --nodes=1 --ntasks-per-node=1
#SBATCH --time=24:00:00
#SBATCH --requeue --open-mode=append
#SBATCH --signal=B:USR2@120
#SBATCH --output=%x-%A_%a.out
here=$(dirname "$0") # in a job this is Slurm's copy of the script; TNR_ROOT is for jobs submitted from elsewhere
[ -f "$here/common.sh" ] || here=${TNR_ROOT:-$SLURM_SUBMIT_DIR}/slurm
. "$here/common.sh" || exit 2
study=${1:-} level=${2:-}
shift 2 || die "usage: ${0##*/} STUDY LEVEL CONFIG [key=value…]"
[ -n "${SLURM_JOB_ID:-}" ] || die "slurm/reproduce.sh submits this script"
begin all reproduce_level "$@"
# LEVEL is a number, or number+first: a level of more runs than Slurm allows an array has several, each from a first run on.
first=0
[[ $level != *+* ]] || first=${level#*+}
on_ranks tnr reproduce "$study" "$@" --task "${level%+*}.$((first + ${SLURM_ARRAY_TASK_ID:-0}))"
