"""Pictures of `tnr run`: training curves, and quality against speed (the trade-off of the paper's Fig. 5 and Table 2)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tnr_dist.figures.charts import Point, Series, line_chart, point_chart
from tnr_dist.figures.drawing import Drawing, Legend
from tnr_dist.figures.picture import write_picture
from tnr_dist.figures.tables import BASELINES, count, mean_of
from tnr_dist.util.errors import InputError


def training_curves(runs: Mapping[str, Sequence[Mapping[str, object]]], path_png: Path | str) -> None:
    """Draw the training loss of each run against samples seen, one panel per group of runs.

    Args:
        runs: records of `metrics.jsonl` by run name; `finetune/seed-1` and `finetune/seed-2` share the panel
            `finetune`. Records without `train/loss` (evaluation) are passed over; the x axis is `samples`, or
            `step` in a panel where a run has none. A line is the moving mean over a twentieth of its curve.
        path_png: the figure, written atomically.

    Raises:
        InputError: no run has a finite `train/loss`.
    """
    groups: dict[str, dict[str, list[Mapping[str, object]]]] = {}
    for name, records in runs.items():
        kept = [record for record in records if mean_of(record, "train/loss") is not None]
        if kept:
            group, _, label = name.partition("/")
            groups.setdefault(group, {})[label] = kept
    if not groups:
        raise InputError(f"no finite 'train/loss' in the runs {', '.join(runs) or '(none)'}: nothing to draw")
    labels = list(dict.fromkeys(label for lines in groups.values() for label in lines))
    charts = [_loss_chart(group, lines, labels) for group, lines in groups.items()]
    legend = [Legend(label, number) for number, label in enumerate(labels) if label]
    write_picture(Path(path_png), "Training loss", [chart for chart in charts if chart is not None], legend)


def quality_vs_speed(rows: Sequence[Mapping[str, object]], path_png: Path | str) -> None:
    """Draw AUC (percent) against news encoded per second (log scale), one labelled point per model.

    Args:
        rows: as `figures.tables.results_table`. A row with `auc` and `news_per_s` is a point, lists over seeds are
            averaged; one of a yardstick (`BASELINES`) is a horizontal line, or a note at the edge where
            it lies far from all models.
        path_png: the figure, written atomically.

    Raises:
        InputError: no model has an `auc` and a `news_per_s`.
    """
    points: list[Point] = []
    levels: list[tuple[float, str]] = []
    families: list[str] = []
    for row in rows:
        auc, speed, name = mean_of(row, "auc"), mean_of(row, "news_per_s"), str(row["model"])
        if auc is None:
            continue
        if speed is None or speed <= 0 or name.lower() in BASELINES:
            levels.append((100 * auc, name))
            continue
        # `Tiny-NewsRec-4` and `Tiny-NewsRec-1` are one family and share a colour.
        family = re.sub(r"(-\d+)?( \(.*\))*$", "", name)
        if family not in families:
            families.append(family)
        parameters = row.get("parameters")
        label = name if parameters is None else f"{name} ({count(mean_of(row, 'parameters'))})"
        points.append(Point(speed, 100 * auc, label, families.index(family)))
    chart = point_chart("Quality against speed", "news encoded per second (log scale)", "AUC (%)", points, levels)
    if chart is None:
        raise InputError("no row has an 'auc' and a 'news_per_s': nothing to draw")
    write_picture(Path(path_png), "", [chart], [])


def _loss_chart(
    title: str, lines: Mapping[str, Sequence[Mapping[str, object]]], labels: Sequence[str]
) -> Drawing | None:
    x_key = "samples" if all("samples" in record for records in lines.values() for record in records) else "step"
    series = []
    for label, records in lines.items():
        places = [mean_of(record, x_key) for record in records]
        x = [float(number) if place is None else place for number, place in enumerate(places)]
        y = _moving_mean(np.array([record["train/loss"] for record in records], np.float64))
        series.append(Series(label, x, y.tolist(), labels.index(label)))
    return line_chart(title, x_key, series)


def _moving_mean(y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centred mean over about a twentieth of the curve, over what there is of the window at both ends."""
    half = len(y) // 40
    total = np.concatenate([[0.0], np.cumsum(y)])
    place = np.arange(len(y))
    first, last = np.maximum(place - half, 0), np.minimum(place + half + 1, len(y))
    means: NDArray[np.float64] = (total[last] - total[first]) / (last - first)
    return means
