"""The one module that reads what a launcher says about this process, and says what it found.

torchrun, deepspeed, `launch/local.sh`, horovodrun, Open MPI, Slurm's srun, MPICH's mpirun; or nothing: one process.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from tnr_dist.util.errors import InputError

LAUNCHER_MARK = "TNR_LAUNCHER"  # set by `engines.local` for the ranks that it starts
_DEFAULT_PORT = 29500  # where nothing tells one start from another: ranks started by hand, MPICH
_FIRST_PORT, _PORTS = 20000, 10000  # below those that Linux gives out by itself
# What a launcher calls one start of it, the same on all ranks and another at the next start.
_START_IDS = {
    "openmpi": ("PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid"),
    "horovodrun": ("HOROVOD_GLOO_RENDEZVOUS_PORT",),
}
# Steps of a Slurm job that srun did not start: the batch script, the interactive shell of salloc, and an outside step.
_NOT_SRUN = ("", "4294967291", "4294967290", "4294967292")


@dataclass(frozen=True)
class Environment:
    """This process's place among the ranks and how they meet."""

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    master_addr: str
    master_port: int
    launcher: str  # what the place was read from

    def describe(self) -> str:
        """The place in one line, for rank 0 to print."""
        if self.launcher == "none":
            return "no launcher: one process"
        return (
            f"{self.launcher}: rank {self.rank} of {self.world_size}, local rank {self.local_rank} of "
            f"{self.local_world_size}, meeting at {self.master_addr}:{self.master_port}"
        )


@dataclass(frozen=True)
class _Launcher:
    """Variables of one launcher. `certain`: nothing but this launcher sets them, so they cannot be left over."""

    name: str
    rank: str
    size: str
    local_rank: str
    local_size: str
    certain: bool


def detect(env: Mapping[str, str] | None = None) -> Environment:
    """Read the environment; raises InputError when it is incomplete, impossible or contradicts itself.

    Launchers may be nested (srun starts a torchrun on each node): the innermost one counts, if the outer agrees with it.
    """
    env = os.environ if env is None else env
    found = [(launcher, _place(env, launcher)) for launcher in _launchers(env) if launcher.rank in env]
    if not found:
        if _number(env, "WORLD_SIZE", "1") > 1:
            raise InputError(
                f"environment: WORLD_SIZE={env['WORLD_SIZE']} is set and RANK is not; start with a launcher, or unset it"
            )
        return Environment(0, 1, 0, 1, "127.0.0.1", 0, "none")
    launcher, place = found[0]
    for outer, around in found[1:]:
        _check_agreement(launcher, place, outer, around)
    if place.world_size > place.local_world_size and not place.master_addr:
        raise InputError("environment: ranks on several nodes need MASTER_ADDR (the batch script sets it)")
    return Environment(
        place.rank,
        place.world_size,
        place.local_rank,
        place.local_world_size,
        place.master_addr or "127.0.0.1",
        place.master_port,
        place.launcher,
    )


