"""Figures of a report: training curves, and quality against speed (the trade-off of the paper's Fig. 5 and Table 2)."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tnr_dist.figures.tables import BASELINES, count, mean_of
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart with any common colour vision deficiency. Yellow is left out: faint on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#6b6b6b"
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9a9a9a",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "legend.frameon": False,
    "text.parse_math": False,  # a `$` in a name is a letter
}


def training_curves(runs: Mapping[str, Sequence[Mapping[str, Any]]], path_png: Path | str) -> None:
    """Draw the training loss of each run against samples seen, one panel per group of runs.

    Args:
        runs: records of `metrics.jsonl` by run name; `finetune/seed-1` and `finetune/seed-2` share the panel
            `finetune`. Records without `train/loss` (evaluation) are passed over; the x axis is `samples`, or
            `step` in a panel where a run has none. Raw values are faint, their moving mean is solid.
        path_png: the figure, written atomically.

    Raises:
        InputError: no run has a finite `train/loss`.
    """
    groups: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for name, records in runs.items():
        kept = [r for r in records if isinstance(r.get("train/loss"), int | float) and math.isfinite(r["train/loss"])]
        if kept:
            group, _, label = name.partition("/")
            groups.setdefault(group, {})[label] = kept
    if not groups:
        raise InputError(f"no finite 'train/loss' in the runs {', '.join(runs) or '(none)'}: nothing to draw")

    columns = 2 if len(groups) == 4 else min(3, len(groups))
    rows = math.ceil(len(groups) / columns)
    with figure_file(path_png, (4.1 * columns if columns > 1 else 5.6, 2.9 * rows)) as figure:
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for panel, (group, lines) in zip(panels, groups.items(), strict=False):
            _loss_panel(panel, group, lines)
        for panel in panels[len(groups) :]:
            panel.set_visible(False)
        for panel in panels[::columns]:
            panel.set_ylabel("training loss")


def quality_vs_speed(rows: Sequence[Mapping[str, Any]], path_png: Path | str) -> None:
    """Draw AUC (percent) against news encoded per second (log scale), one labelled point per model.

    Args:
        rows: as `report.results_table`. A row with `auc` and `news_per_s` is a point, lists over seeds are averaged;
            a row without `news_per_s`, or named `random`, `popular` or `oracle`, is a horizontal line.
        path_png: the figure, written atomically.

    Raises:
        InputError: no row has an `auc`.
    """
    points: list[tuple[float, float, str]] = []
    levels: list[tuple[float, str]] = []
    for row in rows:
        auc, speed, name = mean_of(row, "auc"), mean_of(row, "news_per_s"), str(row["model"])
        if auc is None:
            continue
        if speed is None or speed <= 0 or name.lower() in BASELINES:
            levels.append((100 * auc, name))
        else:
            parameters = row.get("parameters")
            points.append((speed, 100 * auc, name if parameters is None else f"{name} ({count(parameters)})"))
    if not points and not levels:
        raise InputError("no row has an 'auc': nothing to draw")

    with figure_file(path_png, (7.2, 4.6)) as figure:
        axes = figure.subplots()
        axes.set_xlabel("news encoded per second (log scale)")
        axes.set_ylabel("AUC (%)")
        axes.set_title("Quality against speed")
        families = list(dict.fromkeys(_family(name) for _, _, name in points))
        for speed, auc, name in points:
            colour = COLOURS[families.index(_family(name)) % len(COLOURS)]
            axes.plot(speed, auc, "o", color=colour, markersize=7, markeredgecolor="white", zorder=3)
        _limits(axes, points, levels)
        for level, _ in levels:
            axes.axhline(level, color=GREY, linestyle=(0, (4, 3)), linewidth=1, zorder=1)
        _place_labels(figure, axes, points, levels)


@contextlib.contextmanager
def figure_file(path: Path | str, size: tuple[float, float]) -> Iterator[Figure]:
    """A figure in this module's style, on the Agg canvas (no display), saved when the block ends without an error."""
    # Imported here: matplotlib takes half a second, and evaluation without figures does not need it.
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, dpi=160, layout="tight")
        FigureCanvasAgg(figure)
        yield figure
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format=Path(path).suffix.removeprefix(".") or "png")


def _loss_panel(axes: Axes, title: str, lines: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    x_key = "samples" if all("samples" in record for records in lines.values() for record in records) else "step"
    raw_values, smooth_values = [], []
    for number, (label, records) in enumerate(lines.items()):
        x = np.array([record.get(x_key, place) for place, record in enumerate(records)], np.float64)
        y = np.array([record["train/loss"] for record in records], np.float64)
        smooth = _moving_mean(y)
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(x, y, color=colour, alpha=0.45 / math.sqrt(len(lines)), linewidth=0.7)
        axes.plot(x, smooth, color=colour, linewidth=1.6, label=label, marker="o" if len(x) == 1 else "")
        raw_values.append(y)
        smooth_values.append(smooth)
    # The first steps of a fresh head can lie far above the rest; the curve's shape matters more than its first point.
    raw, smooth = np.concatenate(raw_values), np.concatenate(smooth_values)
    low, high = float(raw.min()), max(float(np.quantile(raw, 0.99)), float(smooth.max()))
    margin = 0.06 * (high - low) or 0.05 * max(abs(high), 1e-3)
    axes.set_ylim(low - margin, high + margin)
    axes.set_title(title)
    axes.set_xlabel("samples" if x_key == "samples" else "step")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: "0" if value == 0 else _short(value)))
    if len(lines) > 1:
        axes.legend(fontsize=8, loc="upper right", handlelength=1.2)


