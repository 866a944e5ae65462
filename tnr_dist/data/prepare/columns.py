"""How a raw file's text is laid out: its byte order mark and header row, its number of columns, what separates them."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

import numpy as np

from tnr_dist.util.errors import InputError

NEWS_COLUMNS = ["id", "category", "subcategory", "title", "abstract", "url", "title_entities", "abstract_entities"]
BEHAVIOUR_COLUMNS = ["impression_id", "user", "time", "history", "impressions"]
# Names of columns in headers, in lower case and without what is no letter or digit. "news" alone names no column: it is
# also a category of MIND.
_NAMES: dict[str, set[str]] = {
    "id": {
        "id",
        "ids",
        "nid",
        "newsid",
        "docid",
        "documentid",
        "itemid",
        "articleid",
        "storyid",
        "item",
        "article",
        "doc",
    },
    "category": {
        "category",
        "categories",
        "cat",
        "topic",
        "section",
        "vertical",
        "maincategory",
        "genre",
        "vert",
        "categoryname",
        "categorystr",
    },
    "subcategory": {
        "subcategory",
        "subcategories",
        "subcat",
        "subtopic",
        "subsection",
        "subvertical",
        "subvert",
        "subcategoryname",
        "subcategorystr",
    },
    "title": {"title", "titles", "headline", "heading", "name", "titletext"},
    "abstract": {
        "abstract",
        "abstracts",
        "summary",
        "description",
        "snippet",
        "lead",
        "teaser",
        "subtitle",
        "ab",
        "abs",
        "body",
        "text",
        "content",
    },
    "url": {"url", "urls", "link", "uri"},
    "title_entities": {"titleentities", "titleentity", "entities"},
    "abstract_entities": {"abstractentities", "abstractentity"},
    "impression_id": {"impressionid", "impression", "impid", "imprid", "id", "index", "sessionid", "requestid"},
    "user": {"user", "userid", "uid", "reader", "readerid", "visitorid"},
    "time": {"time", "timestamp", "datetime", "date", "ts", "impressiontime", "eventtime"},
    "history": {"history", "clickhistory", "userhistory", "clickednews", "clicked", "clicks", "historynews", "hist"},
    "impressions": {"impressions", "impression", "imprs", "impr", "candidates", "candidatenews", "inview", "shown"},
}
ID_NAMES = sorted(_NAMES["id"])
_PREFIX = re.compile(r"^(news|article|item|doc)(?=.)")
_LONGEST_HEADER = 1 << 12  # bytes
_SEPARATORS = {"|": "'|'", ";": "';'", ",": "','", "\x01": "'\\x01'", "    ": "spaces"}


@dataclass(frozen=True)
class Start:
    """Where a file's rows begin."""

    byte: int  # of the first row
    line: int  # its 1-based number
    header: bool = False


def start_of_rows(head: bytes, columns: list[str], where: str) -> Start:
    """Where the rows begin in a text that starts with `head`, which holds the first line whole.

    Args:
        head: the file's beginning.
        columns: what the file's columns are, in order: `NEWS_COLUMNS` or `BEHAVIOUR_COLUMNS`.
        where: the file's name in messages.

    Raises:
        InputError: there is a header row, and its columns are others, or in another order.
    """
    mark = len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0
    first, newline, _ = head[mark:].partition(b"\n")
    fields = first.decode("utf-8", "replace").rstrip("\r").split("\t") if len(first) <= _LONGEST_HEADER else []
    if not is_header(fields, columns):
        return Start(mark, 1)
    needed = columns[:5]
    if len(fields) < len(needed) or (columns is BEHAVIOUR_COLUMNS and len(fields) != len(columns)):
        raise InputError(f"{where}, line 1: a header row of {len(fields)} columns; expected {', '.join(needed)}")
    for place, field in enumerate(fields):
        means = [name for name in columns if _plain(field, name)]
        elsewhere = place >= len(needed) and all(
            name not in needed or _plain(fields[needed.index(name)], name) for name in means
        )
        if means and not elsewhere and columns[place : place + 1] not in [[name] for name in means]:
            raise InputError(
                f"{where}, line 1: a header row whose column {place + 1} is {field!r}; expected the order {', '.join(needed)}"
            )
    return Start(mark + len(first) + len(newline), 2, header=True)