def _launchers(env: Mapping[str, str]) -> list[_Launcher]:
    """Launchers whose variables may be there, the innermost of a nest first."""
    mark = env.get(LAUNCHER_MARK, "")
    if mark:
        name = mark
    elif "TORCHELASTIC_RUN_ID" in env:
        name = "torchrun"
    elif "CROSS_SIZE" in env and "LOCAL_SIZE" in env:
        name = "deepspeed"
    else:
        name = "environment"  # set by hand or by a launcher that is not known here
    local_size = "LOCAL_WORLD_SIZE" if "LOCAL_WORLD_SIZE" in env else "LOCAL_SIZE"
    launchers = [
        _Launcher(name, "RANK", "WORLD_SIZE", "LOCAL_RANK", local_size, name != "environment"),
        _Launcher("horovodrun", "HOROVOD_RANK", "HOROVOD_SIZE", "HOROVOD_LOCAL_RANK", "HOROVOD_LOCAL_SIZE", False),
        _Launcher(
            "openmpi",
            "OMPI_COMM_WORLD_RANK",
            "OMPI_COMM_WORLD_SIZE",
            "OMPI_COMM_WORLD_LOCAL_RANK",
            "OMPI_COMM_WORLD_LOCAL_SIZE",
            True,
        ),
    ]
    # Inside sbatch but not under srun there is one process, whatever the job's variables say.
    if env.get("SLURM_STEP_ID", "") not in _NOT_SRUN:
        launchers.append(
            _Launcher("slurm", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE", True)
        )
    # After Slurm: srun with a PMI plug-in sets these too.
    launchers.append(_Launcher("mpich", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS", True))
    return launchers


def _place(env: Mapping[str, str], launcher: _Launcher) -> Environment:
    if launcher.size not in env:
        raise InputError(
            f"environment: {launcher.rank} is set and {launcher.size} is not; start with torchrun, srun or mpirun"
        )
    rank, world = _number(env, launcher.rank), _number(env, launcher.size)
    local_rank = _number(env, launcher.local_rank, str(rank))
    if launcher.name == "slurm":
        local_world = _slurm_local_size(env, world)
        master_addr = _slurm_first_node(env)
    else:
        local_world = _number(env, launcher.local_size, str(world))
        # horovodrun says where it was started itself; its rank 0 is there unless the host list begins elsewhere.
        master_addr = env.get("HOROVOD_GLOO_RENDEZVOUS_ADDR", "") if launcher.name == "horovodrun" else ""
    place = Environment(
        rank,
        world,
        local_rank,
        local_world,
        env.get("MASTER_ADDR", master_addr),
        _number(env, "MASTER_PORT", str(_port(env, launcher.name))),
        launcher.name,
    )
    for name, value, limit_name, limit in (
        (launcher.rank, rank, launcher.size, world),
        (launcher.local_rank, local_rank, launcher.local_size, local_world),
    ):
        if not 0 <= value < limit:
            raise InputError(f"environment: {name}={value} is not below {limit_name}={limit}")
    if local_world > world:
        raise InputError(f"environment: {launcher.local_size}={local_world} is more than {launcher.size}={world}")
    if not 0 < place.master_port < 65536:
        raise InputError(f"environment: MASTER_PORT={place.master_port} is not a port (1 to 65535)")
    return place


def _port(env: Mapping[str, str], launcher: str) -> int:
    """Where the ranks meet when nobody has said: another port for each step of a Slurm job and each start of a launcher."""
    if launcher == "slurm" and "SLURM_JOB_ID" in env:
        # Steps of one job never share a port, and up to 97 of them none with those of the next job.
        job, step = _number(env, "SLURM_JOB_ID"), _number(env, "SLURM_STEP_ID")
        return _FIRST_PORT + (97 * job + step) % _PORTS
    for name in _START_IDS.get(launcher, ()):
        if name in env:
            return _FIRST_PORT + zlib.crc32(f"{launcher} {env[name]}".encode()) % _PORTS
    return _DEFAULT_PORT


def _check_agreement(launcher: _Launcher, place: Environment, outer: _Launcher, around: Environment) -> None:
    if (place.rank, place.world_size) == (around.rank, around.world_size):
        return
    if around.world_size == 1:
        return  # the outer launcher started one process, which started the ranks
    here = f"{launcher.rank}={place.rank} of {launcher.size}={place.world_size}"
    there = f"{outer.rank}={around.rank} of {outer.size}={around.world_size}"
    if not launcher.certain or place.world_size < around.world_size:
        raise InputError(
            f"environment: {here} ({launcher.name}) and {there} ({outer.name}) disagree; start with one launcher, and unset "
            "variables that are left over from another"
        )
    if place.world_size == place.local_world_size:
        raise InputError(
            f"environment: {outer.name} started {around.world_size} processes and each of them its own {launcher.name} of "
            f"{place.world_size} ranks that do not know of each other; start one per node that is told the others' number "
            "(launch/srun.sh --per-node)"
        )


def _slurm_local_size(env: Mapping[str, str], tasks: int) -> int:
    """Tasks of the step on this node, from `2(x2),1` and this node's number."""
    for name in ("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"):
        if name not in env:
            continue
        counts = tasks_per_node(env[name], name)
        # Inside an allocation a step may be smaller than what the job's own variable speaks of.
        if sum(counts) != tasks and name == "SLURM_TASKS_PER_NODE":
            continue
        if sum(counts) != tasks:
            raise InputError(f"environment: {name}={env[name]} makes {sum(counts)} tasks, SLURM_NTASKS is {tasks}")
        node = _number(env, "SLURM_NODEID", "0")
        if node >= len(counts):
            raise InputError(f"environment: SLURM_NODEID={node} and {name}={env[name]} of {len(counts)} nodes")
        return counts[node]
    return min(_number(env, "SLURM_NTASKS_PER_NODE", str(tasks)), tasks)


def tasks_per_node(text: str, name: str = "SLURM_TASKS_PER_NODE") -> list[int]:
    """Slurm's `2(x2),1` as [2, 2, 1]. Raises InputError for anything else."""
    counts: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if not match:
            raise InputError(f"environment: {name}={text!r}: expected counts such as 2(x2),1")
        counts += [int(match[1])] * int(match[2] or 1)
    return counts


def _slurm_first_node(env: Mapping[str, str]) -> str:
    """The node of task 0, from a host list such as `node[03-05,9],login1`."""
    text = env.get("SLURM_STEP_NODELIST") or env.get("SLURM_JOB_NODELIST", "")
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", text)
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", first[0]) if first else ""


def _number(env: Mapping[str, str], name: str, default: str = "") -> int:
    text = env.get(name, default)
    try:
        return int(text.split("(")[0])
    except ValueError:
        raise InputError(f"environment: {name}={text!r} is not a whole number") from None
