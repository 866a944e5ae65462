# What a job does on its nodes: run a command on all ranks, and make of its end what it means. Sourced by common.sh.

# put_back_into_the_queue: the running job waits for its next turn. Returns other than 0 where Slurm refuses.
declare -F put_back_into_the_queue >/dev/null || put_back_into_the_queue() { scontrol requeue "$SLURM_JOB_ID"; }
# put_back_after_a_kill: the same at the end of a script that Slurm has told to stop, where Slurm does not do it by itself.
declare -F put_back_after_a_kill >/dev/null || put_back_after_a_kill() { :; }
# set_meeting_point: where the ranks meet; the user's own MASTER_ADDR wins.
declare -F set_meeting_point >/dev/null || set_meeting_point() {
  [ -n "${MASTER_ADDR:-}" ] || IFS= read -r MASTER_ADDR < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
  # No MASTER_PORT: each step has a port of its own, from the numbers of job and step (tnr_dist/launch/environment.py).
  export MASTER_ADDR
}

name='' logs='' step='' clock=''
asked='' ended='' late='' interrupted='' # the scheduler's warning, its end of the job, the last moment before the time limit; any
left='' ran='' limit=''                   # when a warning near the time limit came: seconds left, seconds run; the limit

# on_ranks COMMAND…: run it on all ranks of the job. Returns when it has succeeded. Otherwise ends the script: with the
# ranks' exit code, or by putting the job back into the queue (`take_stock`).
on_ranks() {
  local code=127 now first log
  name=${SLURM_JOB_NAME//[^A-Za-z0-9._-]/_}
  logs=$(mkdir -p "$TNR_LOGS/$name-$SLURM_JOB_ID" && cd "$TNR_LOGS/$name-$SLURM_JOB_ID" && pwd)
  set_meeting_point
  export TNR_PROGRESS=$logs/progress # rank 0 makes this file when it has saved something
  # Newer sruns do not take this from sbatch by themselves.
  [ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
  if [ "${SLURM_GPUS_ON_NODE:-0}" -gt "${SLURM_NTASKS_PER_NODE:-1}" ]; then
    report "${SLURM_NTASKS_PER_NODE:-1} of a node's $SLURM_GPUS_ON_NODE GPUs get a rank; --ntasks-per-node=$SLURM_GPUS_ON_NODE uses all" >&2
  fi
  trap 'warned USR1' USR1
  trap 'warned USR2' USR2
  trap 'late=1 interrupted=1' ALRM
  # At a preemption, a requeue or a cancellation the ranks get TERM too: what is left is to wait for their checkpoint.
  trap 'ended=1 interrupted=1' TERM
  # An order to end a step that a node was slow to answer is repeated a minute later, to the step of that number: it would
  # end the restarted ranks if they had the number of those before them.
  if [ $((${SLURM_RESTART_COUNT:-0} % 2)) = 1 ]; then
    srun --nodes=1 --ntasks=1 --ntasks-per-node=1 true || :
  fi
  report "job $SLURM_JOB_ID, restart ${SLURM_RESTART_COUNT:-0}, on $SLURM_JOB_NODELIST: $*; logs in $logs"
  [ -z "$asked" ] || requeue 75
  for log in "$logs"/rank-*.log; do
    [ ! -e "$log" ] || echo "--- restart ${SLURM_RESTART_COUNT:-0}: $*" >>"$log"
  done
  forget_crashes # where the last start got further, however it ended
  SECONDS=0
  # Bash runs a trap only when the foreground command has ended, so srun must not be one.
  srun --kill-on-bad-exit=1 --open-mode=append "--output=$logs/rank-%t.log" "${srun_options[@]}" "${container[@]}" "$@" \
    2>"$logs/srun.log" &
  step=$!
  [ -z "$asked" ] || warned "$asked"
  while :; do
    interrupted='' now=0
    wait "$step" || now=$?
    # A signal can arrive in the same moment as the end: then the code was read the turn before.
    [ "$now" != 127 ] || break
    code=$now
    [ -n "$interrupted" ] || break
    [ -z "$late" ] || break
    [ -z "$asked" ] || [ -n "$clock" ] || look_at_the_clock
  done
  step=''
  [ "${clock:-none}" = none ] || kill "$clock" 2>/dev/null || :
  cat "$logs/srun.log" >&2
  if [ "$code" = 0 ]; then
    rm -f "$logs/crashes"
    last_lines 'tnr: done: ' || : # what the command has made
    return
  fi
  # srun's own code is the highest of its tasks', which is that of those it ended because of the first: that one counts.
  first=$(sed -n '/^srun: error: [^:]*: tasks\{0,1\} [^:]*: /{s/^srun: error: //p;q}' "$logs/srun.log")
  case $first in
    *': Exited with exit code '*) code=${first##* } ;;
    ?*) [ "$code" -gt 128 ] || code=137 ;;
    *) ! slurm_has_failed "$logs/srun.log" || code=69 ;;
  esac
  # A rank may be missed by another before its own end, and the reason that it gives, is seen.
  [ "$code" != 69 ] || ! grep -q '^srun: error: .*: Exited with exit code 2$' "$logs/srun.log" || code=2
  if [ -n "$late" ]; then
    take_stock "$code" "the ranks are still at work and the time is up"
  fi
  take_stock "$code" "exit code $code${first:+ (the first to end: $first)}"
}

