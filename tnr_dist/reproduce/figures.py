"""A study's figures, after the paper's: PNG and PDF."""

from __future__ import annotations

import itertools
from pathlib import Path

from tnr_dist.figures.charts import bar_chart
from tnr_dist.figures.drawing import Drawing
from tnr_dist.figures.palette import SERIES
from tnr_dist.figures.picture import write_picture
from tnr_dist.figures.spreads import Spread, spread_line, spread_rows
from tnr_dist.figures.tables import count
from tnr_dist.reproduce.results import RowResult
from tnr_dist.reproduce.studies import Panel, Study
from tnr_dist.reproduce.tables import METRIC_NAMES

_SHOWN = ("auc", "ndcg10")


def draw(study: Study, rows: dict[str, RowResult], folder: Path) -> list[Path]:
    """Write FOLDER/NAME.png and .pdf; rows that are not there yet are left out. Returns the files."""
    files = [folder / f"{study.name}.{ending}" for ending in ("png", "pdf")]
    for path in files:
        write_picture(path, study.title, drawings(study, rows), note=marks(study, rows))
    return files


def drawings(study: Study, rows: dict[str, RowResult]) -> list[Drawing]:
    """The panels of a study's figure."""
    if study.kind == "table":
        panels = [_methods(rows)]
    elif study.kind == "speed":
        panels = _speeds(study.panels[0], rows)
    else:
        panels = [_panel(study, panel, rows, metric) for panel in study.panels for metric in _SHOWN]
    return [panel for panel in panels if panel is not None]


def marks(study: Study, rows: dict[str, RowResult]) -> str:
    """What the marks of a figure mean, in words; '' where it has bars alone."""
    if study.kind == "speed":
        return ""
    parts = ["point: mean"]
    if any(len(row.seeds) > 1 for row in rows.values()):
        parts = ["point: mean over the seeds", "caps: ± one standard deviation over the seeds", "stroke: a single seed"]
    if study.kind != "table":
        parts.append("orange: the reference")
    return f"{'; '.join(parts).capitalize()}."


def _spread(row: RowResult, name: str, metric: str, colour: int) -> Spread:
    deviation = row.deviation(metric)
    percents = [100 * value for value in row.values[metric]]
    return Spread(name, 100 * row.mean(metric), None if deviation is None else 100 * deviation, percents, colour)


def _methods(rows: dict[str, RowResult]) -> Drawing | None:
    """Table 2: every method's AUC, sizes apart, a colour for each method."""
    methods = list(dict.fromkeys(row.row.method for row in rows.values()))
    by_size = sorted(rows.values(), key=lambda row: -row.model["layers"])
    groups = [
        [_spread(row, row.row.name, "auc", methods.index(row.row.method) % SERIES) for row in group]
        for _, group in itertools.groupby(by_size, key=lambda row: row.model["layers"])
    ]
    return spread_rows("AUC (%)", groups, width=640.0)


def _panel(study: Study, panel: Panel, rows: dict[str, RowResult], metric: str) -> Drawing | None:
    points = [
        _spread(rows[name], label, metric, int(name == panel.reference)) for label, name in panel.rows if name in rows
    ]
    title = f"{METRIC_NAMES[metric]} (%)"
    return spread_rows(title, [points]) if study.kind == "variants" else spread_line(title, panel.label, points)


def _speeds(panel: Panel, rows: dict[str, RowResult]) -> list[Drawing | None]:
    """Fig. 5: parameters and news encoded a second, with the ratio to the teacher."""
    shown = [rows[name] for _, name in panel.rows if name in rows]
    teacher = rows.get(panel.reference)
    sizes, speeds = [], []
    for row in shown:
        size, speed = float(row.model["parameters"]), row.news_per_s
        others = teacher is not None and row is not teacher
        ratios = (size / teacher.model["parameters"], speed / teacher.news_per_s) if others and teacher else None
        sizes.append((row.row.name, size, count(size) + (f", {ratios[0]:.2f} x" if ratios else "")))
        speeds.append((row.row.name, speed, f"{speed:,.0f}" + (f", {ratios[1]:.1f} x" if ratios else "")))
    return [
        bar_chart("Parameters", sizes, panel.reference),
        bar_chart("News encoded per second", speeds, panel.reference),
    ]
