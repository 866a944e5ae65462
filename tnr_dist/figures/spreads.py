"""Charts of means over seeds: each with its deviation as caps and its single seeds as strokes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tnr_dist.figures.drawing import Dot, Drawing, Item, Line, text_width
from tnr_dist.figures.frame import BOTTOM, TOP, WIDTH, Frame, span
from tnr_dist.figures.shorten import shortened

_STEP = 26.0  # units from one row to the next
_CAP, _STROKE = 3.5, 6.0  # half lengths


@dataclass(frozen=True)
class Spread:
    """A mean with the values that it is of; `deviation` is None of a single one."""

    name: str
    mean: float
    deviation: float | None
    values: Sequence[float]
    colour: int = 0

    @property
    def ends(self) -> tuple[float, float]:
        """The least and the most of what is drawn."""
        far = self.deviation or 0.0
        return min(self.mean - far, *self.values), max(self.mean + far, *self.values)

    @property
    def text(self) -> str:
        """The figures in words."""
        return f"{self.name}: {self.mean:.2f}" + ("" if self.deviation is None else f" ± {self.deviation:.2f}")


def spread_rows(title: str, groups: Sequence[Sequence[Spread]], width: float = WIDTH) -> Drawing | None:
    """Named means below each other over one x axis, with room between groups; None where there are none."""
    rows = [one for group in groups for one in group]
    if not rows:
        return None
    most = int((0.5 * width) / text_width("x"))
    names = shortened((one.name for one in rows), most)
    place, places = 0.0, []
    for group in groups:
        places += [place + number for number in range(len(group))]
        place += len(group) + 0.5 * bool(group)
    low, high = min(one.ends[0] for one in rows), max(one.ends[1] for one in rows)
    frame = Frame(
        span(low, high, 0.06),
        (places[-1] + 0.5, -0.5),
        width=width,
        height=TOP + _STEP * (places[-1] + 1) + BOTTOM,
        y_ticks=[(place, names[one.name]) for place, one in zip(places, rows, strict=True)],
    )
    items = frame.axes("", upright_grid=True)
    for place, one in zip(places, rows, strict=True):
        y = frame.y(place)
        items += _marks(one, [(frame.x(value), y) for value in (one.mean, *one.values)])
        if one.deviation is not None:
            items += _caps(one, (frame.x(one.mean - one.deviation), y), (frame.x(one.mean + one.deviation), y))
    return Drawing(title, _words("", rows), items, width, frame.bottom + BOTTOM)


def spread_line(title: str, x_label: str, points: Sequence[Spread]) -> Drawing | None:
    """Means over the values of a setting, named below and joined by a line; None where there are none."""
    if not points:
        return None
    low, high = min(one.ends[0] for one in points), max(one.ends[1] for one in points)
    frame = Frame((-0.5, len(points) - 0.5), span(low, high, 0.07))
    items = frame.axes(x_label, x_ticks=[(place, one.name) for place, one in enumerate(points)])
    items.append(Line([(frame.x(place), frame.y(one.mean)) for place, one in enumerate(points)], 0, 1.7))
    for place, one in enumerate(points):
        x = frame.x(place)
        items += _marks(one, [(x, frame.y(value)) for value in (one.mean, *one.values)], upright=False)
        if one.deviation is not None:
            items += _caps(one, (x, frame.y(one.mean - one.deviation)), (x, frame.y(one.mean + one.deviation)))
    return Drawing(title, _words(x_label, points), items)


def _marks(one: Spread, places: Sequence[tuple[float, float]], upright: bool = True) -> list[Item]:
    """A dot at the first place, the mean, and strokes at the others, the single values."""
    dx, dy = (0.0, _STROKE) if upright else (_STROKE, 0.0)
    strokes = [Line([(x - dx, y - dy), (x + dx, y + dy)], one.colour, 1.2, opacity=0.6) for x, y in places[1:]]
    return [*strokes, Dot(*places[0], one.colour, 4.0, one.text)]


def _caps(one: Spread, first: tuple[float, float], last: tuple[float, float]) -> list[Item]:
    dx, dy = (0.0, _CAP) if first[1] == last[1] else (_CAP, 0.0)
    ends = [Line([(x - dx, y - dy), (x + dx, y + dy)], one.colour, 1.4) for x, y in (first, last)]
    return [Line([first, last], one.colour, 1.4), *ends]


def _words(x_label: str, points: Sequence[Spread]) -> str:
    return f"Means{f' over {x_label}' if x_label else ''}. {'; '.join(one.text for one in points)}."