# take_stock CODE HOW: end the script after ranks that did not succeed. Those that passing trouble has ended, or a signal, are tried
# again, at most TNR_MAX_CRASHES times without progress in between; those that were told to stop as often as that happens.
take_stock() {
  local code=$1
  if [ -n "$ended" ]; then # Slurm puts the job back by itself where that is what it wants
    report "$2" >&2
    say_why
    put_back_after_a_kill || :
    exit "$code"
  fi
  if [ -n "$left" ] && [ "$code" != 2 ] && [ "$code" != 1 ] && [ ! -e "$TNR_PROGRESS" ]; then
    local why="nothing was saved within the time limit of $limit: this start had run for $(clock_time "$ran") when the warning came"
    report "$2" >&2
    say_why
    if count_crash "$why"; then
      report "$why" >&2
      requeue "$code"
    fi
    report "$why; give it a longer --time (TNR_TIME); tried $(wc -l <"$logs/crashes") times" >&2
    exit 2
  fi
  report "$2" >&2
  if [ "$code" = 75 ] || { [ -n "$asked" ] && [ "$code" != 2 ] && [ "$code" != 1 ]; }; then
    say_why
    requeue "$code"
  fi
  if [ "$code" = 69 ] || [ "$code" -gt 128 ]; then
    if count_crash "$2"; then
      say_why
      requeue "$code"
    fi
    report "it was tried $(wc -l <"$logs/crashes") times without progress (TNR_MAX_CRASHES=$TNR_MAX_CRASHES); not requeued" >&2
  fi
  say_why
  exit "$code"
}

# forget_crashes: what was saved since the last look makes the count begin anew.
forget_crashes() {
  [ ! -e "$TNR_PROGRESS" ] || rm -f "$TNR_PROGRESS" "$logs/crashes"
}

# count_crash HOW: whether the job may have another turn.
count_crash() {
  forget_crashes
  echo "restart ${SLURM_RESTART_COUNT:-0}: $1" >>"$logs/crashes"
  [ "$(wc -l <"$logs/crashes")" -le "$TNR_MAX_CRASHES" ]
}

# slurm_has_failed LOG: whether srun itself has ended, as where a node or the controller did not answer. What no other try could
# mend, such as more GPUs than there are, is not that.
slurm_has_failed() {
  grep -qiE 'node fail|communication|connection|socket timed out|timed out waiting|unable to contact|missing from node|not responding|launch failed|credential|zero bytes|task launch .*failed|step.* (aborted|cancelled|killed)|job/step already completing|force terminat' "$1"
}

