"""How a command ends: what it printed is written, or that it could not be is said, and no thread holds the process up."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, TextIO

from tnr_dist.util.errors import one_line, os_error_advice
from tnr_dist.util.progress import say

_STDOUT = "standard output"
DONE = "tnr: done: "  # how the last line of a command that has done its work begins; Slurm's job scripts look for it
_results: list[str] = []


def result(text: str) -> None:
    """What the command has made, and its main figures, in a few words: the last call's are its last line (`end`).

    By one rank only. Nothing is said where nothing is made that a job's output should name.
    """
    _results[:] = [text]


class Output:
    """Standard output, whose errors say that they are its own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """As a stream's."""
        return self._name_stdout_in_errors(lambda: self._stream.write(text))

    def flush(self) -> None:
        """As a stream's."""
        self._name_stdout_in_errors(lambda: self._stream.flush() or 0)

    def _name_stdout_in_errors(self, work: Callable[[], int]) -> int:
        try:
            return work()
        except BrokenPipeError:  # `tnr ... | head`: the reader has seen enough, the work goes on
            _redirect_to_null(1)
            return 0
        except OSError as error:
            error.filename = _STDOUT
            raise


def end(code: int) -> None:
    """End the process with this code, or with 2 where what it has printed cannot be written; return on a sound 0.

    A sound end says the `result` first.
    """
    fault = _unwritten(sys.stdout, 1)
    if _results and not fault and not code:
        say(one_line(f"{DONE}{_results[0]}"), dated=False)
    _results.clear()
    if fault and not code:
        say(one_line(f"tnr: {fault}"), dated=False)
        code = 2
    _unwritten(sys.stderr, 2)
    if not code:
        return
    # Only where engines are in use there may be ranks to wait for, that do not come: Horovod's own end would join it.
    waiting = sys.modules.get("tnr_dist.engines.waiting")
    if waiting is not None and waiting.has_abandoned_threads():
        os._exit(code)
    sys.exit(code)


def _unwritten(stream: TextIO | None, number: int) -> str:
    """Write out what was printed to a stream; what is wrong where that fails, '' where it does not.

    Then nothing more goes there: else the interpreter's end would try once more and end with code 120 after good work.
    """
    try:
        if stream is not None:
            stream.flush()
        return ""
    except OSError as error:
        _redirect_to_null(number)
        return os_error_advice(error) or f"{_STDOUT}: {error.strerror}"


def _redirect_to_null(number: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)
