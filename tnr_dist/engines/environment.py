"""What a launcher says about this process: torchrun, deepspeed, Open MPI, Slurm, or nothing (one process)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from tnr_dist.errors import InputError


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


# launcher -> (rank, world size, local rank, local world size)
_VARIABLES = {
    "torchrun": ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    "openmpi": (
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
    "slurm": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE"),
}


def detect(env: Mapping[str, str] | None = None) -> Environment:
    """Read the environment; raises InputError when it is incomplete or contradicts itself."""
    env = os.environ if env is None else env
    for launcher, (rank, size, local_rank, local_size) in _VARIABLES.items():
        if rank not in env:
            continue
        if launcher == "slurm" and env.get("SLURM_STEP_ID", "") in ("", "4294967291"):
            continue  # inside sbatch but not under srun: one process
        if size not in env:
            raise InputError(f"environment: {rank} is set and {size} is not; start with torchrun, srun or mpirun")
        place = Environment(
            _number(env, rank),
            _number(env, size),
            _number(env, local_rank, env[rank]),
            _number(env, local_size, env[size]),
            env.get("MASTER_ADDR", "127.0.0.1"),
            _number(env, "MASTER_PORT", "29500"),
            launcher,
        )
        if not 0 <= place.rank < place.world_size:
            raise InputError(f"environment: {rank}={place.rank} is not below {size}={place.world_size}")
        if not 0 <= place.local_rank < place.local_world_size:
            raise InputError(
                f"environment: {local_rank}={place.local_rank} is not below {local_size}={place.local_world_size}"
            )
        if place.world_size > place.local_world_size and "MASTER_ADDR" not in env:
            raise InputError("environment: ranks on several nodes need MASTER_ADDR (the batch script sets it)")
        return place
    return Environment(0, 1, 0, 1, "127.0.0.1", 0, "none")


def _number(env: Mapping[str, str], name: str, default: str = "") -> int:
    text = env.get(name, default)
    try:
        return int(text.split("(")[0])
    except ValueError:
        raise InputError(f"environment: {name}={text!r} is not a whole number") from None
