# How the scripts submit jobs: options from the settings, what is in the queue already, arrays; sourced by common.sh.

# find_setting NAME JOB [own]: sets `value` to TNR_NAME of a job: of this very one (TNR_TIME_stage2_4), of its script
# (TNR_TIME_stage2), or, without `own`, of all (TNR_TIME). An empty one counts: it is Slurm's default.
find_setting() {
  local name names=("TNR_$1_${2//[^A-Za-z0-9_]/_}" "TNR_$1_$script")
  [ -n "${3:-}" ] || names+=("TNR_$1")
  value=''
  for name in "${names[@]}"; do
    if [ -n "${!name+set}" ]; then
      value=${!name}
      return
    fi
  done
}

# gpus_of GRES: the GPUs of a node in --gres=gpu:4, gpu:a100:4 or gpu.
gpus_of() {
  local part count=1
  for part in ${1//,/ }; do
    [[ $part != gpu:* ]] || count=${part##*[!0-9]}
  done
  echo "${count:-1}"
}

# sbatch_command WIDTH SCRIPT JOB: sets `sbatch_command` from the settings. WIDTH `one` is for work that a single process does.
sbatch_command() {
  local width=$1 script=$2 job=$3 pair value gpus='' ranks own=''
  sbatch_command=(sbatch --parsable "--job-name=tnr-$job" "--signal=B:$TNR_SIGNAL@$TNR_GRACE" "--output=$TNR_LOGS/%x-%j.out")
  for pair in account=ACCOUNT partition=PARTITION qos=QOS constraint=CONSTRAINT mem=MEM time=TIME cpus-per-task=CPUS_PER_RANK; do
    find_setting "${pair#*=}" "$job"
    [ -z "$value" ] || sbatch_command+=("--${pair%=*}=$value")
  done
  [ "$width" = all ] || own=own # it has a GPU only where its own settings say so
  find_setting GPUS_PER_NODE "$job" "$own"
  if [ -n "$value" ]; then
    gpus=$value
    sbatch_command+=("--gpus-per-node=$value")
  fi
  find_setting GRES "$job" "$own"
  if [ -n "$value" ]; then
    gpus=$(gpus_of "$value")
    sbatch_command+=("--gres=$value")
  fi
  find_setting GPUS_PER_TASK "$job" "$own"
  # Without the second option a rank would see its own GPU only, and NCCL could not copy between them directly.
  [ -z "$value" ] || sbatch_command+=("--gpus-per-task=$value" --gpu-bind=none)
  if [ "$width" = all ]; then
    find_setting RANKS_PER_NODE "$job"
    ranks=${value:-${gpus##*:}}
    find_setting NODES "$job"
    sbatch_command+=("--nodes=${value:-1}" "--ntasks-per-node=${ranks:-1}")
  fi
}

# keep_settings ARRAY: where the job gets no environment (SBATCH_EXPORT=NONE, --export=NONE) it gets at least our settings.
keep_settings() {
  local -n command=$1
  local option export=${SBATCH_EXPORT:-} names
  for option in "${sbatch_options[@]}"; do
    [[ $option != --export=* ]] || export=${option#*=}
  done
  names=$({ compgen -e TNR_ | grep -vxE 'TNR_(ROOT|SUBMITTED)' | tr '\n' ,; } || :)TNR_ROOT,TNR_SUBMITTED
  case $export in
    '' | ALL | ALL,*) ;;
    NONE | NIL) command+=("--export=$names") ;;
    *) command+=("--export=$export,$names") ;;
  esac
}

# add_array INDICES COUNT: make sbatch_command an array of the tasks INDICES, such as 0-7 or 1,4, of COUNT parts of the work.
add_array() {
  local every=0-$(($2 - 1))
  sbatch_command+=("--array=$1${TNR_ARRAY_LIMIT:+%$TNR_ARRAY_LIMIT}" "--output=$TNR_LOGS/%x-%A_%a.out")
  # Of one without gaps Slurm itself says how many parts there are.
  if [ "$1" != "$every" ] && [ "$2" != 1 ]; then
    export TNR_ARRAY_COUNT=$2
  fi
}

# find_largest_array: sets `largest_array` to the number of tasks that Slurm allows an array.
find_largest_array() {
  largest_array=$(scontrol show config 2>/dev/null | sed -n 's/^MaxArraySize *= *//p') || :
  [[ $largest_array =~ ^[1-9][0-9]*$ ]] || largest_array=1001
}

# complete_command [PLACE SETTINGS]: the user's own options come late, and so win. Our jobs carry in their comment what they make (a
# place) and how (the settings), each as 12 hexadecimal digits; a comment of the user's own stands behind that.
complete_command() {
  local option comment=''
  sbatch_command+=("${sbatch_options[@]}")
  if [ -n "${1:-}" ]; then
    for option in "${sbatch_options[@]}"; do
      [[ $option != --comment=* ]] || comment=" ${option#*=}"
    done
    sbatch_command+=("--comment=tnr:$1:$2$comment")
  fi
  keep_settings sbatch_command
}

# find_in_queue PLACE SETTINGS NAME: sets `queued` to the job that makes this already, or to nothing. Ends the script where a job in
# the queue makes it with other settings: both would work in one folder.
declare -A in_queue=() in_queue_with=()
read_queue() {
  local id state comment
  while read -r id state comment; do
    if [ "$state" != CG ] && [[ $comment =~ tnr:([0-9a-f]{12}):([0-9a-f]{12}) ]]; then
      in_queue[${BASH_REMATCH[1]}]=$id in_queue_with[${BASH_REMATCH[1]}]=${BASH_REMATCH[2]}
    fi
  done < <(squeue --noheader --user="$(id -un)" --format='%F %t %k' 2>/dev/null)
  in_queue_is_read=1
}
find_in_queue() {
  queued=''
  [ -n "$1" ] || return 0
  [ -n "${in_queue_is_read:-}" ] || read_queue
  queued=${in_queue[$1]:-}
  [ -z "$queued" ] || [ "${in_queue_with[$1]}" = "$2" ] ||
    die "job $queued of the queue makes $3 in the same folder with other settings or another file; wait, scancel $queued, or choose another output"
}

# submit_script WIDTH SCRIPT CONFIG…: submit the running script itself, unless its work is done or in the queue; prints the job's id.
submit_script() {
  local width=$1 script=$2 answer=() waits='' option queued
  shift 2
  command -v sbatch >/dev/null || die "this machine has no sbatch; run tnr itself, or launch/local.sh"
  sbatch_command "$width" "$script" "${script//_/-}"
  for option in "${sbatch_options[@]}"; do
    case $option in -d* | --dependency*) waits=1 ;; esac
  done
  if [ "$TNR_CHECK" != 0 ]; then
    need_environment
    # Its inputs need not be there yet where it waits for another job.
    mapfile -d '' -t answer < <(steps ready "$script" "${waits:+later}" "$@")
    wait "$!" || exit
    [ "${answer[0]}" != complete ] || exit 0
    find_in_queue "${answer[1]}" "${answer[2]}" "this"
    if [ -n "$queued" ]; then
      echo "${script//_/-}: in the queue already, as job $queued; nothing submitted" >&2
      echo "$queued"
      exit 0
    fi
    [ "${answer[3]}" = - ] || add_array "${answer[3]}" "${answer[4]}"
  fi
  complete_command "${answer[1]:-}" "${answer[2]:-}"
  mkdir -p "$TNR_LOGS"
  TNR_SUBMITTED=1 TNR_ROOT=$root exec "${sbatch_command[@]}" "$root/slurm/$script.sh" "$@"
}

# submit_job NAME SCRIPT WIDTH AFTER INDICES COUNT PLACE SETTINGS ARGUMENT…: submit one of several jobs, or with `dry_run` print the
# command. AFTER: names of jobs with commas between, each with a `?` where it must only have ended; - for none. INDICES: of an
# array, or -. Sets ids[NAME]; a job that is in the queue already is taken instead of a new one.
declare -A ids=()
submitted=()
submit_job() {
  local name=$1 script=$2 width=$3 after=$4 indices=$5 count=$6 place=$7 settings=$8 one ok='' any='' queued
  shift 8
  find_in_queue "$place" "$settings" "$name"
  if [ -n "$queued" ]; then
    ids[$name]=$queued
    printf '%-24s %-10s %s\n' "$name" "$queued" "in the queue already"
    return
  fi
  sbatch_command "$width" "$script" "$name"
  [ "$after" != - ] || after=''
  for one in ${after//,/ }; do
    case $one in
      *'?') any+=:${ids[${one%'?'}]} ;;
      *) ok+=:${ids[$one]} ;;
    esac
  done
  one=${ok:+afterok$ok}${ok:+${any:+,}}${any:+afterany$any}
  # Without the second option a job whose turn can no longer come would stay in the queue for ever.
  [ -z "$one" ] || sbatch_command+=("--dependency=$one" --kill-on-invalid-dep=yes)
  unset TNR_ARRAY_COUNT
  [ "$indices" = - ] || add_array "$indices" "$count"
  complete_command "$place" "$settings"
  sbatch_command+=("$root/slurm/$script.sh" "$@")
  if [ -n "$dry_run" ]; then
    ids[$name]=ID_of_$name
    printf '%q ' ${TNR_ARRAY_COUNT:+env "TNR_ARRAY_COUNT=$TNR_ARRAY_COUNT"} "${sbatch_command[@]}"
    echo
    return
  fi
  one=$(TNR_SUBMITTED=1 TNR_ROOT=$root "${sbatch_command[@]}") || die "sbatch refused $name${submitted[*]:+; submitted before it: scancel ${submitted[*]}}"
  ids[$name]=${one%%;*}
  submitted+=("${ids[$name]}")
  printf '%-24s %-10s %s\n' "$name" "${ids[$name]}" "${after:+after $after}"
}

