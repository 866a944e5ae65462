"""What of a run folder is the run's own: only that is ever deleted, and never through a symbolic link.

A user may keep notes, exports and anything else in a run folder. They stay where they are.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import shutil
from pathlib import Path

from tnr_dist.util import files, lease
from tnr_dist.util.digests import check_seal
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import read_json
from tnr_dist.util.lock import LOCK
from tnr_dist.util.progress import say

MARKS = ("complete.json", "begun.json")
_OWN = (
    "config.yaml",
    "environment.json",
    "metrics.jsonl",
    "results.json",
    "impressions.parquet",
    "prediction.zip",
    "model.safetensors",
    "matching_vectors*.safetensors",
    "news.json",
    "news.safetensors",
    "cache.json",
    "wandb_id",
    ".*.tmp",
    LOCK,
)
_OWN_FOLDERS = {
    "checkpoints": "[0-9]*",
    "models": "*.safetensors",
    "heartbeat": "rank-*",
    "matching": "[0-9a-f]*",
    "wandb": "*",
    "train": "shard-*",
    "dev": "shard-*",
    "test": "shard-*",
}
# What took computing: a checkpoint, a model, a part of the teacher cache.
_WORK = ("checkpoints/[0-9]*", "model.safetensors", "models/*", "news.safetensors", "*/shard-*.tar")


def recorded(path: Path, name: str) -> object:
    """A value of complete.json, or of begun.json before it; None where there is none.

    Raises InputError for a file that is no JSON, and for a damaged one.
    """
    for mark in MARKS:
        if (path / mark).is_file():
            value = read_json(path / mark)
            check_seal(path / mark, value)
            return value.get(name) if isinstance(value, dict) else None
    return None


def is_run(path: Path) -> bool:
    """Whether a folder carries our own mark of a run. Raises InputError as `recorded`."""
    return isinstance(recorded(path, "stage"), str)


def is_run_config(path: Path) -> bool:
    """Whether a configuration file is a run folder's own."""
    return path.name == "config.yaml" and any((path.parent / mark).is_file() for mark in MARKS)


def holds_work(path: Path) -> bool:
    """Whether a run has got as far as a checkpoint, or a teacher cache as far as a part of it."""
    return any(any(path.glob(pattern)) for pattern in _WORK)


def is_vacant(path: Path) -> bool:
    """Whether a run may take this place: nothing is there, or an unfinished run that has not computed anything."""
    if path.is_symlink() and not path.is_dir():
        return False
    if not path.exists():
        return True
    if not path.is_dir():
        return False
    # A hidden name is another process of the same stage that is writing begun.json right now.
    names = [one.name for one in path.iterdir() if not one.name.startswith(".")]
    return not names or (not path.is_symlink() and is_abandoned(path))


def is_abandoned(path: Path) -> bool:
    """Whether an unfinished run has computed nothing and the folder holds no other files."""
    if (path / "complete.json").exists() or not is_run(path) or holds_work(path):
        return False
    return not _foreign(path)


def clear(path: Path) -> None:
    """Delete what a run that `is_abandoned` has written, but for begun.json, which the next one replaces."""
    check_no_link(path)
    _remove_own(path, keep=(LOCK,))


def sweep(path: Path) -> None:
    """Delete what a killed process was writing into a run's folder."""
    for folder in (path, *(path / name for name in _OWN_FOLDERS)):
        if not folder.is_symlink() or folder == path:
            files.sweep(folder)


def set_aside(path: Path, name: str) -> Path:
    """Rename a run's folder to `name` with a mark of its content, where it is found again by its settings.

    Raises InputError for a folder that is not a run of ours, and for a symbolic link.
    """
    check_no_link(path)
    if not is_run(path):
        raise InputError(f"{path}: exists and is not a run; nothing of it is replaced, move it away")
    key = recorded(path, "key")
    if not isinstance(key, str):
        mark = next(path / one for one in MARKS if (path / one).is_file())
        key = hashlib.sha256(mark.read_bytes()).hexdigest()
    first = path.with_name(f"{name}-{key[:10]}")
    place, number = first, 2
    while place.exists() or place.is_symlink():
        place, number = first.with_name(f"{first.name}.{number}"), number + 1
    path.rename(place)
    lease.forget(path)
    (place / LOCK).unlink(missing_ok=True)  # it is held for the name that the folder had
    return place


def discard(path: Path) -> None:
    """Delete a run that was set aside, its complete.json first; what is not the run's own stays, and is named."""
    if not path.is_dir() or path.is_symlink() or not is_run(path):
        return
    (path / "complete.json").unlink(missing_ok=True)
    _remove_own(path)
    (path / "begun.json").unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        path.rmdir()
    if path.exists():
        left = ", ".join(sorted(one.name for one in path.iterdir()))
        say(f"{path}: the run was replaced; kept is what is not its own: {left}")


def check_no_link(path: Path) -> None:
    """Raise InputError for a symbolic link: what it leads to may be anybody's."""
    if path.is_symlink():
        raise InputError(
            f"{path}: a symbolic link; nothing is replaced through one, remove the link or choose another output"
        )


def _foreign(path: Path) -> list[Path]:
    """What in a run's folder the run has not written, looking into its own folders too."""
    left = []
    for one in path.iterdir():
        if one.name in MARKS or (_is_own(one.name) and not one.is_dir()):
            continue
        pattern = _OWN_FOLDERS.get(one.name)
        if pattern is None or one.is_symlink() or not one.is_dir():
            if not one.name.startswith("."):
                left.append(one)
        else:
            left += [
                inner for inner in one.iterdir() if not fnmatch.fnmatch(inner.name, pattern) and inner.name[0] != "."
            ]
    return left


def _is_own(name: str) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in _OWN)


def _remove_own(path: Path, keep: tuple[str, ...] = ()) -> None:
    for one in list(path.iterdir()):
        pattern = _OWN_FOLDERS.get(one.name)
        if pattern is not None and one.is_dir() and not one.is_symlink():
            for inner in list(one.iterdir()):
                if fnmatch.fnmatch(inner.name, pattern) or fnmatch.fnmatch(inner.name, ".*.tmp"):
                    _remove(inner)
            with contextlib.suppress(OSError):
                one.rmdir()
        elif _is_own(one.name) and one.name not in keep:
            _remove(one)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
