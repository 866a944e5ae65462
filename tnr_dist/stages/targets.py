"""The models of a results table: which run is a row's, for each seed."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

from tnr_dist.config.read import with_overrides
from tnr_dist.config.schema import Config, RowConfig
from tnr_dist.data.dataset import DataSet
from tnr_dist.runs.folder import RunFolder
from tnr_dist.stages.registry import ROWS


def rows_of(config: Config) -> list[RowConfig]:
    """The models of the table; without `rows`, the student of `student.layers` layers."""
    layers = config.student.layers
    return config.rows or [RowConfig(f"Tiny-NewsRec-{layers}", "tiny-newsrec", layers)]


def each_seed(config: Config) -> Iterator[Config]:
    """The configuration of every seed of `tnr run`, each with a folder of its own."""
    for seed in range(config.seed, config.seed + config.seeds):
        one = copy.deepcopy(config)
        one.seed, one.seeds = seed, 1
        one.output = str(Path(config.output) / f"seed-{seed}")
        yield one


def row_config(config: Config, row: RowConfig) -> Config:
    """The configuration of one row: its own settings and its student's size. Raises InputError for a bad setting."""
    one = with_overrides(config, row.set)
    if row.layers:
        one.student.layers = row.layers
    return one


def row_folder(config: Config, data: DataSet, row: RowConfig) -> RunFolder:
    """The run whose model stands in a row of the table."""
    return ROWS[row.method](row_config(config, row), data, row.layers)
