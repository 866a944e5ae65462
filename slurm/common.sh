# What the scripts in this folder share; sourced, not run. Inside a job `stage` runs a command on all ranks; outside of one
# the script submits itself with the options of env.sh.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$root/slurm/env.sh"
[ ! -x "$root/.venv/bin/python" ] || export PATH="$root/.venv/bin:$PATH"
if [ -n "$TNR_CONTAINER" ] && [ ${#container[@]} = 0 ]; then
  container=(apptainer exec --nv "$TNR_CONTAINER")
fi

die() {
  echo "${0##*/}: $*" >&2
  exit 2
}

# The comment at the head of a script is its help text.
help_of() { sed -n '2,/^#SBATCH\|^[^#]/{/^#SBATCH/d;s/^# \{0,1\}//p;}' "$1"; }

# steps COMMAND…: small questions about a configuration that bash cannot answer.
steps() { "${container[@]}" python "$root/slurm/steps.py" "$@"; }

# sbatch_command one|all: sets `sbatch_command` from env.sh; `one` is for work that a single process does.
sbatch_command() {
  sbatch_command=(sbatch --parsable "--signal=B:USR1@$TNR_GRACE" "--output=$TNR_LOGS/%x-%j.out")
  local pair
  for pair in "account=$TNR_ACCOUNT" "partition=$TNR_PARTITION" "qos=$TNR_QOS" "constraint=$TNR_CONSTRAINT" \
    "mem=$TNR_MEM" "time=$TNR_TIME" "cpus-per-task=$TNR_CPUS_PER_RANK"; do
    [ -z "${pair#*=}" ] || sbatch_command+=("--$pair")
  done
  if [ "$1" = all ]; then
    sbatch_command+=("--nodes=$TNR_NODES" "--ntasks-per-node=${TNR_RANKS_PER_NODE:-${TNR_GPUS_PER_NODE:-1}}")
    [ -z "$TNR_GPUS_PER_NODE" ] || sbatch_command+=("--gpus-per-node=$TNR_GPUS_PER_NODE")
  fi
  sbatch_command+=("${sbatch_options[@]}")
}

# begin one|all "$@": what every script does first: help, arguments, and submitting itself where it is not in a job.
begin() {
  local width=$1
  shift
  case ${1:-} in
    -h | --help)
      help_of "$0"
      exit 0
      ;;
    '' | -*) die "usage: ${0##*/} CONFIG [key=value…]" ;;
  esac
  [ -f "$1" ] || die "$1: no such configuration file"
  if [ -z "${SLURM_JOB_ID:-}" ]; then
    command -v sbatch >/dev/null || die "this machine has no sbatch; run tnr itself, or launch/local.sh"
    mkdir -p "$TNR_LOGS"
    sbatch_command "$width"
    TNR_ROOT=$root exec "${sbatch_command[@]}" "$0" "$@"
  fi
}

. "$root/slurm/job.sh"

# stage NAME CONFIG [key=value…]: all that most scripts do.
stage() {
  begin all "${@:2}"
  on_ranks tnr "$@"
}
