"""Which device a rank takes; that GPUs which Slurm has given do not stand idle; and what a command runs on, in one line."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from tnr_dist.engines.precision import choose_precision
from tnr_dist.launch.environment import Environment
from tnr_dist.util.errors import InputError
from tnr_dist.util.hardware import cores

_DRIVER = Path("/proc/driver/nvidia/version")
_GIVEN = ("SLURM_JOB_GPUS", "SLURM_STEP_GPUS", "SLURM_GPUS_ON_NODE", "CUDA_VISIBLE_DEVICES")
_NONE = ("", "0", "-1", "NoDevFiles")  # what these hold where there are none; of the first two and the last 0 is a GPU


def choose_device(device: str, env: Environment) -> torch.device:
    """`device=` for this rank.

    Raises InputError where GPUs are to be used and none is seen, and when there are more local ranks than GPUs.
    """
    if fault := gpu_fault(device):
        raise InputError(fault)
    if device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    if env.local_rank >= torch.cuda.device_count():
        raise InputError(
            f"rank {env.rank}: local rank {env.local_rank} has no GPU ({torch.cuda.device_count()} visible); "
            "start one rank per GPU, or set device=cpu"
        )
    return torch.device("cuda", env.local_rank)


def gpu_fault(device: str) -> str:
    """Why no GPU is seen where `device=` or Slurm says that there are some, and what to do; '' where nothing is wrong.

    The line does not name the rank: those of a node say the same.
    """
    if device == "cpu" or torch.cuda.is_available():
        return ""
    given = gpus_given(os.environ)
    if not given and device != "cuda":
        return ""
    why = f"Slurm gave this job GPUs ({given})" if given else "device=cuda"
    driver = driver_version()
    return (
        f"{socket.gethostname()}: {why} and torch sees none: torch {torch.__version__}, {_built()}; NVIDIA driver: "
        f"{driver or 'none found'}; {_remedy(driver)}, or set device=cpu to train without"
    )


def gpus_given(env: Mapping[str, str]) -> str:
    """The first variable by which Slurm says that this process has GPUs, with its value; '' for none, or outside a job."""
    if "SLURM_JOB_ID" not in env:
        return ""
    for name in _GIVEN:
        value = env.get(name, "")
        if value not in _NONE or (value == "0" and name != "SLURM_GPUS_ON_NODE"):
            return f"{name}={value}"
    return ""


def driver_version() -> str:
    """The version of this machine's NVIDIA driver; '' where none is found."""
    try:
        text = _DRIVER.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    if found := re.search(r"Kernel Module.*?\s(\d+\.\d[\d.]*)\s", text):
        return found[1]
    ask = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(ask, capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    found = re.match(r"\d+\.\d[\d.]*", said)
    return found[0] if found else ""


def _built() -> str:
    if torch.version.cuda:
        return f"built for CUDA {torch.version.cuda}"
    return f"built for ROCm {torch.version.hip}" if torch.version.hip else "built without CUDA"


def _remedy(driver: str) -> str:
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not torch.version.cuda and not torch.version.hip:
        return "install a torch that is built for CUDA"
    if hidden is not None and hidden in ("", "-1", "NoDevFiles"):
        return f"CUDA_VISIBLE_DEVICES={hidden} hides them: start the step with its GPUs, or unset the variable"
    if not driver:
        return "start a container with its GPUs (apptainer --nv), or take another node"
    return "install a torch built for a CUDA that this driver supports (nvidia-smi shows up to which), or take another node"


# What a command runs on ------------------------------------------------------------------------------------------------


def describe(env: Environment, device: torch.device, precision: str) -> str:
    """Launcher, ranks and nodes, devices and precision in one line, for rank 0 to say."""
    nodes = _nodes(env, os.environ)
    where = f" on {nodes} node{'s' * (nodes > 1)}, meeting at {env.master_addr}:{env.master_port}"
    ranks = f"{env.world_size} rank{'s' * (env.world_size > 1)}{where * (env.world_size > 1)}"
    threads = torch.get_num_threads()
    one = f"CPU with {threads} thread{'s' * (threads > 1)}"
    if device.type == "cuda":
        one = f"GPU {torch.cuda.get_device_name(device)}"
    each = "each " * (env.world_size > 1)
    launcher = "no launcher" if env.launcher == "none" else env.launcher
    return f"{launcher}: {ranks}; {each}{one}; precision {choose_precision(precision, device)}"


def warnings(env: Environment, device: torch.device, ranks: int, variables: Mapping[str, str]) -> Iterator[str]:
    """What of the configuration's `ranks` and `threads` is not as it will be; `variables`: the environment's."""
    if ranks not in (1, env.world_size):
        yield f"ranks={ranks} does not count here: {env.launcher} started {env.world_size}"
    if device.type != "cpu":
        return
    threads, own = torch.get_num_threads(), cores()
    # A rank may be bound to cores of its own, which are then fewer than the job has on this node.
    on_node = max(own, int(job) if (job := variables.get("SLURM_CPUS_ON_NODE", "")).isdecimal() else 0)
    if threads > own or threads * env.local_world_size > on_node:
        yield (
            f"{env.local_world_size} x {threads} threads of computation on {min(on_node, own * env.local_world_size)} cores: "
            "they will wait for each other; start fewer ranks, set threads lower, or ask Slurm for more (--cpus-per-task)"
        )


def _nodes(env: Environment, variables: Mapping[str, str]) -> int:
    if env.launcher == "slurm":
        for name in ("SLURM_STEP_NUM_NODES", "SLURM_JOB_NUM_NODES"):
            if variables.get(name, "").isdecimal():
                return int(variables[name])
    return -(-env.world_size // env.local_world_size)
