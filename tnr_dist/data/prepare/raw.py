"""Raw MIND-format files: reading news, cutting behaviours into chunks and reading their rows.

Quotes are literal characters, not CSV quoting; histories and abstracts may be empty. A header row is skipped.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv

from tnr_dist.data.prepare.columns import (
    BEHAVIOUR_COLUMNS,
    ID_NAMES,
    NEWS_COLUMNS,
    Start,
    check_columns,
    is_header,
    start_of_rows,
)
from tnr_dist.data.prepare.news_ids import gather_ascii, keys_of, mix
from tnr_dist.data.prepare.raw_files import SPLITS, RawSplit, Source, find_splits, split_of
from tnr_dist.data.prepare.times import parse_times
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import atomic_path

__all__ = ["SPLITS", "Chunk", "RawSplit", "Rows", "Source", "chunks_of", "find_splits", "read_news", "split_of"]

NEWLINE = b"\n"
_BEGIN = Start(0, 1)
_HEAD = 1 << 16  # bytes, in which a header row ends
_LONGEST_NEWS = 1 << 20  # bytes of a line of news.tsv
LONGEST_ID = 1 << 10  # bytes of a user's or a news' id


def check_text(data: bytes, where: str, first_line: int = 1) -> None:
    """Raise InputError for what no line may hold: NUL bytes, carriage returns inside it."""
    if b"\0" in data:
        at = data.index(b"\0")
        raise InputError(f"{where}, line {first_line + data.count(NEWLINE, 0, at)}: a NUL byte; not a text file")
    if b"\r" in data:
        returns = np.flatnonzero(np.frombuffer(data, np.uint8) == 13)
        after = np.frombuffer(data + b"\n", np.uint8)[returns + 1]
        if (after != 10).any():
            at = int(returns[np.argmax(after != 10)])
            line = first_line + data.count(NEWLINE, 0, at)
            raise InputError(f"{where}, line {line}: a carriage return inside the line; replace it by a space")


def check_no_empty_line(data: bytes, where: str, first_line: int = 1) -> None:
    """Raise InputError for an empty line: the parser would skip it, and row numbers would be wrong."""
    if data.startswith((b"\n", b"\r\n")) or b"\n\n" in data or b"\n\r\n" in data:
        lines = data.split(NEWLINE)
        line = next(number for number, text in enumerate(lines) if not text.rstrip(b"\r"))
        raise InputError(f"{where}, line {first_line + line}: an empty line; remove it")


def parse_tsv(
    data: bytes, columns: list[str], where: str, lines: np.ndarray | None = None, first_line: int = 1
) -> pa.Table:
    """Parse tab-separated text without quoting into text columns.

    A bad row raises InputError naming file and line: `lines[i]` is the 1-based number of the i-th line of `data`,
    i + `first_line` by default.
    """
    try:
        return csv.read_csv(
            pa.BufferReader(data),
            read_options=csv.ReadOptions(
                column_names=columns, use_threads=False, block_size=min(max(len(data), 1), 1 << 30)
            ),
            parse_options=csv.ParseOptions(delimiter="\t", quote_char=False, newlines_in_values=False),
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(columns, pa.large_string()), strings_can_be_null=False
            ),
        )
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise _explain(data, len(columns), where, lines, first_line, error) from None


def _explain(
    data: bytes, columns: int, where: str, lines: np.ndarray | None, first_line: int, error: Exception
) -> InputError:
    """Find the offending line the slow way: pyarrow does not name it."""
    for at, line in enumerate(data.split(NEWLINE)):
        if not line.strip(b"\r"):
            continue
        number = at + first_line if lines is None else lines[at]
        if line.count(b"\t") != columns - 1:
            found = line.count(b"\t") + 1
            return InputError(
                f"{where}, line {number}: {found} tab-separated columns, expected {columns} (truncated row?)"
            )
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as bad:
            return InputError(f"{where}, line {number}: not UTF-8 text (byte {bad.start + 1} of the line)")
    return InputError(f"{where}: cannot be parsed ({error})")


def read_news(source: Source) -> pa.Table:
    """Read a news.tsv: at least id, category, subcategory, title, abstract; further columns are MIND's.

    Raises InputError for an empty file, a row with another number of columns than most, an empty or duplicate id.
    """
    where = str(source)
    with source.open() as file:
        data = file.read()
    if not data.strip():
        raise InputError(f"{where}: the file is empty")
    start = start_of_rows(data[:_HEAD], NEWS_COLUMNS, where)
    if start.byte:
        data = data[start.byte :]
    if start.header and not data.strip():
        raise InputError(f"{where}: a header row and no news")
    check_text(data, where, start.line)
    check_no_empty_line(data, where, start.line)
    _check_longest_line(data, where, start.line)
    width = check_columns(data, 5, None, where, start.line)
    columns = (NEWS_COLUMNS + [f"extra{i}" for i in range(width)])[:width]
    table = parse_tsv(data, columns, where, first_line=start.line).select(NEWS_COLUMNS[:5])
    _check_no_header(table, where, start.line)
    check_unique_ids(table["id"], where, start.line)
    return table


def news_start(source: Source) -> Start:
    """Where the rows of a news.tsv begin."""
    with source.open() as file:
        return start_of_rows(file.read(_HEAD), NEWS_COLUMNS, str(source))


def _check_no_header(table: pa.Table, where: str, first_line: int) -> None:
    """Raise InputError for a header row among the news: files that were joined."""
    plain = pc.replace_substring_regex(pc.utf8_lower(table["id"]), r"[^a-z0-9]", "")
    for at in np.flatnonzero(pc.is_in(plain, pa.array(ID_NAMES, plain.type)).to_numpy()):
        if is_header([table[name][int(at)].as_py() for name in NEWS_COLUMNS[:5]], NEWS_COLUMNS):
            raise InputError(f"{where}, line {first_line + int(at)}: a header row among the news; remove it")


def _check_longest_line(data: bytes, where: str, first_line: int) -> None:
    """Raise InputError for a line that no news has: it would be tokenised for minutes."""
    if len(data) <= _LONGEST_NEWS:
        return
    ends = np.flatnonzero(np.frombuffer(data + NEWLINE, np.uint8) == 10)
    lengths = np.diff(ends, prepend=-1)
    if lengths.max() > _LONGEST_NEWS:
        line = int(lengths.argmax()) + first_line
        raise InputError(f"{where}, line {line}: longer than {_LONGEST_NEWS:,} bytes; not a file of news")


def check_unique_ids(ids: pa.ChunkedArray, where: str, first_line: int = 1) -> None:
    """Raise InputError naming the first id that is empty, endless, repeated or could not stand in a history, and its line."""
    values = ids.combine_chunks()
    spaced = pc.match_substring_regex(values, r"[\s\pZ\pC]")
    check_ids(values, np.arange(len(values)) + first_line, "news id", where)
    counts = pc.value_counts(values)
    if len(counts) == len(values) and not pc.any(pc.or_(spaced, pc.equal(values, ""))).as_py():
        return
    seen: dict[str, int] = {}
    for line, (value, has_space) in enumerate(zip(values.to_pylist(), spaced.to_pylist(), strict=True), first_line):
        if not value:
            raise InputError(f"{where}, line {line}: empty news id")
        if has_space:
            raise InputError(
                f"{where}, line {line}: news id {value!r} holds a space or an invisible character; remove it"
            )
        if value in seen:
            raise InputError(f"{where}, line {line}: news id {value!r} is also in line {seen[value]}")
        seen[value] = line


def check_ids(values: pa.Array, lines: np.ndarray, what: str, where: str) -> None:
    """Raise InputError for an id that no log has: looking it up would take minutes."""
    lengths = pc.binary_length(values)
    if len(values) and pc.max(lengths).as_py() > LONGEST_ID:
        at = int(np.argmax(lengths.to_numpy(zero_copy_only=False)))
        raise InputError(
            f"{where}, line {lines[at]}: {what} of {lengths[at].as_py():,} bytes; at most {LONGEST_ID:,} are read"
        )


def union_news(tables: list[pa.Table]) -> tuple[pa.Table, int]:
    """The union of the splits' news by id, first mention first; and how many later mentions differ from the first."""
    everything = pa.concat_tables(tables).combine_chunks()
    encoded = everything["id"].combine_chunks().dictionary_encode()
    codes = encoded.indices.to_numpy()
    _, first = np.unique(codes, return_index=True)  # codes count up by first mention, so `first` is in that order
    union = everything.take(pa.array(first))
    differing = 0
    if len(union) < len(everything):
        again = union.take(pa.array(codes))
        same = pc.and_(
            pc.equal(everything["title"], again["title"]), pc.equal(everything["abstract"], again["abstract"])
        )
        differing = int(pc.sum(pc.invert(same)).as_py())
    return union, differing


