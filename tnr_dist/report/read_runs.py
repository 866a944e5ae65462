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
from typing import TypedDict

import yaml

from tnr_dist.evaluation.results import MOST_BYTES, Results, read_results
from tnr_dist.runs.finished import DONE, Mark, damage
from tnr_dist.runs.folder import plain_name
from tnr_dist.runs.places import data_folder
from tnr_dist.runs.tracker import METRICS, of_part_batches, read_metrics
from tnr_dist.util.digests import check_seal, fault
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import read_json_object, read_text
from tnr_dist.util.json_types import JsonObject, checked
from tnr_dist.util.progress import say
from tnr_dist.util.redaction import without_secrets
from tnr_dist.util.yaml_text import load_yaml

_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_SEED = re.compile(r"seed-(\d+)")
_LARGEST, _SMALLEST = 1e100, 1e-100


class Environment(TypedDict, total=False):
    """What a report shows of environment.json."""

    device: str
    started: object


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
    made_from: Mark
    complete: Mark | None
    results: Results | None
    config: dict[str, object]
    records: list[JsonObject]
    evaluations: list[JsonObject]
    environment: Environment
    written: float

    @property
    def stage(self) -> str:
        """Which stage makes it."""
        return str(self.made_from["stage"])

    @property
    def name(self) -> str:
        """The folder's name without the mark of its settings."""
        return plain_name(self.path.name)

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
        section = self.config.get("data")
        place = section.get("dir") if isinstance(section, dict) else None
        return (data_folder(self.path, place) or Path(place)) if isinstance(place, str) and place else None

    @cached_property
    def total_steps(self) -> int | None:
        """Steps of the whole training; None where the records do not say."""
        if self.complete is not None:
            steps = number(self.complete.get("steps"))
            return None if steps is None else int(steps)
        settings = self.made_from["settings"]
        epochs = [n for key, value in settings.items() if key.endswith(".epochs") and (n := number(value))]
        most = [n for key, value in settings.items() if key.endswith(".max_steps") and (n := number(value))]
        last = self.records[-1] if self.records else {}
        step, epoch = number(last.get("step")), number(last.get("epoch"))
        if not step or not epoch or len(epochs) != 1 or (per_epoch := number(step / epoch)) is None:
            return None
        total = int(epochs[0] * round(per_epoch))
        return min(total, int(most[0])) if most else total

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


def number(value: object) -> float | None:
    """A number that sums and charts can take, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:  # of 400 digits
        return None
    if abs(found) < _SMALLEST:
        return 0.0
    return found if abs(found) < _LARGEST else None  # NaN is not below anything


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
    """A run folder. Raises InputError for a damaged file; what only its curves show is said and shown all the same."""
    begun = DONE if (path / DONE).is_file() else "begun.json"
    read = _read_object(path / begun)
    if not isinstance(read.get("stage"), str):
        raise InputError(f"{path}: its {begun} names no stage; not a run folder")
    mark = checked(read, Mark, f"{path / begun}: ")
    if not all(isinstance(one, str) for one in (mark.get("inputs") or {}).values()):
        raise InputError(f"{path / begun}: inputs holds what is no id; it is damaged, make it again")
    check_seal(path / begun, read)
    complete = mark if begun == DONE else None
    shown: JsonObject = without_secrets(read)
    made_from = checked(shown, Mark, f"{path / begun}: ")
    made_from["settings"], made_from["extra"] = mark.get("settings") or {}, mark.get("extra") or {}
    made_from["inputs"] = mark.get("inputs") or {}
    results = read_results(path / "results.json") if (path / "results.json").is_file() else None
    if results is not None and (complete is None or (results.get("made_from") or {}).get("run") != complete.get("id")):
        results = None  # of a model that was here before
    if complete is not None:
        _report_damage(path, complete, results)
    records = read_metrics(path / "metrics.jsonl")
    said = _read_object(path / "environment.json") if (path / "environment.json").is_file() else {}
    environment = checked(said, Environment, f"{path / 'environment.json'}: ")
    signs = [path / name for name in ("begun.json", "metrics.jsonl", DONE, "config.yaml")]
    return Run(
        path=path,
        base=path.parent.parent if _SEED.fullmatch(path.parent.name) else path.parent,
        made_from=made_from,
        complete=complete,
        results=results,
        config=_read_config(path / "config.yaml"),
        records=[one for one in records if "train/loss" in one],
        evaluations=[one for one in records if "train/loss" not in one],
        environment=environment,
        written=max(file.stat().st_mtime for file in signs if file.is_file()),
    )


def _read_object(path: Path) -> JsonObject:
    return read_json_object(path, MOST_BYTES)


def _report_damage(path: Path, complete: Mark, results: Results | None) -> None:
    for name in ("config.yaml", "environment.json", METRICS):
        found = damage(path, name, complete) if name in (complete.get("files") or {}) else ""
        evaluated = (results or {}).get("files") or {}
        if not found and name in evaluated:
            found = fault(path, name, evaluated, grows=True)
        if found:
            say(f"{path / name}: {found}; it is shown as it is")


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


def _read_config(path: Path) -> dict[str, object]:
    """The tree as it was written: a run of another version may have keys that are no longer known."""
    if not path.is_file():
        return {}
    try:
        # The parser in C, where PyYAML has it: hundreds of runs have hundreds of long configurations.
        tree = load_yaml(read_text(path, MOST_BYTES), str(path), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    # A scalar that looks like a date or a number, or is tagged as one, and is none.
    except (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not a configuration file ({' '.join(str(error).split())})") from None
    except RecursionError:
        raise InputError(f"{path}: not a configuration: nested too deeply") from None
    if not isinstance(tree, dict):
        return {}
    for name in ("data", "plm"):
        if not isinstance(tree.get(name, {}), dict):
            raise InputError(f"{path}: {name} holds no keys; not a configuration file")
    # A report is passed on: what an address carries beside its place is not for everybody.
    return without_secrets({str(key): _plain(one) for key, one in tree.items()})


def _plain(value: object) -> object:
    """A YAML value as JSON has it: dates, sets and bytes as text, and every key."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, str | int | float) else str(value)
