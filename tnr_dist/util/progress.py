"""Progress bars on a terminal, plain lines elsewhere (log files, Slurm)."""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import Progress, ProgressColumn, Task, TaskID
from rich.text import Text

_stderr = Console(stderr=True)
_BAR = (10, 40)  # characters, at least and at most
_DONE, _LEFT = "bar.complete", "bar.back"


def say(message: str, *, dated: bool = True) -> None:
    """Print one line for the user on stderr: stdout is kept for results.

    In a log file, which may be read days later, the local time stands before it. `dated=False`: not before this one, because
    programs know it by its beginning or compare it with another rank's.
    """
    if dated and not _on_terminal():
        message = f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {message}"
    with contextlib.suppress(OSError):  # a log on a full disk is no reason to end the work
        _stderr.print(message, markup=False, highlight=False, soft_wrap=True)


def _on_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


@functools.cache
def say_once(message: str) -> None:
    """`say`, once a process."""
    say(message)


class Bar:
    """A progress bar with rate and time left; without a terminal one plain line every `every` seconds.

    Use as a context manager; `advance(n, note)` moves it, `skip(n)` over what an earlier start has done. `enabled=False`
    (ranks other than 0) makes it silent.
    """

    def __init__(self, title: str, total: int, unit: str = "it", enabled: bool = True, every: float = 15.0) -> None:
        self.title, self.total, self.unit, self.enabled, self.every = title, total, unit, enabled, every
        self.done = self.skipped = 0
        self._note = ""
        self._rich: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Bar:
        self._start = self._last = time.monotonic()
        if self.enabled and _on_terminal():
            self._rich = Progress(_Line(self), console=_stderr)
            self._rich.start()
            self._task = self._rich.add_task(self.title, total=self.total)
        return self

    def advance(self, n: int = 1, note: str = "") -> None:
        """Count `n` more units done; the last `note` given (for example the loss) stands at the end of the line."""
        self.done += n
        self._note = note or self._note
        if not self.enabled:
            return
        if self._rich is not None and self._task is not None:
            self._rich.update(self._task, advance=n)
        elif time.monotonic() - self._last >= self.every:
            self._last = time.monotonic()
            left = (self.total - self.done) / max(self.rate(), 1e-9)
            say(f"{self.title}: {self.done:,}/{self.total:,} {self._rate()}, {left:,.0f} s left {self._note}".rstrip())

    def skip(self, n: int) -> None:
        """Count `n` units as done that took this start no time: they are no part of its rate."""
        self.done += n
        self.skipped += n
        if self._rich is not None and self._task is not None:
            self._rich.reset(self._task, completed=self.done)  # with the samples that its time left is made from

    def rate(self) -> float:
        """Units per second since the bar was opened, without those skipped."""
        return (self.done - self.skipped) / max(time.monotonic() - self._start, 1e-9)

    def _rate(self) -> str:
        rate = self.rate()
        return f"{rate:,.{0 if rate >= 100 else 1 if rate >= 10 else 2}f} {self.unit}/s"

    def line(self, width: int, left: float | None) -> Text:
        """The bar in one line of at most `width` characters.

        Title, bar, count and time left stand first and stay the longest: where the line is too short the note is cut
        first, then the rate goes, then the title is cut.

        Args:
            left: seconds to the end; None: not known yet.
        """
        count = f"{self.total:,}"
        count = f"{self.done:>{len(count)},}/{count}"
        time_left = f"{_clock(left)} left"
        rate = self._rate() if self.done > self.skipped else ""
        room = width - len(count) - len(time_left) - _BAR[0] - 3  # for the title, then for rate and note
        title = _cut(self.title, room)
        room -= len(title)
        rate = rate if len(rate) + 1 <= room else ""
        room -= len(rate) + 1 if rate else 0
        note = _first_parts(self._note, room - 1)
        room -= len(note) + 1 if note else 0
        bar = _BAR[0] + max(0, min(room, _BAR[1] - _BAR[0]))
        full = min(bar, bar * self.done // max(self.total, 1))
        after = " ".join(part for part in (count, time_left, rate, note) if part)
        line = Text(no_wrap=True, overflow="crop", end="")
        return line.append(f"{title} ").append("━" * full, _DONE).append("━" * (bar - full), _LEFT).append(f" {after}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._rich is not None:
            self._rich.stop()
        elif self.enabled and kind is None:
            count = f"{self.done - self.skipped:,}" + (f" of {self.done:,}" if self.skipped else "")
            say(f"{self.title}: {count} {self.unit} in {time.monotonic() - self._start:.1f} s")


class _Line(ProgressColumn):
    """The whole line of a `Bar`."""

    def __init__(self, bar: Bar) -> None:
        super().__init__()
        self.bar = bar

    def render(self, task: Task) -> Text:
        return self.bar.line(_stderr.width, task.time_remaining)


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return "-:--"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _cut(text: str, width: int) -> str:
    """A text of at most `width` characters; '' where not even a few of it would be left."""
    if len(text) <= width:
        return text
    return f"{text[: width - 1]}…" if width >= 4 else ""


def _first_parts(text: str, width: int) -> str:
    """Of parts between commas the first ones that fit into `width` characters together: no figure is cut."""
    while text and len(text) > width:
        text = text.rpartition(", ")[0]
    return text
