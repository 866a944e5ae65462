"""A finished run's files: `complete.json` says how long each is and what its sha256 is, and readers compare."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

from tnr_dist.launch.warn import warn_once
from tnr_dist.util.digests import Stated, check_seal, describe, fault, is_sealed
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import read_json
from tnr_dist.util.json_types import checked

DONE = "complete.json"
#: What later stages, exports and reports read of a run. Checkpoints, side shards and results have digests of their own.
_FILES = (
    "model.safetensors",
    "models/*.safetensors",
    "cache.json",
    "news.json",
    "config.yaml",
    "environment.json",
    "metrics.jsonl",
)
_RECORDS = ("environment.json", "metrics.jsonl")  # of what was done; no stage, evaluation or export reads them
_GROWS = ("metrics.jsonl",)  # `tnr evaluate` adds to it


class Mark(TypedDict, total=False):
    """complete.json, and begun.json before it (runs/folder.py). A key that is missing is one of an older version's."""

    id: str
    stage: str
    settings: dict[str, object]
    extra: dict[str, object]
    inputs: dict[str, str]
    key: str
    tokenizer: str
    places: dict[str, str]
    replaces: str
    seconds: float
    steps: int
    samples: float
    ranks: int
    files: dict[str, object]


def describe_run(run: Path) -> Stated:
    """Size and sha256 of every file of a run that is just finished, for its `complete.json`."""
    names = [str(path.relative_to(run)) for pattern in _FILES for path in sorted(run.glob(pattern))]
    return describe(run, names)


def read_done(run: Path, what: str) -> Mark:
    """A finished run's `complete.json`. Raises InputError that says to run `what` when there is none, or a damaged one."""
    path = run / DONE
    if not path.is_file():
        raise InputError(f"{run}: {what} is not finished there; run that stage first")
    value = read_json(path)
    if not isinstance(value, dict) or not isinstance(value.get("id"), str):
        raise InputError(f"{path}: not a completion mark; delete the folder and run {what} again")
    check_seal(path, value)
    return checked(value, Mark, f"{path}: ")


def check_file(run: Path, name: str) -> None:
    """Raise InputError when a finished run's file is not what `complete.json` says, or the run is not finished.

    Of a run that an older version made nothing is known; that is reported once.
    """
    _check(run, [name], read_done(run, "training"))


def check_run(run: Path) -> None:
    """`check_file` of every file of a finished run; damage to files that no other run uses is only reported."""
    done = read_done(run, "training")
    files = done.get("files")
    names = list(files) if isinstance(files, dict) else ["model.safetensors"]
    _check(run, [name for name in names if name not in _RECORDS], done)
    for name in _RECORDS:
        if name in names and (found := damage(run, name, done)):
            warn_once(run / name, f"{found}; no result depends on it")


def _check(run: Path, names: list[str], done: Mark) -> None:
    stage = done.get("stage", "training")
    for name in names:
        if found := damage(run, name, done):
            raise InputError(
                f"{run / name}: {found}; delete {run} and run {stage} again, or copy the file again from a sound copy"
            )


def damage(run: Path, name: str, done: Mark, *, again: bool = False) -> str:
    """What is wrong with a file of a run with this `complete.json`; '' if nothing is, or nothing is known."""
    files = done.get("files")
    if not is_sealed(done) or not isinstance(files, dict):
        warn_once(run, "made by an older version, which kept no digests: damage to its files would go unseen")
        return ""
    return fault(run, name, files, grows=name in _GROWS, again=again)
