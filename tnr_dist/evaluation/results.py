"""results.json of a scored run and baselines.json of an experiment, read with every value of the kind that it must be."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TypedDict

from tnr_dist.evaluation.metrics import Figures
from tnr_dist.util.digests import read_sealed
from tnr_dist.util.errors import InputError
from tnr_dist.util.json_types import checked

MOST_BYTES = 16 << 20  # of a file of a run folder


class ModelSize(TypedDict, total=False):
    """How large a scored model is."""

    layers: int
    parameters: int
    news_encoder_parameters: int


class MadeFrom(TypedDict, total=False):
    """What results follow from (`stages.evaluate.result_key`)."""

    run: str
    data: str
    split: str
    history: int
    news_inputs: list[str]
    tokens: list[int]
    precision: str


class Results(Figures, total=False):
    """results.json. A key that is missing, or null, is one that an older version did not write."""

    stage: str
    split: str
    tied: float
    model: ModelSize
    seed: int
    seconds: float
    train_seconds: float | None
    news_per_s: float
    made_from: MadeFrom
    files: dict[str, object]


def read_results(path: Path) -> Results:
    """A run's results.json. Raises InputError for what it cannot hold, and when it is damaged."""
    return checked(read_sealed(path), Results, f"{path}: ")


def read_baselines(path: Path, scored_on: Collection[tuple[str, str]] = ()) -> dict[str, Figures]:
    """Figures of what needs no training, by name; none where they are of other data and splits than `scored_on` has.

    Raises InputError as `read_results`.
    """
    found = read_sealed(path)
    rows, made_from = found.get("rows"), found.get("made_from")
    of = made_from if isinstance(made_from, dict) else {}
    if scored_on and of and (str(of.get("data", "")), str(of.get("split", ""))) not in scored_on:
        return {}
    objects = {name: row for name, row in rows.items() if isinstance(row, dict)} if isinstance(rows, dict) else {}
    if not isinstance(rows, dict) or len(objects) < len(rows):
        raise InputError(f"{path}: rows is missing or no object of objects; delete it, and `tnr run` makes it again")
    return {name: checked(row, Figures, f"{path}: rows.{name}.") for name, row in objects.items()}
