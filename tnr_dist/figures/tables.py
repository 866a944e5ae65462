"""Results as a table for the terminal and as Markdown for reports."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from tnr_dist.evaluation.statistics import mean_and_deviation
from tnr_dist.util.markup import markdown, markdown_table

_METRICS = {"auc": "AUC", "mrr": "MRR", "ndcg5": "nDCG@5", "ndcg10": "nDCG@10"}
_HEADERS = ("Model", "Layers", "Parameters", *_METRICS.values(), "News/s")

# Rows that are yardsticks, not models: lines instead of points in a figure. The oracle knows the truth and beats nobody.
ORACLE = "oracle"
BASELINES = ("random", "popular", "most popular", ORACLE)

Row = Mapping[str, object]


def results_table(rows: Sequence[Row], title: str | None = None) -> Table:
    """The rows as a `rich` table; the best of each metric is bold, a baseline where no model beats it (not the oracle).

    Args:
        rows: each with `model` and, where known, `layers`, `parameters`, `auc`, `mrr`, `ndcg5`, `ndcg10` (fractions
            0..1, shown in percent; a list over seeds is shown as mean ± sample deviation) and `news_per_s`.
            What is missing, None or NaN is shown as `-`.
        title: stands above the table.
    """
    table = Table(title=title, title_justify="left")
    for number, header in enumerate(_HEADERS):
        table.add_column(header, justify="right" if number else "left", no_wrap=number > 0)
    best = _best(rows)
    for number, row in enumerate(rows):
        # Text, not str: square brackets in a model's name are no markup.
        cells = [Text(cell) for cell in _cells(row)]
        for column, metric in enumerate(_METRICS, 3):
            if number in best[metric]:
                cells[column].stylize("bold")
        table.add_row(*cells)
    return table


def results_markdown(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table that also reads as plain text; see `results_table` for a row's keys."""
    best = _best(rows)
    lines = [[markdown(header) for header in _HEADERS]]
    for number, row in enumerate(rows):
        cells = [markdown(cell) for cell in _cells(row)]
        for column, metric in enumerate(_METRICS, 3):
            if number in best[metric]:
                cells[column] = f"**{cells[column]}**"
        lines.append(cells)
    return markdown_table(lines)


def percent(value: object) -> str:
    """A fraction as percent, `70.20`; a list over seeds as `70.20 ± 0.10`; nothing to show as `-`."""
    values = _finite(value)
    if not values:
        return "-"
    mean, deviation = mean_and_deviation(values)
    return f"{100 * mean:.2f}" + ("" if deviation is None else f" ± {100 * deviation:.2f}")


def count(value: float | None) -> str:
    """A large number in few figures: `109 M`, `22.7 M`, `812 k`, `950`."""
    if not _finite(value):
        return "-"
    assert value is not None
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            scaled = value / size
            return f"{scaled:.0f} {unit}" if scaled >= 100 else f"{scaled:.1f} {unit}"
    return f"{value:.0f}"


def mean_of(row: Row, key: str) -> float | None:
    """The row's value under `key`, averaged over seeds; None when it is missing or not finite."""
    values = _finite(row.get(key))
    return mean_and_deviation(values)[0] if values else None


def _cells(row: Row) -> list[str]:
    layers, speed = row.get("layers"), mean_of(row, "news_per_s")
    return [
        str(row["model"]),
        "-" if layers is None else str(layers),
        count(mean_of(row, "parameters")),
        *(percent(row.get(metric)) for metric in _METRICS),
        "-" if speed is None else f"{speed:,.0f}",
    ]


def _best(rows: Sequence[Row]) -> dict[str, set[int]]:
    """For each metric the rows with the highest mean as displayed; none where there are not two models to compare."""
    best: dict[str, set[int]] = {}
    for metric in _METRICS:
        means: dict[int, float] = {}
        for number, row in enumerate(rows):
            mean = mean_of(row, metric)
            if mean is not None and str(row["model"]).lower() != ORACLE:
                means[number] = round(mean, 4)
        models = [number for number in means if str(rows[number]["model"]).lower() not in BASELINES]
        best[metric] = {number for number, mean in means.items() if len(models) > 1 and mean == max(means.values())}
    return best


def _finite(value: object) -> list[float]:
    values = value if isinstance(value, Sequence) else [value]
    return [float(v) for v in values if isinstance(v, int | float) and math.isfinite(v)]
