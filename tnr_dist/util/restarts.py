"""Which start of which job this process belongs to, and what it tells the script that may start it again."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def job() -> str:
    """The job's id: Slurm's, or TNR_JOB_ID of another scheduler; '' where there is none."""
    return os.environ.get("TNR_JOB_ID") or os.environ.get("SLURM_JOB_ID", "")


def restarts() -> int:
    """How often the job was started before; 0 where the scheduler does not count them.

    Slurm's count, and TNR_RESTART_COUNT: of another scheduler, or of a job that submits itself again (slurm/requeue.sh), which
    Slurm may requeue as well.
    """
    counts = [os.environ.get(name, "") for name in ("TNR_RESTART_COUNT", "SLURM_RESTART_COUNT")]
    return sum(int(text) for text in counts if text.isdecimal())


def mark_progress() -> None:
    """Say that something was saved that the next start will use: touch the file that TNR_PROGRESS names, if it names one.

    A batch script that counts failed starts resets its count after it (slurm/job.sh).
    """
    if path := os.environ.get("TNR_PROGRESS"):
        with contextlib.suppress(OSError):
            Path(path).touch()