def is_header(fields: list[str], columns: list[str]) -> bool:
    """Whether a row's fields are names of columns (of news at least id and title, or three; of impressions two) or count up."""
    if len(fields) < 2:
        return False
    if [field.strip() for field in fields] in ([str(first + n) for n in range(len(fields))] for first in (0, 1)):
        return True  # columns that somebody's tool has numbered
    known = {name for name in columns for field in fields if _plain(field, name)}
    count = sum(any(_plain(field, name) for name in columns) for field in fields)
    if columns is BEHAVIOUR_COLUMNS:  # an impression id is a number, which no name is
        return count >= 2 and not fields[0].strip().isdecimal()
    # A category may be called "topic" and a title "Summary", but the id beside them is then no name.
    named = any(_plain(fields[0], name) for name in columns)
    in_place = sum(_plain(field, name) for field, name in zip(fields, columns, strict=False))
    return in_place >= 3 or (named and (count >= 3 or {"id", "title"} <= known))


def _plain(field: str, name: str) -> bool:
    """Whether a header's field names this column."""
    word = re.sub(r"[\W_]", "", field[:64]).lower()
    return word in _NAMES[name] or _PREFIX.sub("", word) in _NAMES[name]


def check_columns(data: bytes, least: int, exactly: int | None, where: str, first_line: int) -> int:
    """The number of columns that most rows have. Raises InputError naming the first row that has another.

    Args:
        data: whole lines.
        least: a table of fewer columns is refused.
        exactly: the only number that is accepted; None for any from `least` on.
        where: the file's name in messages.
        first_line: the number of the first line.
    """
    text = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(text == 10)
    if not data.endswith(b"\n"):
        ends = np.append(ends, len(text))
    tabs = np.searchsorted(np.flatnonzero(text == 9), ends)
    counts = np.diff(tabs, prepend=0) + 1
    seen = np.bincount(counts)
    # Of numbers that are as frequent MIND's own, else the larger one: rows are cut short more often than they grow.
    most = np.flatnonzero(seen == seen.max())
    usual = exactly or next((one for one in (len(NEWS_COLUMNS), 5) if one in most), int(most[-1]))
    if usual < least or (exactly and not seen[exactly : exactly + 1].any()):
        count = int(len(seen) - 1 - np.argmax(seen[::-1]))
        line = int(np.argmax(counts == count))
        raise InputError(_too_few(_line(data, ends, line), count, exactly, f"{where}, line {first_line + line}"))
    odd = np.flatnonzero(counts != usual)
    if len(odd):
        found = int(counts[odd[0]])
        others = f"expected {usual}" + ("" if exactly else " as in most rows")
        guess = "a tab inside a text?" if found > usual else "truncated row, or a line break inside a text?"
        raise InputError(f"{where}, line {first_line + int(odd[0])}: {found} tab-separated columns, {others} ({guess})")
    return usual


def _line(data: bytes, ends: np.ndarray, line: int) -> bytes:
    return data[int(ends[line - 1]) + 1 if line else 0 : int(ends[line])]


def _too_few(row: bytes, count: int, exactly: int | None, place: str) -> str:
    """What to say of a table none of whose rows has the right number of columns, by one that has the usual one."""
    columns = BEHAVIOUR_COLUMNS if exactly else NEWS_COLUMNS[:5]
    text = row[:_LONGEST_HEADER].decode("utf-8", "replace")
    between = next((said for one, said in _SEPARATORS.items() if text.count(one) >= len(columns) - 1), None)
    expected = f"expected {exactly or 'at least'}{': ' if exactly else ' '}{', '.join(columns)}"
    if count == 1 and between is not None:
        return f"{place}: no tabs; the columns seem to be separated by {between}, {expected}, separated by tabs"
    more = " (truncated row?)" if exactly and count < exactly else ""
    return f"{place}: {count} tab-separated columns, {expected}{more}"
