"""A polite stop: SIGTERM or SIGUSR1 asks for a checkpoint at the next step."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class StopRequest:
    """Becomes true when the process is told to stop (Slurm sends USR1 before the time limit, TERM at preemption)."""

    def __init__(self) -> None:
        self.asked = False
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGUSR1):
                signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
