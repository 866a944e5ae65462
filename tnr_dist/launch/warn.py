"""Messages that are printed once, by one of the ranks."""

from __future__ import annotations

from pathlib import Path

from tnr_dist.launch.environment import detect
from tnr_dist.util.errors import InputError
from tnr_dist.util.progress import say

_warned: set[Path] = set()


def warn_once(folder: Path, message: str) -> None:
    """Say something of a folder, once a process and by rank 0 alone."""
    if folder not in _warned and _is_first_rank():
        say(f"{folder}: {message}")
    _warned.add(folder)


def _is_first_rank() -> bool:
    try:
        return detect().rank == 0
    except InputError:  # of a contradiction that is nothing to a command without ranks
        return True
