# What the scripts in this folder share; sourced, not run. Inside a job `stage` runs a command on all ranks; outside of one
# the script submits itself with the options of env.sh.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# In a job the script is a copy of Slurm's, called slurm_script.
me=${0##*/}
[ "$me" != slurm_script ] || me=${SLURM_JOB_NAME:-$me}

die() {
  echo "$me: $*" >&2
  exit 2
}

# The comment at the head of a script is its help text.
help_of() { sed -n '2,/^#SBATCH\|^[^#]/{/^#SBATCH/d;s/^# \{0,1\}//p;}' "$1"; }

case ${1:-} in
  -h | --help)
    help_of "$0"
    exit 0
    ;;
esac
script_arguments=("$@")
. "$root/slurm/environment.sh"
. "$root/slurm/submit.sh"
. "$root/slurm/requeue.sh"
apply_environment

# begin one|all SCRIPT CONFIG [key=value…]: what every script does first: look at the arguments, and submit itself where it is not
# in a job. In an array `array_index` and `array_count` say which part of the work is this task's.
begin() {
  local width=$1
  script=$2
  shift 2
  case ${1:-} in
    '' | -*) die "usage: slurm/$script.sh CONFIG [key=value…]" ;;
  esac
  [ -f "$1" ] || die "$1: no such configuration file"
  [ -n "${SLURM_JOB_ID:-}" ] || submit_script "$width" "$script" "$@"
  array_index=0 array_count=1
  if [ -n "${TNR_ARRAY_COUNT:-}" ] && [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then # of an array that lacks some of its parts
    array_index=$SLURM_ARRAY_TASK_ID array_count=$TNR_ARRAY_COUNT
  elif [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
    array_index=$((SLURM_ARRAY_TASK_ID - SLURM_ARRAY_TASK_MIN)) array_count=$SLURM_ARRAY_TASK_COUNT
  fi
  say_ignored
  need_environment
}

. "$root/slurm/job.sh"

# stage COMMAND SCRIPT CONFIG [key=value…]: all that most scripts do.
stage() {
  local name=$1
  shift
  begin all "$@"
  on_ranks tnr "$name" "${@:2}"
}