@dataclass(frozen=True)
class Chunk:
    """A byte range of an uncompressed text file that begins and ends at line boundaries."""

    path: Path
    start: int
    stop: int
    first_line: int  # 1-based
    lines: int

    def read(self) -> bytes:
        """The chunk's bytes; the last line ends with a newline even where the file's does not."""
        with self.path.open("rb") as file:
            file.seek(self.start)
            data = file.read(self.stop - self.start)
        return data if data.endswith(NEWLINE) else data + NEWLINE


def behaviours_start(path: Path, where: str) -> Start:
    """Where the rows of an uncompressed behaviors.tsv begin. Raises InputError when it has none."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        raise InputError(f"{where}: the file is empty")
    start = start_of_rows(head, BEHAVIOUR_COLUMNS, where)
    if start.byte == path.stat().st_size:
        raise InputError(f"{where}: a header row and no impressions" if start.header else f"{where}: the file is empty")
    return start


def chunks_of(
    path: Path, size: int, where: str, longest_line: int = 16 << 20, begin: Start = _BEGIN
) -> Iterator[Chunk]:
    """Cut a file, from `begin` on, into ranges of about `size` bytes at line boundaries, counting lines on the way.

    Raises InputError (calling the file `where`) for a line of more than `longest_line` bytes.
    """
    end = path.stat().st_size
    start, line = begin.byte, begin.line
    with path.open("rb") as file:
        while start < end:
            file.seek(start)
            data = file.read(size)
            cut = len(data) if start + len(data) >= end else data.rfind(NEWLINE) + 1
            while not cut:  # a line longer than the chunk
                more = file.read(max(size, 1 << 20))
                data += more
                found = more.find(NEWLINE)
                if found >= 0:
                    cut = len(data) - len(more) + found + 1
                elif not more or len(data) > longest_line:
                    cut = len(data)
            lines = data.count(NEWLINE, 0, cut) + (not data.endswith(NEWLINE, 0, cut))
            if cut > longest_line:
                ends = np.append(np.flatnonzero(np.frombuffer(data, np.uint8, cut) == 10), cut)
                lengths = np.diff(ends, prepend=-1)
                if lengths.max() > longest_line:
                    number = line + int(np.argmax(lengths > longest_line))
                    raise InputError(f"{where}, line {number}: longer than {longest_line:,} bytes; not a file of rows")
            yield Chunk(path, start, start + cut, line, lines)
            start, line = start + cut, line + lines


@dataclass(frozen=True)
class Rows:
    """The R rows of a chunk of a behaviours file, as byte ranges."""

    data: np.ndarray  # [bytes] uint8
    bounds: np.ndarray  # [R + 1] int64: row i is data[bounds[i]:bounds[i + 1]], its newline included
    tabs: np.ndarray  # [R, 4] int64

    def user_keys(self) -> np.ndarray:
        """A hash of each row's user, uint64 [R]."""
        return user_hash(self.data, self.tabs[:, 0] + 1, self.tabs[:, 1])

    def times(self, lines: np.ndarray, where: str) -> np.ndarray:
        """Seconds since 1970 of each row, int64 [R]; `lines` are the rows' 1-based line numbers, for messages."""
        texts = gather_ascii(self.data, self.tabs[:, 1] + 1, self.tabs[:, 2])
        return parse_times(texts, lines, where)[0]


