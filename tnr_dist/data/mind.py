"""Raw MIND-format files: finding the splits, reading news, cutting behaviours into chunks.

Quotes are literal characters, not CSV quoting; histories and abstracts may be empty. Files may lie in folders or zips,
nested or not. Nothing is ever extracted under a name taken from an archive.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv

from tnr_dist.errors import InputError

SPLITS = ("train", "dev", "test")
_SPLIT_WORDS = {"train": "train", "dev": "dev", "valid": "dev", "validation": "dev", "val": "dev", "test": "test"}
NEWS_COLUMNS = ["id", "category", "subcategory", "title", "abstract", "url", "title_entities", "abstract_entities"]
BEHAVIOUR_COLUMNS = ["impression_id", "user", "time", "history", "impressions"]


@dataclass(frozen=True)
class Source:
    """A raw file: a path, or a member of a zip."""

    path: Path
    member: str = ""

    def __str__(self) -> str:
        return f"{self.path}:{self.member}" if self.member else str(self.path)

    def open(self) -> IO[bytes]:
        """Open for reading bytes."""
        try:
            return zipfile.ZipFile(self.path).open(self.member) if self.member else self.path.open("rb")
        except (zipfile.BadZipFile, OSError) as error:
            raise InputError(f"{self}: cannot be read ({error})") from None


@dataclass(frozen=True)
class RawSplit:
    """The two files of a split."""

    news: Source
    behaviors: Source


def _split_of(name: str) -> str | None:
    words = re.split(r"[^a-z]+", name.lower().removesuffix(".zip"))
    found = {_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS}
    # MINDlarge_train, MINDsmall_dev: the last word says it; "MINDlargetrain" is not a name in use.
    return found.pop() if len(found) == 1 else None


def _files_of(path: Path) -> dict[str, list[Source]]:
    """The news.tsv and behaviors.tsv in a folder or zip, at any depth (MIND's zips may hold a nested folder)."""
    found: dict[str, list[Source]] = {"news.tsv": [], "behaviors.tsv": []}
    if path.is_dir():
        for name, sources in found.items():
            sources += [Source(p) for p in sorted(path.rglob(name))]
        return found
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                name = member.rpartition("/")[2]
                if name in found and "__MACOSX" not in member:
                    found[name].append(Source(path, member))
    except (zipfile.BadZipFile, OSError) as error:
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
    if folder.is_file() or (folder / "behaviors.tsv").is_file():
        places = [(_split_of(folder.name) or "train", folder)]
    else:
        places = []
        # A download is often one folder deeper than expected (MIND/MINDlarge_train/...): look there too.
        for depth in ("*", "*/*"):
            for path in sorted(folder.glob(depth)):
                split = _split_of(path.name)
                if split and (path.is_dir() or path.suffix == ".zip"):
                    places.append((split, path))
            if places:
                break
    splits: dict[str, RawSplit] = {}
    chosen: dict[str, Path] = {}
    for split, path in places:
        files = _files_of(path)
        if not files["news.tsv"] and not files["behaviors.tsv"]:
            continue
        for name, sources in files.items():
            if len(sources) != 1:
                raise InputError(f"{path}: expected one {name}, found {len(sources)}")
        if split in splits:
            # The folder and the zip it was extracted from may lie side by side; the folder is faster to read.
            if chosen[split].is_dir() != path.is_dir() and _same_name(chosen[split], path):
                if not path.is_dir():
                    continue
            else:
                raise InputError(f"{folder}: two {split} splits, {chosen[split].name} and {path.name}; keep one")
        splits[split] = RawSplit(files["news.tsv"][0], files["behaviors.tsv"][0])
        chosen[split] = path
    if not splits:
        raise InputError(
            f"{folder}: no news.tsv and behaviors.tsv found; expected MINDlarge_train (or train, dev, test) as folders or zips"
        )
    return {split: splits[split] for split in SPLITS if split in splits}


def _same_name(a: Path, b: Path) -> bool:
    return a.name.removesuffix(".zip") == b.name.removesuffix(".zip")


def parse_tsv(data: bytes | pa.Buffer, columns: list[str], where: str, first_line: int = 1) -> pa.Table:
    """Parse tab-separated text without quoting into text columns. A bad row raises InputError naming file and line."""
    try:
        return csv.read_csv(
            pa.BufferReader(data),
            read_options=csv.ReadOptions(column_names=columns, use_threads=False, block_size=max(len(data), 1)),
            parse_options=csv.ParseOptions(delimiter="\t", quote_char=False, newlines_in_values=False),
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(columns, pa.large_string()), strings_can_be_null=False
            ),
        )
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise _explain(bytes(data), len(columns), where, first_line, error) from None


