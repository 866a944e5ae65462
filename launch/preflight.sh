#!/usr/bin/env bash
# launch/preflight.sh [N] [CONFIG [KEY=VALUE…]]: check this machine, or N ranks on it, before hours are spent (`tnr doctor`):
# versions, devices, backend, a timed all-reduce, port, disk, data set and cache. Exit code 0, or 2 with what to fix.
# On several machines start it as the run itself is started, e.g.
#   launch/srun.sh --nodes=2 --ntasks-per-node=4 -- launch/preflight.sh configs/mind_large.yaml
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
case ${1:-} in
  -h | --help)
    help_of "${BASH_SOURCE[0]}"
    exit 0
    ;;
  '' | *[!0-9]*) exec "$python" -m tnr_dist.cli.app doctor "$@" ;;
esac
ranks=$1
shift
exec "$root/launch/local.sh" "$ranks" -- "$python" -m tnr_dist.cli.app doctor "$@"
