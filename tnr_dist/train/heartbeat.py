"""Which rank is gone: every rank touches a file in the run folder, so that the others can name the one that stopped.

A collective that fails says "connection closed" or "timed out" and not by whom. Files rather than a socket of our own: the
run folder is shared by all ranks anyway, and it works under every engine.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from tnr_dist.engines.broken import is_broken, reason
from tnr_dist.launch.environment import Environment
from tnr_dist.util import preemption
from tnr_dist.util.errors import RankLost

_EVERY = 2.0  # seconds between two beats
_SILENT = 3 * _EVERY


class Heartbeat:
    """Beats from construction to `close`; `folder` is the run's `heartbeat/`."""

    def __init__(self, folder: Path, environment: Environment) -> None:
        self.folder, self.rank, self.world = folder, environment.rank, environment.world_size
        self._stop = threading.Event()
        self._mine = folder / f"rank-{self.rank:05d}"
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        if self.world > 1:
            folder.mkdir(parents=True, exist_ok=True)
            self._mine.write_text(socket.gethostname(), encoding="utf-8")
            self._thread.start()

    def _beat(self) -> None:
        while not self._stop.wait(_EVERY):
            with contextlib.suppress(OSError):  # a full disk is the checkpoint's to report
                self._mine.touch()

    def silent(self) -> list[str]:
        """The other ranks that have not beaten for a while, as `rank 1 (host node2)`.

        Ages are compared with this rank's own file: the file server's clock is one for all.
        """
        try:
            now = self._mine.stat().st_mtime
        except OSError:
            return []
        names = []
        for rank in range(self.world):
            file = self.folder / f"rank-{rank:05d}"
            try:
                if rank != self.rank and now - file.stat().st_mtime > _SILENT:
                    names.append(f"rank {rank} (host {file.read_text(encoding='utf-8')})")
            except OSError:
                names.append(f"rank {rank}")
        return names

    def wait_for_silent(self) -> list[str]:
        """`silent`, after waiting long enough for a rank that has just died to be missed."""
        deadline = time.monotonic() + _SILENT + 2 * _EVERY
        # A rank that was asked to stop itself need not find out why the others are gone.
        while not (names := self.silent()) and time.monotonic() < deadline and not preemption.stop_requested():
            time.sleep(_EVERY / 4)
        return names

    def close(self) -> None:
        """Stop beating. The file goes only where the others ended too: a rank that leaves alone is missed."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def remove(self) -> None:
        """All ranks are done."""
        self.close()
        self._mine.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # others may still be in there
            self.folder.rmdir()


@contextlib.contextmanager
def watched(folder: Path, environment: Environment) -> Iterator[None]:
    """Around work that talks to the other ranks: a collective that fails becomes a RankLost that names who is gone."""
    beat = Heartbeat(folder, environment)
    try:
        yield
        beat.remove()
    except torch.OutOfMemoryError:  # all ranks may meet it at once
        raise
    except RuntimeError as error:
        names = beat.wait_for_silent() if environment.world_size > 1 else []
        if not names and not (environment.world_size > 1 and is_broken(error)):
            raise
        raise rank_lost_error(environment, error, ", ".join(names)) from error
    finally:
        beat.close()


def rank_lost_error(environment: Environment, error: BaseException, who: str = "") -> RankLost:
    """What a failed message becomes; `who` is gone, if that is known."""
    return RankLost(
        f"rank {environment.rank}: lost {who or 'another rank, or the way to it'} ({reason(error)}); run the same command "
        "again: it continues from the newest checkpoint"
    )
