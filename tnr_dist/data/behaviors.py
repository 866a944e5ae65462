"""Behaviours to blocks in two vectorised passes: route rows to shards by user, then parse each shard.

Pass 1 (`route_chunk`) reads a byte range of behaviors.tsv and sorts its rows by shard; text stays text, so nothing is
parsed twice. Pass 2 (`build_shard`) gathers one shard's rows from all chunks and turns ids into indices; each distinct
history of a shard is parsed once, whatever the number of its impressions.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tnr_dist.data.mind import Chunk, hash_strings, parse_times, read_chunk
from tnr_dist.data.shards import Block, ShardInfo, count_samples, segment_sums, write_shard
from tnr_dist.data.tokens import gather_rows
from tnr_dist.errors import InputError
from tnr_dist.files import atomic_path, read_json, write_json

DAY = 86_400


@dataclass
class Account:
    """What was read, kept and dropped in a split; adds up over shards."""

    impressions: int = 0  # read
    impressions_kept: int = 0
    impressions_without_candidates: int = 0  # dropped: no known candidate at all
    users: int = 0
    users_with_changing_history: int = 0
    histories: int = 0
    empty_histories: int = 0
    history_items: int = 0  # in distinct histories
    unknown_history_items: int = 0  # dropped
    candidates: int = 0  # read
    unknown_candidates: int = 0  # dropped (kept unranked in an unlabelled split)
    clicks: int = 0  # read
    unknown_clicks: int = 0  # samples dropped because their clicked news is unknown
    samples: int = 0  # (impression, click) pairs that can be trained on
    max_candidates: int = 0
    max_history: int = 0
    first_time: int = field(default=1 << 62)
    last_time: int = field(default=0)

    def add(self, other: Account) -> None:
        """Take another part of the split in."""
        for one in fields(self):
            a, b = getattr(self, one.name), getattr(other, one.name)
            combine = (
                max if one.name.startswith(("max_", "last_")) else min if one.name == "first_time" else int.__add__
            )
            setattr(self, one.name, combine(a, b))

    @property
    def unknown_share(self) -> float:
        """Share of the split's candidates that are not in any news.tsv."""
        return self.unknown_candidates / max(self.candidates, 1)


@dataclass(frozen=True)
class SplitRule:
    """How the rows of one behaviours file are told apart when a data set has no dev or test split of its own.

    Rows of `test` are taken first, then rows of `dev`; a bound is a day number (days since 1970), a share is random.
    """

    dev_from_day: int | None = None
    test_from_day: int | None = None
    dev_share: float = 0.0
    test_share: float = 0.0
    seed: int = 0

    @cached_property
    def trivial(self) -> bool:
        """True when every row belongs to the file's own split."""
        return self.dev_from_day is None and self.test_from_day is None and not self.dev_share and not self.test_share

    def split_of(self, days: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """0 train, 1 dev, 2 test for each row, uint8 [I]; depends on the row alone."""
        out = np.zeros(len(rows), np.uint8)
        out[_uniform(rows, self.seed * 2 + 1) < self.dev_share] = 1
        if self.dev_from_day is not None:
            out[days >= self.dev_from_day] = 1
        out[_uniform(rows, self.seed * 2) < self.test_share] = 2
        if self.test_from_day is not None:
            out[days >= self.test_from_day] = 2
        return out


def _uniform(rows: np.ndarray, salt: int) -> np.ndarray:
    """A fixed pseudo-random number in [0, 1) for each row number (splitmix64)."""
    x = rows.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15 * (salt + 1) & (1 << 64) - 1)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (x ^ (x >> np.uint64(31))).astype(np.float64) / 2.0**64


