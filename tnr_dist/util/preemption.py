"""A polite stop: SIGTERM, SIGUSR1 or SIGUSR2 asks for a checkpoint at the next step.

A scheduler sends USR1 or USR2 before the time limit and TERM at a preemption. The request may come before the first step (a
rank imports and loads for many seconds), so it is the process's, not the loop's.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType


class _Flag:
    """A `threading.Event` without its lock: the handler of a signal that comes while another handler, or `clear_request`, holds
    that would wait for it for ever."""

    def __init__(self) -> None:
        self._up = False

    def set(self) -> None:
        self._up = True

    def clear(self) -> None:
        self._up = False

    def is_set(self) -> bool:
        return self._up


_Handler = Callable[[int, FrameType | None], object] | int | None
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
_requested = _Flag()


def listen() -> None:
    """From now on take `SIGNALS` as a request: for a process that ends when its work does.

    Until its very end, so that a second signal does not change the exit code of a process that is granting the first.
    """
    _take()


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Inside, `SIGNALS` are a request; after it they do again what they did before.

    May be nested: a request stays until it is granted, whichever of them it came in.
    """
    before = _take()
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # None: one that was not set from Python, which cannot be set again
                signal.signal(number, handler)


def stop_requested() -> bool:
    """Whether this process was asked to stop."""
    return _requested.is_set()


def request_stop() -> None:
    """Tell this process to stop, as a signal would."""
    _requested.set()


def wait_for_request(seconds: float) -> None:
    """Wait until this process is asked to stop, but at most so long."""
    end = time.monotonic() + seconds
    while not stop_requested() and time.monotonic() < end:
        time.sleep(0.05)


def clear_request() -> None:
    """The request has been granted."""
    _requested.clear()


def _take() -> dict[signal.Signals, _Handler]:
    """Set our handlers; returns those before. Python sets them in its main thread only: in another nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, _handle_signal) for number in SIGNALS}


def _handle_signal(number: int, frame: FrameType | None) -> None:
    _requested.set()
