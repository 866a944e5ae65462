# The settings of every script, and the software that its commands need; sourced by common.sh, before any Python.

# Settings: env.sh, then the user's own file. What stands in the environment wins over both, empty or not.
declare -A given=()
for name in $(compgen -e TNR_); do given[$name]=${!name}; done
. "$root/slurm/env.sh"
if [ -n "${given[TNR_ENV]:-}" ]; then
  [ -r "${given[TNR_ENV]}" ] || die "TNR_ENV=${given[TNR_ENV]}: no such file"
  TNR_ENV=$(cd "$(dirname "${given[TNR_ENV]}")" && pwd)/${given[TNR_ENV]##*/}
  given[TNR_ENV]=$TNR_ENV
  . "$TNR_ENV"
elif [ -r "$root/slurm/env.local.sh" ]; then
  . "$root/slurm/env.local.sh"
fi
for name in "${!given[@]}"; do printf -v "$name" %s "${given[$name]}"; done
[[ $TNR_GRACE =~ ^[0-9]+$ ]] || die "TNR_GRACE=$TNR_GRACE: expected seconds, such as 120"
[[ $TNR_SIGNAL =~ ^[A-Z]+[0-9]?$ ]] || die "TNR_SIGNAL=$TNR_SIGNAL: expected a signal's name, such as USR2"
if [ -n "$TNR_CONTAINER" ] && [ ${#container[@]} = 0 ]; then
  container=(apptainer exec --nv "$TNR_CONTAINER")
fi

# Files that others wrote are read without our shell options and without our arguments, which `activate` would take for its own.
read_foreign() {
  local file=$1 code=0
  shift
  set +euo pipefail
  . "$file" || code=$?
  set -euo pipefail
  return "$code"
}

# The shell of a script often has no `module` yet: it is a function, which login shells define.
find_module_command() {
  local file
  for file in /etc/profile.d/modules.sh /etc/profile.d/lmod.sh /etc/profile.d/z00_lmod.sh "${LMOD_PKG:-}/init/bash" \
    "${MODULESHOME:-}/init/bash" /usr/share/lmod/lmod/init/bash /usr/share/Modules/init/bash /usr/share/modules/init/bash; do
    ! type module >/dev/null 2>&1 || return 0
    [ ! -r "$file" ] || read_foreign "$file" || :
  done
  type module >/dev/null 2>&1
}

load_modules() {
  local modules code=0
  read -ra modules <<<"$TNR_MODULES"
  find_module_command || die "TNR_MODULES=$TNR_MODULES: this machine has no command module; source its start file in TNR_SETUP"
  set +euo pipefail
  module load "${modules[@]}" || code=$?
  set -euo pipefail
  [ "$code" = 0 ] || die "module load $TNR_MODULES failed on ${HOSTNAME:-this machine} (see above)"
}

# apply_environment: modules, then the .venv beside this folder, then TNR_SETUP, so that the later ones may rest on the earlier.
apply_environment() {
  # After `sbatch --export=NONE` there may be neither.
  [ -n "${HOME:-}" ] || HOME=$(getent passwd "$(id -u)" | cut -d: -f6)
  export HOME PATH
  # sbatch --export=… would be taken over by every srun of the job, whose ranks then had nothing of what is set here.
  [ -z "${SLURM_JOB_ID:-}" ] || export SLURM_EXPORT_ENV=ALL
  [ -z "$TNR_MODULES" ] || load_modules
  [ ! -x "$root/.venv/bin/python" ] || export PATH="$root/.venv/bin:$PATH"
  [ -n "$TNR_SETUP" ] || return 0
  local file
  for file in "$TNR_SETUP" "$root/$TNR_SETUP"; do
    [[ $file = /* ]] || file=./$file
    if [ -r "$file" ]; then
      read_foreign "$file" || :
      return 0
    fi
  done
  die "TNR_SETUP=$TNR_SETUP: no such file"
}

# Whether srun itself starts a container (Pyxis), which is then the only place where the program is.
srun_has_a_container() { [[ " ${srun_options[*]} " = *" --container-"@(image|name)[=\ ]* ]]; }

# with_environment COMMAND…: run it once, where the ranks would run it.
with_environment() {
  if [ -z "${SLURM_JOB_ID:-}" ] && [ ${#login[@]} -gt 0 ]; then
    "${login[@]}" "$@"
  elif [ -n "${SLURM_JOB_ID:-}" ] && srun_has_a_container; then
    srun --nodes=1 --ntasks=1 --ntasks-per-node=1 "${srun_options[@]}" "${container[@]}" "$@"
  else
    "${container[@]}" "$@"
  fi
}

# steps COMMAND…: small questions about a configuration that bash cannot answer.
steps() { with_environment python "$root/slurm/steps.py" "$@"; }

is_there='
import importlib.util, shutil, sys
if sys.version_info < (3, 11): sys.exit("%s is Python %d.%d, and tnr_dist needs 3.11" % ((sys.executable,) + sys.version_info[:2]))
sys.path.remove("") # the checkout, where this may be called, is not yet an installation
if not importlib.util.find_spec("tnr_dist"): sys.exit("%s has no tnr_dist" % sys.executable)
if not shutil.which("tnr"): sys.exit("%s has tnr_dist, but no program tnr is on PATH" % sys.executable)
'

# pipx and uv put a link to tnr on PATH, and not its Python, which lies beside the program that the link names.
find_python_of_tnr() {
  local program
  program=$(command -v tnr) && [ -L "$program" ] || return 0
  program=$(readlink -f "$program")
  [ ! -x "${program%/*}/python" ] || export PATH="${program%/*}:$PATH"
}

# need_environment: end with one line where there is no Python with tnr_dist, rather than in the middle of the work.
need_environment() {
  local said advice='set TNR_MODULES, TNR_SETUP or TNR_CONTAINER in slurm/env.sh, or install tnr_dist into .venv beside slurm/ (in a checkout: make venv)'
  if [ -z "${SLURM_JOB_ID:-}" ] && [ ${#login[@]} -gt 0 ]; then
    command -v "${login[0]}" >/dev/null || die "there is no ${login[0]} here, which login= of slurm/env.sh names"
  elif [ -z "${SLURM_JOB_ID:-}" ] || ! srun_has_a_container; then
    if [ ${#container[@]} -gt 0 ]; then
      command -v "${container[0]}" >/dev/null || die "there is no ${container[0]} here to start the container with; load it with TNR_MODULES, or set TNR_SETUP"
    else
      find_python_of_tnr
      command -v python >/dev/null || die "there is no python here; $advice"
    fi
  fi
  said=$(with_environment python -c "$is_there" 2>&1 >/dev/null) || die "$(tail -n 1 <<<"$said"); $advice"
}

# set_meeting_point: where the ranks of the job meet. MASTER_ADDR and MASTER_PORT of the user win.
set_meeting_point() {
  local first
  if [ -z "${MASTER_ADDR:-}" ]; then
    IFS= read -r first < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
    MASTER_ADDR=$first$TNR_MASTER_SUFFIX
  fi
  # No MASTER_PORT: each step has a port of its own, from the numbers of job and step (tnr_dist/launch/environment.py).
  export MASTER_ADDR
}
