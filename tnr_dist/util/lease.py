"""What a process does with a folder that it holds (`lock.held`): it says that it is alive, and looks before it writes.

A lock of the operating system alone is not enough on a cluster: a file server may keep that of a machine that died, some
network file systems know locks of one machine only or none, and a process that was stopped for long, or cut off from the file
server, does not know that another one works in its folder by now.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import threading
import uuid
from pathlib import Path

from tnr_dist.util import preemption, restarts
from tnr_dist.util.errors import LeaseLost

BEAT = 2.0  # seconds between two signs of life: the lock's time of change
WANTED = ".lock-wanted.tmp"  # beside the lock: the later start of a job that waits for it

_leases: list[Lease] = []  # of this process


@functools.cache
def machine() -> str:
    """This machine until its next boot. Its containers have names of their own, and one kernel that keeps their locks."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        text = os.uname().nodename
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def mark() -> str:
    """What tells a lease from all others: the machine, and a number of its own."""
    return f"{machine()}-{uuid.uuid4().hex[:12]}"


class Lease:
    """A folder that is held, from construction to `end`.

    Args:
        path: the lock, of which `handle` is open; `text`: what it says, None where others share it and say so themselves.
        locked: whether the file system has locks, so that those who share the folder know of each other.
    """

    def __init__(self, path: Path, handle: int, text: bytes | None, *, locked: bool) -> None:
        self.folder = Path(os.path.realpath(path.parent))
        self.path, self.handle, self.locked = path, handle, locked
        self._text = text
        self._guarded = locked or text is not None
        self._told = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        _leases.append(self)
        self._thread.start()

    def still_holds(self) -> bool:
        """Whether the lock is still the one that this process took. Opened anew: a network file system looks then."""
        try:
            seen = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            same = os.path.samestat(os.fstat(seen), os.fstat(self.handle))
            return same and self._text in (None, os.pread(seen, len(self._text or b"") + 1, 0))
        except OSError:  # of a file that is gone from its server
            return False
        finally:
            os.close(seen)

    def check(self) -> None:
        """Raise LeaseLost where the folder is another's by now."""
        if self._guarded and not self.still_holds():
            raise LeaseLost(
                f"{self.folder}: another process took it over while this one was silent (stopped, or cut off from the file "
                "system); it writes nothing more there"
            )

    def forget(self) -> None:
        """Beat no more, and guard nothing: what lies under the folder's name is not what was held."""
        self._stop.set()
        if self in _leases:
            _leases.remove(self)

    def end(self) -> None:
        """The work is done."""
        self.forget()
        self._thread.join()

    def _beat(self) -> None:
        while not self._stop.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(self.handle)  # by the file server's clock
            if not self._told and (
                _is_wanted(self.path.with_name(WANTED)) or (self._guarded and not self.still_holds())
            ):
                self._told = True
                preemption.request_stop()


def check(path: Path) -> None:
    """Before something is put in place at `path`: raise LeaseLost where this process held its folder and has lost it."""
    if _leases:
        place = os.path.realpath(path.parent)
        for lease in [one for one in _leases if Path(place).is_relative_to(one.folder)]:
            lease.check()


def forget(folder: Path) -> None:
    """The folder of this name is not the one any more that was held: it was renamed."""
    place = Path(os.path.realpath(folder))
    for lease in [one for one in _leases if one.folder == place]:
        lease.forget()


def ask_for(path: Path) -> None:
    """Ask an earlier start of this job, should it hold the lock `path`, to stop: it writes a checkpoint and lets go."""
    wanted = path.with_name(WANTED)
    if not restarts.job() or _asks(wanted) == (restarts.job(), restarts.restarts()):
        return
    temporary = wanted.with_name(f".lock-{uuid.uuid4().hex[:12]}.tmp")
    with contextlib.suppress(OSError):
        temporary.write_text(f"job {restarts.job()} restart {restarts.restarts()}\n", encoding="utf-8")
        temporary.replace(wanted)


def _is_wanted(wanted: Path) -> bool:
    job, later = _asks(wanted)
    return bool(job) and job == restarts.job() and later > restarts.restarts()


def _asks(wanted: Path) -> tuple[str, int]:
    """Which start of which job asks for the folder; '' where none does."""
    try:
        handle = os.open(wanted, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return "", 0
    try:
        words = os.pread(handle, 300, 0).decode(errors="replace").split()
    except OSError:
        return "", 0
    finally:
        os.close(handle)
    if len(words) == 4 and words[0] == "job" and words[2] == "restart" and words[3].isdecimal():
        return words[1], int(words[3])
    return "", 0
