"""A picture as a list of lines, texts and marks, and its inline SVG that follows the page's colours.

One layout serves pages and files (`figures.picture`), so that they show the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tnr_dist.figures.palette import SERIES
from tnr_dist.util.markup import html

# A colour is a number (a series, taken modulo) or one of these words; the page's style says what each looks like.
Colour = int | str

DASHES = ((), (6, 3), (1.5, 2.5), (8, 2.5, 1.5, 2.5))
_FONT = 11.0  # units; a character is about half as wide
_CHARACTER = 0.55


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
