"""`tnr data verify`: is a MIND download complete and genuine, and is a prepared data set whole?

Both functions look at everything and return a list of findings: they do not stop at the first fault.
"""

from __future__ import annotations

import re
import zipfile
from codecs import BOM_UTF8
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tnr_dist.data.manifest import MANIFEST, stated_files
from tnr_dist.data.mind import Source, chunks_of, parse_behaviours, read_news, scan_chunk, split_of
from tnr_dist.data.shards import Block, ShardInfo, SplitIndex, describe, read_index, read_shard
from tnr_dist.data.tokens import read_table
from tnr_dist.data.unknown import MOST_UNKNOWN, describe_unknown
from tnr_dist.digests import check_seal, fault
from tnr_dist.errors import InputError
from tnr_dist.files import file_hash, read_json
from tnr_dist.progress import Bar

WHERE_TO_GET_MIND = (
    "MIND is on the Hugging Face hub as data set yjw1029/MIND: accept its licence there, make a token, and run "
    "`hf download yjw1029/MIND --repo-type dataset --local-dir DIR --include '*MINDlarge*'` (older download addresses are dead)"
)

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
_FILES = ("behaviors.tsv", "news.tsv")
_NAME = re.compile(r"(MIND(?:large|small)_(?:train|dev|test))", re.IGNORECASE)
_FIRST_ROWS = 500
_CHUNK_BYTES = 32 << 20
_DEPTH = 4
_MAX_UNZIPPED = 32 << 30


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `advice` says what to do and is empty when all is well."""

    level: Literal["ok", "warning", "error"]
    where: str
    message: str
    advice: str = ""


def verify_download(folder: Path | str) -> list[Finding]:
    """Look at MIND's zips (size, md5) and extracted folders (rows and their format) in `folder`; or at one zip.

    Folders are searched a few levels deep; folders in MIND's format under other names are checked for format alone, and
    zips that `tnr data prepare` would take under other names (train.zip) for being whole.

    Raises:
        InputError: `folder` does not exist.
    """
    folder = Path(folder)
    if not folder.exists():
        raise InputError(f"{folder}: no such folder; {WHERE_TO_GET_MIND}")
    findings: list[Finding] = []
    seen: set[str] = set()
    for path in _walk(folder, _DEPTH):
        if path.is_file() and path.suffix == ".zip" and (name := _canonical(path.name)):
            seen.add(name)
            findings.append(_check_zip(path, name))
        elif path.is_file() and path.suffix == ".zip" and split_of(path.name):
            seen.add(str(path))
            findings.append(_check_other_zip(path))
        elif path.is_dir() and any((path / file).is_file() for file in _FILES):
            name = _canonical(str(path.relative_to(folder.parent)))
            seen |= {name} if name else {str(path)}
            findings += _check_extracted(path, name)
    if not seen:
        return [
            Finding(
                "error", str(folder), "no MIND zip and no folder with behaviors.tsv and news.tsv", WHERE_TO_GET_MIND
            )
        ]
    return findings + _missing(folder if folder.is_dir() else folder.parent, seen)


def verify_prepared(folder: Path | str) -> list[Finding]:
    """Check a prepared data set: size and sha256 of every file, and what manifest, tables, indices and shards hold.

    Raises:
        InputError: `folder` does not exist.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; `tnr data prepare` makes it")
    try:
        manifest = read_json(folder / "manifest.json")
        counts = manifest["counts"]
        version = manifest["format_version"]
        splits = dict(counts.get("splits", {}))
    except (InputError, KeyError, TypeError, ValueError, AttributeError) as error:
        message = str(error) if isinstance(error, InputError) else "no counts or no format_version in it"
        advice = "run the same `tnr data prepare` again: it continues an unfinished preparation"
        return [Finding("error", str(folder / "manifest.json"), message, advice)]
    if version != 1:
        message = f"format version {version}, this program reads 1"
        return [
            Finding("error", str(folder / "manifest.json"), message, "prepare the data with this program's version")
        ]
    findings = [_check_manifest(folder / MANIFEST, manifest)]
    files = stated_files(folder)
    # Each file is read anew: a disk may have damaged it since it was last looked at.
    damaged = {name: found for name in files or {} if (found := fault(folder, name, files or {}, again=True))}
    findings += [Finding("error", str(folder / name), found, _AGAIN_OR_COPY) for name, found in damaged.items()]
    intact = [name for name in files or {} if name.startswith("tokenizer/") and name not in damaged]
    if intact:
        findings.append(Finding("ok", str(folder / "tokenizer"), f"{len(intact)} files"))
    news = counts.get("news")
    if news is not None and "news.parquet" not in damaged:
        findings.append(_check_news(folder / "news.parquet", news))
    findings += _check_tokens(folder, manifest, news, damaged)
    for stray in sorted(path.parent.name for path in folder.glob("*/index.json") if path.parent.name not in splits):
        findings.append(Finding("warning", str(folder / stray), "a split that the manifest does not name", "remove it"))
    for split, expected in splits.items():
        if f"{split}/index.json" not in damaged:
            findings += _check_split(folder, split, expected, news or 0)
    return findings


