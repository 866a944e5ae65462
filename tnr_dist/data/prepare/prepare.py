"""`tnr data prepare`: raw files to a prepared data set (design: manifest, news table, token tables, shards).

The work is cut into chunks (pass 1) and shards (pass 2), each written atomically, so a run that was killed continues
where it was; `part` makes one share of the shards, `merge` checks and completes the folder. The result depends on the
input and the options only, not on chunks, processes or parts.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from pathlib import Path
from typing import TypedDict

import numpy as np
import pyarrow.parquet as pq

from tnr_dist.data.manifest import FORMAT_VERSION, MANIFEST, Manifest, is_generated, manifest_hash, read_manifest
from tnr_dist.data.prepare.counts import SplitCounts, print_counts
from tnr_dist.data.prepare.existing import existing, files_of, remove, tidy
from tnr_dist.data.prepare.impressions import (
    Build,
    Route,
    build_shard,
    days_of_chunk,
    finished_shard,
    is_labelled,
    route_chunk,
)
from tnr_dist.data.prepare.judge import (
    CHUNK_BYTES,
    behaviour_chunks,
    counts_fault,
    header_rows,
    judge_behaviours,
    texts_of,
)
from tnr_dist.data.prepare.news_ids import NewsLookup
from tnr_dist.data.prepare.options import (
    WORK,
    PrepareOptions,
    Request,
    begin,
    check_unchanged,
    is_generated_input,
    manifest_request,
    parse_rule,
)
from tnr_dist.data.prepare.processes import Processes
from tnr_dist.data.prepare.raw import (
    SPLITS,
    Chunk,
    RawSplit,
    Source,
    behaviours_start,
    copy_member,
    find_splits,
)
from tnr_dist.data.prepare.split_rule import SplitRule
from tnr_dist.data.prepare.text_tables import make_texts
from tnr_dist.data.prepare.texts import check_fits
from tnr_dist.data.shards import SplitIndex, index_to_dict
from tnr_dist.models.digest import plm_digest
from tnr_dist.models.tokenizer import load_tokenizer
from tnr_dist.util.digests import describe, write_sealed
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import read_json_object, write_json
from tnr_dist.util.hardware import cores
from tnr_dist.util.json_types import checked
from tnr_dist.util.lock import held
from tnr_dist.util.progress import say

_CHUNK_BYTES = CHUNK_BYTES
_BLOCKS_PER_SHARD = 16
_MOST_PROCESSES = 1024

__all__ = [
    "FORMAT_VERSION",
    "PrepareOptions",
    "is_generated",
    "manifest_hash",
    "prepare",
    "print_counts",
    "read_manifest",
]


def prepare(
    options: PrepareOptions,
    output: Path,
    *,
    part: tuple[int, int] | None = None,
    merge: bool = False,
    processes: int | None = None,
) -> Manifest:
    """Prepare a data set and return its manifest; a complete one made from the same request is left as it is.

    `part=(i, n)` (i from 0) makes share i of n; `merge=True` completes a folder whose n parts are all there.
    Raises InputError for bad input; then nothing that this call created is left.
    """
    options.check()
    if processes is not None and not 1 <= processes <= _MOST_PROCESSES:
        raise InputError(f"--processes {processes}: 1 to {_MOST_PROCESSES}, or 0 for one per core")
    processes = processes or cores()
    request = manifest_request(options)
    manifest_path = output / MANIFEST
    if output.exists() and not output.is_dir():
        raise InputError(f"{output}: a file; --output names a folder")
    if manifest_path.exists():
        manifest = existing(output, request)
        if (output / WORK).exists():  # killed just before its end; a process that is there now does it itself
            with contextlib.suppress(InputError, OSError), held(output):
                tidy(output)
        return manifest
    if part is not None and not options.input:
        raise InputError("--part shares the shards of --input; a corpus alone is made in one go")
    existed = output.exists()
    if merge and not (output / WORK).exists():
        raise InputError(f"{output}: no parts to merge; run `tnr data prepare --part i/n` for each i first")
    # Parts work beside each other; whoever takes the whole folder works alone.
    with held(output, shared=part is not None):
        if manifest_path.exists():  # made by whoever held it just now
            return existing(output, request)
        if begin(output, request) and part is None and not merge:
            say(f"{output}: resuming an unfinished preparation")
        try:
            with Processes(processes) as pool:
                return _Preparation(options, output, request, pool).run(part, merge)
        except InputError:
            # Only a whole run cleans up: a part must not remove what others have made.
            if part is None and not merge:
                for path in output.iterdir() if output.exists() else ():
                    remove(path)
                if not existed:
                    output.rmdir()
            raise


class _SplitFacts(TypedDict):
    """split.json of the work folder: what every part says of a split."""

    labelled: bool
    shards: int


class _Preparation:
    """One call's state; the steps in order are in `run`."""

    def __init__(self, options: PrepareOptions, output: Path, request: Request, pool: Processes) -> None:
        self.options, self.output, self.request, self.pool = options, output, request, pool
        self.work = output / WORK
        self.tokenizer = load_tokenizer(options.plm)
        check_fits(self.tokenizer.files)

    def run(self, part: tuple[int, int] | None, merge: bool) -> Manifest:
        raw = find_splits(self.options.input) if self.options.input else {}
        plan = self._plan(raw)
        counts = make_texts(self.options, self.output, self.tokenizer, raw, part, merge)
        counts_of: dict[str, SplitCounts] = {}
        for split, (source, rule, target) in plan.items():
            if not merge:
                self._make(split, source, rule, target, part or (0, 1))
            if part is None:
                counts_of[split] = self._complete(split, source)
        self._check_unchanged()
        if part is not None:
            say(f"{self.output}: part {part[0] + 1} of {part[1]} is done; run --merge when all are")
            return {}
        manifest: Manifest = {
            "format_version": FORMAT_VERSION,
            "request": {**self.request},
            "counts": counts,
            "tokenizer": {
                "name": self.options.plm,
                "hash": self.tokenizer.hash,
                "vocab_size": self.tokenizer.vocab_size,
            },
            "max_lengths": {"title": self.options.title_tokens, "body": self.options.body_tokens},
            "sources": self.request["sources"],
        }
        if is_generated_input(self.options):
            manifest["generated"] = True
        lengths = self.options.news_lengths
        if list(lengths) != ["title"]:
            manifest["news_inputs"] = lengths
            manifest["max_lengths"]["news"] = sum(lengths.values())
        if headers := sum(header_rows(split.news, self._text(split.behaviors)) for split in raw.values()):
            counts["header_rows"] = headers
        if counts_of:
            counts["splits"] = {name: one.counts() for name, one in counts_of.items()}
        self._check_unknown(manifest, counts_of, {split: source for split, (source, _, _) in plan.items()})
        self.tokenizer.save(self.output / "tokenizer")
        with contextlib.suppress(InputError):  # of a folder with a tokenizer alone
            manifest["plm_digest"] = plm_digest(self.options.plm)
        manifest["files"] = {**describe(self.output, files_of(self.output, list(plan)))}
        written = write_sealed(self.output / MANIFEST, manifest)
        tidy(self.output)
        return checked(written, Manifest, f"{self.output / MANIFEST}: ")

    def _check_unchanged(self) -> None:
        """What was made from an input that changed meanwhile is of no use, and is not resumed."""
        try:
            check_unchanged(self.options, self.request)
        except InputError:
            (self.work / "request.json").unlink(missing_ok=True)
            raise

    def _check_unknown(self, manifest: Manifest, counts_of: dict[str, SplitCounts], sources: dict[str, Source]) -> None:
        for name, counts in counts_of.items():
            news = pq.read_table(self.output / "news.parquet", columns=["id"])["id"]
            texts = texts_of(self._text(sources[name]))
            if fault := counts_fault(counts, name, str(sources[name]), self.options.max_unknown, texts, news):
                if counts.candidates:
                    print_counts(manifest)
                raise InputError(fault)

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
        shared = self._rule(source)
        plan["train"] = (source, shared, 0)
        if self.options.dev_split:
            plan["dev"] = (source, shared, 1)
        if self.options.test_split:
            plan["test"] = (source, shared, 2)
        return {split: plan[split] for split in SPLITS if split in plan}

    def _rule(self, source: Source) -> SplitRule:
        dev_days, dev_share = parse_rule(self.options.dev_split)
        test_days, test_share = parse_rule(self.options.test_split)
        dev_bound = test_bound = None
        if dev_days or test_days:
            days: set[int] = set()
            chunks = self._chunks(source)
            jobs = [(chunk, str(source)) for chunk in chunks]
            for found in self.pool.map(_days_of, jobs, [c.lines for c in chunks], "read times", "impressions"):
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
        return behaviour_chunks(self._text(source), _CHUNK_BYTES, str(source))

    def _text(self, source: Source) -> Path:
        """The source as an uncompressed file."""
        if not source.member:
            return source.path
        path = self.work / f"{hashlib.sha256(str(source).encode()).hexdigest()[:16]}.tsv"
        if not path.exists():
            copy_member(source, path)
        return path

    def _make(self, split: str, source: Source, rule: SplitRule, target: int, part: tuple[int, int]) -> None:
        """Make one part of a split's shards."""
        chunks = self._chunks(source)
        rows = sum(chunk.lines for chunk in chunks)
        shards = self._shard_count(rows)
        text = self._text(source)
        labelled = is_labelled(text, behaviours_start(text, str(source)).byte)
        work = self.work / split
        work.mkdir(exist_ok=True)
        # The same from every part, so it does not matter which comes last.
        write_json(work / "split.json", {"labelled": labelled, "shards": shards})
        routed = work / f"part-{part[0]}-of-{part[1]}-by-{_CHUNK_BYTES}"
        routes = [
            Route(chunk, str(source), rule, target, shards, part, routed / f"chunk-{number:05d}")
            for number, chunk in enumerate(chunks)
        ]
        builds = [
            Build(
                number, routes, str(source), self.output / "news.parquet", labelled, self.options.block_size,
                self.output / split / f"{_name(number)}.tar", work / f"{_name(number)}.json",
            )
            for number in range(part[0], shards, part[1])
        ]  # fmt: skip
        if not all(build.done for build in builds):
            lines = [chunk.lines for chunk in chunks]
            try:
                kept = sum(self.pool.map(route_chunk, routes, lines, f"{split}: read", "impressions"))
                if not kept:
                    raise InputError(f"{source}: the {split} split is empty; the split rules leave it no impression")
                share = max(kept // shards, 1)
                for _ in self.pool.map(build_shard, builds, [share] * len(builds), f"{split}: write", "impressions"):
                    pass
            except InputError:
                # A shard's first bad row need not be the file's.
                judge_behaviours(text, self._lookup(), str(source), _CHUNK_BYTES)
                raise
        shutil.rmtree(routed, ignore_errors=True)

    def _lookup(self) -> NewsLookup:
        return NewsLookup(pq.read_table(self.output / "news.parquet", columns=["id"])["id"].combine_chunks())

    def _complete(self, split: str, source: Source) -> SplitCounts:
        """Check that a split's shards are all there, write its index and return its counts."""
        work = self.work / split
        if not (work / "split.json").exists():
            raise InputError(f"{self.output}: no part of the {split} split is made yet; run `--part i/n` for each i")
        facts = checked(read_json_object(work / "split.json"), _SplitFacts, f"{work / 'split.json'}: ")
        names = [_name(number) for number in range(facts["shards"])]
        missing = [name for name in names if not (work / f"{name}.json").exists()]
        if missing:
            raise InputError(
                f"{self.output}: {len(missing)} of {len(names)} {split} shards are not made yet, first {missing[0]}; "
                "run the missing parts"
            )
        counts, infos = SplitCounts(), []
        for name in names:
            info, its_counts = finished_shard(work / f"{name}.json")
            path = self.output / split / info.name
            counts.add(its_counts)
            if not info.impressions:
                path.unlink(missing_ok=True)
            elif not path.is_file() or path.stat().st_size != info.bytes:
                (work / f"{name}.json").unlink()
                raise InputError(f"{path}: missing or not whole; make its part again")
            else:
                infos.append(info)
        if infos:
            index = SplitIndex(split, facts["labelled"], infos)
            write_json(self.output / split / "index.json", index_to_dict(index))
        return counts

    def _shard_count(self, rows: int) -> int:
        """Enough shards for parallel work on small data, about 16 blocks a shard on large data."""
        blocks = max(rows // self.options.block_size, 1)
        return max(-(-blocks // _BLOCKS_PER_SHARD), min(blocks, 8))


def _days_of(job: tuple[Chunk, str]) -> np.ndarray:
    return days_of_chunk(*job)


def _name(shard: int) -> str:
    return f"shard-{shard:06d}"
