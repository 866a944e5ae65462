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

# on_ranks COMMAND…: run it on all ranks of the job. Returns when it has succeeded. Otherwise ends the script: with the
# ranks' exit code, or, after a checkpoint (75) or the scheduler's warning, by putting the job back into the queue.
asked='' ended='' interrupted='' step=''
on_ranks() {
  local code=127 now logs name first
  name=${SLURM_JOB_NAME//[^A-Za-z0-9._-]/_}
  logs=$(mkdir -p "$TNR_LOGS/$name-$SLURM_JOB_ID" && cd "$TNR_LOGS/$name-$SLURM_JOB_ID" && pwd)
  set_meeting_point
  # Newer sruns do not take this from sbatch by themselves.
  [ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
  if [ "${SLURM_GPUS_ON_NODE:-0}" -gt "${SLURM_NTASKS_PER_NODE:-1}" ]; then
    echo "$name: ${SLURM_NTASKS_PER_NODE:-1} of a node's $SLURM_GPUS_ON_NODE GPUs get a rank; --ntasks-per-node=$SLURM_GPUS_ON_NODE uses all" >&2
  fi
  trap 'asked=1 interrupted=1; [ -z "$step" ] || kill -USR1 "$step" 2>/dev/null || :' USR1 USR2
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
  if [ -n "$ended" ]; then
    put_back_after_a_kill || :
    exit "$code"
  fi
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
  put_back_into_the_queue || exit "$1"
  # Slurm now ends this script; should it not, the code still says what happened.
  if [ -z "$ended" ]; then
    sleep 60 &
    wait "$!" || :
  fi
  exit "$1"
}

# stage COMMAND SCRIPT CONFIG [key=value…]: all that most scripts do.
stage() {
  local name=$1
  shift
  begin all "$@"
  on_ranks tnr "$name" "${@:2}"
}
