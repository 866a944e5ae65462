"""A study's figures, as the paper draws them: PNG and PDF."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tnr_dist.figures.picture import COLOURS, GREY, figure_file
from tnr_dist.figures.tables import count
from tnr_dist.reproduce.results import RowResult
from tnr_dist.reproduce.studies import Panel, Study
from tnr_dist.reproduce.tables import METRIC_NAMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHOWN = ("auc", "ndcg10")


def draw(study: Study, rows: dict[str, RowResult], folder: Path) -> list[Path]:
    """Write FOLDER/NAME.png and .pdf; rows that are not there yet are left out. Returns the files."""
    files = []
    for ending in ("png", "pdf"):
        path = folder / f"{study.name}.{ending}"
        width, height = _size(study)
        with figure_file(path, (width, height)) as figure:
            if study.kind == "table":
                _methods(figure, study, rows)
            elif study.kind == "speed":
                _speed(figure, study.panels[0], rows)
            else:
                _panels(figure, study, rows)
            figure.suptitle(study.title, x=0.01, ha="left", fontsize=11, fontweight="bold")
            if note := marks(study, rows):
                figure.supxlabel(note, x=0.01, ha="left", fontsize=7.5, color=GREY)
        files.append(path)
    return files


def marks(study: Study, rows: dict[str, RowResult]) -> str:
    """What the marks of a figure mean, in words; '' where it has bars alone."""
    if study.kind == "speed":
        return ""
    parts = ["point: mean"]
    if any(len(row.seeds) > 1 for row in rows.values()):
        parts = ["point: mean over the seeds", "caps: ± one standard deviation over the seeds", "stroke: a single seed"]
    if study.kind == "values":
        parts.append("ring: the reference")
    return f"{'; '.join(parts).capitalize()}."


def _size(study: Study) -> tuple[float, float]:
    if study.kind == "table":
        return 7.4, 0.7 + 0.32 * len(study.rows)
    if study.kind == "variants":
        return 8.4, 0.9 + 0.42 * len(study.rows)
    return (8.4, 3.4) if study.kind == "speed" or len(study.panels) == 1 else (8.4, 6.2)


def _methods(figure: Figure, study: Study, rows: dict[str, RowResult]) -> None:
    """Table 2: every method's AUC with the deviation over seeds and the single seeds, sizes apart."""
    axes = figure.subplots()
    families = list(dict.fromkeys(row.row.method for row in rows.values()))
    shown = sorted(rows.values(), key=lambda row: (-row.model["layers"], list(rows).index(row.row.name)))
    ticks, place, before = [], 0.0, None
    for row in shown:
        if before is not None and row.model["layers"] != before:
            place += 0.6
        before = row.model["layers"]
        _point(axes, row, "auc", place, COLOURS[families.index(row.row.method) % len(COLOURS)])
        ticks.append(place)
        place += 1
    axes.set_yticks(ticks, [row.row.name for row in shown])
    axes.invert_yaxis()
    axes.set_xlabel("AUC (%)")


def _point(axes: Axes, row: RowResult, metric: str, place: float, colour: str) -> None:
    deviation = row.deviation(metric)
    error = None if deviation is None else [100 * deviation]
    values = [100 * value for value in row.values[metric]]
    axes.errorbar(
        [100 * row.mean(metric)], [place], xerr=error, fmt="o", color=colour, markersize=6, capsize=3, zorder=3
    )
    axes.plot(values, [place] * len(values), "|", color=colour, alpha=0.6, markersize=9, zorder=2)


def _panels(figure: Figure, study: Study, rows: dict[str, RowResult]) -> None:
    grid = figure.subplots(len(study.panels), len(_SHOWN), squeeze=False)
    for line, panel in zip(grid, study.panels, strict=True):
        for axes, metric in zip(line, _SHOWN, strict=True):
            points = [(label, rows[name]) for label, name in panel.rows if name in rows]
            if study.kind == "variants":
                for place, (_, row) in enumerate(points):
                    _point(axes, row, metric, place, COLOURS[0] if row.row.name == panel.reference else COLOURS[1])
                axes.set_yticks(range(len(points)), [label for label, _ in points] if metric == _SHOWN[0] else [])
                axes.set_ylim(len(points) - 0.5, -0.5)
                axes.set_xlabel(f"{METRIC_NAMES[metric]} (%)")
            else:
                _values(axes, panel, points, metric)


def _values(axes: Axes, panel: Panel, points: list[tuple[str, RowResult]], metric: str) -> None:
    """A metric over the values of a setting; a ring marks what the others are compared with."""
    places = range(len(points))
    means = [100 * row.mean(metric) for _, row in points]
    errors: Any = None
    if any(row.deviation(metric) is not None for _, row in points):
        errors = [100 * (row.deviation(metric) or 0.0) for _, row in points]
    axes.errorbar(places, means, yerr=errors, color=COLOURS[0], marker="o", markersize=5, capsize=3, linewidth=1.4)
    for place, (_, row) in enumerate(points):
        values = [100 * value for value in row.values[metric]]
        axes.plot([place] * len(values), values, "_", color=GREY, markersize=7)
        if row.row.name == panel.reference:
            axes.plot([place], [means[place]], "o", color="white", markeredgecolor=COLOURS[1], markersize=8, zorder=4)
    axes.set_xticks(places, [label for label, _ in points])
    axes.set_xlabel(panel.label)
    axes.set_ylabel(f"{METRIC_NAMES[metric]} (%)")


def _speed(figure: Figure, panel: Panel, rows: dict[str, RowResult]) -> None:
    """Fig. 5: parameters and news encoded a second, with the ratio to the teacher."""
    shown = [rows[name] for _, name in panel.rows if name in rows]
    teacher = next((row for row in shown if row.row.name == panel.reference), None)
    sizes, speeds = figure.subplots(1, 2)
    for axes, values, title in (
        (sizes, [float(row.model["parameters"]) for row in shown], "parameters"),
        (speeds, [row.news_per_s for row in shown], "news encoded per second"),
    ):
        axes.bar(range(len(shown)), values, color=[COLOURS[1] if row is teacher else COLOURS[0] for row in shown])
        first = values[shown.index(teacher)] if teacher else None
        for place, value in enumerate(values):
            text = count(value) if axes is sizes else f"{value:,.0f}"
            if first and place:
                text += f"\n{value / first:.2f} x" if axes is sizes else f"\n{value / first:.1f} x"
            axes.annotate(text, (place, value), (0, 3), textcoords="offset points", ha="center", fontsize=8)
        axes.set_xticks(
            range(len(shown)),
            [row.row.name.replace(" (", "\n(").replace("Tiny-", "Tiny-\n") for row in shown],
            fontsize=8,
        )
        axes.yaxis.set_major_formatter(lambda value, _: count(value))
        axes.set_ylim(0, 1.22 * max(values))
        axes.set_title(title)