# A download -----------------------------------------------------------------------------------------------------------


def _walk(folder: Path, depth: int, seen: set[Path] | None = None) -> Iterator[Path]:
    """`folder` and what lies in it, at most `depth` levels down, in sorted order; hidden names are left out."""
    seen = set() if seen is None else seen
    # A link to a folder above would be walked again and again.
    if (real := folder.resolve()) in seen:
        return
    seen.add(real)
    yield folder
    if depth and folder.is_dir():
        for path in sorted(folder.iterdir()):
            if not path.name.startswith("."):
                yield from _walk(path, depth - 1, seen)


def _canonical(text: str) -> str | None:
    """The published name that occurs last in a path, in its usual capitals."""
    found = _NAME.findall(text)
    return next((name for name in _ZIPS if found and name.lower() == found[-1].lower()), None)


def _check_zip(path: Path, name: str) -> Finding:
    md5, size = _ZIPS[name]
    again = f"download it again; {WHERE_TO_GET_MIND}"
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
    fault = _zip_fault(path)
    if fault:
        return Finding("error", str(path), fault, again)
    return Finding(
        "warning",
        str(path),
        f"a sound zip, but not the published {name}.zip ({found:,} bytes, expected {size:,} with md5 {md5})",
        "figures from it may not compare with published ones; compare the row counts after extracting",
    )


def _check_other_zip(path: Path) -> Finding:
    if fault := _zip_fault(path):
        return Finding("error", str(path), fault, "make or download it again; a split's zip holds both files")
    return Finding("ok", str(path), "a sound zip; its rows are looked at when it is prepared")


