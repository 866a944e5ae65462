"""`tnr data verify` of a prepared data set: is it whole?

It looks at everything and returns a list of findings: it does not stop at the first fault.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from tnr_dist.data.manifest import MANIFEST, Manifest, stated_files
from tnr_dist.data.parquet import open_parquet, read_batches
from tnr_dist.data.prepare.download import Finding, verify_download
from tnr_dist.data.shards import Block, ShardInfo, SplitIndex, describe, read_index, read_shard
from tnr_dist.data.tokens import read_table
from tnr_dist.util.digests import check_seal, fault
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import read_json_object
from tnr_dist.util.json_types import checked
from tnr_dist.util.progress import Bar

__all__ = ["Finding", "verify_download", "verify_prepared"]


def verify_prepared(folder: Path | str) -> list[Finding]:
    """Check a prepared data set: size and sha256 of every file, and what manifest, tables, indices and shards hold.

    Raises:
        InputError: `folder` does not exist.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; `tnr data prepare` makes it")
    try:
        path = folder / "manifest.json"
        manifest = checked(read_json_object(path), Manifest, f"{path}: ")
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


# A prepared data set --------------------------------------------------------------------------------------------------

_AGAIN = "delete the folder and run `tnr data prepare` again"
_AGAIN_OR_COPY = f"copy it again from a sound copy, or {_AGAIN}"


def _check_manifest(path: Path, manifest: Manifest) -> Finding:
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
        if not path.is_file():
            return Finding("error", str(path), "missing", _AGAIN)
        file = open_parquet(path)
        if file.metadata.num_rows != news:
            return Finding("error", str(path), f"{file.metadata.num_rows:,} news, the manifest says {news:,}", _AGAIN)
        # All columns: a title may be damaged where its neighbours are not.
        tables = list(read_batches(file, file.schema_arrow.names, str(path)))
        index = np.concatenate([table["index"].to_numpy() for table in tables] or [np.zeros(0, np.int64)])
    except (pa.ArrowException, KeyError, InputError) as error:
        said = str(error).removeprefix(f"{path}: ").splitlines()[0]
        return Finding("error", str(path), f"cannot be read ({said})", _AGAIN)
    if not np.array_equal(index, np.arange(news)):
        return Finding("error", str(path), "its column `index` does not count up from 0", _AGAIN)
    return Finding("ok", str(path), f"{news:,} news")


def _check_tokens(folder: Path, manifest: Manifest, news: int | None, damaged: dict[str, str]) -> list[Finding]:
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


def _check_split(folder: Path, split: str, expected: Mapping[str, int], news: int) -> list[Finding]:
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


def _count_fault(index: SplitIndex, expected: Mapping[str, int]) -> str | None:
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
    impressions = sum(line["impressions"] for line in shard.blocks)
    samples = sum(line["samples"] for line in shard.blocks)
    for what, total, own in (("impressions", impressions, shard.impressions), ("samples", samples, shard.samples)):
        if total != own:
            return f"its blocks have {total:,} {what}, its own line in the index says {own:,}"
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
