"""Runs that differ in nothing but the seed, under one name: the models and trainings that a report compares."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tnr_dist.config.schema import Config, RowConfig
from tnr_dist.data.dataset import DataSet
from tnr_dist.report.read_runs import Run
from tnr_dist.stages.methods import CHOICES, MADE, load_config, sections_behind
from tnr_dist.stages.targets import row_folder, rows_of
from tnr_dist.util.errors import InputError

# The pipeline's order; stages of other versions come after.
STAGES = tuple(made.name for made in MADE)
_NUMBER = re.compile(r"-\d+$")
# Stages that make what others start from.
_NO_ROWS = tuple(made.name for made in MADE if made.trains != "recommender")


@dataclass(frozen=True)
class Group:
    """The seeds of one result.

    Attributes:
        label: unique among the groups of a report: the row's name, else the folder's, with what tells it apart.
        row: its place among the rows of the results table; None: not a row.
        settings: dotted keys -> values of the run and all that it is made from, the seed left out.
    """

    label: str
    runs: tuple[Run, ...]
    row: int | None
    settings: Mapping[str, object]

    @property
    def first(self) -> Run:
        """The run of the lowest seed."""
        return self.runs[0]

    @property
    def stage(self) -> str:
        """The stage that makes it."""
        return self.first.stage

    @property
    def scored(self) -> list[Run]:
        """Those that are evaluated."""
        return [run for run in self.runs if run.results is not None]


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Runs by what they are but for the seed, in the order of the stages and of the rows."""
    members: dict[tuple[str, str, int], list[Run]] = {}
    for run in runs:
        key = _without_seed(run)
        place = 0
        # Of two runs with one seed, something that is not looked at here must differ.
        while any(one.seed == run.seed for one in members.get((str(run.base), key, place), [])):
            place += 1
        members.setdefault((str(run.base), key, place), []).append(run)
    groups = []
    for found in members.values():
        found.sort(key=lambda run: (run.seed is None, run.seed))
        row, name = _row(found[0])
        groups.append(Group(name, tuple(found), row, _lineage(found[0])))
    groups.sort(key=_order)
    return _make_labels_unique(groups)


def differing(settings: Iterable[Mapping[str, object]]) -> list[str]:
    """Keys that do not have the same value everywhere, in the order in which they are met."""
    trees = list(settings)
    keys = dict.fromkeys(key for tree in trees for key in tree)
    return [key for key in keys if len({_text(tree.get(key, _ABSENT)) for tree in trees}) > 1]


def flat(tree: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """A nested tree as dotted keys."""
    out: dict[str, object] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            out |= flat(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out


def value_text(value: object) -> str:
    """A setting's value in words."""
    if value is _ABSENT:
        return "-"
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value) if value != "" else "(empty)"
    return json.dumps(value, ensure_ascii=False)


_ABSENT = object()


def _text(value: object) -> str:
    return "" if value is _ABSENT else json.dumps(value, sort_keys=True)


def _without_seed(run: Run) -> str:
    """What a run is, but for the seed: the same text for all seeds of one result."""
    inputs = {name: one if name == "data" else "" for name, one in run.made_from["inputs"].items()}
    return json.dumps([run.stage, _lineage(run), run.made_from["extra"], inputs], sort_keys=True)


def _lineage(run: Run) -> dict[str, object]:
    """Settings of the run and of the stages that its inputs came from, flat.

    By the configuration, not by the inputs' ids: an input may have been deleted, or may be in the making again.
    """
    sections: set[str] = set()
    for name in run.made_from["inputs"].keys() - {"data"}:
        sections |= sections_behind(_NUMBER.sub("", name))
    upstream = {name: run.config[name] for name in sorted(sections) if isinstance(run.config.get(name), dict)}
    out = {key: value for key, value in flat(upstream).items() if key not in CHOICES}
    own = {key: value for key, value in run.made_from["settings"].items() if key != "seed"}
    return out | flat(own)


def _order(group: Group) -> tuple[int, int, str, str]:
    place = STAGES.index(group.stage) if group.stage in STAGES else len(STAGES)
    return place, 1 << 30 if group.row is None else group.row, group.label, str(group.first.path)


def _row(run: Run) -> tuple[int | None, str]:
    """The row of its configuration that a run is (its number and name), else the name of the folder."""
    if run.stage in _NO_ROWS or run.made_from["extra"].get("teacher"):
        return None, run.name
    try:
        config = load_config(run.path / "config.yaml")
    except InputError:
        return None, run.name  # of another version: its folder's name has to do
    # A row's settings are in its runs' configuration already, so a row that changes less may seem to fit, too.
    fitting = [
        (len(row.set), -number, row.name) for number, row in enumerate(rows_of(config)) if _fits(row, config, run)
    ]
    if not fitting or (len(fitting) > 1 and "key" not in run.made_from):
        return None, run.name
    _, number, name = max(fitting)
    return -number, " ".join(name.split())


def _fits(row: RowConfig, config: Config, run: Run) -> bool:
    """Whether a run is what a row of its own configuration asks for."""
    made_from = run.made_from
    data = DataSet(Path(config.data.dir), {}, str(made_from["inputs"].get("data", "")))
    plm = made_from["settings"].get("plm")
    # The PLM itself may not be here: what it was stands in the run's settings.
    known = {config.plm.name: str(plm["digest"])} if isinstance(plm, dict) and "digest" in plm else {}
    try:
        wanted = row_folder(config, data, row)
        if "key" not in made_from:  # of an earlier version
            return wanted.plain.name == run.name
        return bool(wanted.key_given(known) == made_from["key"])
    except (InputError, KeyError):
        return False


def _make_labels_unique(groups: list[Group]) -> list[Group]:
    """Labels made unique: by the output folder, by the settings that differ, at last by the folder's own name."""
    base = os.path.commonpath([str(group.first.base.absolute()) for group in groups]) if groups else ""

    def folder(group: Group) -> str:
        below = os.path.relpath(group.first.base.absolute(), base)
        return f"{group.first.base.name if below == '.' else below}: {group.label}"

    def settings(group: Group) -> str:
        alike = [one.settings for one in groups if one.label == group.label]
        found = [f"{key}={value_text(group.settings.get(key, _ABSENT))}" for key in differing(alike)]
        return f"{group.label} ({', '.join(found)})" if 0 < len(found) <= 3 else group.label

    for name in (folder, settings, lambda group: f"{group.label} [{group.first.path.name}]"):
        times = Counter(group.label for group in groups)
        across = {
            label: len({one.first.base for one in groups if one.label == label}) > 1 for label, n in times.items()
        }
        groups = [
            replace(group, label=name(group))
            if times[group.label] > 1 and (name is not folder or across[group.label])
            else group
            for group in groups
        ]
    return groups
