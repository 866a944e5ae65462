"""A prepared data set's manifest: what was prepared, and the size and sha256 of every file that a result depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

import pyarrow as pa

from tnr_dist.data import parquet
from tnr_dist.data.tokens import RaggedTable, read_table
from tnr_dist.util.digests import SEAL, check_seal, fault
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import read_json_object
from tnr_dist.util.json_types import checked

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
SYNTH = "synth.json"  # what `tnr data synth` leaves beside the files that it makes
# What the manifest says beside what the data set was made from.
_NOT_IDENTITY = ("files", "plm_digest", SEAL)


class Counts(TypedDict, total=False):
    """What was read and kept: of the texts, of each split (`Account.counts`), of the corpus."""

    news: int
    news_described_differently: int
    empty_titles: int
    empty_abstracts: int
    title_tokens: int
    news_tokens: int
    header_rows: int
    splits: dict[str, dict[str, int]]
    corpus: dict[str, int]


class TokenizerFacts(TypedDict, total=False):
    """The tokenizer that the texts were cut by: of which PLM, its digest, and its size."""

    name: str
    hash: str
    vocab_size: int


class SourceFacts(TypedDict):
    """An input file as it was read."""

    path: str
    bytes: int
    sha256: str


class Manifest(TypedDict, total=False):
    """manifest.json. `generated`, `news_inputs`, `plm_digest` and `files` stand there where they apply."""

    format_version: int
    request: dict[str, object]
    counts: Counts
    tokenizer: TokenizerFacts
    max_lengths: dict[str, int]
    sources: list[SourceFacts]
    generated: bool
    news_inputs: dict[str, int]
    plm_digest: str
    files: dict[str, object]


def read_manifest(folder: Path | str) -> Manifest:
    """A prepared data set's manifest. Raises InputError when `folder` is not one, or when the file is damaged."""
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise InputError(f"{folder}: not a prepared data set (no {MANIFEST}); run `tnr data prepare`")
    manifest = read_json_object(path)
    if manifest.get("format_version") != FORMAT_VERSION:
        raise InputError(f"{path}: not a manifest of format {FORMAT_VERSION}; prepare the data again")
    for key in ("counts", "tokenizer", "max_lengths"):
        if not isinstance(manifest.get(key), dict):
            raise InputError(f"{path}: {key} is missing or no object; prepare the data again")
    counts, tokenizer = manifest["counts"], manifest["tokenizer"]
    hashed = isinstance(tokenizer, dict) and isinstance(tokenizer.get("hash"), str)
    if not isinstance(manifest.get("request", {}), dict) or not hashed:
        raise InputError(f"{path}: request or tokenizer.hash is not what a manifest holds; prepare the data again")
    if isinstance(counts, dict):
        _check_counts(counts, "counts", path)
    check_seal(path, manifest)
    return checked(manifest, Manifest, f"{path}: ")


def _check_counts(counts: Mapping[str, object], name: str, path: Path) -> None:
    for key, value in counts.items():
        if isinstance(value, dict):
            _check_counts(value, f"{name}.{key}", path)
        elif isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise InputError(f"{path}: {name}.{key}={value!r}: not a count; prepare the data again")


def is_generated(folder: Path | str) -> bool:
    """Whether a prepared data set was made from files of `tnr data synth`. Raises InputError when `folder` is none."""
    folder = Path(folder)
    # Data sets of earlier versions do not say so; those of `tnr run` lie beside their raw files.
    raw = folder.with_name(f"{folder.name}-raw")
    return bool(read_manifest(folder).get("generated")) or (raw / SYNTH).is_file()


def manifest_hash(folder: Path | str) -> str:
    """A digest that changes when the data set is made from something else; the id of the data set."""
    return hashlib.sha256(json.dumps(made_from(read_manifest(folder)), sort_keys=True).encode()).hexdigest()


def made_from(manifest: Manifest) -> dict[str, object]:
    """A manifest without its digests and what its PLM was called: the same PLM of another name gives the same data set."""
    request = {key: value for key, value in manifest.get("request", {}).items() if key != "plm"}
    tokenizer = {key: value for key, value in manifest["tokenizer"].items() if key != "name"}
    kept: dict[str, object] = {name: value for name, value in manifest.items() if name not in _NOT_IDENTITY}
    return kept | {"request": request, "tokenizer": tokenizer}


def stated_files(folder: Path) -> Mapping[str, object] | None:
    """What the manifest says of the data set's files; None without a manifest, or with an older version's."""
    if not (folder / MANIFEST).is_file():
        return None
    files = read_json_object(folder / MANIFEST).get("files")
    return files if isinstance(files, dict) else None


def check_file(folder: Path, name: str) -> None:
    """Raise InputError when a file of a prepared data set is not what its manifest says."""
    files = stated_files(folder)
    if files is not None and (found := fault(folder, name, files)):
        raise InputError(f"{folder / name}: {found}; prepare the data again, or copy it again from a sound copy")


def open_table(folder: Path, name: str) -> RaggedTable:
    """A data set's token table `name`, such as `title`. Raises InputError when it is missing or damaged."""
    table = read_table(folder / "tokens" / name)
    for part in ("values", "offsets"):
        check_file(folder, f"tokens/{name}.{part}.npy")
    return table


def read_news(folder: Path, columns: list[str]) -> pa.Table:
    """Columns of a data set's news.parquet. Raises InputError when it is missing or damaged."""
    path = folder / "news.parquet"
    check_file(folder, path.name)
    try:
        return parquet.read_table(path, columns)
    except InputError as error:
        raise InputError(f"{error}; prepare the data again") from None
