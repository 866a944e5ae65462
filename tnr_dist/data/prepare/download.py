"""`tnr data verify` of raw files: is a MIND download complete and genuine, and can it be prepared?

Everything is looked at: it does not stop at the first fault. Files and rows are judged by what `tnr data prepare` reads
them with, so that both accept and refuse the same.
"""

from __future__ import annotations

import re
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa

from tnr_dist.data.prepare.counts import SplitCounts
from tnr_dist.data.prepare.judge import counts_fault, judge_behaviours, texts_of
from tnr_dist.data.prepare.news_ids import NewsLookup
from tnr_dist.data.prepare.raw import RawSplit, Source, find_splits, read_news, union_news
from tnr_dist.data.prepare.unknown import MOST_UNKNOWN
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import file_hash

# Published files: md5 and bytes.
_ZIPS = {
    "MINDlarge_train": ("41becb7e52353ceaee83ce611d283479", 530_196_631),
    "MINDlarge_dev": ("c93fa1728e3537649b441c78cce5e6f1", 103_456_245),
    "MINDlarge_test": ("2b69c2cdb7e1bacbdd99b4d6718aa7db", 605_020_713),
    "MINDsmall_train": ("b20a6bc96c834efe55eda7a37d1ac9e4", 52_952_752),
    "MINDsmall_dev": ("e3bac5485be8fc7a9934e85e3b78615f", 30_948_560),
}
# Rows of the extracted files, where they are known.
_ROWS = {
    ("MINDlarge_train", "behaviors.tsv"): 2_232_748,
    ("MINDlarge_train", "news.tsv"): 101_527,
    ("MINDlarge_dev", "behaviors.tsv"): 376_471,
    ("MINDlarge_test", "behaviors.tsv"): 2_370_727,
}
_USES = {"train": "training", "dev": "evaluation", "test": "leaderboard submissions only"}
_NAME = re.compile(r"(MIND(?:large|small)_(?:train|dev|test))", re.IGNORECASE)
_DEPTH = 2


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `advice` says what to do and is empty when all is well."""

    level: Literal["ok", "warning", "error"]
    where: str
    message: str
    advice: str = ""


def where_to_get(name: str) -> str:
    """How to get MIND: MINDsmall when `name` speaks of it, else MINDlarge."""
    size = "MINDsmall" if "mindsmall" in name.lower() else "MINDlarge"
    return (
        "MIND is on the Hugging Face hub as data set yjw1029/MIND: accept its licence there, make a token, and run "
        f"`hf download yjw1029/MIND --repo-type dataset --local-dir DIR --include '*{size}*'` (older download addresses "
        "are dead)"
    )


def verify_download(folder: Path | str) -> list[Finding]:
    """Look at MIND's zips (size, md5) and at the rows of every split in `folder`; or at one zip, or one split's folder.

    Raises:
        InputError: `folder` does not exist.
    """
    folder = Path(folder)
    if not folder.exists():
        raise InputError(f"{folder}: no such folder; {where_to_get(str(folder))}")
    zips = {
        path: _check_zip(path, name)
        for path in _walk(folder, _DEPTH)
        if path.is_file() and path.suffix == ".zip" and (name := _canonical(path.name))
    }
    try:
        splits = find_splits(folder)
    except InputError as error:
        findings = list(zips.values())
        if not any(finding.level == "error" for finding in findings):  # else the same fault twice
            nothing = not zips and "found; expected" in str(error)
            advice = where_to_get(str(folder)) if nothing else _advice(str(error), None)
            findings.append(_finding(error, str(folder), advice))
        return findings
    used = {source.path for raw in splits.values() for source in (raw.news, raw.behaviors)}
    # A damaged zip is no harm where the folder that was extracted from it is read.
    for path, finding in zips.items():
        if finding.level == "error" and path not in used:
            zips[path] = Finding(
                "warning", finding.where, f"{finding.message}; not read, its folder is", finding.advice
            )
    bad = {path for path, finding in zips.items() if finding.level == "error"}
    published = {path for path, finding in zips.items() if finding.level == "ok"}
    whole = {split: raw for split, raw in splits.items() if raw.news.path not in bad and raw.behaviors.path not in bad}
    findings = _check_rows(folder, whole, published) + list(zips.values())
    there = {name for path in used if (name := _canonical(_below(path, folder)))}
    return findings + _missing(folder if folder.is_dir() else folder.parent, there)


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    """`folder` and what lies in it, at most `depth` levels down, in sorted order."""
    yield folder
    if depth and folder.is_dir():
        for path in sorted(folder.iterdir()):
            yield from _walk(path, depth - 1)


def _below(path: Path, folder: Path) -> str:
    """A path as seen from the folder above `folder`, which may itself be a split's."""
    return str(path.relative_to(folder.parent))


