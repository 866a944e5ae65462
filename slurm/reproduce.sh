#!/usr/bin/env bash
# slurm/reproduce.sh STUDY CONFIG [key=value…] [--dry-run]: submit the runs of `tnr reproduce STUDY CONFIG` as one job array for
# each level of their graph, each level after the one before, and a last job that writes tables and figures. Run it, do not
# sbatch it. Options of the jobs come from env.sh or the environment. A failed run cancels what comes after its level; started
# again, what is complete is skipped. --dry-run prints the sbatch commands instead.
. "$(dirname "$0")/common.sh" || exit 2
dry_run='' arguments=()
for argument in "$@"; do
  case $argument in
    --dry-run) dry_run=1 ;;
    -h | --help)
      help_of "$0"
      exit 0
      ;;
    -*) die "unknown option $argument (see --help)" ;;
    *) arguments+=("$argument") ;;
  esac
done
[ ${#arguments[@]} -gt 1 ] || die "usage: ${0##*/} STUDY CONFIG [key=value…] [--dry-run]"
study=${arguments[0]} arguments=("${arguments[@]:1}")
sizes=$(steps levels "$study" "${arguments[@]}")
[ -n "$dry_run" ] || command -v sbatch >/dev/null || die "this machine has no sbatch (--dry-run works without); tnr reproduce does it all on one machine"
[ -n "$dry_run" ] || mkdir -p "$TNR_LOGS"
export TNR_ROOT=$root

# submit NAME WIDTH AFTER ARGUMENT…: AFTER is a job id or -.
submit() {
  local name=$1 width=$2 after=$3
  shift 3
  sbatch_command "$width"
  sbatch_command+=("--job-name=tnr-$name")
  if [ "$after" != - ]; then
    sbatch_command+=("--dependency=afterok:$after" --kill-on-invalid-dep=yes)
  fi
  sbatch_command+=("$@")
  if [ -n "$dry_run" ]; then
    job=ID_of_$name
    printf '%q ' "${sbatch_command[@]}"
    echo
    return
  fi
  job=$("${sbatch_command[@]}") || die "sbatch refused $name"
  job=${job%%;*}
  printf '%-24s %-10s %s\n' "$name" "$job" "$([ "$after" = - ] || echo "after $after")"
}

submit "$study-prepare" one - "$root/slurm/prepare.sh" "${arguments[@]}"
level=0
for size in $sizes; do
  submit "$study-$level" all "$job" "--array=0-$((size - 1))" "$root/slurm/reproduce_level.sh" "$study" "$level" "${arguments[@]}"
  level=$((level + 1))
done
submit "$study-report" one "$job" "$root/slurm/reproduce_report.sh" "$study" "${arguments[@]}"
