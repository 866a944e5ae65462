"""Digests of files: computed once, remembered by size, times and inode, and compared when a file is opened.

What a stage leaves behind says of each of its files how long it is and what its sha256 is (`describe`); whoever reads the
file asks `fault`. The JSON files that say so end in a digest of their own text (`write_sealed`, `read_sealed`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypedDict

from tnr_dist.util.errors import InputError
from tnr_dist.util.files import read_json, read_json_object, read_text, write_json, write_text
from tnr_dist.util.json_types import Json, JsonObject

SEAL = "digest"  # the key that closes a sealed file


class FileFacts(TypedDict):
    """Size and digest of a file as it was made."""

    bytes: int
    sha256: str


Stated = dict[str, FileFacts]  # by file name

_MOST_REMEMBERED = 2_000  # files
# A file that changed so lately may change again without its time of change becoming another.
_SETTLED = 2.0  # seconds
_WORTH = 1 << 20  # bytes: a smaller file is read again as fast as its digest is looked up and written down
_BLOCK = 1 << 20
_CLOSED = re.compile(rb',\n  "digest": "([0-9a-f]{64})"\n\}\n\Z')

_remembered: dict[str, list[Json]] | None = None


def cache_file() -> Path:
    """Where digests are remembered: TNR_DIGEST_CACHE, or tnr_dist in the user's cache folder."""
    folder = os.environ.get("TNR_DIGEST_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return (Path(folder) if folder else Path(base).expanduser() / "tnr_dist") / "digests.json"


def digest(path: Path | str, size: int | None = None, *, again: bool = False) -> str:
    """sha256 of a file, or of its first `size` bytes, as hexadecimal digits.

    It is taken from `cache_file` where the file has had the same size, times and inode before. `again` reads the file
    in any case: a disk may damage what no program has written to.
    """
    path = Path(path)
    key = f"{path.resolve()}:{'' if size is None else size}"
    before = _signature(path.stat())
    if not again and (known := _known().get(key)) is not None and known[:-1] == before:
        return str(known[-1])
    found = _sha256(path, size)
    after = path.stat()
    settled = time.time() - after.st_ctime > _SETTLED
    if _signature(after) == before and settled and after.st_size >= _WORTH:
        _remember(key, [*before, found])
    return found


def describe(folder: Path, names: Iterable[str]) -> Stated:
    """Size and sha256 of files of a folder, by name."""
    return {
        name: {"bytes": (folder / name).stat().st_size, "sha256": digest(folder / name, again=True)} for name in names
    }


def fault(folder: Path, name: str, stated: Mapping[str, object], *, grows: bool = False, again: bool = False) -> str:
    """What is wrong with a file of which `stated` says size and sha256; '' if nothing is.

    With `grows` the file may have been added to since. `again` as in `digest`.
    """
    path, line = folder / name, stated.get(name)
    if line is None:
        return "not one of the files that it was finished with"
    facts = line if isinstance(line, dict) else {}
    length, sha256 = facts.get("bytes"), facts.get("sha256")
    if type(length) is not int or not isinstance(sha256, str):
        return "its size and sha256 are not stated"
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            return "not a plain file (a folder, a pipe or a device)"
        size = found.st_size
        if size < length or (size > length and not grows):
            return f"damaged, it has {size:,} bytes instead of {length:,}"
        if digest(path, length if grows else None, again=again) != sha256:
            return "damaged, its sha256 is not what it was when it was made"
    except OSError as error:
        return "missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
    return ""


# Files that say what others must be -----------------------------------------------------------------------------------


def write_sealed(path: Path | str, value: Mapping[str, object]) -> JsonObject:
    """Write a JSON object that ends in the sha256 of its own text; returns it as it will be read."""
    body = json.dumps({name: one for name, one in value.items() if name != SEAL}, indent=2, allow_nan=False)
    body = body.removesuffix("\n}")
    found = hashlib.sha256(body.encode()).hexdigest()
    write_text(path, f'{body},\n  "{SEAL}": "{found}"\n}}\n')
    return read_json_object(path)


def read_sealed(path: Path | str) -> JsonObject:
    """Read what `write_sealed` wrote; a file without a seal, from an older version, is taken as it is.

    Raises InputError as `check_seal`, and for what is no JSON object.
    """
    value = read_json_object(path)
    check_seal(path, value)
    return value


def is_sealed(value: object) -> bool:
    """Whether an object that was read has a seal, or had one before a bit of the seal's name was flipped."""
    return isinstance(value, dict) and ("files" in value or any(map(_names_seal, value)))


def _names_seal(name: str) -> bool:
    return len(name) == len(SEAL) and sum((ord(a) ^ ord(b)).bit_count() for a, b in zip(name, SEAL, strict=True)) <= 1


def check_seal(path: Path | str, value: object) -> None:
    """Raise InputError when an object that was read from `path` has a seal that does not fit its text."""
    if not is_sealed(value):
        return
    text = read_text(path).encode()
    closed = _CLOSED.search(text)
    if closed is None or hashlib.sha256(text[: closed.start()]).hexdigest() != closed[1].decode():
        raise InputError(
            f"{path}: damaged or edited (its own digest differs); copy it again from a sound copy, or make it again"
        )


# What is remembered ---------------------------------------------------------------------------------------------------


def _signature(found: os.stat_result) -> list[Json]:
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _sha256(path: Path, size: int | None) -> str:
    with path.open("rb") as file:
        if size is None:
            return hashlib.file_digest(file, "sha256").hexdigest()
        found = hashlib.sha256()
        while size and (block := file.read(min(size, _BLOCK))):
            found.update(block)
            size -= len(block)
        return found.hexdigest()


def _known() -> dict[str, list[Json]]:
    global _remembered
    if _remembered is None:
        _remembered = _read()
    return _remembered


def _read() -> dict[str, list[Json]]:
    try:
        value = read_json(cache_file())
    except (InputError, OSError, RuntimeError):  # RuntimeError: a user without a home folder
        return {}
    if not isinstance(value, dict):
        return {}
    return {key: one for key, one in value.items() if isinstance(one, list) and len(one) == 5}


def _remember(key: str, line: list[Json]) -> None:
    """Add a line for this process and for later ones. Of two that write at once one's lines are lost: read again then."""
    global _remembered
    known = {**_read(), **_known()}
    known.pop(key, None)
    known[key] = line
    _remembered = dict(list(known.items())[-_MOST_REMEMBERED:])
    with contextlib.suppress(
        OSError, InputError, RuntimeError
    ):  # no home, or a full one: the file is read again next time
        write_json(cache_file(), _remembered)
