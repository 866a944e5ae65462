#!/usr/bin/env bash
# slurm/reproduce.sh STUDY CONFIG [key=value…] [--dry-run]: submit what is left of `tnr reproduce STUDY CONFIG` as job arrays, one
# for each level of the graph of runs, each level after the one before, and a last job that writes tables and figures. Run it, do
# not sbatch it. Options of the jobs come from env.sh or the environment. A failed run fails those that need it, and no others.
# Started again, it submits only what is neither complete nor in the queue. --dry-run prints the sbatch commands instead.
. "$(dirname "$0")/common.sh" || exit 2
options_and_arguments "slurm/reproduce.sh STUDY CONFIG [key=value…] [--dry-run]" "$@"
[ ${#arguments[@]} -gt 1 ] || die "usage: slurm/reproduce.sh STUDY CONFIG [key=value…] [--dry-run]"
study=${arguments[0]} arguments=("${arguments[@]:1}")
find_largest_array
mapfile -d '' -t plan < <(steps levels "$study" "$largest_array" "${arguments[@]}")
wait "$!" || exit
[ -n "$dry_run" ] || mkdir -p "$TNR_LOGS"
at=0
while [ "$at" -lt ${#plan[@]} ]; do
  # A job: eight fields, the number of arguments before the configuration, then these.
  fields=("${plan[@]:at:8}") first=("${plan[@]:at+9:plan[at+8]}")
  at=$((at + 9 + plan[at + 8]))
  submit_job "${fields[@]}" "${first[@]}" "${arguments[@]}"
done
[ -n "$dry_run" ] || [ ${#submitted[@]} -gt 0 ] || echo "all of it is in the queue already; nothing submitted" >&2
