"""How good the models are, and at what speed and size: the results table, tests between models, the trade-off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from tnr_dist.evaluation.metrics import NAMES, Figures
from tnr_dist.evaluation.results import read_baselines
from tnr_dist.evaluation.statistics import Comparison, holm, mean_and_deviation, paired_t_test
from tnr_dist.evaluation.yardsticks import POPULAR
from tnr_dist.figures.charts import Point, point_chart
from tnr_dist.figures.tables import ORACLE, count, percent
from tnr_dist.report.group_by_seed import Group
from tnr_dist.report.page import Block, Cell, Figure, Section, Table, Tile
from tnr_dist.report.read_runs import Run, number
from tnr_dist.stages.evaluate import read_impressions

HEADERS = {"auc": "AUC", "mrr": "MRR", "ndcg5": "nDCG@5", "ndcg10": "nDCG@10"}
_YARDSTICKS = {"random": 0, POPULAR: 1, ORACLE: 2}
Shape = tuple[int | None, float | None, str | None]  # layers, parameters, device
_LEVEL = 0.05  # of significance


@dataclass(frozen=True)
class Model:
    """An evaluated group as a row of the table: one value of each metric a seed, fractions.

    `news_per_s` is the best that was measured of a model of this shape, see `_speeds`.
    """

    group: Group
    split: str
    values: dict[str, list[float]]
    layers: int | None
    parameters: float | None
    news_per_s: float | None

    @property
    def name(self) -> str:
        """The group's label."""
        return self.group.label

    @property
    def scored_on(self) -> tuple[str, str]:
        """The data set's identity and the split: figures compare where these are the same."""
        results = self.group.scored[0].results or {}
        return str((results.get("made_from") or {}).get("data", "")), self.split

    def mean(self, metric: str) -> float | None:
        """Over the seeds; None when no seed has the metric."""
        values = self.values[metric]
        return mean_and_deviation(values)[0] if values else None

    @cached_property
    def impressions(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Rows of the raw file and every impression's AUC, averaged over the seeds; None where not all have kept it."""
        runs = [run for run in self.group.scored if ((run.results or {}).get("split") or "") == self.split]
        files = [run.path / "impressions.parquet" for run in runs]
        if not files or not all(file.is_file() for file in files):
            return None
        parts = [read_impressions(file) for file in files]
        order = [np.argsort(part["row"], kind="stable") for part in parts]
        rows = parts[0]["row"][order[0]]
        if not all(np.array_equal(part["row"][one], rows) for part, one in zip(parts, order, strict=True)):
            return None
        return rows, np.mean([part["auc"][one] for part, one in zip(parts, order, strict=True)], axis=0)


def models_of(groups: Sequence[Group]) -> list[Model]:
    """The evaluated groups, rows first, then by size; seeds of another split than the first are left out."""
    out = []
    speeds = _speeds(groups)
    for group in groups:
        found = [run.results for run in group.scored if run.results is not None]
        if not found:
            continue
        split = str(found[0].get("split") or "")
        found = [one for one in found if (one.get("split") or "") == split]
        values: dict[str, list[float]] = {
            name: [v for one in found if (v := number(one.get(name))) is not None] for name in NAMES
        }
        size = found[0].get("model") or {}
        speed = speeds.get(_shape(group.scored[0]))
        out.append(Model(group, split, values, size.get("layers"), number(size.get("parameters")), speed))
    by_row = [one.group.row is None for one in out]
    order = sorted(
        range(len(out)),
        key=lambda i: (str(out[i].group.first.base), by_row[i], out[i].group.row or 0, -(out[i].parameters or 0)),
    )
    return [out[i] for i in order]


def _shape(run: Run) -> Shape:
    """Runs that are alike in this encode at one speed: layers, parameters and what they ran on."""
    size = (run.results or {}).get("model") or {}
    return size.get("layers"), number(size.get("parameters")), run.environment.get("device")


def _speeds(groups: Sequence[Group]) -> dict[Shape, float]:
    """The best speed measured of each shape: runs of a study share the machine, which can only slow a measurement."""
    out: dict[Shape, float] = {}
    for run in (run for group in groups for run in group.scored):
        speed = number((run.results or {}).get("news_per_s"))
        if speed is not None:
            out[_shape(run)] = max(speed, out.get(_shape(run), 0.0))
    return out


def reference_of(models: Sequence[Model]) -> Model | None:
    """What others are compared with: the largest model, of equal ones the first."""
    sized = [one for one in models if one.parameters and one.mean("auc") is not None]
    return max(sized, key=lambda one: one.parameters or 0, default=None)


def comparable(models: Sequence[Model]) -> bool:
    """Whether all were scored on the same impressions."""
    return len({one.scored_on for one in models}) <= 1


def _sizes(models: Sequence[Model]) -> set[float]:
    return {one.parameters for one in models if one.parameters}


def tiles(models: Sequence[Model], bases: Sequence[Path]) -> list[Tile]:
    """The figures to see first."""
    scored = [one for one in models if one.mean("auc") is not None]
    if not scored or not comparable(scored):
        return []
    best = max(scored, key=lambda one: one.mean("auc") or 0)
    auc = best.mean("auc") or 0.0
    out = [Tile(f"{100 * auc:.2f}", f"best AUC: {best.name}")]
    rivals = [(row_auc, one.name) for one in _yardsticks(bases, models) if (row_auc := one.rival("auc")) is not None]
    if rivals and max(rivals)[0] >= auc:
        value, name = max(rivals)
        out = [
            Tile(f"{100 * value:.2f}", f"best AUC: {name}, without a model; of the models {best.name}, {100 * auc:.2f}")
        ]
    reference = reference_of(scored)
    if reference is None or not reference.parameters or not reference.news_per_s:
        return out
    fast = [one for one in scored if one.news_per_s and (one.parameters or 0) < reference.parameters]
    if not fast:
        return out
    # Models of one shape are equally fast: of these the best.
    fastest = max(fast, key=lambda one: (one.news_per_s or 0, one.mean("auc") or 0))
    against = f"{fastest.name} against {reference.name}"
    times = (fastest.news_per_s or 0) / reference.news_per_s
    out.append(Tile(f"{times:.1f} ×", f"news a second: {against}"))
    lost = 100 * ((fastest.mean("auc") or 0) - (reference.mean("auc") or 0))
    p = next((p for one, _, p in _compared(scored) if one is fastest), None)
    doubt = f", not significant (p = {p:.3f})" if p is not None and p >= _LEVEL else ""
    out.append(Tile(_signed(lost), f"AUC points{doubt}: {against}"))
    share = 100 * (fastest.parameters or 0) / reference.parameters
    sizes = f"{fastest.name} has {count(fastest.parameters)} of {count(reference.parameters)}"
    out.append(Tile(f"{share:.0f} %", f"of the parameters of {reference.name}: {sizes}"))
    return out


def results_section(models: Sequence[Model], bases: Sequence[Path]) -> Section | None:
    """The results table with yardsticks, the tests, and quality against speed and size."""
    if not models:
        return None
    levels = _yardsticks(bases, models)
    blocks: list[Block] = [_table(models, levels)]
    tests = _tests(models)
    if tests is not None:
        blocks.append(tests)
    panels = [
        point_chart(
            f"AUC against {name}",
            axis,
            "AUC, %",
            [
                Point(x, 100 * auc, one.name, _families(models).index(_family(one.name)))
                for one in models
                if (x := getattr(one, key)) is not None and (auc := one.mean("auc")) is not None
            ],
            [(100 * auc, one.name) for one in levels if (auc := number(one.row.get("auc"))) is not None],
        )
        for key, name, axis in (
            ("news_per_s", "speed", "news encoded a second (log scale)"),
            ("parameters", "size", "parameters (log scale)"),
        )
        if key != "parameters" or len(_sizes(models)) > 1
    ]
    speed = " Speed is the best measured of the models of one shape." if any(one.news_per_s for one in models) else ""
    caption = f"Quality against speed and size: better is up, faster is right, smaller is left.{speed}"
    shown = [panel for panel in panels if panel is not None]
    if shown:
        blocks.append(Figure("quality", caption, shown))
    return Section("results", "Results", blocks)


def plain_rows(models: Sequence[Model]) -> list[dict[str, object]]:
    """The models as `evaluation.report.results_table` takes them, for the terminal."""
    return [
        {
            "model": one.name,
            "layers": one.layers,
            "parameters": one.parameters,
            "news_per_s": one.news_per_s,
            **one.values,
        }
        for one in models
    ]


@dataclass(frozen=True)
class Yardstick:
    """What needs no training; `kind`: its name in baselines.json."""

    name: str
    kind: str
    row: Figures

    def rival(self, metric: str) -> float | None:
        """What a model has to beat; None of the oracle, which knows the truth."""
        return None if self.kind == ORACLE else number(self.row.get(metric))


def _yardsticks(bases: Sequence[Path], models: Sequence[Model]) -> list[Yardstick]:
    """From each output folder's baselines.json, the oracle last; of the models' data and split only."""
    out, scored_on = [], {one.scored_on for one in models}
    for base in bases:
        file = base / "baselines.json"
        if not file.is_file():
            continue
        for kind, row in read_baselines(file, scored_on).items():
            out.append(Yardstick(kind if len(bases) == 1 else f"{base.name}: {kind}", kind, row))
    return sorted(out, key=lambda one: _YARDSTICKS.get(one.kind, 1))


def _table(models: Sequence[Model], levels: Sequence[Yardstick]) -> Table:
    best = {}
    for metric in NAMES:
        # As displayed: of two that read the same, none is better.
        means = [round(mean, 4) for one in models if (mean := one.mean(metric)) is not None]
        rivals = [round(value, 4) for one in levels if (value := one.rival(metric)) is not None]
        best[metric] = max(means + rivals) if len(means) > 1 and comparable(models) else None
    reference = reference_of(models)
    # Models of one size differ in speed by chance.
    compared = len(_sizes(models)) > 1 and comparable(models)
    splits = {one.split for one in models}
    seeds = max(len(one.values["auc"]) for one in models)
    rows: list[list[Cell | str]] = []
    for one in models:
        speedup = "-"
        if compared and reference is not None and reference.news_per_s and one.news_per_s:
            speedup = f"{one.news_per_s / reference.news_per_s:.2f} ×"
        rows.append(
            [
                one.name + (f" ({one.split})" if len(splits) > 1 else ""),
                *(_metric(one, metric, best[metric]) for metric in NAMES),
                "-" if one.layers is None else str(one.layers),
                count(one.parameters),
                "-" if one.news_per_s is None else f"{one.news_per_s:,.0f}",
                speedup,
                str(len(one.values["auc"])),
            ]
        )
    for level in levels:
        figures = []
        for metric in NAMES:
            value = level.rival(metric)
            most = best[metric]
            is_best = value is not None and most is not None and round(value, 4) >= most
            figures.append(Cell(percent(number(level.row.get(metric))), best=is_best, quiet=not is_best))
        rest = [Cell(text, quiet=True) for text in ("-", "-", "-", "-", "-")]
        rows.append([Cell(level.name, quiet=True), *figures, *rest])
    impressions = {run.results.get("impressions") for one in models for run in one.group.scored if run.results}
    size = f", {next(iter(impressions)):,} impressions" if len(impressions) == 1 and None not in impressions else ""
    spread = "mean ± standard deviation over seeds, " if seeds > 1 else ""
    over = f"; speed-up over {reference.name}" if compared and reference is not None else ""
    apart = " (the oracle apart, which knows the truth)" if any(one.kind == ORACLE for one in levels) else ""
    end = (
        f"The best is marked{apart}."
        if comparable(models)
        else "Not all were scored on the same data: they do not compare."
    )
    speed = ""
    if any(one.news_per_s for one in models):
        speed = (
            " News/s is the best of all runs with as many layers and parameters on the same device: "
            "runs that share a machine slow each other down."
        )
    caption = f"Metrics in percent, {spread}{' and '.join(sorted(splits))} split{size}{over}. {end}{speed}"
    columns = ["Model", *HEADERS.values(), "Layers", "Parameters", "News/s", "Speed-up", "Seeds"]
    return Table(caption, columns, rows)


def _metric(model: Model, metric: str, best: float | None) -> Cell:
    mean = model.mean(metric)
    return Cell(percent(model.values[metric]), best=mean is not None and best is not None and round(mean, 4) >= best)


def _compared(models: Sequence[Model]) -> list[tuple[Model, Comparison, float]]:
    """Every model against the largest, where both have kept their impressions: the test and its corrected p."""
    reference = reference_of(models)
    theirs = reference.impressions if reference is not None else None
    if reference is None or theirs is None:
        return []
    found = []
    for one in models:
        # Other data has the same numbers of rows, of other impressions.
        ours = one.impressions if one is not reference and one.scored_on == reference.scored_on else None
        if ours is None or not np.array_equal(ours[0], theirs[0]):
            continue
        valid = np.isfinite(ours[1]) & np.isfinite(theirs[1])
        if valid.sum() > 1:
            found.append((one, paired_t_test(ours[1][valid], theirs[1][valid])))
    corrected = holm([test.p_value for _, test in found])
    return [(one, test, float(p)) for (one, test), p in zip(found, corrected, strict=True)]


def _tests(models: Sequence[Model]) -> Table | None:
    """Every model against the largest, by a paired t test over the impressions of dev (means over the seeds)."""
    reference, compared = reference_of(models), _compared(models)
    if reference is None or not compared:
        return None
    rows = [
        [
            one.name,
            _signed(100 * test.difference),
            f"{_signed(100 * test.low)} to {_signed(100 * test.high)}",
            "<0.001" if p < 0.001 else f"{p:.3f}",
        ]
        for one, test, p in compared
    ]
    caption = (
        f"Difference of AUC to {reference.name}, in points: paired t test over {compared[0][1].pairs:,} impressions, "
        "each the mean of its seeds. p corrected for the number of models (Holm). It speaks of these trained models, not "
        "of how a training with another seed would come out."
    )
    return Table(caption, ["Model", "Difference", "95 % interval", "p"], rows)


def _signed(points: float) -> str:
    return f"{points:+.2f}".replace("-", "−")


def _family(name: str) -> str:
    """Models of one method and several sizes share a colour: `Tiny-NewsRec-4` and `Tiny-NewsRec-1`."""
    head, _, tail = name.partition(" (")
    stem, _, size = head.rpartition("-")
    return f"{stem if size.isdigit() else head} {tail}"


def _families(models: Sequence[Model]) -> list[str]:
    return list(dict.fromkeys(_family(one.name) for one in models))
