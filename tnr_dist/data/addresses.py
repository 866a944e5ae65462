"""Reading what an address gives: `pipe:` commands, URLs and local files, never more than is expected nor for ever."""

from __future__ import annotations

import os
import select
import signal
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit
from urllib.request import url2pathname

from tnr_dist.util.errors import InputError
from tnr_dist.util.redaction import without_secrets

#: Seconds in which an address must have given a whole shard.
READ_SECONDS = 300.0
_GRACE = 5.0  # seconds for a command to end after its output
_PIECE = 1 << 20


def is_address(where: str) -> bool:
    """Whether this is a URL or a command, and no path."""
    return "://" in where or where.startswith(("pipe:", "file:"))


def read_address(where: str, most: int) -> bytes:
    """What an address or a path gives.

    Raises:
        OSError: it cannot be read, a command failed, more than `most` bytes came, or there was no end in `READ_SECONDS`.
        InputError: it is a URL and webdataset is not installed.
    """
    if where.startswith("pipe:"):
        # A group of its own, so that everything that the command has started ends with it.
        process = subprocess.Popen(where[5:], shell=True, stdout=subprocess.PIPE, start_new_session=True)
        assert process.stdout is not None
        return _read(process.stdout, process, lambda: os.killpg(process.pid, signal.SIGKILL), most)
    if where.startswith("file:"):
        return read_file(Path(url2pathname(urlsplit(where).path)), most)
    if not is_address(where):
        return read_file(Path(where), most)
    try:
        from webdataset.gopen import gopen_schemes
    except ImportError:
        raise InputError(
            f"{without_secrets(where)}: reading URLs needs the webdataset package (pip install webdataset)"
        ) from None
    # Not `gopen`: it rewrites addresses, into commands too, as a variable of the environment says.
    stream = gopen_schemes.get(urlsplit(where).scheme, gopen_schemes["__default__"])(where, "rb", 8192)
    if not hasattr(stream, "proc"):
        with stream:
            return _checked(stream.read(most + 1), most)
    return _read(stream.stream, stream.proc, stream.proc.kill, most)


def read_file(path: Path, most: int) -> bytes:
    """A file's bytes. Raises OSError when it cannot be read, is no regular file or is larger than `most`."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError("not a regular file")
    if found.st_size > most:
        raise OSError(f"{found.st_size:,} bytes, the index says {most:,}")
    with path.open("rb") as file:
        return _checked(file.read(most + 1), most)


def _checked(data: bytes, most: int) -> bytes:
    if len(data) > most:
        raise OSError(f"more than the {most:,} bytes of the index")
    return data


def _read(stream: IO[bytes], process: subprocess.Popen[bytes], kill: Callable[[], None], most: int) -> bytes:
    """A process's output, up to its end; the process is over afterwards."""
    end = time.monotonic() + READ_SECONDS
    # Not `select`, which knows 1,024 open files only.
    ready = select.poll()
    ready.register(stream, select.POLLIN)
    pieces: list[bytes] = []
    size = 0
    try:
        while size <= most:
            if not ready.poll(1000 * max(end - time.monotonic(), 0)):
                raise OSError(f"no end within {READ_SECONDS:g} s")
            piece = os.read(stream.fileno(), _PIECE)
            if not piece:
                break
            pieces.append(piece)
            size += len(piece)
        if size <= most:
            status = process.wait(_GRACE)
            if status:
                raise OSError(f"exit {status}")
        return _checked(b"".join(pieces), most)
    except subprocess.TimeoutExpired:
        raise OSError("the command does not end after its output") from None
    finally:
        if process.poll() is None:
            kill()
            process.wait()
        stream.close()
