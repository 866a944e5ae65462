#!/usr/bin/env bash
# launch/srun.sh [--per-node N] [SRUN-OPTION…] -- COMMAND…: run COMMAND under srun, inside an allocation or for a new one, e.g.
#   launch/srun.sh --nodes=2 --ntasks-per-node=4 --gpus-per-node=4 -- tnr stage2 configs/mind_large.yaml
#   launch/srun.sh --per-node 4 --nodes=2 --gpus-per-node=4 -- tnr stage2 configs/mind_large.yaml
# The first form is one task per GPU. With --per-node Slurm starts one task on each node, and that starts N ranks there.
# Ranks find each other by the first node's name and a port from the numbers of job and step (MASTER_PORT: another).
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
per_node= options=()
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help)
      help_of "${BASH_SOURCE[0]}"
      exit 0
      ;;
    --per-node)
      per_node=${2:-}
      case $per_node in '' | *[!0-9]* | 0) die "--per-node ${per_node@Q}: expected the number of ranks on each node" ;; esac
      shift 2
      ;;
    --)
      shift
      break
      ;;
    *)
      options+=("$1")
      shift
      ;;
  esac
done
[ $# -gt 0 ] || die "no command after -- (see --help)"
need srun "this machine has no Slurm; use launch/local.sh or launch/torchrun.sh"
# One dead rank must end the step: the others would wait in a collective until the time limit.
options=(--kill-on-bad-exit=1 "${options[@]}")
if [ -n "$per_node" ]; then
  exec srun "${options[@]}" --ntasks-per-node=1 "$root/launch/local.sh" "$per_node" -- "$@"
fi
exec srun "${options[@]}" "$@"
