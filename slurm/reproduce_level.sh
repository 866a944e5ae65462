#!/usr/bin/env bash
# slurm/reproduce_level.sh STUDY LEVEL CONFIG [key=value…]: one task of a level of `tnr reproduce`; submitted by reproduce.sh.
#SBATCH --job-name=tnr-reproduce
#SBATCH --nodes=1 --ntasks-per-node=1
#SBATCH --time=24:00:00
#SBATCH --requeue --open-mode=append
#SBATCH --signal=B:USR1@120
#SBATCH --output=%x-%j.out
here=$(dirname "$0") # in a job this is Slurm's copy of the script; TNR_ROOT is for jobs submitted from elsewhere
[ -f "$here/common.sh" ] || here=${TNR_ROOT:-$SLURM_SUBMIT_DIR}/slurm
. "$here/common.sh" || exit 2
case ${1:-} in
  -h | --help)
    help_of "$0"
    exit 0
    ;;
esac
study=${1:-} level=${2:-}
shift 2 || die "usage: ${0##*/} STUDY LEVEL CONFIG [key=value…]"
[ -n "${SLURM_JOB_ID:-}" ] || die "slurm/reproduce.sh submits this script"
begin all "$@"
on_ranks tnr reproduce "$study" "$@" --task "$level.${SLURM_ARRAY_TASK_ID:-0}"
