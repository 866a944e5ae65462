"""Drawings as a file, PNG, PDF or SVG: drawn by matplotlib without a display."""

from __future__ import annotations

import contextlib
import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tnr_dist.figures.drawing import DASHES, Box, Colour, Dot, Drawing, Item, Label, Legend, Line, text_width
from tnr_dist.figures.palette import LIGHT, SERIES
from tnr_dist.figures.shorten import shortened
from tnr_dist.util.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_UNITS = 90  # of a drawing, to the inch
_TITLE, _PANEL_TITLE, _NOTE = 13.0, 12.0, 10.0


def write_picture(
    path: Path, title: str, drawings: Sequence[Drawing], legend: Sequence[Legend] = (), note: str = ""
) -> None:
    """The drawings side by side, up to three in a row, with legend and note below, in light colours; written atomically.

    A PNG, or what else the name ends in: .pdf or .svg.
    """
    columns = min(3, len(drawings)) if len(drawings) != 4 else 2
    rows = -(-len(drawings) // columns)
    wide, high = max(one.width for one in drawings), max(one.height for one in drawings)
    total_width = columns * (wide + 12) + 12
    entries = _legend_lines(legend, total_width)
    heading = textwrap.wrap(title, int(total_width / text_width("x", _TITLE)))
    top = 16 + 18 * len(heading)
    bottom = top + rows * (high + 30)
    notes = textwrap.wrap(note, int((total_width - 24) / text_width("x", _NOTE)))
    below = bottom + 18 * (1 + max((row for row, _, _ in entries), default=-1))
    total_height = below + 14 * len(notes) + 6
    with _saved_figure(path, (total_width / _UNITS, total_height / _UNITS)) as figure:
        # Everything is placed already: one axes over the whole picture, in units, y downwards.
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set_xlim(0, total_width)
        axes.set_ylim(total_height, 0)
        axes.axis("off")
        canvas = _Canvas(axes)
        for number, text in enumerate(heading):
            canvas.draw(Label(12, 22 + 18 * number, text, colour="text", size=_TITLE))
        titles = shortened((one.title for one in drawings), int(wide / text_width("x", _PANEL_TITLE)))
        for number, drawing in enumerate(drawings):
            x = 12 + (number % columns) * (wide + 12)
            y = top + (number // columns) * (high + 30)
            canvas.draw(Label(x, y + 14, titles[drawing.title], colour="text", size=_PANEL_TITLE))
            for item in drawing.items:
                canvas.draw(item, x, y + 22)
        for row, x, entry in entries:
            y = bottom + 18 * row + 10
            canvas.draw(Line([(x, y - 4), (x + 22, y - 4)], entry.colour, 2, entry.dash))
            canvas.draw(Label(x + 28, y, entry.name, colour="text"))
        for number, text in enumerate(notes):
            canvas.draw(Label(12, below + 14 * number + 8, text, size=_NOTE))


def _legend_lines(legend: Sequence[Legend], width: float) -> list[tuple[int, float, Legend]]:
    """Row and left edge of each entry, broken at `width`."""
    out, row, x = [], 0, 12.0
    names = shortened((entry.name for entry in legend), int((width - 12 - 44) / text_width("x")))
    for entry in (replace(entry, name=names[entry.name]) for entry in legend):
        size = 44 + text_width(entry.name)
        if x > 12 and x + size > width:
            row, x = row + 1, 12.0
        out.append((row, x, entry))
        x += size
    return out


@contextlib.contextmanager
def _saved_figure(path: Path, size: tuple[float, float]) -> Iterator[Figure]:
    """A figure on the Agg canvas, saved when the block ends without an error."""
    # Imported here: matplotlib takes half a second, and evaluation without figures does not need it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=160)
    FigureCanvasAgg(figure)
    yield figure
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=path.suffix.removeprefix(".") or "png")


class _Canvas:
    """Draws items on matplotlib axes whose data coordinates are units."""

    def __init__(self, axes: Axes) -> None:
        self.axes = axes

    def draw(self, item: Item, x0: float = 0.0, y0: float = 0.0) -> None:
        from matplotlib.patches import Rectangle

        axes, points = self.axes, 72 / _UNITS
        colour = _light(item.colour)
        if isinstance(item, Label):
            side = {"start": "left", "middle": "center", "end": "right"}[item.anchor]
            axes.text(
                x0 + item.x,
                y0 + item.y,
                item.text,
                ha=side,
                va="baseline",
                color=colour,
                fontsize=item.size * points,
                parse_math=False,  # a `$` in a name is a letter
            )
        elif isinstance(item, Dot):
            size = math.pi * (item.radius * points) ** 2
            axes.scatter([x0 + item.x], [y0 + item.y], s=size, color=colour, zorder=3)
        elif isinstance(item, Box):
            axes.add_patch(Rectangle((x0 + item.x, y0 + item.y), item.width, item.height, color=colour, linewidth=0))
        else:
            dash = DASHES[item.dash % len(DASHES)]
            axes.plot(
                [x0 + x for x, _ in item.points],
                [y0 + y for _, y in item.points],
                color=colour,
                alpha=item.opacity,
                linewidth=item.width * points,
                linestyle=(0, tuple(one / item.width for one in dash)) if dash else "-",
            )


def _light(colour: Colour) -> str:
    return LIGHT[f"c{colour % SERIES}" if isinstance(colour, int) else colour]
