#!/usr/bin/env bash
# launch/local.sh N COMMAND…: run COMMAND as N data-parallel ranks on this machine, e.g.
#   launch/local.sh 2 tnr stage2 configs/demo.yaml
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python="$here/.venv/bin/python"
[ -x "$python" ] || python=python3
export PATH="$(dirname "$python"):$PATH"
exec "$python" -m tnr_dist.engines.local "$@"
