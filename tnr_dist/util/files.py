"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import re
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tnr_dist.util import lease
from tnr_dist.util.errors import InputError
from tnr_dist.util.json_types import Json, JsonObject

_WRITER = re.compile(r"\.([0-9a-f]{8})-(\d+)-[^.]*\.tmp$")  # in a temporary name: host and process
_OLDER = re.compile(r"\.[a-z0-9_]{8}\.tmp$")  # earlier versions did not say
_DAY = 86_400.0  # seconds
_swept: set[Path] = set()  # folders that this process has looked at
MOST_BYTES = 256 << 20  # of a file that is read whole; the index of 100 million impressions has 20 MiB


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it to `path` when the block ends without an error.

    The temporary file or folder is removed on an error, so nothing half-written is ever left under the final name. What
    killed processes have left in the folder goes when a process first writes there. Raises LeaseLost where `path` lies in a
    folder that this process held and another has taken over.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.parent not in _swept:
        _swept.add(path.parent)
        sweep(path.parent, older=False)
    # Who writes it stands in the name, so that what a killed process leaves can be told from what is being written.
    prefix = f".{path.name}.{_host()}-{os.getpid()}-"
    handle, name = tempfile.mkstemp(prefix=prefix, suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    temporary.unlink()
    mode = _mode_of_new(temporary)
    try:
        yield temporary
        _give_mode(temporary, mode)
        if temporary.is_file():
            # The name must not be on disk before the content is.
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        lease.check(path)
        temporary.replace(path)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            error.filename = str(path)  # a full disk does not say of itself which one it is
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
        # Libraries in Rust (safetensors) raise their own errors for what the operating system said.
        if not isinstance(error, OSError) and (found := re.search(r"\(os error (\d+)\)", str(error))):
            raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from error
        raise


def _mode_of_new(path: Path) -> int:
    """The permissions that a new file gets here: the user's umask and the folder's access list decide."""
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    mode = stat.S_IMODE(os.fstat(handle).st_mode)
    os.close(handle)
    path.unlink()
    return mode


def _give_mode(path: Path, mode: int) -> None:
    """Permissions of a new file for what a library (safetensors) has written for its user alone."""
    for file in [path, *path.rglob("*")] if path.is_dir() else [path]:
        found = file.lstat().st_mode if file.exists() else 0
        if stat.S_ISREG(found) and stat.S_IMODE(found) == 0o600:
            file.chmod(mode)


@functools.cache
def _host() -> str:
    """The host, and among its containers the one that numbers processes as this one does."""
    try:
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        space = ""
    return hashlib.sha256(f"{socket.gethostname()} {space}".encode()).hexdigest()[:8]


def sweep(folder: Path, *, older: bool = True) -> None:
    """Remove what killed processes were just writing into `folder` with `atomic_path`, and leave what live ones write.

    A process on another host cannot be asked: what it writes is left alone for a day. With `older` what earlier versions
    left goes, too; other programs may name their files alike.
    """
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(OSError):
            writer, changed = _WRITER.search(path.name), path.lstat().st_mtime
            if writer is None and not (older and _OLDER.search(path.name)):
                continue
            if writer is not None and (
                _writes(int(writer[2]), changed) if writer[1] == _host() else time.time() - changed < _DAY
            ):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _writes(process: int, changed: float) -> bool:
    """Whether a process is there that can have written a file at `changed`: numbers of processes are given again."""
    import psutil

    try:
        return bool(psutil.Process(process).create_time() <= changed + 1.0)
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:  # another user's
        return True


def check_writable(path: Path | str) -> None:
    """Raise InputError unless `path` can be written; for what takes long before there is something to write."""
    path = Path(path)
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another place") from None


def write_text(path: Path | str, text: str) -> None:
    """Write `text` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: object) -> None:
    """Write `value` to `path` as indented JSON, atomically. NaN is an error: it is not JSON."""
    write_text(path, json_text(value))


def json_text(value: object) -> str:
    """What `write_json` writes. Raises ValueError for NaN."""
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def read_bytes(path: Path | str, limit: int = MOST_BYTES) -> bytes:
    """A file's bytes; an `InputError` names it when it is missing, no plain file, or longer than `limit` bytes.

    A named pipe would be waited for and a device has no end, so neither is read.
    """
    path = Path(path)
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            found = os.fstat(file.fileno())
            if stat.S_ISDIR(found.st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
            if not stat.S_ISREG(found.st_mode):
                raise InputError(f"{path}: not a plain file (a pipe or a device); remove it")
            if found.st_size > limit:
                raise InputError(f"{path}: {found.st_size:,} bytes, at most {limit:,} are read of such a file")
            return file.read()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None


def read_text(path: Path | str, limit: int = MOST_BYTES) -> str:
    """A UTF-8 file's text; an `InputError` as `read_bytes`, and for other bytes."""
    data = read_bytes(path, limit)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a UTF-8 text file ({error})") from None


def read_json(path: Path | str, limit: int = MOST_BYTES) -> Json:
    """Read a JSON file; an `InputError` names the file when it is missing, too long or not JSON."""
    data = read_bytes(path, limit)
    try:
        value: Json = json.loads(data.decode("utf-8"))
        return value
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, a number of 5,000 digits; nested without end
        raise InputError(f"{path}: not a JSON file ({error})") from None


def read_json_object(path: Path | str, limit: int = MOST_BYTES) -> JsonObject:
    """Read a JSON file that holds an object; an `InputError` names the file otherwise."""
    value = read_json(path, limit)
    if not isinstance(value, dict):
        raise InputError(f"{path}: holds a {type(value).__name__}, not a JSON object")
    return value


def file_hash(path: Path | str, algorithm: str = "sha256") -> str:
    """Hexadecimal digest of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
