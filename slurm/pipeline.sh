#!/usr/bin/env bash
# slurm/pipeline.sh CONFIG [key=value…] [--dry-run] [--preflight]: submit all stages of `tnr run CONFIG` as a chain of jobs and
# print their ids. Run it, do not sbatch it. Options of the jobs come from env.sh or the environment.
#
#   prepare -> post-train -> finetune (array) -> cache (array) -> cache-complete -> stage2 -> evaluate -> report
#                        \-> stage1 ---------------------------------------------/
#
# with a stage1, stage2 and evaluate for each student size of `rows`, once for each of `seeds`. A failed job cancels what
# depends on it; started again, the chain skips what is complete. --dry-run prints the sbatch commands instead;
# --preflight checks the nodes first (`tnr doctor`).
. "$(dirname "$0")/common.sh" || exit 2
dry_run='' preflight='' arguments=()
for argument in "$@"; do
  case $argument in
    --dry-run) dry_run=1 ;;
    --preflight) preflight=1 ;;
    -h | --help)
      help_of "$0"
      exit 0
      ;;
    -*) die "unknown option $argument (see --help)" ;;
    *) arguments+=("$argument") ;;
  esac
done
[ ${#arguments[@]} -gt 0 ] || die "usage: ${0##*/} CONFIG [key=value…] [--dry-run] [--preflight]"
# Fields end with a NUL, which no argument can hold: whatever stands in a setting is data here.
mapfile -d '' -t plan < <(steps plan "$TNR_CACHE_TASKS" "${arguments[@]}")
wait "$!" || exit
[ -n "$dry_run" ] || command -v sbatch >/dev/null || die "this machine has no sbatch (--dry-run works without); tnr run does all stages on one machine"
[ -n "$dry_run" ] || mkdir -p "$TNR_LOGS"
export TNR_ROOT=$root

# submit NAME SCRIPT AFTER ARRAY OVERRIDE…: AFTER is a list of names, separated by commas.
declare -A ids=()
submit() {
  local name=$1 script=$2 after=$3 array=$4 ids_after='' one width=all
  shift 4
  [ "$script" != prepare ] || width=one
  sbatch_command "$width"
  sbatch_command+=("--job-name=tnr-$name")
  if [ "$after" != - ]; then
    for one in ${after//,/ }; do
      ids_after+=:${ids[$one]}
    done
    # Without the second option a job whose turn can no longer come would stay in the queue for ever.
    sbatch_command+=("--dependency=afterok$ids_after" --kill-on-invalid-dep=yes)
  fi
  # finetune.sh's own header has an array.
  if [ "$array" != 0 ]; then
    sbatch_command+=("--array=0-$((array - 1))")
  fi
  sbatch_command+=("$root/slurm/$script.sh" "${arguments[@]}" "$@")
  if [ -n "$dry_run" ]; then
    ids[$name]="ID_of_$name"
    printf '%q ' "${sbatch_command[@]}"
    echo
    return
  fi
  one=$("${sbatch_command[@]}") || die "sbatch refused $name; what has been submitted before it: scancel ${ids[*]}"
  ids[$name]=${one%%;*}
  printf '%-24s %-10s %s\n' "$name" "${ids[$name]}" "$([ "$after" = - ] || echo "after $after")"
}

ready=prepare at=0
while [ "$at" -lt ${#plan[@]} ]; do
  # A job: name, script, the jobs that it waits for, size of its array, number of overrides; then these.
  name=${plan[at]} script=${plan[at + 1]} after=${plan[at + 2]} array=${plan[at + 3]} extra=("${plan[@]:at+5:plan[at+4]}")
  at=$((at + 5 + plan[at + 4]))
  [ "$after" != prepare ] || after=$ready
  submit "$name" "$script" "$after" "$array" "${extra[@]}"
  if [ "$name" = prepare ] && [ -n "$preflight" ]; then
    submit doctor doctor prepare 0
    ready=doctor
  fi
done
