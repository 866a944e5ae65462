"""Which start of which job this process belongs to, and what it tells the script that may start it again."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def job() -> str:
    """The job's id: Slurm's, or TNR_JOB_ID of another scheduler; '' where there is none."""
    return os.environ.get("TNR_JOB_ID") or os.environ.get("SLURM_JOB_ID", "")


def restarts() -> int:
    """How often the job was started before: Slurm counts, or TNR_RESTART_COUNT; 0 where nobody does."""
    text = os.environ.get("TNR_RESTART_COUNT") or os.environ.get("SLURM_RESTART_COUNT", "")
    return int(text) if text.isdecimal() else 0


def mark_progress() -> None:
    """Say that something was saved that the next start will use: touch the file that TNR_PROGRESS names, if it names one.

    A batch script that counts failed starts begins to count anew after it (slurm/job.sh).
    """
    if path := os.environ.get("TNR_PROGRESS"):
        with contextlib.suppress(OSError):
            Path(path).touch()
