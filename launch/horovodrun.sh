#!/usr/bin/env bash
# launch/horovodrun.sh [--mpi] N COMMAND…: run COMMAND as N ranks in all under horovodrun (gloo), e.g.
#   launch/horovodrun.sh 2 tnr stage2 configs/mind_large.yaml engine=horovod
# --mpi takes Open MPI's mpirun instead. HOSTS=a:2,b:2 for several machines reached by ssh; the first one is rank 0's.
# The engine needs neither: engine=horovod runs under srun and launch/local.sh, which keep exit code 75, too.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
mpi=
if [ "${1:-}" = --mpi ]; then
  mpi=1
  shift
fi
ranks_and_command "${BASH_SOURCE[0]}" "$@"
hosts=${HOSTS:-localhost:$ranks}
first=${hosts%%[:,]*}
[ "$first" != localhost ] || first=127.0.0.1
export MASTER_ADDR=${MASTER_ADDR:-$first} MASTER_PORT=${MASTER_PORT:-$(free_port)}
if [ -n "$mpi" ]; then
  need mpirun "install Open MPI (Debian: openmpi-bin)"
  # Bound to a core, a rank's threads would all share that core.
  options=(-np "$ranks" -H "$hosts" --bind-to none --map-by slot -x PATH -x MASTER_ADDR -x MASTER_PORT)
  # In a container there is often no other user.
  [ "$(id -u)" != 0 ] || options+=(--allow-run-as-root)
  exec mpirun "${options[@]}" "${command_line[@]}"
fi
need horovodrun "build it with launch/install_horovod.sh"
exec horovodrun --gloo -np "$ranks" -H "$hosts" "${command_line[@]}"
