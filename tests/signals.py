"""Signals of this process, as a test must leave them."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

STOPS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)


@contextlib.contextmanager
def given_back() -> Iterator[None]:
    """Around a command in this process: it takes TERM, USR1 and USR2 to the end of its process, and the suite goes on."""
    before = {number: signal.getsignal(number) for number in STOPS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