# options_and_arguments USAGE "$@": for the scripts that submit several jobs: sets `arguments`, `dry_run` and `preflight`.
options_and_arguments() {
  local usage=$1 argument
  shift
  dry_run='' preflight='' arguments=()
  for argument in "$@"; do
    case $argument in
      --dry-run) dry_run=1 ;;
      --preflight) [[ $usage = *--preflight* ]] && preflight=1 || die "unknown option $argument (see --help)" ;;
      -*) die "unknown option $argument (see --help)" ;;
      *) arguments+=("$argument") ;;
    esac
  done
  [ ${#arguments[@]} -gt 0 ] || die "usage: $usage"
  [ -z "${SLURM_JOB_ID:-}" ] || unset "${!SLURM_@}"
  [ -n "$dry_run" ] || command -v sbatch >/dev/null || die "this machine has no sbatch (--dry-run works without); tnr run and tnr reproduce do it all on one machine"
  need_environment
}

# say_ignored: in a job that `sbatch` itself submitted: what of the settings its options do not follow. One line, at the first start.
say_ignored() {
  [ -z "${TNR_SUBMITTED:-}" ] && [ "${SLURM_RESTART_COUNT:-0}" = 0 ] || return 0
  local pair name found ignored='' default=''
  for pair in PARTITION=SLURM_JOB_PARTITION ACCOUNT=SLURM_JOB_ACCOUNT QOS=SLURM_JOB_QOS NODES=SLURM_JOB_NUM_NODES \
    GPUS_PER_NODE=SLURM_GPUS_ON_NODE RANKS_PER_NODE=SLURM_NTASKS_PER_NODE CPUS_PER_RANK=SLURM_CPUS_PER_TASK; do
    name=TNR_${pair%=*} found=${pair#*=}
    found=${!found:-}
    [ "$name" != TNR_NODES ] || default=1
    case ${!name} in '' | "$found" | "$default" | *":$found") ;; *) ignored+=", $name=${!name} (the job: ${found:-none})" ;; esac
    default=''
  done
  [ -z "$ignored" ] || echo "submitted by sbatch itself, so these settings are not used: ${ignored#, }; slurm/$script.sh … without sbatch uses them" >&2
}
