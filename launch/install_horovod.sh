#!/usr/bin/env bash
# launch/install_horovod.sh: build Horovod from its source on PyPI, for the PyTorch that is installed, and install it.
#
#   PYTHON           interpreter to install for   (default: .venv/bin/python beside this folder, else python3)
#   HOROVOD_MPI=1    also with MPI                (apt-get install libopenmpi-dev openmpi-bin)
#   HOROVOD_NCCL=1   also for GPUs, with NCCL     (CUDA toolkit and NCCL's headers)
#   HOROVOD_WHEELS   folder of finished wheels    (default: ~/.cache/horovod-wheels); one build per PyTorch
#
# Needs g++ and make, 4 GB of memory, a few minutes. Does nothing where a working one is already there.
set -euo pipefail

version=0.28.1
sha256=92a43f5a94c43907a56805bad15f19700c62ffc83b7ca483f9e104e229f67ef0
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-$here/../.venv/bin/python}
[ -x "$python" ] || python=$(command -v "${PYTHON:-python3}") || { echo "install_horovod: no python found" >&2; exit 1; }

say() { echo "install_horovod: $*" >&2; }
fail() { say "$*"; exit 1; }

torch=$("$python" -W ignore -c 'import torch; print(torch.__version__)') || fail "$python has no PyTorch; install that first"
abi=$("$python" -c 'import sys; print("cp%d%d" % sys.version_info[:2])')
options=(HOROVOD_WITH_PYTORCH=1 HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_MXNET=1)
flavour=gloo
if [ "${HOROVOD_MPI:-0}" = 1 ]; then
  flavour+=-mpi options+=(HOROVOD_WITH_MPI=1)
else
  options+=(HOROVOD_WITHOUT_MPI=1)
fi
if [ "${HOROVOD_NCCL:-0}" = 1 ]; then
  flavour+=-nccl options+=(HOROVOD_GPU_OPERATIONS=NCCL)
else
  options+=(HOROVOD_WITHOUT_NVTX=1)
fi
wheels=${HOROVOD_WHEELS:-${XDG_CACHE_HOME:-$HOME/.cache}/horovod-wheels}/$version-torch$torch-$abi-$flavour

# The extension loads, was built for this PyTorch, and can what is asked of it. (A broken one only prints a warning.)
works() {
  HOROVOD_CONTROLLER=gloo HOROVOD_CPU_OPERATIONS=gloo "$python" - "$torch" "$flavour" >/dev/null 2>&1 <<'PY'
import json, pathlib, sys
import horovod, horovod.torch as hvd
hvd.init()
torch, flavour = sys.argv[1:]
facts = json.loads((pathlib.Path(horovod.__file__).parent / "metadata.json").read_text())
sys.exit(not (facts["pytorch"] == torch and hvd.gloo_built()
              and (hvd.mpi_built() or "mpi" not in flavour) and (hvd.nccl_built() or "nccl" not in flavour)))
PY
}

# CMake 3.21 or newer: the machine's, else PyPI's.
find_cmake() {
  local found
  found=$(cmake --version 2>/dev/null | sed -n 's/^cmake version //p') || true
  if [ -n "$found" ] && [ "$(printf '3.21\n%s\n' "$found" | sort -V | head -n 1)" = 3.21 ]; then
    command -v cmake
  else
    "$python" -m pip install --quiet 'cmake<4' >&2
    "$python" -c 'import cmake, os; print(os.path.join(cmake.CMAKE_BIN_DIR, "cmake"))'
  fi
}

build() {
  command -v g++ >/dev/null && command -v make >/dev/null || fail "a C++ compiler is needed: apt-get install g++ make"
  [[ $flavour != *mpi* ]] || command -v mpicxx >/dev/null || fail "MPI is needed: apt-get install libopenmpi-dev openmpi-bin"
  local work cmake
  cmake=$(find_cmake)
  work=$(mktemp -d)
  mkdir -p "$wheels"
  echo "horovod==$version --hash=sha256:$sha256" >"$work/requirements.txt"
  say "building for PyTorch $torch ($flavour); log: $wheels.log"
  # Not in an isolated environment, which would have no PyTorch; not from pip's cache, which does not know the PyTorch.
  if ! env "${options[@]}" HOROVOD_CMAKE="$cmake" CMAKE_TOOLCHAIN_FILE="$here/horovod.cmake" \
    CMAKE_GENERATOR='Unix Makefiles' MAKEFLAGS="${MAKEFLAGS:--j2}" \
    "$python" -m pip wheel --verbose --no-deps --no-build-isolation --use-pep517 --no-cache-dir --no-binary horovod \
    --require-hashes --requirement "$work/requirements.txt" --wheel-dir "$work/out" >"$wheels.log" 2>&1; then
    tail -n 40 "$wheels.log" >&2
    rm -rf "$work"
    fail "the build failed; see $wheels.log"
  fi
  mv "$work"/out/horovod-*.whl "$wheels/"
  rm -rf "$work"
}

if works; then
  say "Horovod $version for PyTorch $torch ($flavour) is installed already"
  exit 0
fi
"$python" -m pip install --quiet 'setuptools>=77.0.3' wheel packaging numpy cloudpickle psutil pyyaml 'cffi>=1.4.0'
compgen -G "$wheels/horovod-$version-*.whl" >/dev/null || build
wheel=$(compgen -G "$wheels/horovod-$version-*.whl" | head -n 1)
"$python" -m pip install --quiet --force-reinstall --no-deps "$wheel"
works || fail "installed, but it does not load; see: $python -c 'import horovod.torch'"
say "installed $(basename "$wheel") ($flavour)"
