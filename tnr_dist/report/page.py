"""What a report consists of, apart from how it is written: HTML and Markdown are two writings of the same document."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from tnr_dist.figures.drawing import Drawing, Legend


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        best: the best of its column.
        strong: a sum or the like.
        quiet: says that there is nothing, or something of less weight.
        share: 0..1, drawn as a bar beside the text; None: no bar.
    """

    text: str
    best: bool = False
    strong: bool = False
    quiet: bool = False
    share: float | None = None


@dataclass(frozen=True)
class Table:
    """Rows under column headers; the first `words` columns are text, the others figures. `caption` says what is shown."""

    kind: ClassVar[str] = "table"
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    words: int = 1

    @property
    def cells(self) -> list[list[Cell]]:
        """The rows with every cell as a `Cell`."""
        return [[Cell(one) if isinstance(one, str) else one for one in row] for row in self.rows]


@dataclass(frozen=True)
class Figure:
    """Panels side by side under one legend; written beside the page as `file`."""

    kind: ClassVar[str] = "figure"
    name: str
    caption: str
    panels: Sequence[Drawing]
    legend: Sequence[Legend] = ()

    @property
    def ident(self) -> str:
        """The name as part of a file's name and of HTML ids, whatever it came from."""
        return re.sub(r"[^A-Za-z0-9-]", "_", self.name)

    @property
    def file(self) -> str:
        """The picture's file name."""
        return f"{self.ident}.png"


@dataclass(frozen=True)
class Heading:
    """Begins a part of a section."""

    kind: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True)
class Paragraph:
    """Words."""

    kind: ClassVar[str] = "paragraph"
    text: str


@dataclass(frozen=True)
class Fold:
    """A long text that is folded away."""

    kind: ClassVar[str] = "fold"
    summary: str
    text: str


Block = Table | Figure | Heading | Paragraph | Fold


@dataclass(frozen=True)
class Section:
    """A part of the page that the table of contents names."""

    id: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Tile:
    """A figure that is seen first, and what it is."""

    value: str
    label: str


@dataclass(frozen=True)
class Document:
    """The whole report."""

    title: str
    subtitle: str
    tiles: Sequence[Tile] = ()
    sections: Sequence[Section] = field(default_factory=list)

    @property
    def figures(self) -> list[Figure]:
        """All figures, in order."""
        return [block for section in self.sections for block in section.blocks if isinstance(block, Figure)]
