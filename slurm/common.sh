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

# on_ranks COMMAND…: run it on all ranks of the job. Returns when it has succeeded. Otherwise ends the script: with the
# ranks' exit code, or, after a checkpoint (75) or the scheduler's warning, by putting the job back into the queue.
asked='' ended='' interrupted='' step=''
on_ranks() {
  local code=127 now logs name first modules=()
  name=${SLURM_JOB_NAME//[^A-Za-z0-9._-]/_}
  logs=$(mkdir -p "$TNR_LOGS/$name-$SLURM_JOB_ID" && cd "$TNR_LOGS/$name-$SLURM_JOB_ID" && pwd)
  if [ -n "$TNR_MODULES" ]; then
    read -ra modules <<<"$TNR_MODULES"
    set +u
    module load "${modules[@]}"
    set -u
  fi
  IFS= read -r MASTER_ADDR < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
  # No MASTER_PORT: each step has a port of its own, from the numbers of job and step (tnr_dist/engines/environment.py).
  export MASTER_ADDR
  # Newer sruns do not take this from sbatch by themselves.
  [ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
  if [ "${SLURM_GPUS_ON_NODE:-0}" -gt "${SLURM_NTASKS_PER_NODE:-1}" ]; then
    echo "$name: ${SLURM_NTASKS_PER_NODE:-1} of a node's $SLURM_GPUS_ON_NODE GPUs get a rank; --ntasks-per-node=$SLURM_GPUS_ON_NODE uses all" >&2
  fi
  trap 'asked=1 interrupted=1; [ -z "$step" ] || kill -USR1 "$step" 2>/dev/null || :' USR1
  # At a preemption, a requeue or a cancellation the ranks get TERM too: what is left is to wait for their checkpoint.
  trap 'ended=1 interrupted=1' TERM
  # An order to end a step that a node was slow to answer is repeated a minute later, to the step of that number: it would
  # end the restarted ranks if they had the number of those before them.
  if [ $((${SLURM_RESTART_COUNT:-0} % 2)) = 1 ]; then
    srun --nodes=1 --ntasks=1 --ntasks-per-node=1 true || :
  fi
  echo "$name: job $SLURM_JOB_ID, restart ${SLURM_RESTART_COUNT:-0}, on $SLURM_JOB_NODELIST: $*; logs in $logs"
  [ -z "$asked" ] || requeue 75
  local log
  for log in "$logs"/rank-*.log; do
    [ ! -e "$log" ] || echo "--- restart ${SLURM_RESTART_COUNT:-0}: $*" >>"$log"
  done
  # Bash runs a trap only when the foreground command has ended, so srun must not be one.
  srun --kill-on-bad-exit=1 --open-mode=append "--output=$logs/rank-%t.log" "${srun_options[@]}" "${container[@]}" "$@" \
    2>"$logs/srun.log" &
  step=$!
  [ -z "$asked" ] || kill -USR1 "$step" 2>/dev/null || :
  while :; do
    interrupted='' now=0
    wait "$step" || now=$?
    # A signal can arrive in the same moment as the end: then the code was read the turn before.
    [ "$now" != 127 ] || break
    code=$now
    [ -n "$interrupted" ] || break
  done
  step=''
  cat "$logs/srun.log" >&2
  [ "$code" != 0 ] || return 0
  # srun's own code is the highest of its tasks', which is that of those it ended because of the first: that one counts.
  first=$(sed -n '/^srun: error: [^:]*: tasks\{0,1\} [^:]*: /{s///p;q}' "$logs/srun.log")
  case $first in
    'Exited with exit code '*) code=${first##* } ;;
    ?*) [ "$code" -gt 128 ] || code=137 ;;
  esac
  echo "$name: exit code $code${first:+ (the first rank to end: $first)}" >&2
  say_why "$logs"
  # Slurm puts the job back by itself where that is what it wants.
  [ -z "$ended" ] || exit "$code"
  [ "$code" != 75 ] || requeue "$code"
  # Killed by a signal: lack of memory, or somebody's hand. Or ended without a checkpoint when the time was up: it was just
  # starting, or it is work that has none, such as an evaluation. It goes on or begins again, but not for ever.
  if [ "$code" -gt 128 ] || { [ -n "$asked" ] && [ "$code" != 2 ]; }; then
    echo "$code" >>"$logs/crashes"
    [ "$(wc -l <"$logs/crashes")" -gt "$TNR_MAX_CRASHES" ] || requeue "$code"
  fi
  exit "$code"
}

# say_why LOGS: the ranks' own last lines about what happened since the last start; without one, how rank 0's log ends.
say_why() {
  local lines
  lines=$(awk 'FNR == 1 {if (line) print line; line = ""} /^--- restart /{line = ""} /^tnr: /{line = $0} END {if (line) print line}' \
    "$1"/rank-*.log 2>/dev/null | sort -u | tail -n 5) || : # there may be no log yet
  if [ -n "$lines" ]; then
    echo "$lines" >&2
  else
    { tail -n 20 "$1/rank-0.log" | awk '/^--- restart /{text = ""} {text = text $0 "\n"} END {printf "%s", text}'; } >&2 || :
  fi
}

requeue() {
  echo "job $SLURM_JOB_ID goes back into the queue and on from its checkpoint"
  scontrol requeue "$SLURM_JOB_ID" || exit "$1"
  # Slurm now ends this script; should it not, the code still says what happened.
  if [ -z "$ended" ]; then
    sleep 60 &
    wait "$!" || :
  fi
  exit "$1"
}

# stage NAME CONFIG [key=value…]: all that most scripts do.
stage() {
  begin all "${@:2}"
  on_ranks tnr "$@"
}