def _zip_fault(path: Path) -> str | None:
    """What is wrong inside a zip that is not the published one; reads it all for the checksums."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [info.filename for info in archive.infolist()]
            missing = [file for file in _FILES if not any(name.rpartition("/")[2] == file for name in names)]
            if missing:
                return f"holds no {' and no '.join(missing)}"
            if sum(info.file_size for info in archive.infolist()) > _MAX_UNZIPPED:
                return f"claims to unpack to more than {_MAX_UNZIPPED >> 30} GiB"
            damaged = archive.testzip()
            return f"damaged: checksum of {damaged}" if damaged else None
    # zlib.error has no common base with the others, and an encrypted member is a RuntimeError.
    except Exception as error:
        return f"damaged: {error}"


def _check_extracted(folder: Path, name: str | None) -> list[Finding]:
    findings = []
    for file in _FILES:
        path = folder / file
        if not path.is_file():
            findings.append(Finding("error", str(path), "missing", "extract the zip again; both files are needed"))
            continue
        fault = _behaviours_fault(path) if file == "behaviors.tsv" else _news_fault(path)
        rows = _count_rows(path)
        expected = _ROWS.get((name or "", file))
        if fault:
            advice = "extract the zip again; if the file was edited, keep tabs, quotes and UTF-8 as they were"
            findings.append(Finding("error", str(path), fault, advice))
        elif expected is not None and rows != expected:
            level: Literal["error", "warning"] = "error" if rows < expected else "warning"
            message = f"{rows:,} rows, the published {name} has {expected:,}"
            findings.append(
                Finding(level, str(path), message, "extract the zip again, and check the disk's free space")
            )
        else:
            known = f", as published in {name}" if expected is not None else ""
            findings.append(Finding("ok", str(path), f"{rows:,} rows{known}"))
    if not any(finding.level == "error" for finding in findings):
        findings += _unknown_news(folder)
    return findings


def _first_rows(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if number > _FIRST_ROWS:
                return
            yield number, line.rstrip(b"\n")


def _behaviours_fault(path: Path) -> str | None:
    """The first row that `tnr data prepare` would refuse; of candidates only the first rows' are looked at.

    MIND's test split has candidates without -0 and -1.
    """
    if not path.stat().st_size:
        return "empty"
    where = str(path)
    try:
        for chunk in chunks_of(path, _CHUNK_BYTES, where):
            scan_chunk(chunk, where)
            parse_behaviours(chunk.read(), np.arange(chunk.lines) + chunk.first_line - 1, where)
    except InputError as error:
        return str(error).removeprefix(where).lstrip(", :")
    for number, line in _first_rows(path):
        candidates = line.split(b"\t")[4].decode("utf-8").split()
        labelled = [re.fullmatch(r"\S+-[01]", candidate) is not None for candidate in candidates]
        if not candidates:
            return f"line {number}: no candidates"
        if any(labelled) and not all(labelled):
            return f"line {number}: candidate {candidates[labelled.index(False)][:40]!r} lacks its -0 or -1"
    return None


def _news_fault(path: Path) -> str | None:
    """The first row that `tnr data prepare` would refuse."""
    try:
        read_news(Source(path))
    except InputError as error:
        return str(error).removeprefix(str(path)).lstrip(", :")
    return None


def _count_rows(path: Path) -> int:
    rows, last = 0, b"\n"
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            rows += block.count(b"\n")
            last = block[-1:]
    return rows + (last != b"\n")


def _unknown_news(folder: Path) -> list[Finding]:
    """Compare candidates and histories of the first impressions with the news that are there: news.tsv may be cut short."""
    with (folder / "news.tsv").open("rb") as file:
        news = {line.partition(b"\t")[0].removeprefix(BOM_UTF8).decode("utf-8", "replace") for line in file}
    rows = [line.decode("utf-8", "replace").split("\t") for _, line in _first_rows(folder / "behaviors.tsv")]
    candidates = [
        candidate.rsplit("-", 1)[0] if candidate.endswith(("-0", "-1")) else candidate
        for row in rows
        for candidate in row[4].split()
    ]
    findings = []
    if unknown := sum(candidate not in news for candidate in candidates):
        message = f"{unknown:,} of the first {len(candidates):,} candidates are not in news.tsv"
        level: Literal["error", "warning"] = "error" if unknown > MOST_UNKNOWN * len(candidates) else "warning"
        advice = "take news.tsv and behaviors.tsv from the same zip, whole"
        findings.append(Finding(level, str(folder), message, advice))
    clicked = [word for row in rows for word in row[3].split()]
    unknown = sum(word not in news for word in clicked)
    if unknown > MOST_UNKNOWN * len(clicked):
        said = describe_unknown((row[3] for row in rows), news)
        message = (
            f"{unknown:,} of the first {len(clicked):,} news in histories (fourth column) are not in news.tsv, {said}"
        )
        advice = "separate the news of a history by spaces, and take both files from the same zip, whole"
        findings.append(Finding("error", str(folder / "behaviors.tsv"), message, advice))
    return findings


def _missing(folder: Path, seen: set[str]) -> list[Finding]:
    """Splits of a published data set of which other splits are there."""
    findings = []
    for family in ("MINDlarge", "MINDsmall"):
        if not any(name.startswith(family) for name in seen & set(_ZIPS)):
            continue
        for name in _ZIPS:
            if name.startswith(family) and name not in seen:
                use = {"train": "training", "dev": "evaluation", "test": "leaderboard submissions only"}
                message = f"missing; needed for {use[name.rpartition('_')[2]]}"
                findings.append(Finding("warning", str(folder / f"{name}.zip"), message, WHERE_TO_GET_MIND))
    return findings


# A prepared data set --------------------------------------------------------------------------------------------------

_AGAIN = "delete the folder and run `tnr data prepare` again"
_AGAIN_OR_COPY = f"copy it again from a sound copy, or {_AGAIN}"


def _check_manifest(path: Path, manifest: dict[str, Any]) -> Finding:
    try:
        check_seal(path, manifest)
    except InputError as error:
        return Finding("error", str(path), str(error).removeprefix(f"{path}: "), _AGAIN_OR_COPY)
    if not isinstance(manifest.get("files"), dict):
        message = "format version 1, of a version that kept no digests: damage to news and token tables may go unseen"
        return Finding("warning", str(path), message, "prepare the data again to have them")
    return Finding("ok", str(path), "format version 1")


def _check_news(path: Path, news: int) -> Finding:
    try:
        index = pq.read_table(path, columns=["index"])["index"].to_numpy()
    except FileNotFoundError:
        return Finding("error", str(path), "missing", _AGAIN)
    except (pa.ArrowException, OSError, KeyError) as error:
        return Finding("error", str(path), f"cannot be read ({str(error).splitlines()[0]})", _AGAIN)
    if len(index) != news:
        return Finding("error", str(path), f"{len(index):,} news, the manifest says {news:,}", _AGAIN)
    if not np.array_equal(index, np.arange(news)):
        return Finding("error", str(path), "its column `index` does not count up from 0", _AGAIN)
    return Finding("ok", str(path), f"{news:,} news")


def _check_tokens(folder: Path, manifest: dict[str, Any], news: int | None, damaged: dict[str, str]) -> list[Finding]:
    vocabulary = manifest.get("tokenizer", {}).get("vocab_size")
    stems = {path.name.split(".")[0] for path in (folder / "tokens").glob("*.npy")}
    stems |= {"title"} if news is not None else set()
    stems |= {"news"} if "news_inputs" in manifest else set()
    findings = []
    for stem in sorted(stems):
        if any(f"tokens/{stem}.{part}.npy" in damaged for part in ("values", "offsets")):
            continue
        where = str(folder / "tokens" / stem)
        longest = manifest.get("max_lengths", {}).get(stem)
        try:
            table = read_table(folder / "tokens" / stem)
        except InputError as error:
            findings.append(Finding("error", where, str(error), _AGAIN))
            continue
        message = None
        if stem in ("title", "news") and news is not None and len(table) != news:
            message = f"{len(table):,} rows, the manifest says {news:,} news"
        elif longest is not None and len(table) and table.lengths.max() > longest:
            message = f"row {int(table.lengths.argmax())} has {table.lengths.max()} tokens, the manifest says {longest}"
        elif vocabulary is not None and len(table.values) and table.values.max() >= vocabulary:
            message = f"token id {table.values.max()}, the tokenizer has {vocabulary}"
        if message:
            findings.append(Finding("error", where, message, _AGAIN))
        else:
            findings.append(Finding("ok", where, f"{len(table):,} rows, {len(table.values):,} tokens"))
    return findings


def _check_split(folder: Path, split: str, expected: dict[str, Any], news: int) -> list[Finding]:
    try:
        index = read_index(folder, split)
    except InputError as error:
        return [Finding("error", str(folder / split / "index.json"), str(error), _AGAIN)]
    findings = []
    with Bar(f"{split}: check shards", len(index.shards), "shards") as bar:
        for shard in index.shards:
            path = folder / split / shard.name
            if fault := _shard_fault(path, shard, index.labelled, news):
                advice = "delete the folder and prepare it again, or copy this shard again from a sound copy"
                findings.append(Finding("error", str(path), fault, advice))
            bar.advance()
    for stray in sorted({p.name for p in (folder / split).glob("*.tar")} - {shard.name for shard in index.shards}):
        message = "a shard that index.json does not name: it is never read"
        findings.append(Finding("warning", str(folder / split / stray), message, "remove it"))
    if fault := _count_fault(index, expected):
        findings.append(Finding("error", str(folder / split / "index.json"), fault, _AGAIN))
    if not any(finding.level == "error" for finding in findings):
        message = f"{len(index.shards):,} shards, {index.impressions:,} impressions, {index.samples:,} samples"
        findings.append(Finding("ok", str(folder / split), message))
    return findings


def _count_fault(index: SplitIndex, expected: dict[str, Any]) -> str | None:
    """Compare the sums over the index with the manifest's counts of this split."""
    found = {"impressions": index.impressions, "samples": index.samples}
    stated = {"impressions": expected.get("impressions_kept", expected.get("impressions"))}
    if index.labelled:
        # Candidates that no news.tsv has are dropped from a labelled split, so both counts are needed.
        found["candidates"] = sum(block["candidates"] for shard in index.shards for block in shard.blocks)
        stated["samples"] = expected.get("samples")
        if "candidates" in expected:
            stated["candidates"] = expected["candidates"] - expected.get("unknown_candidates", 0)
    for what, count in stated.items():
        if count is not None and found[what] != count:
            return f"{found[what]:,} {what}, the manifest says {count:,}"
    return None


