"""Raw MIND-format files: finding the splits, reading news, cutting behaviours into chunks.

Quotes are literal characters, not CSV quoting; histories and abstracts may be empty. Files may lie in folders or zips,
nested or not. Nothing is ever extracted under a name taken from an archive.
"""

from __future__ import annotations

import contextlib
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv

from tnr_dist.data.words import gather_ascii, keys_of, mix
from tnr_dist.errors import InputError

SPLITS = ("train", "dev", "test")
_NAMES = ("news.tsv", "behaviors.tsv")
_SPLIT_WORDS = {"train": "train", "dev": "dev", "valid": "dev", "validation": "dev", "val": "dev", "test": "test"}
NEWS_COLUMNS = ["id", "category", "subcategory", "title", "abstract", "url", "title_entities", "abstract_entities"]
# What zipfile raises for damaged, truncated, encrypted or unsupported archives, beside what any file raises.
_ZIP_FAULTS = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, KeyError, ValueError, OSError, struct.error)
NEWLINE = b"\n"
_LONGEST_NEWS = 1 << 20  # bytes of a line of news.tsv
BEHAVIOUR_COLUMNS = ["impression_id", "user", "time", "history", "impressions"]


@dataclass(frozen=True)
class Source:
    """A raw file: a path, or a member of a zip."""

    path: Path
    member: str = ""

    def __str__(self) -> str:
        return f"{self.path}:{self.member}" if self.member else str(self.path)

    @contextlib.contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Open for reading bytes; whatever goes wrong before the end of the block is an InputError."""
        try:
            if self.member:
                with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as file:
                    yield file
            else:
                with self.path.open("rb") as file:
                    yield file
        except _ZIP_FAULTS as error:
            advice = "; download it again" if self.member else ""
            raise InputError(f"{self}: cannot be read ({error}){advice}") from None

    def pieces(self, size: int = 1 << 20) -> Iterator[bytes]:
        """Its bytes, some at a time; what goes wrong with them at the caller's is no fault of the source."""
        with self.open() as file:
            while piece := file.read(size):
                yield piece


@dataclass(frozen=True)
class RawSplit:
    """The two files of a split."""

    news: Source
    behaviors: Source


def split_of(name: str) -> str | None:
    """The split that a folder's or zip's name stands for (MINDlarge_train, valid, test.zip); None for another name."""
    words = re.split(r"[^a-z]+", name.lower().removesuffix(".zip"))
    found = {_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS}
    # MINDlarge_train, MINDsmall_dev: the last word says it; "MINDlargetrain" is not a name in use.
    return found.pop() if len(found) == 1 else None


def _files_of(path: Path) -> dict[str, list[Source]]:
    """The news.tsv and behaviors.tsv in a folder or zip, at any depth (MIND's zips may hold a nested folder)."""
    found: dict[str, list[Source]] = {name: [] for name in _NAMES}
    if path.is_dir():
        for name, sources in found.items():
            sources += [Source(p) for p in sorted(path.rglob(name))]
        return found
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                parts = re.split(r"[/\\]", member)
                if ".." in parts or not parts[0] or ":" in parts[0]:
                    raise InputError(f"{path}: member {member!r} points out of the archive; download it again")
                if parts[-1] in found and "__MACOSX" not in parts:
                    if stat.S_ISLNK(archive.getinfo(member).external_attr >> 16):
                        raise InputError(f"{path}: member {member!r} is a symbolic link; put the file itself there")
                    found[parts[-1]].append(Source(path, member))
    except _ZIP_FAULTS as error:
        raise InputError(f"{path}: not a readable zip file ({error}); download it again") from None
    return found


def find_splits(folder: Path | str) -> dict[str, RawSplit]:
    """Find the splits in `folder`: MINDlarge_train/…, train/dev/test, zips or folders, nested or not, any subset.

    A folder that itself holds news.tsv and behaviors.tsv is a train split. Raises InputError when nothing is found or a
    split is incomplete or found twice.
    """
    folder = Path(folder)
    if not folder.exists():
        raise InputError(f"{folder}: no such folder")
    if folder.is_file() or any((folder / name).is_file() for name in _NAMES):
        splits = _splits_among([(split_of(folder.name) or "train", folder)], folder)
    else:
        # A download is often one folder deeper than expected (MIND/MINDlarge_train/...): look there too.
        for depth in ("*", "*/*"):
            named = [(split_of(path.name), path) for path in sorted(folder.glob(depth))]
            places = [(split, path) for split, path in named if split and (path.is_dir() or path.suffix == ".zip")]
            splits = _splits_among(places, folder)
            if splits:
                break
    if not splits:
        raise InputError(
            f"{folder}: no news.tsv and behaviors.tsv found; expected MINDlarge_train (or train, dev, test) as folders or zips"
        )
    return {split: splits[split] for split in SPLITS if split in splits}


