"""Text in Markdown, HTML and LaTeX: one escaping function a format. Names of rows and runs come from outside."""

from __future__ import annotations

import re
from collections.abc import Sequence

from markupsafe import escape

# Signs that begin or end something within a line of GitHub's Markdown; `_` only where it is not inside a word.
_INLINE = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])|(?<=\w):(?=//)|(?<=\bwww)\.")
# What makes a heading, a list, a rule or an underlined heading of a line that begins with it.
_LINE_START = re.compile(r"(#{1,6}|[-+]|--+|=+|\d{1,9}(?=[.)]))(?=[.)]?\s)|(--+|==+)$")
_TEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # After the \\ that ends a row these two would be its arguments.
    "[": "{[}",
    "*": "{*}",
    "]": "{]}",
    "±": r"$\pm$",
    "β": r"$\beta$",
    **{sign: "\\" + sign for sign in "{}$&#_%"},
}


def one_line(text: str) -> str:
    """Without line breaks and control characters: runs of them, and of spaces, become one space."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())


def markdown(text: str) -> str:
    """A text as part of a line of Markdown, in a paragraph or a cell of a table, where it begins no markup of its own."""
    text = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    escaped = _INLINE.sub(lambda found: "\\" + found[0], text)
    if start := _LINE_START.match(escaped):
        digits = start[0] if start[0].isdigit() else ""
        escaped = f"{digits}\\{escaped[len(digits) :]}"
    return escaped


def markdown_code(text: str) -> str:
    """A text as code in a line of Markdown (not in a table, where `|` ends a cell), between more backticks than it has."""
    text = one_line(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") or not text else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    """A table that also reads as plain text.

    Args:
        lines: header and rows, of cells in Markdown; the first column is text, the others are figures.
    """
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(lines[0]))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    padded = [
        [
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in (lines[0], rule, *lines[1:])
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in padded)


def html(text: str) -> str:
    """A text in HTML or SVG, as an element's content or in a quoted attribute; the page's template does the same."""
    return str(escape(text))


def latex(text: str) -> str:
    """A text in a LaTeX paragraph or table. ± and β are set in math."""
    return "".join(_TEX.get(one, one) for one in one_line(text))
