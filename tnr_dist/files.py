"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tnr_dist.errors import InputError


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it to `path` when the block ends without an error.

    The temporary file or folder is removed on an error, so nothing half-written is ever left under the final name.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
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


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` to `path` as indented JSON, atomically. NaN is an error: it is not JSON."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path | str) -> Any:
    """Read a JSON file; an `InputError` names the file when it is missing or not JSON."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, a number of 5,000 digits; nested without end
        raise InputError(f"{path}: not a JSON file ({error})") from None


def read_json_object(path: Path | str) -> dict[str, Any]:
    """Read a JSON file that holds an object; an `InputError` names the file otherwise."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError(f"{path}: holds a {type(value).__name__}, not a JSON object")
    return value


def file_hash(path: Path | str, algorithm: str = "sha256") -> str:
    """Hexadecimal digest of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
