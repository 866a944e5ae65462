"""Where values lie on a drawing: the frame of a chart, its axes and their ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tnr_dist.figures.drawing import Item, Label, Line, text_width

WIDTH, HEIGHT = 360.0, 232.0
TOP, BOTTOM, RIGHT = 12.0, 40.0, 12.0


def figure(value: float) -> str:
    """A number in few figures: 2.5M, 400k, 75, 0.013, 3e-05."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


class Frame:
    """Where values lie on a drawing; the left margin leaves room for the tick labels.

    Args:
        y_ticks: places and names of a y axis that is no number.
    """

    def __init__(
        self,
        xs: tuple[float, float],
        ys: tuple[float, float],
        *,
        log_x: bool = False,
        log_y: bool = False,
        width: float = WIDTH,
        height: float = HEIGHT,
        top: float = TOP,
        y_ticks: Sequence[tuple[float, str]] | None = None,
    ) -> None:
        self.xs, self.ys, self.log_x, self.log_y = xs, ys, log_x, log_y
        self.top, self.bottom, self.right = top, height - BOTTOM, width - RIGHT
        if y_ticks is None:
            y_ticks = _log_ticks(*ys) if log_y else _ticks(*ys)
        self.y_ticks = y_ticks
        self.left = 8 + max((text_width(name) for _, name in self.y_ticks), default=0.0)

    def x(self, value: float) -> float:
        """From a value to units."""
        place = math.log10(value) if self.log_x else value
        low, high = self.xs
        return self.left + (self.right - self.left) * (place - low) / (high - low)

    def y(self, value: float) -> float:
        """From a value to units, upwards."""
        place = math.log10(value) if self.log_y else value
        low, high = self.ys
        return self.bottom - (self.bottom - self.top) * (place - low) / (high - low)

    def axes(
        self, x_label: str, x_ticks: Sequence[tuple[float, str]] | None = None, upright_grid: bool = False
    ) -> list[Item]:
        """Grid lines, tick labels and the name of the x axis."""
        items: list[Item] = []
        for value, name in self.y_ticks:
            y = self.y(value)
            items.append(Line([(self.left, y), (self.right, y)], "grid", 1.0))
            items.append(Label(self.left - 5, y + 4, name, "end"))
        items.append(Line([(self.left, self.bottom), (self.right, self.bottom)], "axis", 1.0))
        if x_ticks is None:
            x_ticks = (
                _log_ticks(*self.xs)
                if self.log_x
                else _ticks(*self.xs, most=max(5, int((self.right - self.left) / 70)))
            )
        room_from = 0.0
        for value, name in x_ticks:
            x, half = self.x(value), text_width(name) / 2
            if not self.left - 1 <= x <= self.right + 1 or x - half < room_from:
                continue  # not in the frame, or the one before it is too near
            room_from = x + half + 7
            if upright_grid:
                items.append(Line([(x, self.top), (x, self.bottom)], "grid", 1.0))
            items.append(Line([(x, self.bottom), (x, self.bottom + 4)], "axis", 1.0))
            anchor, at = ("end", self.right + RIGHT - 1) if x + half > self.right + RIGHT else ("middle", x)
            items.append(Label(at, self.bottom + 16, name, anchor))
        items.append(Label((self.left + self.right) / 2, self.bottom + 33, x_label, "middle"))
        return items


def span(low: float, high: float, room: float) -> tuple[float, float]:
    """The ends of an axis from `low` to `high`, with a share of its length as room at both."""
    size = high - low
    if size <= 0:
        size = abs(high) or 1.0
        return low - 0.5 * size, high + 0.5 * size
    return low - room * size, high + room * size


def y_span(low: float, high: float, from_zero: bool, log: bool) -> tuple[float, float]:
    """The ends of a y axis; of a log scale their logarithms."""
    if log:
        return span(math.log10(low), math.log10(high), 0.06)
    if from_zero and low >= 0:
        return 0.0, 1.06 * high or 1.0
    # A line that does not move must not be drawn as if its rounding did.
    if high - low < 1e-3 * abs(high):
        middle = (high + low) / 2
        return middle - 0.05 * (abs(middle) or 1.0), middle + 0.05 * (abs(middle) or 1.0)
    return span(low, high, 0.07)


def _ticks(low: float, high: float, most: int = 6) -> list[tuple[float, str]]:
    """Places at 1, 2 or 5 times a power of ten, at most `most` of them, with their names."""
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(size * power for size in (1, 2, 5, 10, 20) if (high - low) / (size * power) <= most)
    values = [n * step for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    largest = max(map(abs, values), default=0.0)
    unit, size = next((pair for pair in (("G", 1e9), ("M", 1e6), ("k", 1e3)) if largest >= pair[1]), ("", 1.0))
    if 0 < largest < 1e-3:
        digits = max(0, math.floor(math.log10(largest)) - math.floor(math.log10(step) + 1e-9))
        return [(value, "0" if value == 0 else f"{value:.{digits}e}".replace("e-0", "e-")) for value in values]
    digits = max(0, -math.floor(math.log10(step / size) + 1e-9))
    return [(value, "0" if value == 0 else f"{value / size:.{digits}f}{unit}") for value in values]


def _log_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """The same for an axis of logarithms: 1, 2 and 5 of each decade, powers of ten alone on a long one."""
    for steps in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)):
        values = [
            step * 10.0**power for power in range(math.floor(low), math.ceil(high) + 1) for step in steps
        ]  # fmt: skip
        values = [value for value in values if low <= math.log10(value) <= high]
        if len(values) >= 3:
            break
    return [(value, _plain(value)) for value in values]


def _plain(value: float) -> str:
    return f"{value:.0e}".replace("e-0", "e-") if value < 1e-3 else figure(value)
