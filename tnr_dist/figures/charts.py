"""Charts laid out as drawings: lines over steps, points with names, bars. Sizes suit one column of a phone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tnr_dist.figures.drawing import Box, Dot, Drawing, Item, Label, Line, text_width
from tnr_dist.figures.frame import TOP, WIDTH, Frame, figure, span, y_span
from tnr_dist.figures.shorten import shortened

_IN_WORDS = 8  # series that a description names
_DECADE = math.log10(20)  # a wider range of positive values is drawn on a log scale


@dataclass(frozen=True)
class Series:
    """One line: equally many x and y, None or not finite where there is nothing."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    colour: int = 0
    dash: int = 0
    faint: bool = False

    @property
    def points(self) -> list[tuple[float, float]]:
        """What can be drawn."""
        pairs = zip(self.x, self.y, strict=True)
        return [(x, y) for x, y in pairs if y is not None and math.isfinite(x) and math.isfinite(y)]


@dataclass(frozen=True)
class Point:
    """A named mark; points of one `colour` are one family."""

    x: float
    y: float
    name: str
    colour: int = 0


def thinned(points: Sequence[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """At most `most` points, each the mean of as many neighbours."""
    if len(points) <= most:
        return list(points)
    out = []
    for i in range(most):
        part = points[i * len(points) // most : (i + 1) * len(points) // most]
        out.append((sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)))
    return out


def line_chart(
    title: str,
    x_label: str,
    series: Sequence[Series],
    *,
    references: Sequence[tuple[float, str]] = (),
    x_ticks: Sequence[tuple[float, str]] | None = None,
    from_zero: bool = False,
    log: bool | None = None,
) -> Drawing | None:
    """Lines in one frame; None when there is no finite point.

    Args:
        references: dashed horizontal lines with their names.
        x_ticks: places and names of an x axis that is no number.
        from_zero: the y axis begins at 0.
        log: of the y axis; None: where values span more than a factor of 20 and none is 0 or less.
    """
    budget = max(40, min(240, 6000 // max(len(series), 1)))
    lines = [(one, thinned(one.points, budget)) for one in series]
    lines = [(one, points) for one, points in lines if points]
    if not lines:
        return None
    xs = [x for _, points in lines for x, _ in points]
    ys = [y for _, points in lines for _, y in points] + [level for level, _ in references]
    low, high = min(ys), max(ys)
    if log is None:
        log = low > 0 and math.log10(high / low) > _DECADE
    room = 0.05 if x_ticks is not None else 0.0
    frame = Frame(span(min(xs), max(xs), room), y_span(low, high, from_zero, log), log_y=log)
    items = frame.axes(x_label, x_ticks=x_ticks)
    for level, name in references:
        y = frame.y(level)
        items.append(Line([(frame.left, y), (frame.right, y)], "reference", 1.0, 1, name))
        items.append(Label(frame.right, y - 3, name, "end"))
    for one, points in lines:
        placed = [(frame.x(x), frame.y(y)) for x, y in points]
        if len(placed) == 1:
            items.append(Dot(*placed[0], one.colour, 3.0, one.name))
        else:
            items.append(Line(placed, one.colour, 1.7, one.dash, one.name, 0.55 if one.faint else 1.0))
    scale = " Log scale." if log else ""
    said = [f"{one.name}: {figure(points[0][1])} to {figure(points[-1][1])}" for one, points in lines[:_IN_WORDS]]
    more = f"; and {len(lines) - _IN_WORDS} more" if len(lines) > _IN_WORDS else ""
    return Drawing(title, f"Lines over {x_label}, first to last value. {'; '.join(said)}{more}.{scale}", items)


def point_chart(
    title: str,
    x_label: str,
    y_label: str,
    points: Sequence[Point],
    levels: Sequence[tuple[float, str]] = (),
    unit: str = "",
) -> Drawing | None:
    """Named points over a log x axis, with horizontal lines at `levels`; None without points."""
    points = [one for one in points if one.x > 0 and math.isfinite(one.x) and math.isfinite(one.y)]
    if not points:
        return None
    ys = [one.y for one in points]
    span = max(max(ys) - min(ys), 0.5)
    # A level far away would press the points together: it becomes a note at the edge.
    near = [(level, name) for level, name in levels if min(ys) - 1.5 * span <= level <= max(ys) + 1.5 * span]
    low, high = min([*ys, *(level for level, _ in near)]), max([*ys, *(level for level, _ in near)])
    above = [one for one in levels if one not in near and one[0] > high]
    below = [one for one in levels if one not in near and one[0] < low]
    room = 0.18 * max(high - low, 0.5)
    low, high = low - (1 + 0.4 * len(below)) * room, high + (1 + 0.4 * len(above)) * room
    xs = [math.log10(one.x) for one in points]
    margin = 0.45 * max(max(xs) - min(xs), 0.3)  # names stand beside their points
    height = 300.0
    frame = Frame((min(xs) - margin, max(xs) + margin), (low, high), log_x=True, height=height, top=TOP + 14)
    items = frame.axes(x_label)
    items.append(Label(2, 14, y_label))
    taken = [(frame.x(one.x) - 6, frame.y(one.y) - 6, 12.0, 12.0) for one in points]
    for level, name in near:
        y = frame.y(level)
        items.append(Line([(frame.left, y), (frame.right, y)], "reference", 1.0, 1, name))
        text = f"{name} {level:.2f}"
        items.append(Label(frame.right, y - 3, text, "end"))
        taken.append((frame.right - text_width(text), y - 14, text_width(text), 12.0))
    for arrow, far, y, step in (
        ("\u2191", above, frame.top + 10, 13),
        ("\u2193", below, frame.bottom - 4, -13),
    ):
        for number, (level, name) in enumerate(far):
            text = f"{arrow} {name} {level:.2f}"
            items.append(Label(frame.right, y + number * step, text, "end"))
            taken.append((frame.right - text_width(text), y + number * step - 11, text_width(text), 12.0))
    names = shortened((one.name for one in points), _characters(WIDTH / 2))
    for one in sorted(points, key=lambda one: (-one.y, one.name)):
        x, y = frame.x(one.x), frame.y(one.y)
        items += _placed(names[one.name], x, y, taken, frame)
        items.append(Dot(x, y, one.colour, 5.0, f"{one.name}: {one.x:,.0f}, {one.y:.2f}{unit}"))
    said = "; ".join(f"{one.name}: {one.y:.2f}{unit} at {figure(one.x)}" for one in points)
    return Drawing(title, f"Points: {y_label} over {x_label} (log scale). {said}.", items, height=height)


def bar_chart(title: str, bars: Sequence[tuple[str, float, str]], reference: str = "") -> Drawing | None:
    """Horizontal bars (name, length, text at the end), one below the other; None without any of length above 0.

    `reference`: the name of a bar that has another colour.
    """
    if not any(value > 0 for _, value, _ in bars):
        return None
    step = 26.0
    most = max(value for _, value, _ in bars)
    after = max(text_width(text) for _, _, text in bars) + 8
    before = min(max(text_width(name) for name, _, _ in bars) + 8, 150.0)
    names = shortened((name for name, _, _ in bars), _characters(before - 8))
    items: list[Item] = []
    for number, (name, value, text) in enumerate(bars):
        y = number * step + 4
        size = max(1.0, (WIDTH - before - after) * value / most)
        items.append(Label(before - 6, y + 14, names[name], "end", "text"))
        items.append(Box(before, y + 2, size, step - 10, int(name == reference), f"{name}: {text}"))
        items.append(Label(before + size + 5, y + 14, text))
    said = "; ".join(f"{name}: {text}" for name, _, text in bars)
    return Drawing(title, f"Bars. {said}.", items, height=len(bars) * step + 6)


def column_chart(title: str, x_label: str, columns: Sequence[tuple[str, float]], colour: int = 0) -> Drawing | None:
    """Upright columns (name, share 0..1), such as a distribution; None without any above 0."""
    most = max((share for _, share in columns), default=0.0)
    if most <= 0:
        return None
    frame = Frame((-0.5, len(columns) - 0.5), (0.0, 100 * most * 1.06))
    every = -(-len(columns) // 10)
    items = frame.axes(x_label, x_ticks=[(i, name) for i, (name, _) in enumerate(columns) if i % every == 0])
    width = (frame.right - frame.left) / len(columns)
    for i, (name, share) in enumerate(columns):
        y = frame.y(100 * share)
        left = frame.x(i) - width / 2
        items.append(
            Box(left + 0.5, y, max(width - 1.0, 0.5), frame.bottom - y, colour, f"{name}: {100 * share:.1f} %")
        )
    largest = max(columns, key=lambda one: one[1])
    return Drawing(
        title, f"Columns over {x_label}, percent. The highest is {largest[0]}: {100 * largest[1]:.1f} %.", items
    )


def _characters(width: float) -> int:
    """How many characters fit."""
    return max(4, math.floor((width + 0.1) / text_width("x")))


def _placed(text: str, x: float, y: float, taken: list[tuple[float, float, float, float]], frame: Frame) -> list[Item]:
    """The name beside its point, at the nearest spot around it that covers nothing; where there is none, the least bad.

    A line leads to a name that could as well be a neighbour's.
    """
    width, height = text_width(text), 12.0
    best: tuple[float, Label, tuple[float, float, float, float]] | None = None
    for far in (9.0, 20.0, 34.0, 48.0):
        for dx, dy in ((0, -1), (1, 0), (0, 1), (-1, 0), (1, -1), (1, 1), (-1, -1), (-1, 1)):
            anchor = {1: "start", 0: "middle", -1: "end"}[dx]
            at_x, at_y = x + dx * far, y + 4 + dy * (far + 2)
            left = at_x - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
            box = (left, at_y - 10, width, height)
            outside = max(0.0, 2 - left) + max(0.0, left + width - WIDTH + 2) + max(0.0, frame.top - 12 - box[1])
            outside += max(0.0, box[1] + height - frame.bottom)
            cost = 12 * outside + sum(_overlap(box, other) for other in taken)
            if best is None or cost < best[0] - 1e-9:
                best = (cost, Label(at_x, at_y, text, anchor, "text"), box)
    assert best is not None
    _, label, box = best
    end = (min(max(x, box[0]), box[0] + box[2]), min(max(y, box[1]), box[1] + box[3]))
    near = any(
        _overlap((one[0] - 8, one[1] - 8, one[2] + 16, one[3] + 16), box) for one in taken if not _holds(one, x, y)
    )
    taken.append(box)
    leader = [Line([(x, y), end], "reference", 0.8)] if near or math.dist((x, y), end) > 14 else []
    return [*leader, label]


def _holds(box: tuple[float, float, float, float], x: float, y: float) -> bool:
    return box[0] <= x <= box[0] + box[2] and box[1] <= y <= box[1] + box[3]


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    wide = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    high = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(0.0, wide) * max(0.0, high)
