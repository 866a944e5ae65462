"""Progress bars on a terminal, plain lines elsewhere (log files, Slurm)."""

from __future__ import annotations

import contextlib
import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

_stderr = Console(stderr=True)


def say(message: str) -> None:
    """Print one line for the user on stderr: stdout is kept for results."""
    with contextlib.suppress(OSError):  # a log on a full disk is no reason to end the work
        _stderr.print(message, markup=False, highlight=False, soft_wrap=True)


class Bar:
    """A progress bar with rate and time left; without a terminal one plain line every `every` seconds.

    Use as a context manager; `advance(n, note)` moves it. `enabled=False` (ranks other than 0) makes it silent.
    """

    def __init__(self, title: str, total: int, unit: str = "it", enabled: bool = True, every: float = 15.0) -> None:
        self.title, self.total, self.unit, self.enabled, self.every = title, total, unit, enabled, every
        self.done = 0
        self._note = ""
        self._rich: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Bar:
        self._start = self._last = time.monotonic()
        if self.enabled and sys.stderr.isatty():
            self._rich = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=_stderr,
            )
            self._rich.start()
            self._task = self._rich.add_task(self.title, total=self.total, rate="", note="")
        return self

    def advance(self, n: int = 1, note: str = "") -> None:
        """Count `n` more units done; the last `note` given (for example the loss) stands at the end of the line."""
        self.done += n
        self._note = note or self._note
        if not self.enabled:
            return
        if self._rich is not None and self._task is not None:
            self._rich.update(self._task, advance=n, rate=self._rate(), note=self._note)
        elif time.monotonic() - self._last >= self.every:
            self._last = time.monotonic()
            left = (self.total - self.done) / max(self.rate(), 1e-9)
            say(f"{self.title}: {self.done:,}/{self.total:,} {self._rate()}, {left:,.0f} s left {self._note}".rstrip())

    def rate(self) -> float:
        """Units per second since the bar was opened."""
        return self.done / max(time.monotonic() - self._start, 1e-9)

    def _rate(self) -> str:
        rate = self.rate()
        return f"{rate:,.{0 if rate >= 100 else 1 if rate >= 10 else 2}f} {self.unit}/s"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._rich is not None:
            self._rich.stop()
        elif self.enabled and kind is None:
            say(f"{self.title}: {self.done:,} {self.unit} in {time.monotonic() - self._start:.1f} s")
