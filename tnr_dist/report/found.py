"""Run folders as a report reads them: what is there is taken, what is not there yet is no error."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from tnr_dist.errors import InputError
from tnr_dist.files import read_json
from tnr_dist.redaction import without_secrets
from tnr_dist.train.places import data_folder
from tnr_dist.train.tracking import of_part_batches, read_metrics

_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_SEED = re.compile(r"seed-(\d+)")
_MARK = re.compile(r"-[0-9a-f]{10}(\.\d+)?$")  # RunFolder.marked: a mark of the settings


@dataclass(frozen=True)
class Run:
    """One run folder, finished or not.

    Attributes:
        base: the output folder that it lies in, over `seed-N`.
        made_from: stage, settings, extra and inputs (complete.json, or begun.json before it).
        complete: complete.json; None: not finished.
        results: results.json of this very model; None: not evaluated since it was trained.
        config: config.yaml as plain values; empty where it is missing.
        records: logged steps of the training, in order.
        evaluations: records that `tnr evaluate` has added.
        environment: environment.json, what it was run with and on; empty where it is missing.
        written: seconds since 1970 of the last sign of life.
    """

    path: Path
    base: Path
    made_from: dict[str, Any]
    complete: dict[str, Any] | None
    results: dict[str, Any] | None
    config: dict[str, Any]
    records: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]
    environment: dict[str, Any]
    written: float

    @property
    def stage(self) -> str:
        """Which stage makes it."""
        return str(self.made_from["stage"])

    @property
    def name(self) -> str:
        """The folder's name without the mark of its settings."""
        return _MARK.sub("", self.path.name)

    @property
    def id(self) -> str:
        """What other runs call it among their inputs; '' before it is finished."""
        return str((self.complete or {}).get("id", ""))

    @property
    def seed(self) -> int | None:
        """The seed, where one is known."""
        found = _SEED.fullmatch(self.path.parent.name)
        seed = self.made_from["settings"].get("seed", self.config.get("seed", found and int(found[1])))
        return seed if isinstance(seed, int) else None

    @cached_property
    def data(self) -> Path | None:
        """The data set that it was made from, where it lies now or was; None where the configuration names none."""
        place = self.config.get("data", {}).get("dir") if isinstance(self.config.get("data"), dict) else None
        return (data_folder(self.path, place) or Path(place)) if isinstance(place, str) and place else None

    @cached_property
    def total_steps(self) -> int | None:
        """Steps of the whole training; None where the records do not say."""
        if self.complete is not None:
            steps = number(self.complete.get("steps"))
            return None if steps is None else int(steps)
        settings = self.made_from["settings"]
        epochs = [value for key, value in settings.items() if key.endswith(".epochs")]
        most = [value for key, value in settings.items() if key.endswith(".max_steps")]
        last = self.records[-1] if self.records else {}
        step, epoch = number(last.get("step")), number(last.get("epoch"))
        if not step or not epoch or len(epochs) != 1:
            return None
        total = epochs[0] * round(step / epoch)
        return min(total, most[0]) if most and most[0] else total

    @cached_property
    def of_part_batches(self) -> list[bool]:
        """Of every record whether it is of an epoch's last batch, and that smaller than the others."""
        return of_part_batches(self.records)

    @property
    def dates(self) -> list[str]:
        """Days on which it was worked at, as the host had them; of an earlier version's the last sign of life, in UTC."""
        started = self.environment.get("started")
        found = (
            [one[:10] for one in started if isinstance(one, str) and _DAY.match(one)]
            if isinstance(started, list)
            else []
        )
        return found or [time.strftime("%Y-%m-%d", time.gmtime(self.written))]

    def column(self, key: str) -> list[float | None]:
        """A figure of every record; None where it is missing or not finite."""
        return [number(record.get(key)) for record in self.records]

    def mean(self, key: str) -> float | None:
        """A figure's mean over the records but the first, in which everything is still warming up."""
        values = [value for value in self.column(key) if value is not None]
        values = values[1:] or values
        return math.fsum(values) / len(values) if values else None

    def last(self, key: str) -> float | None:
        """A figure's last value."""
        return next((value for value in reversed(self.column(key)) if value is not None), None)


def number(value: Any) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def find_runs(paths: Sequence[Path]) -> list[Run]:
    """All runs at and under the paths, each once, in the order of the paths and of their names.

    Raises InputError when a path does not exist or none holds a run, or for a damaged file.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        if not path.is_dir():
            raise InputError(f"{path}: no such folder; give run folders, output folders or configuration files")
        for folder in _run_folders(path):
            found.setdefault(folder.resolve(), folder)
    if not found:
        where = ", ".join(map(str, paths))
        raise InputError(f"{where}: no run there (a folder with begun.json or complete.json); start one with `tnr run`")
    return [read_run(path) for path in found.values()]


def read_run(path: Path) -> Run:
    """A run folder. Raises InputError for a damaged file."""
    complete = read_json(path / "complete.json") if (path / "complete.json").is_file() else None
    made_from = complete if complete is not None else read_json(path / "begun.json")
    if not isinstance(made_from, dict) or not isinstance(made_from.get("stage"), str):
        raise InputError(f"{path}: its {'complete' if complete else 'begun'}.json names no stage; not a run folder")
    made_from = {
        **without_secrets(made_from),
        **{key: made_from.get(key) or {} for key in ("settings", "extra", "inputs")},
    }
    results = read_json(path / "results.json") if (path / "results.json").is_file() else None
    if results is not None and (complete is None or results.get("made_from", {}).get("run") != complete.get("id")):
        results = None  # of a model that was here before
    records = [one for one in read_metrics(path / "metrics.jsonl") if isinstance(one, dict)]
    signs = [path / name for name in ("begun.json", "metrics.jsonl", "complete.json", "config.yaml")]
    return Run(
        path=path,
        base=path.parent.parent if _SEED.fullmatch(path.parent.name) else path.parent,
        made_from=made_from,
        complete=complete,
        results=results,
        config=_read_config(path / "config.yaml"),
        records=[one for one in records if "train/loss" in one],
        evaluations=[one for one in records if "train/loss" not in one],
        environment=read_json(path / "environment.json") if (path / "environment.json").is_file() else {},
        written=max(file.stat().st_mtime for file in signs if file.is_file()),
    )


def _run_folders(path: Path) -> list[Path]:
    out = []
    for folder, below, files in os.walk(path):
        if "complete.json" in files or "begun.json" in files:
            out.append(Path(folder))
            below.clear()
        elif "manifest.json" in files:  # a prepared data set: thousands of shards, no runs
            below.clear()
        below[:] = sorted(name for name in below if not name.startswith("."))
    return out


def _read_config(path: Path) -> dict[str, Any]:
    """The tree as it was written: a run of another version may have keys that are no longer known."""
    if not path.is_file():
        return {}
    try:
        # The parser in C, where PyYAML has it: hundreds of runs have hundreds of long configurations.
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a configuration file ({' '.join(str(error).split())})") from None
    # A report is passed on: what an address carries beside its place is not for everybody.
    return without_secrets(tree) if isinstance(tree, dict) else {}
