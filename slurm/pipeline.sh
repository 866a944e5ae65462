#!/usr/bin/env bash
# slurm/pipeline.sh CONFIG [key=value…] [--dry-run] [--preflight]: submit what is left of `tnr run CONFIG` as a chain of jobs and
# print their ids. Run it, do not sbatch it. Options of the jobs come from env.sh or the environment.
#
#   prepare -> post-train -> finetune (array) -> cache (array) -> cache-complete -> stage2 -> evaluate -> report
#                        \-> stage1 ---------------------------------------------/
#
# with a stage1, stage2 and evaluate for each student size of `rows`, once for each of `seeds`. A failed job cancels what
# depends on it. Started again, it submits only what is neither complete nor in the queue. --dry-run prints the sbatch commands
# instead; --preflight checks the nodes first (`tnr doctor`).
. "$(dirname "$0")/common.sh" || exit 2
options_and_arguments "slurm/pipeline.sh CONFIG [key=value…] [--dry-run] [--preflight]" "$@"
find_largest_array
tasks=$TNR_CACHE_TASKS
if [[ $tasks =~ ^[0-9]+$ ]] && [ "$tasks" -gt "$largest_array" ]; then
  echo "TNR_CACHE_TASKS=$tasks: this cluster allows arrays of $largest_array tasks, so that number is used" >&2
  tasks=$largest_array
fi
# Fields end with a NUL, which no argument can hold: whatever stands in a setting is data here.
mapfile -d '' -t plan < <(steps plan "$tasks" "${arguments[@]}")
wait "$!" || exit
if [ ${#plan[@]} = 0 ]; then
  echo "complete: every job of ${arguments[0]}; nothing submitted (the table: tnr run ${arguments[*]})" >&2
  exit 0
fi
[ -n "$dry_run" ] || mkdir -p "$TNR_LOGS"

ready='' at=0
if [ -n "$preflight" ] && [ "${plan[0]}" != prepare ]; then
  ready=doctor
  submit_job doctor doctor all - - 0 '' '' "${arguments[@]}"
fi
while [ "$at" -lt ${#plan[@]} ]; do
  # A job: eight fields, the number of its overrides, then these.
  fields=("${plan[@]:at:8}") extra=("${plan[@]:at+9:plan[at+8]}")
  at=$((at + 9 + plan[at + 8]))
  case ${fields[3]} in - | prepare) [ -z "$ready" ] || fields[3]=$ready ;; esac
  submit_job "${fields[@]}" "${arguments[@]}" "${extra[@]}"
  if [ "${fields[0]}" = prepare ]; then
    ready=prepare
    if [ -n "$preflight" ]; then
      ready=doctor
      submit_job doctor doctor all prepare - 0 '' '' "${arguments[@]}"
    fi
  fi
done
[ -n "$dry_run" ] || [ ${#submitted[@]} -gt 0 ] || echo "all of it is in the queue already; nothing submitted" >&2
