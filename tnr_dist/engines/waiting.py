"""Waits for other ranks that end: at a deadline, or when this process is asked to stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from tnr_dist.util.errors import Preempted

Result = TypeVar("Result")

_POLL = 0.05  # seconds between two looks
_GRACE = 1.0  # seconds that work gets to tell the others after this process was asked to stop
_MARGIN = 2.0  # seconds that work gets beyond its deadline to say in its own words what it has waited for


_under_way: set[threading.Event] = set()  # of `interruptible`


class TooLate(Exception):
    """The deadline of a `Wait` has passed."""


class Wait:
    """A deadline of `seconds` from now; `stop_requested`: whether this process was."""

    def __init__(self, seconds: float, stop_requested: Callable[[], bool]) -> None:
        self.seconds, self.stop_requested = seconds, stop_requested
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds until the deadline, at least a moment."""
        return max(self._end - time.monotonic(), 0.01)

    def sleep(self) -> None:
        """Wait a moment. Raises Preempted when this process was asked to stop, TooLate after the deadline."""
        if self.stop_requested():
            raise stopped()
        if time.monotonic() >= self._end:
            raise TooLate
        time.sleep(min(_POLL, self.left))


def stopped(who: str = "") -> Preempted:
    """What ends a wait for ranks before there is anything to save; `who`: the rank that was asked to stop."""
    return Preempted(f"{who and f'{who}: '}stopped before training began, nothing is lost; run it again")


def interruptible(work: Callable[[], Result], wait: Wait) -> Result:
    """`work()`, whose waits may be in C++ where Python handles no signal: in a thread, while this one looks after it.

    Raises what `work` raises; Preempted when this process is asked to stop and TooLate after the deadline, and then the
    thread is left to itself.
    """
    outcome: list[Result] = []
    failure: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:
            failure.append(error)
        finally:
            done.set()
            _under_way.discard(done)

    _under_way.add(done)
    threading.Thread(target=run, name="meeting", daemon=True).start()
    last = time.monotonic() + wait.seconds + _MARGIN
    told = False
    # Not the thread's own `join`: one that Ctrl-C interrupts takes the thread for ended.
    while not done.wait(_POLL):
        if wait.stop_requested() and not told:
            told, last = True, min(last, time.monotonic() + _GRACE)
        if time.monotonic() > last:
            raise stopped() if told else TooLate
    if failure:
        raise failure[0]
    return outcome[0]


def has_abandoned_threads() -> bool:
    """Whether a thread of `interruptible` was left to itself: what it runs may hold up the end of the process, too."""
    return bool(_under_way)
