"""What this machine is."""

from __future__ import annotations

import os
import platform
import sys
import time
from pathlib import Path

import psutil

from tnr_dist.util.errors import InputError


def check_platform() -> None:
    """Raise InputError where this is not Linux, or a Linux that shows no processes."""
    needs = "tnr runs on Linux with /proc mounted (docs/plms.md, Platforms)"
    if sys.platform != "linux":
        raise InputError(f"this system is {sys.platform}; {needs}")
    if not Path("/proc/self/status").is_file():
        raise InputError(f"/proc/self/status: not there; {needs}")


def cpu_name() -> str:
    """The processor's own name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def cores() -> int:
    """Cores that this process may run on: those of its Slurm job or container where it is bound to some."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


def cores_of_rank(local_ranks: int) -> int:
    """Cores for one of `local_ranks` ranks of a machine, at least 1.

    srun binds each task to SLURM_CPUS_PER_TASK cores where the cluster has a task plugin: then the process may run on
    its own share alone, and nothing is left to be divided.
    """
    found, of_task = cores(), os.environ.get("SLURM_CPUS_PER_TASK", "")
    bound = of_task.isdecimal() and found <= int(of_task)
    return found if bound else max(1, found // local_ranks)


class OtherWork:
    """How much processor time other processes take while this one measures."""

    def __init__(self) -> None:
        self._began = self._now()

    @staticmethod
    def _now() -> tuple[float, float]:
        """Seconds on the clock, and seconds that all cores of this machine have worked for others than this process."""
        times = psutil.cpu_times()
        # A guest's time is also in `user`.
        no_work = sum(getattr(times, name, 0.0) for name in ("idle", "iowait", "guest", "guest_nice"))
        return time.monotonic(), sum(times) - no_work - time.process_time()

    def cores(self) -> float:
        """Cores that others kept busy since this was made, on average; what a hypervisor gave to other machines counts too."""
        (began, before), (now, after) = self._began, self._now()
        return max(0.0, (after - before) / max(now - began, 1e-9))
