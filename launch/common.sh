# What the launchers share; sourced, not run. Puts the .venv beside this folder first on PATH, where there is one.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [ -x "$root/.venv/bin/python" ]; then
  export PATH="$root/.venv/bin:$PATH"
elif [ -L "$(command -v tnr)" ]; then
  # pipx and uv put a link to tnr on PATH, and not its Python, which lies beside the program that the link names.
  program=$(readlink -f "$(command -v tnr)")
  [ ! -x "${program%/*}/python" ] || export PATH="${program%/*}:$PATH"
fi
python=$(command -v python || command -v python3)

# The comment at the head of the script that was started is its help text.
help_of() { sed -n '2,/^[^#]/{s/^# \{0,1\}//p;}' "$1"; }

die() {
  echo "${0##*/}: $*" >&2
  exit 2
}

# ranks_and_command SCRIPT "$@": sets `ranks`, and `command_line` to what is to run on each.
ranks_and_command() {
  local script=$1
  shift
  case ${1:-} in
    -h | --help | '')
      help_of "$script"
      [ -n "${1:-}" ] || exit 2
      exit 0
      ;;
    *[!0-9]* | 0) die "N is ${1@Q}; expected the number of ranks (see --help)" ;;
  esac
  ranks=$1
  shift
  [ "${1:-}" != -- ] || shift
  [ $# -gt 0 ] || die "no command; for example: ${0##*/} $ranks tnr stage2 configs/demo.yaml"
  command_line=("$@")
}

need() {
  command -v "$1" >/dev/null || die "no $1 on PATH; $2"
}

free_port() {
  "$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# The port of this Slurm step, the same on all its nodes, as tnr_dist/launch/environment.py has it; without one 29500.
step_port() {
  if [ -n "${SLURM_JOB_ID:-}" ] && [ -n "${SLURM_STEP_ID:-}" ]; then
    echo $((20000 + (97 * SLURM_JOB_ID + SLURM_STEP_ID) % 10000))
  else
    echo 29500
  fi
}
