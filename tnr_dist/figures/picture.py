"""A picture as a file: matplotlib's figure in this project's style, without a display, written atomically."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tnr_dist.figures.palette import LIGHT, SERIES
from tnr_dist.util.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = tuple(LIGHT[f"c{number}"] for number in range(SERIES))
GREY = LIGHT["muted"]
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": LIGHT["axis"],
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LIGHT["grid"],
    "legend.frameon": False,
    "text.parse_math": False,  # a `$` in a name is a letter
}


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