def _shard_fault(path: Path, shard: ShardInfo, labelled: bool, news: int) -> str | None:
    try:
        blocks = read_shard(path, shard)
    except InputError as error:
        return str(error).removeprefix(f"{path}: ")
    stated = {line["key"]: line for line in shard.blocks}
    if list(blocks) != list(stated):
        return f"holds the blocks {', '.join(blocks)}, the index says {', '.join(stated)}"
    for key, block in blocks.items():
        if fault := _block_fault(block, labelled, news):
            return f"block {key}: {fault}"
        for what, count in describe(block, key).items():
            if stated[key].get(what) != count:
                return f"block {key}: {what} {count}, the index says {stated[key].get(what)}"
    for what in ("impressions", "samples"):
        total = sum(line[what] for line in shard.blocks)
        if total != getattr(shard, what):
            return f"its blocks have {total:,} {what}, its own line in the index says {getattr(shard, what):,}"
    return None


def _block_fault(block: Block, labelled: bool, news: int) -> str | None:
    """What is wrong with a block beside what `read_shard` looks at: labels and news indices."""
    if labelled != ("candidate_clicked" in block):
        return "it has labels in an unlabelled split" if not labelled else "it lacks candidate_clicked"
    for kind in ("history", "candidate"):
        flat = block[f"{kind}_news"]
        # -1 is an unknown candidate of an unlabelled split, which needs a rank all the same.
        lowest = -1 if kind == "candidate" and not labelled else 0
        if len(flat) and (flat.min() < lowest or flat.max() >= news):
            return f"{kind}_news has index {flat.min() if flat.min() < lowest else flat.max()} of {news} news"
    return None
