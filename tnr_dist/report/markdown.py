"""A document as Markdown: the same tables, and links to the pictures beside it."""

from __future__ import annotations

import re

from tnr_dist.report.page import Block, Cell, Document, Figure, Fold, Heading, Table


def to_markdown(document: Document) -> str:
    """The page; names and values cannot begin markup of their own."""
    lines = [f"# {_plain(document.title)}", "", _plain(document.subtitle), ""]
    lines += [f"- **{_plain(tile.value)}** {_plain(tile.label)}" for tile in document.tiles]
    for section in document.sections:
        lines += ["", f"## {_plain(section.title)}"]
        for block in section.blocks:
            lines += ["", *_block(block)]
    return "\n".join(lines) + "\n"


def _block(block: Block) -> list[str]:
    if isinstance(block, Table):
        return [_plain(block.caption), "", *_table(block)]
    if isinstance(block, Figure):
        return [f"![{_plain(block.caption)}]({block.file})", "", _plain(block.caption)]
    if isinstance(block, Heading):
        return [f"### {_plain(block.text)}"]
    if isinstance(block, Fold):
        # A fence longer than any run of backticks in the text cannot be closed by it.
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", block.text)), default=0))
        return [
            "<details>",
            f"<summary>{_plain(block.summary)}</summary>",
            "",
            fence,
            block.text.rstrip("\n"),
            fence,
            "",
            "</details>",
        ]
    return [_plain(block.text)]


def _table(table: Table) -> list[str]:
    rule = ["---" if column < table.words else "---:" for column in range(len(table.columns))]
    rows = [[_cell(cell) for cell in row] for row in table.cells]
    return ["| " + " | ".join(row) + " |" for row in ([_plain(name) for name in table.columns], rule, *rows)]


def _cell(cell: Cell) -> str:
    text = _plain(cell.text)
    return f"**{text}**" if (cell.best or cell.strong) and text else text


def _plain(text: str) -> str:
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|])", r"\\\1", text)
