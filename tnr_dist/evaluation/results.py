"""results.json of a scored run and baselines.json of an experiment, read with every value of the kind that it must be."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from tnr_dist.evaluation.metrics import NAMES
from tnr_dist.util.digests import read_sealed
from tnr_dist.util.errors import InputError

MOST_BYTES = 16 << 20  # of a file of a run folder

_TEXT, _WHOLE, _NUMBER = (str,), (int,), (int, float)
_OBJECT = (dict,)
_SAID = {_TEXT: "text", _WHOLE: "a whole number", _NUMBER: "a number", _OBJECT: "an object"}
# Dotted key -> kinds. A key that is missing, or null, is one that an older version did not write.
_RESULTS: dict[str, tuple[type, ...]] = {
    "stage": _TEXT,
    "split": _TEXT,
    **dict.fromkeys(NAMES, _NUMBER),
    "impressions": _WHOLE,
    "skipped": _WHOLE,
    "tied": _NUMBER,
    "model": _OBJECT,
    "model.layers": _WHOLE,
    "model.parameters": _WHOLE,
    "model.news_encoder_parameters": _WHOLE,
    "seed": _WHOLE,
    "seconds": _NUMBER,
    "train_seconds": _NUMBER,
    "news_per_s": _NUMBER,
    "made_from": _OBJECT,
    "made_from.run": _TEXT,
    "made_from.data": _TEXT,
    "files": _OBJECT,
}
_BASELINE: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(NAMES, _NUMBER),
    "impressions": _WHOLE,
    "skipped": _WHOLE,
}
_LARGEST = 1e300  # a number of 400 digits is none


def read_results(path: Path) -> dict[str, Any]:
    """A run's results.json. Raises InputError for what it cannot hold, and when it is damaged."""
    value = read_sealed(path)
    check_kinds(value, _RESULTS, path)
    return value


def read_baselines(path: Path, scored_on: Collection[tuple[str, str]] = ()) -> dict[str, dict[str, Any]]:
    """Figures of what needs no training, by name; none where they are of other data and splits than `scored_on` has.

    Raises InputError as `read_results`.
    """
    found = read_sealed(path)
    rows, made_from = found.get("rows"), found.get("made_from")
    of = made_from if isinstance(made_from, dict) else {}
    if scored_on and of and (str(of.get("data", "")), str(of.get("split", ""))) not in scored_on:
        return {}
    if not isinstance(rows, dict) or not all(isinstance(row, dict) for row in rows.values()):
        raise InputError(f"{path}: rows is missing or no object of objects; delete it, and `tnr run` makes it again")
    for name, row in rows.items():
        check_kinds(row, _BASELINE, path, f"rows.{name}.")
    return rows


def check_kinds(value: dict[str, Any], kinds: dict[str, tuple[type, ...]], path: Path, where: str = "") -> None:
    """Raise InputError for the first value of an object, by dotted key, that is not of its kind; missing ones are left."""
    for key, kind in kinds.items():
        found: Any = value
        for part in key.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        if found is None:
            continue
        wrong = not isinstance(found, kind) or isinstance(found, bool)
        if wrong or (isinstance(found, int | float) and not abs(found) < _LARGEST):
            raise InputError(
                f"{path}: {where}{key}={str(found)[:60]!r}: not {_SAID[kind]}; it is damaged, make it again"
            )
