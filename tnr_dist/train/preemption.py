"""A polite stop: SIGTERM or SIGUSR1 asks for a checkpoint at the next step.

Slurm sends USR1 before the time limit and TERM at a preemption. The request may come before the first step (a rank imports
and loads for many seconds), so it is the process's, not the loop's.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType

_asked = threading.Event()


def listen() -> None:
    """From now on take SIGTERM and SIGUSR1 as a request."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, _ask)


def asked() -> bool:
    """Whether this process was told to stop."""
    return _asked.is_set()


def forget() -> None:
    """The request has been granted."""
    _asked.clear()


def _ask(number: int, frame: FrameType | None) -> None:
    _asked.set()