def _splits_among(places: list[tuple[str, Path]], folder: Path) -> dict[str, RawSplit]:
    splits: dict[str, RawSplit] = {}
    chosen: dict[str, Path] = {}
    for split, path in places:
        files = _files_of(path)
        if not any(files.values()):
            continue
        for name, sources in files.items():
            if not sources:
                raise InputError(f"{path}: no {name} in it; a split is a news.tsv and a behaviors.tsv")
            if len(sources) > 1:
                listed = " and ".join(str(source) for source in sources[:2])
                raise InputError(f"{path}: {len(sources)} files {name}, {listed}; keep one")
        if split in splits:
            # The folder and the zip it was extracted from may lie side by side; the folder is faster to read.
            if chosen[split].is_dir() == path.is_dir() or not _same_name(chosen[split], path):
                raise InputError(f"{folder}: two {split} splits, {chosen[split].name} and {path.name}; keep one")
            if not path.is_dir():
                continue
        splits[split] = RawSplit(files["news.tsv"][0], files["behaviors.tsv"][0])
        chosen[split] = path
    return splits


def _same_name(a: Path, b: Path) -> bool:
    return a.name.removesuffix(".zip") == b.name.removesuffix(".zip")


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


def parse_tsv(data: bytes, columns: list[str], where: str, lines: np.ndarray | None = None) -> pa.Table:
    """Parse tab-separated text without quoting into text columns.

    A bad row raises InputError naming file and line: `lines[i]` is the 1-based number of the i-th line of `data`,
    i + 1 by default.
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
        raise _explain(data, len(columns), where, lines, error) from None


def _explain(data: bytes, columns: int, where: str, lines: np.ndarray | None, error: Exception) -> InputError:
    """Find the offending line the slow way: pyarrow does not name it."""
    for at, line in enumerate(data.split(NEWLINE)):
        if not line.strip(b"\r"):
            continue
        number = at + 1 if lines is None else lines[at]
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

    Raises InputError for an empty file, a row with another number of columns, an empty or duplicate id.
    """
    with source.open() as file:
        data = file.read()
    width = data.partition(b"\n")[0].count(b"\t") + 1
    if not data.strip():
        raise InputError(f"{source}: the file is empty")
    if width < 5:
        raise InputError(
            f"{source}, line 1: {width} tab-separated columns; expected at least id, category, subcategory, title, abstract"
        )
    check_text(data, str(source))
    check_no_empty_line(data, str(source))
    _check_longest_line(data, str(source))
    columns = (NEWS_COLUMNS + [f"extra{i}" for i in range(width)])[:width]
    table = parse_tsv(data, columns, str(source)).select(NEWS_COLUMNS[:5])
    check_unique_ids(table["id"], str(source))
    return table


def _check_longest_line(data: bytes, where: str) -> None:
    """Raise InputError for a line that no news has: it would be tokenised for minutes."""
    if len(data) <= _LONGEST_NEWS:
        return
    ends = np.flatnonzero(np.frombuffer(data + NEWLINE, np.uint8) == 10)
    lengths = np.diff(ends, prepend=-1)
    if lengths.max() > _LONGEST_NEWS:
        line = int(lengths.argmax()) + 1
        raise InputError(f"{where}, line {line}: longer than {_LONGEST_NEWS:,} bytes; not a file of news")


def check_unique_ids(ids: pa.ChunkedArray, where: str) -> None:
    """Raise InputError naming the first id that is empty, repeated or could not stand in a history, and its line."""
    values = ids.combine_chunks()
    spaced = pc.match_substring_regex(values, r"[\s\pZ\pC]")
    counts = pc.value_counts(values)
    if len(counts) == len(values) and not pc.any(pc.or_(spaced, pc.equal(values, ""))).as_py():
        return
    seen: dict[str, int] = {}
    for line, (value, has_space) in enumerate(zip(values.to_pylist(), spaced.to_pylist(), strict=True), 1):
        if not value:
            raise InputError(f"{where}, line {line}: empty news id")
        if has_space:
            raise InputError(
                f"{where}, line {line}: news id {value!r} holds a space or an invisible character; remove it"
            )
        if value in seen:
            raise InputError(f"{where}, line {line}: news id {value!r} stands also in line {seen[value]}")
        seen[value] = line


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