def _canonical(text: str) -> str | None:
    """The published name that occurs last in a path, in its usual capitals."""
    found = _NAME.findall(text)
    return next((name for name in _ZIPS if found and name.lower() == found[-1].lower()), None)


def _finding(error: InputError, where: str, advice: str) -> Finding:
    place, colon, message = str(error).partition(": ")
    inside = place if colon and place.startswith(where) else where  # a line of it, or a file in it
    where, line = inside.partition(", line ")[::2]
    return Finding("error", where, (f"line {line}: " if line else "") + (message if colon else str(error)), advice)


def _advice(message: str, name: str | None) -> str:
    """What to do about a fault in files that are MIND's under the published `name`, or None."""
    fits = {
        ": a label in": "all candidates of a split carry -0 or -1, or none does",
        "NEWS-0": "all candidates of a split carry -0 or -1, or none does",
        "header row": "write the columns in the expected order without a header row, or with one that names them",
        "separated by": "write it with the separator that is expected",
        "tab inside a text": "replace the tab inside the text by a space",
        ": time ": "write all times in one of these forms",
        "unpack": "do that and verify again",
        "keep one": "give each data set a folder of its own",
        "are read": "see how the file was written",
    }
    for word, advice in fits.items():
        if word in message:
            return advice
    if name:
        return "extract the zip again; if the file was edited, keep tabs, quotes and UTF-8 as they were"
    return "mend it where the file is made; docs/data.md says what it holds"


# Zips -----------------------------------------------------------------------------------------------------------------


def _check_zip(path: Path, name: str) -> Finding:
    md5, size = _ZIPS[name]
    again = f"download it again; {where_to_get(name)}"
    found = path.stat().st_size
    if found == size and file_hash(path, "md5") == md5:
        return Finding("ok", str(path), f"the published {name}.zip ({size:,} bytes, md5 {md5})")
    with path.open("rb") as file:
        head = file.read(256)
    if head.startswith(b"version https://git-lfs"):
        return Finding("error", str(path), "a Git LFS pointer, not the zip itself", f"run `git lfs pull`, or {again}")
    if not head.startswith(b"PK"):
        kind = "a web page" if b"<" in head[:64] else "some other file"
        return Finding("error", str(path), f"{kind}, not a zip ({found:,} bytes, expected {size:,})", again)
    if found < size and not zipfile.is_zipfile(path):
        return Finding("error", str(path), f"incomplete: {found:,} of {size:,} bytes", again)
    try:
        for raw in find_splits(path).values():
            for source in (raw.news, raw.behaviors):
                for _ in source.pieces():
                    pass
    except InputError as error:
        return _finding(error, str(path), again)
    return Finding(
        "warning",
        str(path),
        f"a sound zip, but not the published {name}.zip ({found:,} bytes, expected {size:,} with md5 {md5})",
        "figures from it may not compare with published ones; compare the row counts after extracting",
    )