def _moving_mean(y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centred mean over about a twentieth of the curve, over what there is of the window at both ends."""
    half = len(y) // 40
    total = np.concatenate([[0.0], np.cumsum(y)])
    place = np.arange(len(y))
    first, last = np.maximum(place - half, 0), np.minimum(place + half + 1, len(y))
    means: NDArray[np.float64] = (total[last] - total[first]) / (last - first)
    return means


def _short(value: float) -> str:
    """Axis figures: 2.5M, 400k, 75."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def _family(label: str) -> str:
    """`Tiny-NewsRec-4 (53 M)` and `Tiny-NewsRec-1` are one family and share a colour."""
    return re.sub(r"(-\d+)?( \(.*\))*$", "", label)


def _limits(axes: Axes, points: Sequence[tuple[float, float, str]], levels: Sequence[tuple[float, str]]) -> None:
    """Leave room for labels, and keep the models apart: a far level (an oracle at 100) becomes a note at the edge."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

    ys = [y for _, y, _ in points] or [level for level, _ in levels]
    span = max(max(ys) - min(ys), 1.0)
    near = [level for level, _ in levels if min(ys) - 2.5 * span <= level <= max(ys) + 2.5 * span]
    low, high = min(*ys, *near, math.inf), max(*ys, *near, -math.inf)
    axes.set_ylim(low - 0.16 * max(high - low, 1.0), high + 0.16 * max(high - low, 1.0))
    axes.set_xscale("log")
    xs = [x for x, _, _ in points] or [1.0, 10.0]
    left, right = math.log10(min(xs)), math.log10(max(xs))
    room = 0.18 * max(right - left, 0.5)
    axes.set_xlim(10 ** (left - room), 10 ** (right + 2 * room))
    # 1, 2 and 5 of each decade in plain figures: powers of ten alone leave a narrow axis with one label or none.
    decades = range(math.floor(left - room), math.ceil(right + 2 * room) + 1)
    steps = (1, 2, 5) if right - left < 2 else (1,)
    axes.xaxis.set_major_locator(FixedLocator([step * 10.0**decade for decade in decades for step in steps]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _place_labels(
    figure: Figure, axes: Axes, points: Sequence[tuple[float, float, str]], levels: Sequence[tuple[float, str]]
) -> None:
    """Write the names beside lines and points, each at the first spot around it that covers no other mark."""
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    frame = axes.get_window_extent(renderer)
    pixel = figure.dpi / 72
    marks = [axes.transData.transform((x, y)) for x, y, _ in points]
    taken = [Bbox.from_extents(x - 5 * pixel, y - 5 * pixel, x + 5 * pixel, y + 5 * pixel) for x, y in marks]
    low, high = axes.get_ylim()

    def cost(box: Bbox) -> float:
        inside = max(0.0, min(box.x1, frame.x1) - max(box.x0, frame.x0)) * max(
            0.0, min(box.y1, frame.y1) - max(box.y0, frame.y0)
        )
        overlaps = sum(
            max(0.0, min(box.x1, other.x1) - max(box.x0, other.x0))
            * max(0.0, min(box.y1, other.y1) - max(box.y0, other.y0))
            for other in taken
        )
        return 2 * (box.width * box.height - inside) + overlaps

    leader = {"arrowstyle": "-", "color": "#b0b0b0", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4}

    def write(
        text: str, anchor: tuple[float, float], spots: Sequence[tuple[float, float, str, str]], colour: str, lead: bool
    ) -> None:
        """Write at the cheapest of the spots (x and y offset in points, alignments); earlier spots win ties."""
        best = None
        for dx, dy, horizontal, vertical in spots:
            label = axes.annotate(
                text,
                anchor,
                (dx, dy),
                textcoords="offset points",
                ha=horizontal,
                va=vertical,
                fontsize=8,
                color=colour,
                # A label far from its point needs a line to it.
                arrowprops=leader if lead and max(abs(dx), abs(dy)) > 10 else None,
            )
            # Labels must not move the axes: their spots are counted in pixels of the layout as it is.
            label.set_in_layout(False)
            label.update_positions(renderer)
            # The text's own box: an annotation's would include the line to its point.
            box = Text.get_window_extent(label, renderer).padded(1.0 * pixel)
            # Half a square pixel of overlap does not show; it must not send a label to the other side.
            price = cost(box) if cost(box) > 0.5 else 0.0
            if best is None or price < best[0]:
                if best is not None:
                    best[1].remove()
                best = (price, label, box)
            else:
                label.remove()
            if price == 0.0:
                break
        assert best is not None
        taken.append(best[2])

    edges = axes.get_xlim()
    # Along the line, above it then below, from the right edge leftwards.
    along = [(-shift, dy, "right", va) for shift in (2, 120, 240) for dy, va in ((2, "bottom"), (-2, "top"))]
    for level, name in sorted(levels):
        text = f"{name} {level:.2f}"
        if low < level < high:
            write(text, (edges[1], level), along, GREY, False)
        else:
            arrow, edge = ("\u2193", low) if level <= low else ("\u2191", high)
            vertical, side = ("bottom", 3) if level <= low else ("top", -3)
            spots = [(-shift, side * (1 + 4 * row), "right", vertical) for row in range(3) for shift in (2, 120, 240)]
            write(f"{arrow} {text}", (edges[1], edge), spots, GREY, False)
    around = [
        (sx * r, sy * r, {1: "left", 0: "center", -1: "right"}[sx], {1: "bottom", 0: "center", -1: "top"}[sy])
        for r in (6, 12, 20, 30, 44)
        for sx, sy in ((0, 1), (1, 0), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1), (-1, 0))
    ]
    for x, y, name in sorted(points, key=lambda point: -point[1]):
        write(name, (x, y), around, "#222222", True)
