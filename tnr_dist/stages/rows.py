"""The models of a results table: which run is a row's, and how any run is made."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tnr_dist.config import Config, RowConfig
from tnr_dist.config_file import with_overrides
from tnr_dist.engines.base import Engine
from tnr_dist.evaluation.results import read_results
from tnr_dist.stages import cache, finetune, post_train, stage1, stage2
from tnr_dist.stages.baselines import further_pretrain, newsbert, tinybert
from tnr_dist.stages.common import DataSet
from tnr_dist.stages.evaluate import evaluate, result_key
from tnr_dist.train.runfolder import RunFolder

_MAKERS: dict[str, Callable[..., None]] = {
    "post-train": post_train.make,
    "finetune": finetune.make,
    "cache": cache.make,
    "stage1": stage1.make,
    "stage2": stage2.make,
    "further-pretrain": further_pretrain.make,
    "tinybert-general": tinybert.make_general,
    "tinybert-intermediate": tinybert.make_intermediate,
    "tinybert": tinybert.make,
    "newsbert": newsbert.make,
}


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
    one = row_config(config, row)
    if row.method == "teacher":
        return finetune.teacher_folder(one, data, 0)
    if row.method == "finetune":
        return finetune.plain_folder(one, data, row.layers)
    if row.method == "further-pretrain":
        return finetune.further_folder(one, data, row.layers)
    if row.method == "stage1":
        return finetune.student_folder(one, data)
    if row.method == "tiny-newsrec":
        return stage2.run_folder(one, data)
    if row.method == "tinybert":
        return tinybert.run_folder(one, data)
    if row.method == "newsbert":
        return newsbert.run_folder(one, data)
    raise AssertionError(row.method)


def make(place: RunFolder, engine: Engine) -> None:
    """Make one run whose inputs are there; a complete one is left as it is, one made otherwise is made again."""
    _MAKERS[place.stage](place, engine, redo=True)


def is_evaluated(place: RunFolder) -> bool:
    """Whether a run is complete and its results are of this model, `evaluate.split` and the run's own settings.

    `tnr evaluate` with others (a shorter history, say) leaves its own results there: they are not this row's.
    """
    file = place.path / "results.json"
    if not place.is_complete() or not file.is_file():
        return False
    key = result_key(place.config, str(place.inputs["data"]), place.id)
    return bool(read_results(file).get("made_from") == key)


def evaluate_run(place: RunFolder, engine: Engine) -> dict[str, Any]:
    """Score `evaluate.split` with a finished run's model."""
    scored = copy.deepcopy(place.config)
    scored.evaluate.run = str(place.path)
    return evaluate(scored, engine)
