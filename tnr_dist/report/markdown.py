"""A document as Markdown: the same tables, and links to the pictures beside it."""

from __future__ import annotations

import re

from tnr_dist.report.page import Block, Cell, Document, Figure, Fold, Heading, Table
from tnr_dist.util.markup import html, markdown, one_line


def to_markdown(document: Document) -> str:
    """The page; names and values cannot begin markup of their own."""
    lines = [f"# {markdown(document.title)}", "", markdown(document.subtitle), ""]
    lines += [f"- **{markdown(tile.value)}** {markdown(tile.label)}" for tile in document.tiles]
    for section in document.sections:
        lines += ["", f"## {markdown(section.title)}"]
        for block in section.blocks:
            lines += ["", *_block(block)]
    return "\n".join(lines) + "\n"


def _block(block: Block) -> list[str]:
    if isinstance(block, Table):
        return [markdown(block.caption), "", *_table(block)]
    if isinstance(block, Figure):
        return [f"![{markdown(block.caption)}]({block.file})", "", markdown(block.caption)]
    if isinstance(block, Heading):
        return [f"### {markdown(block.text)}"]
    if isinstance(block, Fold):
        # A fence longer than any run of backticks in the text cannot be closed by it.
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", block.text)), default=0))
        return [
            "<details>",
            f"<summary>{html(one_line(block.summary))}</summary>",  # up to the blank line this is HTML
            "",
            fence,
            block.text.rstrip("\n"),
            fence,
            "",
            "</details>",
        ]
    return [markdown(block.text)]


def _table(table: Table) -> list[str]:
    rule = ["---" if column < table.words else "---:" for column in range(len(table.columns))]
    rows = [[_cell(cell) for cell in row] for row in table.cells]
    return ["| " + " | ".join(row) + " |" for row in ([markdown(name) for name in table.columns], rule, *rows)]


def _cell(cell: Cell) -> str:
    text = markdown(cell.text)
    return f"**{text}**" if (cell.best or cell.strong) and text else text
