"""A polite stop: SIGTERM or SIGUSR1 asks for a checkpoint at the next step.

Slurm sends USR1 before the time limit and TERM at a preemption. The request may come before the first step (a rank imports
and loads for many seconds), so it is the process's, not the loop's.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType


class _Flag:
    """A `threading.Event` without its lock: the handler of a signal that comes while another handler, or `forget`, holds
    that would wait for it for ever."""

    def __init__(self) -> None:
        self._up = False

    def set(self) -> None:
        self._up = True

    def clear(self) -> None:
        self._up = False

    def is_set(self) -> bool:
        return self._up


_asked = _Flag()


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