def chunks_of(path: Path, size: int, where: str, longest_line: int = 16 << 20) -> Iterator[Chunk]:
    """Cut a file into ranges of about `size` bytes at line boundaries, counting lines on the way.

    Raises InputError (calling the file `where`) for a line of more than `longest_line` bytes.
    """
    end = path.stat().st_size
    start, line = 0, 1
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
            lines = data.count(NEWLINE, 0, cut)
            if not data.endswith(NEWLINE, 0, cut):
                lines += 1
                if cut - data.rfind(NEWLINE, 0, cut) > longest_line:
                    number = line + lines - 1
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
        return parse_times(texts, lines, where)


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
    per_row = np.diff(np.searchsorted(tabs, bounds))
    wrong = np.flatnonzero(per_row != len(BEHAVIOUR_COLUMNS) - 1)
    if len(wrong):
        check_no_empty_line(text, where, chunk.first_line)
        raise InputError(
            f"{where}, line {chunk.first_line + wrong[0]}: {per_row[wrong[0]] + 1} tab-separated columns, "
            f"expected {len(BEHAVIOUR_COLUMNS)} (truncated row?)"
        )
    return Rows(data, bounds, tabs.reshape(-1, len(BEHAVIOUR_COLUMNS) - 1))


def parse_behaviours(data: bytes, rows: np.ndarray, where: str) -> pa.Table:
    """Rows of a behaviours file as columns: impression_id int64, user, time int64 (seconds), history, impressions, row.

    `rows` are the 0-based line numbers. Raises InputError naming file and line of a bad value.
    """
    lines = rows + 1
    table = parse_tsv(data, BEHAVIOUR_COLUMNS, where, lines)
    ids = _impression_ids(table["impression_id"], lines, where)
    nobody = np.flatnonzero(pc.equal(table["user"], "").to_numpy())
    if len(nobody):
        raise InputError(f"{where}, line {lines[nobody[0]]}: empty user id")
    seconds = parse_times(table["time"].combine_chunks(), lines, where)
    columns = {
        "impression_id": ids, "user": table["user"], "time": pa.array(seconds), "history": table["history"],
        "impressions": table["impressions"], "row": pa.array(rows),
    }  # fmt: skip
    return pa.table(columns)


def _impression_ids(column: pa.ChunkedArray, lines: np.ndarray, where: str) -> pa.ChunkedArray:
    try:
        ids = pc.cast(column, pa.int64())
        # A submission must name the impression as the file does: 007 would come out as 7.
        if (
            pc.all(pc.and_(pc.greater_equal(ids, 0), pc.equal(ids.cast(pa.large_string()), column))).as_py()
            is not False
        ):
            return ids
    except pa.ArrowInvalid:
        pass
    values = column.to_pylist()
    at = next(
        i for i, value in enumerate(values) if not re.fullmatch(r"0|[1-9]\d{0,18}", value, re.ASCII) or int(value) >> 63
    )
    raise InputError(
        f"{where}, line {lines[at]}: impression id {values[at]!r} is not a whole number, 0 or more (and below 2^63), "
        "without zeros before it"
    )


def parse_times(values: pa.Array, lines: np.ndarray, where: str) -> np.ndarray:
    """MIND's `11/15/2019 8:55:22 AM` as seconds since 1970 (UTC assumed), int64 [I]."""
    parsed = pc.strptime(values, format="%m/%d/%Y %I:%M:%S %p", unit="s", error_is_null=True)
    seconds = parsed.cast(pa.int64())
    # The 30th of February is taken for the 2nd of March, and a year of two digits for one of the first century.
    beyond = pc.and_(pc.less_equal(pc.day(parsed), 3), pc.match_substring_regex(values, r"^\s*\d+/\s*(29|30|31)/"))
    wrong = pc.or_(beyond, pc.less(seconds, 0))
    bad = np.flatnonzero(pc.fill_null(wrong, True).to_numpy(zero_copy_only=False))
    if len(bad):
        text = values[int(bad[0])].as_py()
        raise InputError(f"{where}, line {lines[bad[0]]}: time {text!r}; expected the form 11/15/2019 8:55:22 AM")
    return seconds.to_numpy()