def _explain(data: bytes, columns: int, where: str, first_line: int, error: Exception) -> InputError:
    """Find the offending line the slow way: pyarrow does not name it."""
    for number, line in enumerate(data.split(b"\n"), first_line):
        if not line.strip(b"\r"):
            continue
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
    columns = (NEWS_COLUMNS + [f"extra{i}" for i in range(width)])[:width]
    table = parse_tsv(data, columns, str(source)).select(NEWS_COLUMNS[:5])
    check_unique_ids(table["id"], str(source))
    return table


def check_unique_ids(ids: pa.ChunkedArray, where: str) -> None:
    """Raise InputError naming the first empty or repeated id and its line."""
    values = ids.combine_chunks()
    counts = pc.value_counts(values)
    if len(counts) == len(values) and not pc.any(pc.equal(values, "")).as_py():
        return
    seen: dict[str, int] = {}
    for line, value in enumerate(values.to_pylist(), 1):
        if not value:
            raise InputError(f"{where}, line {line}: empty news id")
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
    """A byte range of an uncompressed behaviours file that begins and ends at line boundaries."""

    path: Path
    start: int
    stop: int
    first_line: int  # 1-based
    lines: int


def chunks_of(path: Path, size: int) -> Iterator[Chunk]:
    """Cut a file into ranges of about `size` bytes at line boundaries, counting lines on the way."""
    end = path.stat().st_size
    start, line = 0, 1
    with path.open("rb") as file:
        while start < end:
            file.seek(start)
            data = file.read(size)
            if start + len(data) < end:
                cut = data.rfind(b"\n") + 1
                while not cut:  # a line longer than the chunk
                    more = file.read(size)
                    if not more:
                        cut = len(data)
                        break
                    found = more.find(b"\n")
                    cut = len(data) + found + 1 if found >= 0 else 0
                    data += more
            else:
                cut = len(data)
            lines = data.count(b"\n", 0, cut) + (not data.endswith(b"\n", 0, cut))
            yield Chunk(path, start, start + cut, line, lines)
            start, line = start + cut, line + lines


def read_chunk(chunk: Chunk, where: str) -> pa.Table:
    """Parse a chunk of a behaviours file; adds `row`, the 0-based line of each impression.

    Raises InputError for a row with another number of columns or an impression id that is not a whole number.
    """
    with chunk.path.open("rb") as file:
        file.seek(chunk.start)
        data = file.read(chunk.stop - chunk.start)
    table = parse_tsv(data, BEHAVIOUR_COLUMNS, where, chunk.first_line)
    if len(table) != chunk.lines:
        # Blank lines are skipped by the parser: row numbers would be wrong, and a blank line is no impression.
        for number, line in enumerate(data.split(b"\n"), chunk.first_line):
            if not line.strip(b"\r") and number < chunk.first_line + chunk.lines:
                raise InputError(f"{where}, line {number}: empty line")
    try:
        ids = pc.cast(table["impression_id"], pa.int64())
    except pa.ArrowInvalid:
        values = table["impression_id"].to_pylist()
        at = next(i for i, value in enumerate(values) if not re.fullmatch(r"-?\d{1,18}", value))
        raise InputError(
            f"{where}, line {chunk.first_line + at}: impression id {values[at]!r} is not a whole number"
        ) from None
    rows = pa.array(np.arange(chunk.first_line - 1, chunk.first_line - 1 + len(table), dtype=np.int64))
    return table.set_column(0, "impression_id", ids).append_column("row", rows)


def parse_times(values: pa.Array, rows: np.ndarray, where: str) -> np.ndarray:
    """MIND's `11/15/2019 8:55:22 AM` as seconds since 1970 (UTC assumed), int64 [I]."""
    parsed = pc.strptime(values, format="%m/%d/%Y %I:%M:%S %p", unit="s", error_is_null=True)
    bad = np.flatnonzero(parsed.is_null().to_numpy(zero_copy_only=False))
    if len(bad):
        raise InputError(
            f"{where}, line {rows[bad[0]] + 1}: time {values[int(bad[0])].as_py()!r}; expected the form 11/15/2019 8:55:22 AM"
        )
    return parsed.cast(pa.int64()).to_numpy()


def hash_strings(values: pa.Array) -> np.ndarray:
    """FNV-1a of each string's UTF-8 bytes, uint64 [n]: the same on every machine, unlike Python's `hash`."""
    values = values.cast(pa.large_string())
    _, offset_buffer, data_buffer = values.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64)[values.offset : values.offset + len(values) + 1]
    data = np.frombuffer(data_buffer, np.uint8) if data_buffer is not None else np.zeros(0, np.uint8)
    lengths = np.diff(offsets)
    hashes = np.full(len(values), 0xCBF29CE484222325, np.uint64)
    prime = np.uint64(0x100000001B3)
    for position in range(int(lengths.max(initial=0))):
        alive = np.flatnonzero(lengths > position)
        hashes[alive] = (hashes[alive] ^ data[offsets[alive] + position]) * prime
    # FNV's low bits are weak for short, similar ids; one round of splitmix64 spreads them.
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))
