#!/usr/bin/env bash
# slurm/reproduce_report.sh STUDY CONFIG [key=value…]: tables and figures of a finished study; submitted by reproduce.sh.
#SBATCH --job-name=tnr-reproduce-report
#SBATCH --nodes=1 --ntasks=1
#SBATCH --time=01:00:00
#SBATCH --requeue --open-mode=append
#SBATCH --output=%x-%j.out
here=$(dirname "$0") # in a job this is Slurm's copy of the script; TNR_ROOT is for jobs submitted from elsewhere
[ -f "$here/common.sh" ] || here=${TNR_ROOT:-$SLURM_SUBMIT_DIR}/slurm
. "$here/common.sh" || exit 2
study=${1:-}
shift || die "usage: ${0##*/} STUDY CONFIG [key=value…]"
[ -n "${SLURM_JOB_ID:-}" ] || die "slurm/reproduce.sh submits this script"
begin one reproduce_report "$@"
on_ranks tnr reproduce "$study" "$@" --report