def user_hash(data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The hash that decides a user's shard, uint64 [n]."""
    return mix(keys_of(data, starts, ends - starts))


def scan_chunk(chunk: Chunk, where: str) -> Rows:
    """Find the rows and fields of a chunk. Raises InputError for an empty line or another number of columns."""
    text = chunk.read()
    check_text(text, where, chunk.first_line)
    data = np.frombuffer(text, np.uint8)
    bounds = np.zeros(chunk.lines + 1, np.int64)
    bounds[1:] = np.flatnonzero(data == 10) + 1
    tabs = np.flatnonzero(data == 9)
    columns = len(BEHAVIOUR_COLUMNS)
    if (np.diff(np.searchsorted(tabs, bounds)) != columns - 1).any():
        check_no_empty_line(text, where, chunk.first_line)
        check_columns(text, columns, columns, where, chunk.first_line)
    rows = Rows(data, bounds, tabs.reshape(-1, columns - 1))
    longest = rows.tabs[:, 1] - rows.tabs[:, 0] - 1
    if longest.max() > LONGEST_ID:
        at = int(np.argmax(longest))
        raise InputError(
            f"{where}, line {chunk.first_line + at}: user id of {longest[at]:,} bytes; at most {LONGEST_ID:,} are read"
        )
    return rows


def parse_behaviours(data: bytes, rows: np.ndarray, where: str) -> pa.Table:
    """Rows of a behaviours file as columns: impression_id, user, time, time_form, history, impressions, row.

    Numbers are int64 (times in seconds), forms of times int8, the others text.

    `rows` are the 0-based line numbers. Raises InputError naming file and line of a bad value.
    """
    lines = rows + 1
    if data.startswith(codecs.BOM_UTF8):  # the parser leaves one out, wherever in the file these rows are from
        data = codecs.BOM_UTF8 + data
    table = parse_tsv(data, BEHAVIOUR_COLUMNS, where, lines)
    ids = _impression_ids(table["impression_id"], lines, where)
    nobody = np.flatnonzero(pc.equal(table["user"], "").to_numpy())
    if len(nobody):
        raise InputError(f"{where}, line {lines[nobody[0]]}: empty user id")
    seconds, forms = parse_times(table["time"].combine_chunks(), lines, where)
    columns = {
        "impression_id": ids, "user": table["user"], "time": pa.array(seconds), "time_form": pa.array(forms),
        "history": table["history"], "impressions": table["impressions"], "row": pa.array(rows),
    }  # fmt: skip
    return pa.table(columns)


def _impression_ids(column: pa.ChunkedArray, lines: np.ndarray, where: str) -> pa.ChunkedArray:
    try:
        ids = pc.cast(column, pa.int64())
        # What is written otherwise ("007") would be another id in a prediction.
        plain = pc.equal(pc.cast(ids, column.type), column)
        if not pc.any(pc.less(ids, 0)).as_py() and pc.all(plain).as_py():
            return ids
    except pa.ArrowInvalid:
        pass
    values = column.to_pylist()
    at = next(
        i for i, value in enumerate(values) if not re.fullmatch(r"0|[1-9]\d{0,18}", value, re.ASCII) or int(value) >> 63
    )
    header = (
        "; if this is a header row, remove it"
        if lines[at] == 1 or is_header([values[at], "time"], BEHAVIOUR_COLUMNS)
        else ""
    )
    raise InputError(
        f"{where}, line {lines[at]}: impression id {values[at]!r} is not a whole number, 0 or more (and below 2^63), without leading zeros{header}"
    )


def copy_member(source: Source, path: Path) -> None:
    """Copy a zip's member to a name of our own choosing; its checksum is checked on the way."""
    with atomic_path(path) as temporary, temporary.open("wb") as out:
        out.writelines(source.pieces())
