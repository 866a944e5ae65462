"""The results of a study: every row's figures over its seeds, and paired tests between rows."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tnr_dist.config.schema import Config, RowConfig
from tnr_dist.data.dataset import DataSet
from tnr_dist.engines.base import Engine
from tnr_dist.evaluation.metrics import NAMES
from tnr_dist.evaluation.results import ModelSize, read_results
from tnr_dist.evaluation.statistics import Comparison, holm, mean_and_deviation, paired_t_test
from tnr_dist.reproduce.plan import study_config
from tnr_dist.reproduce.studies import Study
from tnr_dist.stages.evaluate import news_per_second, read_impressions
from tnr_dist.stages.parts.start_models import trained_model
from tnr_dist.stages.table_rows import is_evaluated
from tnr_dist.stages.targets import each_seed, row_folder
from tnr_dist.util.errors import InputError

# The metrics that rows are compared by.
COMPARED = ("auc", "ndcg10")


@dataclass(frozen=True)
class RowResult:
    """One row of a study.

    Attributes:
        seeds: the seeds that are complete, all if the study is.
        values: metric -> one value a seed, fractions.
        impressions: metric -> [I] mean over the seeds of every impression's value; NaN where skipped.
        news_per_s: titles encoded a second, see `with_speeds`; NaN before it is measured.
    """

    row: RowConfig
    seeds: list[int]
    runs: list[str]
    values: dict[str, list[float]]
    impressions: dict[str, np.ndarray]
    model: ModelSize
    news_per_s: float = math.nan

    def mean(self, metric: str) -> float:
        """Mean over the seeds."""
        return mean_and_deviation(self.values[metric])[0]

    def deviation(self, metric: str) -> float | None:
        """Sample standard deviation over the seeds; None of one seed."""
        return mean_and_deviation(self.values[metric])[1]


@dataclass(frozen=True)
class Difference:
    """Row `a` against row `b` by one metric.

    Attributes:
        over_impressions: paired t-test over the impressions of the seeds' means: would other readers change the order?
        over_seeds: paired t-test over the seeds' means: would other seeds? None with one seed.
        p_impressions, p_seeds: of those tests, after Holm's correction for the comparisons of the study by this metric.
    """

    a: str
    b: str
    metric: str
    over_impressions: Comparison
    over_seeds: Comparison | None
    p_impressions: float
    p_seeds: float | None


def collect(config: Config, data: DataSet, study: Study) -> dict[str, RowResult]:
    """Rows with at least one evaluated seed, by name."""
    one_study = study_config(config, study)
    found = {}
    for row in study.rows:
        seeds: list[int] = []
        runs: list[str] = []
        parts: list[dict[str, np.ndarray]] = []
        values: dict[str, list[float]] = {name: [] for name in NAMES}
        model = ModelSize()
        for one in each_seed(one_study):
            place = row_folder(one, data, row)
            if not is_evaluated(place):
                continue
            results = read_results(place.path / "results.json")
            for name in NAMES:
                values[name].append(results[name])
            parts.append(read_impressions(place.path / "impressions.parquet"))
            seeds.append(one.seed)
            runs.append(str(place.path))
            model = results["model"]
        if seeds:
            if any(not np.array_equal(part["row"], parts[0]["row"]) for part in parts):
                raise InputError(f"{runs}: scored on different impressions; run `tnr evaluate` again")
            impressions: dict[str, np.ndarray] = {
                name: np.mean([part[name] for part in parts], axis=0) for name in NAMES
            }
            found[row.name] = RowResult(row, seeds, runs, values, impressions, model)
    return found


def with_speeds(rows: dict[str, RowResult], config: Config, data: DataSet, engine: Engine) -> dict[str, RowResult]:
    """The rows with the titles that each encodes a second.

    Measured now, one model of every size after the other: what the runs measured themselves shared the machine with
    whatever ran beside them.
    """
    titles, speeds = data.news_tokens(config.data), {}
    out = {}
    for name, row in rows.items():
        size = row.model["layers"], row.model["parameters"]
        if size not in speeds:
            model, _ = trained_model(Path(row.runs[0]), "training")
            engine.use_precision(config.precision)
            encoder = model.to(engine.device).eval().news_encoder
            speeds[size] = news_per_second(encoder, titles, config.data.news_tokens, engine)
        out[name] = dataclasses.replace(row, news_per_s=speeds[size])
    return out


def differences(study: Study, rows: dict[str, RowResult]) -> list[Difference]:
    """The study's comparisons of rows that are complete for the same seeds."""
    pairs = [(a, b) for a, b in study.pairs if a in rows and b in rows and rows[a].seeds == rows[b].seeds]
    out = []
    for metric in COMPARED:
        tests = [(_over_impressions(rows[a], rows[b], metric), _over_seeds(rows[a], rows[b], metric)) for a, b in pairs]
        by_impressions = holm([test.p_value for test, _ in tests])
        # Rows of a study with failed runs may have one seed in common, others more.
        seeds = iter(holm([test.p_value for _, test in tests if test is not None]))
        by_seeds = [None if test is None else next(seeds) for _, test in tests]
        for (a, b), (first, second), p, q in zip(pairs, tests, by_impressions, by_seeds, strict=True):
            out.append(Difference(a, b, metric, first, second, p, q))
    return out


def _over_impressions(a: RowResult, b: RowResult, metric: str) -> Comparison:
    one, two = a.impressions[metric], b.impressions[metric]
    valid = np.isfinite(one) & np.isfinite(two)
    return paired_t_test(one[valid], two[valid])


def _over_seeds(a: RowResult, b: RowResult, metric: str) -> Comparison | None:
    if len(a.seeds) < 2:
        return None
    return paired_t_test(np.array(a.values[metric]), np.array(b.values[metric]))
