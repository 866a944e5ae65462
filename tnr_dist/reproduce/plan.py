"""A study as a graph of runs: every run once, whatever tables and figures need it."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path

from tnr_dist.config.schema import Config
from tnr_dist.data.dataset import DataSet
from tnr_dist.engines.base import Engine
from tnr_dist.reproduce.studies import Study
from tnr_dist.runs.folder import RunFolder, in_order
from tnr_dist.stages.registry import make
from tnr_dist.stages.table_rows import evaluate_run, is_evaluated
from tnr_dist.stages.targets import each_seed, row_folder


@dataclass(frozen=True)
class Work:
    """One run to be made, and scored where it is a row of the table."""

    place: RunFolder
    seed: int
    scored: bool
    needs: list[Path] = field(default_factory=list)

    @property
    def key(self) -> Path:
        """Its folder."""
        return self.place.path

    def is_complete(self) -> bool:
        """Whether there is nothing left to do."""
        return is_evaluated(self.place) if self.scored else self.place.is_complete()

    def run(self, engine: Engine) -> None:
        """Make the run, going on where it was left, and score it."""
        make(self.place, engine)
        if self.scored:
            evaluate_run(self.place, engine)


def study_config(config: Config, study: Study) -> Config:
    """The configuration of a study: its rows, and new folders marked by content, whatever else is being made beside it."""
    one = copy.deepcopy(config)
    one.rows = study.rows
    one.folders = "hashed"
    return one


def plan(config: Config, data: DataSet, study: Study) -> list[Work]:
    """All runs of all seeds, inputs before what is made from them."""
    config = study_config(config, study)
    works = []
    for one in each_seed(config):
        targets = [row_folder(one, data, row) for row in study.rows]
        scored = {place.key for place in targets}
        for place in in_order(targets):
            works.append(Work(place, one.seed, place.key in scored, [need.path for need in place.needs]))
    return works


def levels(works: list[Work]) -> list[list[Work]]:
    """Runs that need nothing of each other side by side: level 0 needs nothing, level k only what lies below."""
    depth: dict[Path, int] = {}
    out: list[list[Work]] = []
    for work in works:
        depth[work.key] = 1 + max((depth[need] for need in work.needs), default=-1)
        if depth[work.key] == len(out):
            out.append([])
        out[depth[work.key]].append(work)
    return out
