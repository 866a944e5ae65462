"""One process at a time in a folder: a lock that the operating system drops when its process ends, however it ends."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from tnr_dist.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    raise InputError("tnr_dist locks its folders with fcntl, which this system has not; it runs on Linux") from None

LOCK = ".lock"
_PATIENCE = 3.0  # seconds: a killed process of the same job may take a moment to be gone


@contextlib.contextmanager
def held(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold `folder` (made where it is missing) for this process; with `shared` beside others that share it.

    The file `folder/.lock` says who holds it and goes with the block. A file system without locks (some network file
    systems) guards nothing. Raises InputError naming host and process of whoever holds it.
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
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
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


def _is_named(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
