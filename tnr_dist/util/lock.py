"""One process at a time in a folder: a lock of the operating system, and a lease for where that is not enough.

The lock goes when its process ends, however it ends. The lease is the time of the lock's last change, which the holder renews
every two seconds (`lease.Lease`). The lock of a machine that died may stay: a holder that was silent for a minute has lost its
folder. And where locks reach no further than one machine, or are not to be had, what is renewed is respected.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import stat
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tnr_dist.util import preemption, restarts
from tnr_dist.util.errors import EarlierStart, InputError, Preempted
from tnr_dist.util.lease import BEAT, WANTED, Lease, ask_for, machine, mark
from tnr_dist.util.progress import say

try:
    import fcntl
except ImportError:  # Windows
    raise InputError("tnr_dist locks its folders with fcntl, which this system has not; it runs on Linux") from None

LOCK = ".lock"
_HOLDER = re.compile(rb"process \d+ on [^\n]*")
_LEASE = re.compile(r", lease ([0-9a-f]+)-[0-9a-f]+$")
_PATIENCE = 3.0  # seconds: a killed process of the same job may take a moment to be gone
_LOCK_WAIT = 300.0  # the same where a job was started again: ranks that lost the others notice that later
_POLL = 0.05  # seconds between two looks, at first
_SILENT = 5 * BEAT  # seconds without a sign of life after which a holder is gone, where no lock says that it is there
_LEASE_TIME = 60.0  # the same where one does: it may have been stopped, or be waiting for its file server
_LONG_AGO = 600.0  # seconds that no two clocks differ by
_SETTLE = 0.5  # seconds after which the other one of two that took a lock at the same time must have seen it


@contextlib.contextmanager
def held(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold `folder` (made where it is missing) for this process; with `shared` beside others that share it.

    The file `folder/.lock` says who holds it and goes with the block. Who loses it inside the block, having been silent for a
    minute, cannot publish anything there any more (`lease.check`). Raises InputError naming host and process of whoever holds
    it, and for a `.lock` that no process of ours has made: a folder that came from elsewhere may hold a link to any file of its
    user. A job that was started again waits for minutes instead (TNR_LOCK_WAIT), and asks its former life to stop; then it raises
    EarlierStart, or Preempted when it is itself asked to stop.
    """
    existed = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    lease = _take(path, shared)
    try:
        yield
    finally:
        lease.end()
        with contextlib.suppress(OSError):
            # Of several that share the folder the last one removes the file.
            if lease.locked:
                fcntl.flock(lease.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if lease.still_holds() and (lease.locked or not shared):
                path.unlink()
        os.close(lease.handle)
        if not existed:
            with contextlib.suppress(OSError):
                folder.rmdir()  # where nothing came to be in it


def is_held(folder: Path) -> bool:
    """Whether a process holds `folder` now, this one too."""
    path = folder / LOCK
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        state = _lock(handle, fcntl.LOCK_EX)
        found = _Found.read(handle)
        return state == "refused" or (found.counts(state) and _age(path, found) < _SILENT)
    finally:
        os.close(handle)


# Taking it ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Found:
    """What a lock says: its text, and when its holder gave the last sign of life (None: by a version that gives none)."""

    text: str
    changed: float
    machine: str | None

    @classmethod
    def read(cls, handle: int) -> _Found:
        text = os.pread(handle, 300, 0).decode(errors="replace")
        lease = _LEASE.search(text)
        return cls(text, os.fstat(handle).st_mtime, lease[1] if lease else None)

    @property
    def holder(self) -> str:
        """For people."""
        return _LEASE.sub("", self.text) or "another process"

    def counts(self, state: str) -> bool:
        """Whether the signs of life are to be looked at: not where the lock itself says that its process has ended."""
        return self.machine is not None and (state == "none" or self.machine != machine())


class _Watch:
    """Signs of life, seen by this machine's clock: those of two machines may differ."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen_alive = False  # a sign of life came while this process looked
        self._last: tuple[str, float] | None = None
        self._since = self._asked = 0.0
        self._age = 0.0

    def observe(self, found: _Found) -> None:
        now = time.monotonic()
        if (found.text, found.changed) != self._last:
            self.seen_alive = self._last is not None and self._last[0] == found.text
            self._last, self._since, self._asked = (found.text, found.changed), now, 0.0
        if now > self._asked + 1.0:
            self._asked, self._age = now, _age(self.path, found)

    def silent(self, seconds: float) -> bool:
        """Whether the holder has been silent for so long."""
        watched = time.monotonic() - self._since
        return (
            watched >= seconds or self._age > _LONG_AGO or (self._age > seconds and watched >= min(3 * BEAT, seconds))
        )

    def may_be_silent(self, seconds: float) -> bool:
        """Whether it may turn out to be silent for so long, which a little more patience will tell."""
        return not self.seen_alive and self._age > seconds


def _take(path: Path, shared: bool) -> Lease:
    """The lease of the lock `path`. Raises as `held`."""
    began, watch, again = time.monotonic(), _Watch(path), restarts.restarts() > 0
    patience = _lock_wait() if again else _PATIENCE
    while True:
        handle = _open(path)
        try:
            state = _lock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            named = _is_named(handle, path)  # else whoever held it has removed the file meanwhile
            found = _Found.read(handle)
            watch.observe(found)
            lease = _claim(path, handle, found, state, shared, watch) if named else None
        except BaseException:
            os.close(handle)
            raise
        if lease is not None:
            if lease.handle != handle:
                os.close(handle)
            with contextlib.suppress(OSError):
                path.with_name(WANTED).unlink()
            return lease
        os.close(handle)
        if not named:
            continue
        waited = time.monotonic() - began
        if waited > patience and not (not again and _undecided(found, state, watch)):
            raise _refusal(path, found, waited, again)
        if again:
            if preemption.stop_requested():
                raise Preempted(f"{path.parent}: stopped while it waited for {found.holder}; run it again to resume")
            ask_for(path)
        time.sleep(_POLL if waited < _PATIENCE else 10 * _POLL)


def _claim(path: Path, handle: int, found: _Found, state: str, shared: bool, watch: _Watch) -> Lease | None:
    """The lease where the lock is free, or its holder was silent for too long; None where it is respected."""
    if state == "refused":
        if found.machine is None or not watch.silent(_LEASE_TIME):
            return None
        return _replace(path, found, shared)
    respected = found.counts(state) and not (shared and _is_shared(found))
    if respected and not watch.silent(_SILENT):
        return None
    text = _text(shared)
    _write(path, handle, text)
    if respected or state == "none":
        time.sleep(_SETTLE)
        if not shared and not _holds_text(path, text):
            return None
    return Lease(path, handle, None if shared else text.encode(), locked=state == "locked")


def _replace(path: Path, found: _Found, shared: bool) -> Lease | None:
    """Put a lock of our own into the place of one whose holder is silent, but has not given it up."""
    temporary = path.with_name(f".lock-{uuid.uuid4().hex[:12]}.tmp")
    text = _text(shared)
    handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        _write(temporary, handle, text)
        _lock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        other = _open(path)
        now = _Found.read(other)
        os.close(other)
        if now == found:
            temporary.replace(path)
            time.sleep(_SETTLE)
            if _is_named(handle, path):
                say(f"{path.parent}: taken over from {found.holder}, which was silent for a minute")
                return Lease(path, handle, None if shared else text.encode(), locked=True)
    except BaseException:
        temporary.unlink(missing_ok=True)
        os.close(handle)
        raise
    temporary.unlink(missing_ok=True)
    os.close(handle)
    return None


def _undecided(found: _Found, state: str, watch: _Watch) -> bool:
    """Whether more patience will tell if the holder is alive."""
    if state == "refused":
        return found.machine is not None and watch.may_be_silent(_LEASE_TIME)
    return found.counts(state) and not watch.seen_alive


def _refusal(path: Path, found: _Found, waited: float, again: bool) -> Exception:
    if again:
        return EarlierStart(
            f"{path.parent}: {found.holder} is still using it, after {waited:.0f} s; run the same command again once it has "
            "ended"
        )
    return InputError(
        f"{path.parent}: {found.holder} is using it; wait until it ends, stop it, or choose another output"
    )


def _lock_wait() -> float:
    text = os.environ.get("TNR_LOCK_WAIT", "")
    try:
        seconds = float(text or _LOCK_WAIT)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise InputError(f"TNR_LOCK_WAIT={text!r}: expected seconds, such as 300")
    return seconds


# The file -------------------------------------------------------------------------------------------------------------


def _lock(handle: int, kind: int) -> str:
    """`locked`; `refused`, where another process has the lock; `none`, where the file system has no locks."""
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return "refused"
    except OSError:
        return "none"
    return "locked"


def _text(shared: bool) -> str:
    job = f" (job {restarts.job()}, restart {restarts.restarts()})" if restarts.job() else ""
    host = " ".join(socket.gethostname().split())
    return f"process {os.getpid()} on {host}{job}{' with others' if shared else ''}, lease {mark()}"


def _is_shared(found: _Found) -> bool:
    return found.holder.endswith(" with others")


def _holds_text(path: Path, text: str) -> bool:
    """Whether the lock says this. Opened anew: a network file system looks then."""
    handle = _open(path)
    try:
        return _Found.read(handle).text == text
    finally:
        os.close(handle)


def _write(path: Path, handle: int, text: str) -> None:
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, text.encode(), 0)
    except OSError as error:
        error.filename = str(path)
        raise


def _age(path: Path, found: _Found) -> float:
    """Seconds since the last sign of life, by the file server's clock: that of a file made now."""
    probe = path.with_name(f".lock-{uuid.uuid4().hex[:12]}.tmp")
    try:
        handle = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            return os.fstat(handle).st_mtime - found.changed
        finally:
            os.close(handle)
            probe.unlink(missing_ok=True)
    except OSError:  # nothing can be written there
        return time.time() - found.changed


def _open(path: Path) -> int:
    """The lock's file, made where it is missing; nothing else is ever opened for writing."""
    try:
        # O_NONBLOCK: a named pipe or a device must not be waited for.
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENODEV):
            raise InputError(f"{path}: not a lock but {_kind(path)}; remove it") from None
        raise
    found = os.fstat(handle)
    ours = stat.S_ISREG(found.st_mode) and found.st_nlink <= 1
    if ours and found.st_size:
        ours = _HOLDER.fullmatch(os.pread(handle, 300, 0)) is not None
    if not ours:
        os.close(handle)
        raise InputError(f"{path}: not a lock but {_kind(path)}; remove it")
    return handle


def _kind(path: Path) -> str:
    mode = path.lstat().st_mode
    kinds = {stat.S_ISLNK: "a symbolic link", stat.S_ISDIR: "a folder", stat.S_ISFIFO: "a named pipe"}
    found = next((name for is_it, name in kinds.items() if is_it(mode)), "")
    return found or ("a file of something else" if stat.S_ISREG(mode) else "a device or a socket")


def _is_named(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False