def _missing(folder: Path, there: set[str]) -> list[Finding]:
    """Splits of a published data set of which other splits are there."""
    findings = []
    for family in sorted({name.partition("_")[0] for name in there}):
        for name in _ZIPS:
            if name.startswith(family) and name not in there:
                message = f"missing; needed for {_USES[name.rpartition('_')[2]]}"
                findings.append(Finding("warning", str(folder / f"{name}.zip"), message, where_to_get(name)))
    return findings


# Rows -----------------------------------------------------------------------------------------------------------------


def _check_rows(folder: Path, splits: dict[str, RawSplit], published: set[Path]) -> list[Finding]:
    """Read the files in the order in which they are prepared. What is `published` as it is needs no look at its rows."""
    findings: list[Finding] = []
    tables: list[pa.Table] = []
    for raw in splits.values():
        try:
            tables.append(read_news(raw.news))
            if raw.news.path not in published:
                findings.append(_rows_of(raw.news, len(tables[-1]), folder))
        except InputError as error:
            findings.append(
                _finding(error, str(raw.news), _advice(str(error), _canonical(_below(raw.news.path, folder))))
            )
    news = union_news(tables)[0]["id"] if tables else pa.chunked_array([], pa.large_string())
    lookup = NewsLookup(news.combine_chunks())
    shares: list[Finding] = []  # what concerns whole splits comes after all rows, as it does in `prepare`
    for split, raw in splits.items():
        if raw.behaviors.path not in published:
            # Without all news nothing can be said of which are unknown.
            rows, share = _check_behaviours(split, raw.behaviors, folder, lookup, news, len(tables) == len(splits))
            findings.append(rows)
            shares += share
    return findings + shares


def _check_behaviours(
    split: str, source: Source, folder: Path, lookup: NewsLookup, news: pa.ChunkedArray, whole: bool
) -> tuple[Finding, list[Finding]]:
    """What is found of the rows one by one, and of all of them together."""
    name = _canonical(_below(source.path, folder))
    with tempfile.TemporaryDirectory(prefix="tnr-verify-") as work:
        try:
            path = source.path
            if source.member:
                path = Path(work) / "behaviors.tsv"
                _unpack(source, path)
            account = judge_behaviours(path, lookup, str(source))
        except InputError as error:
            return _finding(error, str(source), _advice(str(error), name)), []
        shares = []
        if whole and (fault := counts_fault(account, split, str(source), MOST_UNKNOWN, texts_of(path), news)):
            advice = "take news.tsv and behaviors.tsv from the same source, whole"
            advice = "separate news by spaces" if "spaces are expected" in fault else advice
            shares.append(_finding(InputError(fault), str(source), advice))
        elif whole and account.unknown_candidates:
            shares.append(_some_unknown(source, account))
    return _rows_of(source, account.impressions, folder), shares


def _unpack(source: Source, path: Path) -> None:
    try:
        with path.open("wb") as out:
            out.writelines(source.pieces())
    except OSError as error:
        raise InputError(
            f"{source}: cannot be unpacked to {path.parent} ({error.strerror}); TMPDIR names another place"
        ) from None


def _some_unknown(source: Source, account: SplitCounts) -> Finding:
    message = (
        f"{account.unknown_candidates:,} of {account.candidates:,} candidates are in no news.tsv; they are dropped"
    )
    return Finding("warning", str(source), message, "take news.tsv and behaviors.tsv from the same source, whole")


def _rows_of(source: Source, rows: int, folder: Path) -> Finding:
    """Compare a file's rows with those of the published one."""
    name = _canonical(_below(source.path, folder))
    expected = _ROWS.get((name or "", re.split(r"[/\\]", source.member)[-1] or source.path.name))
    if expected is None or rows == expected:
        known = f", as published in {name}" if expected is not None else ""
        return Finding("ok", str(source), f"{rows:,} rows{known}")
    # More rows can be prepared as well as fewer, but fewer are most likely a fault of the disk.
    level: Literal["error", "warning"] = "error" if rows < expected else "warning"
    message = f"{rows:,} rows, the published {name} has {expected:,}"
    return Finding(level, str(source), message, "extract the zip again, and check the disk's free space")
