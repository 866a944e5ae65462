"""One process at a time in a folder: a lock that the operating system drops when its process ends, however it ends."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from tnr_dist.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    raise InputError("tnr_dist locks its folders with fcntl, which this system has not; it runs on Linux") from None

LOCK = ".lock"
_HOLDER = re.compile(rb"process \d+ on [^\n]*")
_PATIENCE = 3.0  # seconds: a killed process of the same job may take a moment to be gone


@contextlib.contextmanager
def held(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold `folder` (made where it is missing) for this process; with `shared` beside others that share it.

    The file `folder/.lock` says who holds it and goes with the block. A file system without locks (some network file
    systems) guards nothing. Raises InputError naming host and process of whoever holds it, and for a `.lock` that no
    process of ours has made: a folder that came from elsewhere may hold a link to any file of its user.
    """
    existed = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    handle = _take(path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    try:
        if handle is not None:
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        if handle is not None:
            # Of several that share the folder the last one removes the file.
            with contextlib.suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            os.close(handle)
        if not existed:
            with contextlib.suppress(OSError):
                folder.rmdir()  # where nothing came to be in it


def is_held(folder: Path) -> bool:
    """Whether a process holds `folder` now, this one too."""
    try:
        handle = os.open(folder / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no locks on this file system
        pass
    finally:
        os.close(handle)
    return False


def _take(path: Path, kind: int) -> int | None:
    end = time.monotonic() + _PATIENCE
    while True:
        handle = _open(path)
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
            if _is_named(handle, path):
                return handle
            os.close(handle)  # whoever held it has removed the file meanwhile
        except BlockingIOError:
            holder = os.pread(handle, 300, 0).decode(errors="replace")
            os.close(handle)
            if time.monotonic() > end:
                raise InputError(
                    f"{path.parent}: {holder or 'another process'} works in it; wait for its end, end it, or choose "
                    "another output"
                ) from None
            time.sleep(0.05)
        except OSError:  # no locks on this file system
            os.close(handle)
            return None


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