# warned SIGNAL: pass the scheduler's warning on to the ranks.
warned() {
  asked=$1 interrupted=1
  [ -z "$step" ] || kill -s "$1" "$step" 2>/dev/null || :
}

# look_at_the_clock: whether a warning came because the time is nearly up, or by hand or at a preemption. Where it is, the job does
# not wait to be killed at its limit, which would be its end, but has a last moment before it.
look_at_the_clock() {
  local text='' last job=$SLURM_JOB_ID
  clock=none
  [ -z "${SLURM_ARRAY_TASK_ID:-}" ] || job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
  # Not $(…): bash loses a signal that comes while it reads from one.
  squeue --noheader "--jobs=$job" --format='%L %l' >"$logs/time-left" 2>/dev/null || return 0
  read -r text limit <"$logs/time-left" || :
  [[ $text =~ ^(([0-9]+)-)?((([0-9]+):)?([0-9]+):)?([0-9]+)$ ]] || return 0
  last=$(((10#0${BASH_REMATCH[2]} * 24 + 10#0${BASH_REMATCH[5]}) * 3600 + 10#0${BASH_REMATCH[6]} * 60 + 10#0${BASH_REMATCH[7]}))
  # Slurm may send its warning up to a minute early.
  [ "$last" -le $((TNR_GRACE + 75)) ] || return 0
  left=$last ran=$SECONDS
  last=$((last - (last < 60 ? last / 4 : 15)))
  { sleep "$last" && kill -s ALRM $$; } </dev/null >/dev/null 2>&1 &
  clock=$!
}

# clock_time SECONDS: as H:MM:SS.
clock_time() { printf '%d:%02d:%02d' $(($1 / 3600)) $(($1 / 60 % 60)) $(($1 % 60)); }

# report MESSAGE: one line of the job's output, which may be read days later.
report() { printf '%(%Y-%m-%d %H:%M:%S)T %s: %s\n' -1 "$name" "$*"; }

# last_lines PATTERN: the last line of each rank's log since this start that begins like this, each once.
last_lines() {
  awk -v pattern="^$1" 'FNR == 1 {if (line) print line; line = ""} /^--- restart /{line = ""} $0 ~ pattern {line = $0} END {if (line) print line}' \
    "$logs"/rank-*.log 2>/dev/null | sort -u | tail -n 5
}

# say_why: the ranks' own last lines about what happened since the last start; without one, how rank 0's log ends.
say_why() {
  local lines
  lines=$(last_lines 'tnr: ') || : # there may be no log yet
  if [ -n "$lines" ]; then
    echo "$lines" >&2
  else
    { tail -n 20 "$logs/rank-0.log" | awk '/^--- restart /{text = ""} {text = text $0 "\n"} END {printf "%s", text}'; } >&2 || :
  fi
}

# requeue CODE: put the job back into the queue and end, with this code where Slurm does not end it first.
requeue() {
  local record='' restarts
  scontrol -o show job "$SLURM_JOB_ID" >"$logs/job" 2>/dev/null || :
  IFS= read -r record <"$logs/job" || :
  restarts=${SLURM_RESTART_COUNT:-0}
  if [[ $record =~ [[:space:]]Restarts=([0-9]+) ]] && [ "${BASH_REMATCH[1]}" -gt "$restarts" ]; then
    # Slurm had lost sight of this node, and this script went on.
    report "a later start of job $SLURM_JOB_ID has taken over"
    exit "$1"
  fi
  if [[ $record =~ [[:space:]]Requeue=0 ]] && [ -z "${TNR_RESUBMIT:-}" ]; then
    report "job $SLURM_JOB_ID is not requeued (--no-requeue); submit it again to resume"
    exit "$1"
  fi
  report "job $SLURM_JOB_ID is requeued and resumes from what is saved"
  put_back_into_the_queue || exit "$1"
  # Slurm now ends this script; should it not, the code still says what happened.
  if [ -z "$ended" ]; then
    sleep 60 &
    wait "$!" || :
  fi
  exit "$1"
}
