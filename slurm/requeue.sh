# How a job that is not finished gets another turn; sourced by common.sh. `script` and `script_arguments` are the running script's.

# put_back_into_the_queue: the running job waits for its next turn. Returns other than 0 where Slurm refuses. With TNR_RESUBMIT it
# does not return: a new job takes over, and the one that ends here has done its part (exit code 0), so that those behind it wait.
put_back_into_the_queue() {
  if [ -z "$TNR_RESUBMIT" ]; then
    scontrol requeue "$SLURM_JOB_ID"
    return
  fi
  resubmit || return
  exit 0
}

# put_back_after_a_kill: for the end of a script that Slurm has told to stop. Slurm itself requeues a preempted job where it may;
# with PreemptMode=CANCEL only the job can. What a user has cancelled stays cancelled.
put_back_after_a_kill() {
  [ -n "$TNR_RESUBMIT" ] || return 0
  local state time
  job_record=$(scontrol -o show job "$SLURM_JOB_ID") || return 0
  state=$(of_job JobState) time=$(of_job PreemptTime)
  case $state in
    PREEMPTED | TIMEOUT) ;;
    *) [ "$state" = RUNNING ] && [[ $time = [0-9]* ]] || return 0 ;;
  esac
  put_back_into_the_queue
}

# of_job FIELD: a field of the job's record; nothing where it is not set.
of_job() {
  [[ " $job_record" =~ [[:space:]]$1=([^[:space:]]+) ]] || return 0
  case ${BASH_REMATCH[1]} in '(null)' | N/A | None) ;; *) echo "${BASH_REMATCH[1]}" ;; esac
}

# resubmit: submit the running job's command again with the job's own options; what waits for this job waits for that one, too.
resubmit() {
  local pair value new id waits_for crashes
  local again=(sbatch --parsable --open-mode=append "--job-name=$SLURM_JOB_NAME" "--signal=B:$TNR_SIGNAL@$TNR_GRACE")
  job_record=$(scontrol -o show job "$SLURM_JOB_ID") || return
  for pair in partition=Partition account=Account qos=QOS time=TimeLimit time-min=TimeMin constraint=Features \
    reservation=Reservation gres=TresPerNode comment=Comment output=StdOut nodes=NumNodes mail-user=MailUser mail-type=MailType; do
    value=$(of_job "${pair#*=}")
    value=${value#gres[:/]}
    [ -z "$value" ] || again+=("--${pair%%=*}=$value")
  done
  for pair in ntasks=SLURM_NTASKS ntasks-per-node=SLURM_NTASKS_PER_NODE cpus-per-task=SLURM_CPUS_PER_TASK mem=SLURM_MEM_PER_NODE; do
    value=${pair#*=}
    [ -z "${!value:-}" ] || again+=("--${pair%%=*}=${!value}")
  done
  [ "$(of_job OverSubscribe)" != NO ] || again+=(--exclusive)
  if [ -n "${SLURM_ARRAY_JOB_ID:-}" ]; then
    # Alone in its new array, the task must still know which part of the work is its own.
    if [ "$script" = reproduce_level ]; then
      again+=("--array=$SLURM_ARRAY_TASK_ID")
    else
      again+=("--array=$array_index")
      export TNR_ARRAY_COUNT=$array_count
    fi
  fi
  again+=("${sbatch_options[@]}")
  # To the ranks it is a later start of one job: they wait for those of before, and ask them to stop.
  export TNR_JOB_ID=${TNR_JOB_ID:-$SLURM_JOB_ID}
  export TNR_RESTART_COUNT=$((${TNR_RESTART_COUNT:-0} + ${SLURM_RESTART_COUNT:-0} + 1))
  keep_settings again
  new=$(TNR_ROOT=$root "${again[@]}" "$root/slurm/$script.sh" "${script_arguments[@]}") || return
  new=${new%%;*}
  echo "job $SLURM_JOB_ID is not finished; job $new continues from its checkpoint"
  # Its crashes count there, too: a job that only crashes must not follow itself for ever.
  crashes=${logs:-}/crashes
  if [ -e "$crashes" ]; then
    mkdir -p "${logs%-*}-$new" && cp "$crashes" "${logs%-*}-$new/"
  fi
  while read -r id waits_for; do
    [[ $waits_for =~ (after[a-z]*):([0-9:_*]*:)?${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}(_\*)?([^0-9_]|$) ]] || continue
    value=${BASH_REMATCH[1]}:$new
    waits_for=$(sed 's/([a-z]*)//g; s/_\*//g' <<<"$waits_for")
    scontrol update "jobid=$id" "dependency=$waits_for,$value" || echo "job $id does not wait for job $new: scontrol refused" >&2
  done < <(squeue --noheader --user="$(id -un)" --states=PENDING --format='%A %E')
}
