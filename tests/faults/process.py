"""One run of `tnr` on n ranks as a user starts it, each wait with a limit."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests.faults import warm

ROOT = Path(__file__).parents[2]
_OUTER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TNR_LAUNCHER")


class Attempt:
    """The launcher `engines.local`, its ranks, and what they said.

    `anew`: both start as Python does; else they are forked from a process that has imported everything (`warm`).
    """

    def __init__(
        self, ranks: int, arguments: list[str], log: Path, *, anew: bool, environment: dict[str, str] | None = None
    ) -> None:
        self.log, self.world_size = log, ranks
        launch = [str(ranks), "--", sys.executable, "-m", "tnr_dist.cli.app", *arguments]
        for name in _OUTER:
            os.environ.pop(name, None)
        os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        self._popen = self._forked = None
        if anew:
            command = [sys.executable, "-m", "tnr_dist.launch.local", *launch]
            with log.open("wb") as file:
                self._popen = subprocess.Popen(
                    command,
                    cwd=ROOT,
                    stdout=file,
                    stderr=file,
                    start_new_session=True,
                    env=os.environ | (environment or {}),
                )
            self.pid = self._popen.pid
        else:
            self._forked = warm.start(launch, str(log), environment or {})
            assert self._forked.pid is not None
            self.pid = self._forked.pid
        self._ranks: list[psutil.Process] = []

    def code(self) -> int | None:
        """The launcher's exit code, negative for a signal; None while it runs."""
        if self._popen is not None:
            return self._popen.poll()
        assert self._forked is not None
        return self._forked.exitcode

    def running(self) -> bool:
        return self.code() is None

    def ranks(self, limit: float = 60.0) -> list[psutil.Process]:
        """The ranks' processes in rank order, known also after the launcher is gone."""
        end = time.monotonic() + limit
        while not self._ranks and self.running() and time.monotonic() < end:
            with contextlib.suppress(psutil.NoSuchProcess):
                found = psutil.Process(self.pid).children()
                if len(found) == self.world_size:
                    self._ranks = sorted(found, key=lambda process: (process.create_time(), process.pid))
            time.sleep(0.003)
        return self._ranks

    def signal_rank(self, rank: int, number: int) -> None:
        with contextlib.suppress(psutil.NoSuchProcess, IndexError):
            self._ranks[rank].send_signal(number)

    def signal_launcher(self, number: int) -> None:
        if self.running():
            os.kill(self.pid, number)

    def kill_all(self) -> None:
        """As when a node loses its power: nobody is left to tidy up."""
        self.signal_launcher(signal.SIGKILL)
        for rank in range(len(self._ranks)):
            self.signal_rank(rank, signal.SIGKILL)
        self.wait(30.0)

    def wait(self, limit: float) -> int:
        """The launcher's exit code. Raises TimeoutError when it or a rank is still there after the limit."""
        self.ranks()
        end = time.monotonic() + limit
        while (code := self.code()) is None:
            if time.monotonic() > end:
                raise TimeoutError(f"the run hangs: no end after {limit:.0f} s")
            time.sleep(0.01)
        self.wait_for_ranks(10.0)
        return code

    def wait_for_ranks(self, limit: float) -> None:
        """Raises TimeoutError when a rank outlives its launcher by more than `limit` seconds."""
        _, alive = psutil.wait_procs(self._ranks, limit)
        if alive:
            numbers = [rank for rank, process in enumerate(self._ranks) if process in alive]
            raise TimeoutError(f"ranks {numbers} are still there {limit:.0f} s after their launcher")

    def end(self) -> None:
        """End what is left, so that nothing outlives the case."""
        self.signal_launcher(signal.SIGKILL)
        for rank in range(len(self._ranks)):
            self.signal_rank(rank, signal.SIGKILL)

    def text(self) -> str:
        return self.log.read_text(errors="replace")