def days_of_chunk(chunk: Chunk, where: str) -> tuple[np.ndarray, np.ndarray]:
    """The distinct days of a chunk and the impressions of each."""
    table = read_chunk(chunk, where)
    seconds = parse_times(table["time"].combine_chunks(), table["row"].to_numpy(), where)
    return np.unique(seconds // DAY, return_counts=True)


@dataclass(frozen=True)
class Route:
    """Pass 1's job for one chunk."""

    chunk: Chunk
    where: str  # the file's name in messages
    rule: SplitRule
    target: int  # 0 train, 1 dev, 2 test: which of the rule's splits is made
    shards: int
    part: tuple[int, int]  # this process makes the shards s with s % part[1] == part[0]
    out: Path


def route_chunk(route: Route) -> int:
    """Write a chunk's rows sorted by shard to `route.out` (Arrow IPC); returns the rows of the target split."""
    if route.out.exists():
        with pa.memory_map(str(route.out)) as source:
            metadata = pa.ipc.open_file(source).schema.metadata
        return int(metadata[b"rows"])
    pa.set_cpu_count(1)
    table = read_chunk(route.chunk, route.where)
    rows = table["row"].to_numpy()
    seconds = parse_times(table["time"].combine_chunks(), rows, route.where)
    table = table.set_column(table.schema.get_field_index("time"), "time", pa.array(seconds))
    if not route.rule.trivial:
        table = table.filter(pa.array(route.rule.split_of(seconds // DAY, rows) == route.target))
    hashes = hash_strings(table["user"].combine_chunks())
    shard = (hashes % np.uint64(route.shards)).astype(np.int64)
    kept = len(table)
    number, count = route.part
    mine = np.flatnonzero(shard % count == number)
    order = mine[np.argsort(shard[mine], kind="stable")]
    bounds = np.searchsorted(shard[order], np.arange(route.shards + 1))
    # Rows become slices of a few large record batches; a shard's slice is found by its bounds.
    table = table.append_column("user_hash", pa.array(hashes)).take(pa.array(order)).combine_chunks()
    table = table.replace_schema_metadata({"rows": str(kept), "bounds": json.dumps(bounds.tolist())})
    with atomic_path(route.out) as temporary, pa.OSFile(str(temporary), "wb") as sink:
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    return kept


@dataclass(frozen=True)
class NewsLookup:
    """News ids to indices, without touching Python objects."""

    ids: pa.Array

    @cached_property
    def marked(self) -> pa.Array:
        """Every id with "-0", then every id with "-1": one look-up gives both index and label."""
        text = self.ids.cast(pa.large_string())
        return pa.concat_arrays(
            [
                pc.binary_join_element_wise(text, *(pa.scalar(part, pa.large_string()) for part in (mark, "-")))
                for mark in ("0", "1")
            ]
        )

    @cached_property
    def plain(self) -> pa.Array:
        """The ids as text."""
        return self.ids.cast(pa.large_string())

    def labelled(self, tokens: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """Index (-1: not found) and label of tokens like N123-1."""
        found = pc.fill_null(pc.index_in(tokens, self.marked), -1).to_numpy()
        count = len(self.ids)
        return np.where(found >= count, found - count, found), (found >= count).astype(np.uint8)

    def unlabelled(self, tokens: pa.Array) -> np.ndarray:
        """Index (-1: not found) of tokens like N123."""
        return pc.fill_null(pc.index_in(tokens, self.plain), -1).to_numpy()


def split_words(values: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Space-separated words of each text: (flat words, offsets [n + 1] int64); repeated spaces make no words."""
    lists = pc.split_pattern(pc.utf8_trim_whitespace(values), " ")
    words = lists.flatten()
    offsets = lists.offsets.to_numpy().astype(np.int64)
    offsets = offsets - offsets[0]
    empty = pc.equal(words, "")
    if pc.any(empty).as_py():
        keep = ~empty.to_numpy(zero_copy_only=False)
        words, offsets = words.filter(pa.array(keep)), _filtered_offsets(keep, offsets)
    return words, offsets


def _filtered_offsets(keep: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    out = np.zeros(len(offsets), np.int64)
    np.cumsum(segment_sums(keep, offsets), out=out[1:])
    return out


@dataclass(frozen=True)
class Build:
    """Pass 2's job for one shard."""

    shard: int
    routed: list[Path]
    where: str
    news: Path  # news.parquet
    labelled: bool
    block_size: int
    out: Path
    account: Path  # the shard's line of the index and its account, for resuming and merging


_lookups: dict[Path, NewsLookup] = {}  # one per worker process: building the tables costs more than a shard


def build_shard(build: Build) -> tuple[ShardInfo, Account]:
    """Gather, parse and write one shard. Finished shards are not made again."""
    if build.account.exists() and build.out.exists():
        done = read_json(build.account)
        return ShardInfo(**done["shard"]), Account(**done["account"])
    pa.set_cpu_count(1)
    if build.news not in _lookups:
        import pyarrow.parquet as pq

        _lookups[build.news] = NewsLookup(pq.read_table(build.news, columns=["id"])["id"].combine_chunks())
    tables = []
    for path in build.routed:
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
            bounds = json.loads(table.schema.metadata[b"bounds"])
            start, stop = bounds[build.shard], bounds[build.shard + 1]
            tables.append(table.slice(start, stop - start).replace_schema_metadata(None))
    blocks, account = build_blocks(
        pa.concat_tables(tables), _lookups[build.news], build.labelled, build.block_size, build.where
    )
    info = write_shard(build.out, blocks)
    write_json(build.account, {"shard": vars(info), "account": asdict(account)})
    return info, account


def build_blocks(
    table: pa.Table, lookup: NewsLookup, labelled: bool, block_size: int, where: str
) -> tuple[list[Block], Account]:
    """Rows of one shard (any order) as blocks of whole users, and the account of what was kept and dropped."""
    account = Account(impressions=len(table))
    hashes, rows = table["user_hash"].to_numpy(), table["row"].to_numpy()
    # Sorted by user, then by place in the file: the result does not depend on how the file was cut into chunks.
    table = table.take(pa.array(np.lexsort((rows, hashes)))).combine_chunks()
    words, offsets = split_words(_array(table["impressions"]))
    rows = table["row"].to_numpy()
    clicked = None
    if labelled:
        news, clicked = lookup.labelled(words)
        _check_marks(words, news, offsets, rows, where)
        account.clicks = _count_clicks(words, news, clicked)
    else:
        news = lookup.unlabelled(words)
        _check_no_marks(words, news, offsets, rows, where)
    account.candidates = len(news)
    known = news >= 0
    account.unknown_candidates = int(np.count_nonzero(~known))
    counts = segment_sums(known, offsets) if labelled else np.diff(offsets)
    keep_rows = counts > 0
    account.impressions_without_candidates = int(np.count_nonzero(~keep_rows))
    if labelled:
        account.unknown_clicks = account.clicks - int(clicked[known].sum())  # type: ignore[index]
    keep = np.repeat(keep_rows, np.diff(offsets))
    if labelled:
        keep &= known
    news = news[keep].astype(np.int32)
    clicked = clicked[keep] if clicked is not None else None
    candidate_offsets = np.zeros(int(keep_rows.sum()) + 1, np.int64)
    np.cumsum(counts[keep_rows], out=candidate_offsets[1:])
    table = table.filter(pa.array(keep_rows)).combine_chunks()
    account.impressions_kept = len(table)
    if not len(table):
        return [], account
    times = table["time"].to_numpy()
    account.first_time, account.last_time = int(times.min()), int(times.max())
    account.max_candidates = int(np.diff(candidate_offsets).max())

    pair, pair_history, history_news, history_offsets = _histories(table, lookup, account)
    blocks = []
    users = table["user_hash"].to_numpy()
    starts = _block_starts(users, block_size)
    for start, stop in zip(starts[:-1], starts[1:], strict=True):
        low, high = candidate_offsets[start], candidate_offsets[stop]
        first = pair[start]
        last = int(pair[start:stop].max()) + 1
        values, block_history = gather_rows(history_news, history_offsets, pair_history[first:last])
        block: Block = {
            "row": table["row"].to_numpy()[start:stop],
            "impression_id": table["impression_id"].to_numpy()[start:stop],
            "time": times[start:stop],
            "impression_history": (pair[start:stop] - first).astype(np.int32),
            "history_offsets": block_history.astype(np.int32),
            "history_news": values,
            "candidate_offsets": (candidate_offsets[start : stop + 1] - low).astype(np.int32),
            "candidate_news": news[low:high],
        }
        if clicked is not None:
            block["candidate_clicked"] = clicked[low:high]
        account.samples += count_samples(block)
        blocks.append(block)
    return blocks, account


def _array(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _histories(
    table: pa.Table, lookup: NewsLookup, account: Account
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Distinct (user, history) pairs, numbered by first appearance.

    Returns the pair of each row [I], the text code of each pair, and the parsed distinct texts (flat, offsets).
    """
    user = _array(table["user"]).dictionary_encode().indices.to_numpy().astype(np.int64)
    encoded = _array(table["history"]).dictionary_encode()
    text = encoded.indices.to_numpy().astype(np.int64)
    words, offsets = split_words(encoded.dictionary)
    found = lookup.unlabelled(words)
    known = found >= 0
    news = found[known].astype(np.int32)
    news_offsets = _filtered_offsets(known, offsets)
    _, first, inverse = np.unique(user * len(encoded.dictionary) + text, return_index=True, return_inverse=True)
    by_appearance = np.argsort(first, kind="stable")
    number = np.empty(len(first), np.int64)
    number[by_appearance] = np.arange(len(first))
    pair_text = text[first[by_appearance]]
    account.users = int(user.max()) + 1
    account.histories = len(first)
    pairs_of_user = np.bincount(user[first])
    account.users_with_changing_history = int(np.count_nonzero(pairs_of_user > 1))
    read = np.diff(offsets)[pair_text]
    account.history_items = int(read.sum())
    account.unknown_history_items = account.history_items - int(np.diff(news_offsets)[pair_text].sum())
    account.empty_histories = int(np.count_nonzero(read == 0))
    account.max_history = int(read.max())
    return number[inverse], pair_text, news, news_offsets


def _block_starts(users: np.ndarray, block_size: int) -> list[int]:
    """Cut rows (sorted by user) after at least `block_size` of them, only between users. Ends with len(users)."""
    last_of_user = np.append(np.flatnonzero(users[1:] != users[:-1]) + 1, len(users))
    starts = [0]
    while starts[-1] < len(users):
        # The user's end nearest above the target; a small rest joins the last block.
        target = starts[-1] + block_size
        at = int(np.searchsorted(last_of_user, min(target, len(users))))
        stop = int(last_of_user[min(at, len(last_of_user) - 1)])
        starts.append(len(users) if len(users) - stop < block_size // 2 else stop)
    return starts


def _count_clicks(words: pa.Array, news: np.ndarray, clicked: np.ndarray) -> int:
    """Clicks among known and unknown candidates alike."""
    unknown = words.filter(pa.array(news < 0))
    return int(clicked.sum()) + int(pc.sum(pc.ends_with(unknown, "-1")).as_py() or 0)


def _check_marks(words: pa.Array, news: np.ndarray, offsets: np.ndarray, rows: np.ndarray, where: str) -> None:
    missing = np.flatnonzero(news < 0)
    if len(missing):
        fine = pc.match_substring_regex(words.take(pa.array(missing)), "^.+-[01]$").to_numpy(zero_copy_only=False)
        if not fine.all():
            _raise_bad_word(words, int(missing[np.argmin(fine)]), offsets, rows, where, "expected NEWS-0 or NEWS-1")


def _check_no_marks(words: pa.Array, news: np.ndarray, offsets: np.ndarray, rows: np.ndarray, where: str) -> None:
    missing = np.flatnonzero(news < 0)
    if len(missing):
        marked = pc.match_substring_regex(words.take(pa.array(missing)), "-[01]$").to_numpy(zero_copy_only=False)
        if marked.any():
            message = "a label in a split whose first impression has none"
            _raise_bad_word(words, int(missing[np.argmax(marked)]), offsets, rows, where, message)


def _raise_bad_word(words: pa.Array, at: int, offsets: np.ndarray, rows: np.ndarray, where: str, what: str) -> None:
    row = int(np.searchsorted(offsets, at, side="right")) - 1
    raise InputError(f"{where}, line {rows[row] + 1}: candidate {words[at].as_py()!r}: {what}")


def is_labelled(chunk: Chunk, where: str) -> bool:
    """Whether the candidates of a behaviours file carry -0 / -1, by its first impression that has any."""
    for value in read_chunk(chunk, where)["impressions"].slice(0, 10_000).to_pylist():
        if value.strip():
            return bool(re.search(r"-[01]$", value.split()[0]))
    return False
