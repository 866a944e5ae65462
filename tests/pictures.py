"""What a picture shows: the pixels of the file, and the figure that it was saved from."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import matplotlib.image
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tnr_dist.figures.palette import LIGHT, SERIES

COLOURS = tuple(LIGHT[f"c{number}"] for number in range(SERIES))


@contextlib.contextmanager
def figures() -> Iterator[list[Figure]]:
    """Inside, every figure that is saved is kept, as it was drawn, in the order of the files."""
    kept: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *arguments: object, **options: object) -> None:
        save(figure, *arguments, **options)
        kept.append(figure)

    Figure.savefig = keep  # type: ignore[method-assign]
    try:
        yield kept
    finally:
        Figure.savefig = save  # type: ignore[method-assign]


def drawn(path: Path, colours: Iterator[str] | tuple[str, ...], least: int = 20) -> set[str]:
    """Which of the colours (#rrggbb) the picture has, each on `least` pixels or more: an empty chart has none of a line's."""
    image = matplotlib.image.imread(path, format="png")
    pixels = np.round(image[..., :3] * 255).astype(np.uint8)
    found = set()
    for colour in colours:
        wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], np.uint8)
        if (pixels == wanted).all(-1).sum() >= least:
            found.add(colour)
    return found


def lines(axes: Axes) -> list[tuple[list[float], list[float]]]:
    """The x and y values of each line of a panel, as they were given to it."""
    return [(list(map(float, line.get_xdata())), list(map(float, line.get_ydata()))) for line in axes.get_lines()]


def words(figure: Figure) -> set[str]:
    """Every text that the figure shows: titles, labels, ticks, legends, notes."""
    from matplotlib.text import Text

    return {text.get_text() for text in figure.findobj(Text) if text.get_text() and text.get_visible()}
