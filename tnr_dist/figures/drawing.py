"""A picture as a list of lines, texts and marks: written as inline SVG that follows the page's colours, or as PNG.

One layout serves both, so that the page and the pictures beside it show the same.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tnr_dist.figures.palette import LIGHT, SERIES
from tnr_dist.figures.picture import figure_file
from tnr_dist.figures.shorten import shortened
from tnr_dist.util.markup import html

# A colour is a number (a series, taken modulo) or one of these words; the page's style says what each looks like.
Colour = int | str

DASHES = ((), (6, 3), (1.5, 2.5), (8, 2.5, 1.5, 2.5))
_FONT = 11.0  # units; a character is about half as wide
_CHARACTER = 0.55
_TITLE = 13.0
_PANEL_TITLE = 12.0


@dataclass(frozen=True)
class Line:
    """A path through points; `name` is shown when it is pointed at."""

    points: Sequence[tuple[float, float]]
    colour: Colour
    width: float = 1.6
    dash: int = 0
    name: str = ""
    opacity: float = 1.0


@dataclass(frozen=True)
class Dot:
    """A round mark."""

    x: float
    y: float
    colour: Colour
    radius: float = 4.5
    name: str = ""


@dataclass(frozen=True)
class Box:
    """A filled rectangle; x and y of its upper left corner."""

    x: float
    y: float
    width: float
    height: float
    colour: Colour
    name: str = ""


@dataclass(frozen=True)
class Label:
    """A text; `anchor` is start, middle or end, y its base line."""

    x: float
    y: float
    text: str
    anchor: str = "start"
    colour: Colour = "muted"
    size: float = _FONT


Item = Line | Dot | Box | Label


@dataclass(frozen=True)
class Legend:
    """What a colour and a dash stand for."""

    name: str
    colour: int
    dash: int = 0


@dataclass(frozen=True)
class Drawing:
    """A picture of `width` x `height` units, y downwards; `description` says in words what it shows."""

    title: str
    description: str
    items: Sequence[Item]
    width: float = 360.0
    height: float = 232.0

    def svg(self, ident: str) -> str:
        """Inline SVG; `ident` must be unique on the page. Colours and fonts are classes of the page's style."""
        parts = [
            f'<svg class="chart" viewBox="0 0 {_number(self.width)} {_number(self.height)}" role="img" '
            f'aria-labelledby="{ident}-t {ident}-d">',
            f'<title id="{ident}-t">{html(self.title)}</title><desc id="{ident}-d">{html(self.description)}</desc>',
            *(_svg(item) for item in self.items),
            "</svg>",
        ]
        return "\n".join(parts)


def text_width(text: str, size: float = _FONT) -> float:
    """About how wide a text is: there is no font to ask here."""
    return _CHARACTER * size * len(text)


def write_png(path: Path, title: str, drawings: Sequence[Drawing], legend: Sequence[Legend]) -> None:
    """The drawings side by side, up to three in a row, with the legend below, in light colours."""
    columns = min(3, len(drawings)) if len(drawings) != 4 else 2
    rows = -(-len(drawings) // columns)
    wide, high = max(one.width for one in drawings), max(one.height for one in drawings)
    total_width = columns * (wide + 12) + 12
    entries = _legend_lines(legend, total_width)
    heading = textwrap.wrap(title, int(total_width / text_width("x", _TITLE)))
    top = 16 + 18 * len(heading)
    bottom = top + rows * (high + 30)
    total_height = bottom + 18 * (1 + max((row for row, _, _ in entries), default=-1)) + 6
    with figure_file(path, (total_width / 90, total_height / 90)) as figure:
        # Everything is placed already: one axes over the whole picture, in units, y downwards.
        figure.set_layout_engine("none")
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


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _class(letter: str, colour: Colour) -> str:
    return f"{letter}{colour % SERIES}" if isinstance(colour, int) else f"{letter}-{colour}"


def _svg(item: Item) -> str:
    if isinstance(item, Label):
        return (
            f'<text x="{_number(item.x)}" y="{_number(item.y)}" text-anchor="{item.anchor}" '
            f'class="{_class("f", item.colour)}" font-size="{_number(item.size)}">{html(item.text)}</text>'
        )
    name = f"<title>{html(item.name)}</title>" if item.name else ""
    if isinstance(item, Dot):
        return (
            f'<circle cx="{_number(item.x)}" cy="{_number(item.y)}" r="{_number(item.radius)}" '
            f'class="{_class("f", item.colour)}">{name}</circle>'
        )
    if isinstance(item, Box):
        return (
            f'<rect x="{_number(item.x)}" y="{_number(item.y)}" width="{_number(item.width)}" '
            f'height="{_number(item.height)}" class="{_class("f", item.colour)}">{name}</rect>'
        )
    way = "M" + "L".join(f"{_number(x)} {_number(y)}" for x, y in item.points)
    dash = DASHES[item.dash % len(DASHES)]
    dashes = f' stroke-dasharray="{" ".join(map(_number, dash))}"' if dash else ""
    faint = f' opacity="{item.opacity:g}"' if item.opacity < 1 else ""
    return (
        f'<path d="{way}" class="{_class("s", item.colour)}" stroke-width="{_number(item.width)}"{dashes}{faint}>'
        f"{name}</path>"
    )


class _Canvas:
    """Draws items on matplotlib axes whose data coordinates are units, 90 to the inch."""

    def __init__(self, axes: object) -> None:
        self.axes = axes

    def draw(self, item: Item, x0: float = 0.0, y0: float = 0.0) -> None:
        from matplotlib.axes import Axes
        from matplotlib.patches import Rectangle

        axes, points = self.axes, 72 / 90
        assert isinstance(axes, Axes)
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
