"""Behaviours to blocks in two vectorised passes: route rows to shards by user, then parse each shard.

Pass 1 (`route_chunk`) reads a byte range of behaviors.tsv and sorts its lines by shard; they stay raw bytes, so nothing
is parsed twice. Pass 2 (`build_shard`) gathers one shard's lines from all chunks and turns ids into indices; each
distinct history of a shard is parsed once, whatever the number of its impressions.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tnr_dist.data.prepare.counts import SplitCounts
from tnr_dist.data.prepare.news_ids import NewsLookup, Words, hash_strings, split_words
from tnr_dist.data.prepare.raw import LONGEST_ID, Chunk, parse_behaviours, scan_chunk
from tnr_dist.data.prepare.split_rule import SplitRule
from tnr_dist.data.prepare.times import FORMS
from tnr_dist.data.prepare.unknown import count_separators
from tnr_dist.data.shards import Block, ShardInfo, count_samples, segment_sums, write_shard
from tnr_dist.data.tokens import gather_rows
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import atomic_path, read_json_object, write_json
from tnr_dist.util.json_types import built, checked
from tnr_dist.util.restarts import mark_progress

DAY = 86_400
_ROWS_LOOKED_AT = 2_000  # to know whether a split has labels


def days_of_chunk(chunk: Chunk, where: str) -> np.ndarray:
    """The distinct days (since 1970) of a chunk."""
    rows = scan_chunk(chunk, where)
    return np.unique(rows.times(np.arange(chunk.lines) + chunk.first_line, where) // DAY)


@dataclass(frozen=True)
class Route:
    """Pass 1's job for one chunk."""

    chunk: Chunk
    where: str  # the file's name in messages
    rule: SplitRule
    target: int  # 0 train, 1 dev, 2 test: which of the rule's splits is made
    shards: int
    part: tuple[int, int]  # this process makes the shards s with s % part[1] == part[0]
    out: Path  # without suffix

    @property
    def lines(self) -> Path:
        """The raw lines, sorted by shard."""
        return self.out.with_suffix(".tsv")

    @property
    def index(self) -> Path:
        """int64: rows of the target split; row bounds and byte bounds [shards + 1] each; row numbers."""
        return self.out.with_suffix(".npy")


def route_chunk(route: Route) -> int:
    """Write a chunk's lines sorted by shard; returns the rows of the target split, those of other parts included."""
    if route.index.exists():
        return int(np.load(route.index, mmap_mode="r")[0])
    lines = scan_chunk(route.chunk, route.where)
    rows = np.arange(route.chunk.lines, dtype=np.int64) + (route.chunk.first_line - 1)
    if route.rule.trivial:
        chosen = np.arange(len(rows))
    else:
        days = lines.times(rows + 1, route.where) // DAY if route.rule.by_day else np.zeros(len(rows), np.int64)
        chosen = np.flatnonzero(route.rule.split_of(days, rows) == route.target)
    shard = (lines.user_keys()[chosen] % np.uint64(route.shards)).astype(np.int64)
    number, count = route.part
    mine = np.flatnonzero(shard % count == number)
    mine = mine[np.argsort(shard[mine], kind="stable")]
    order = chosen[mine]
    row_bounds = np.searchsorted(shard[mine], np.arange(route.shards + 1))
    # Arrow copies whole lines; NumPy would go byte by byte.
    buffers = [None, pa.py_buffer(lines.bounds), pa.py_buffer(lines.data)]
    text = pa.Array.from_buffers(pa.large_binary(), len(rows), buffers).take(pa.array(order))
    _, offset_buffer, data_buffer = text.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64)[: len(order) + 1]
    with atomic_path(route.lines) as temporary:
        temporary.write_bytes(memoryview(data_buffer)[: int(offsets[-1])] if len(order) else b"")
    byte_bounds = offsets[row_bounds] if len(order) else np.zeros(route.shards + 1, np.int64)
    index = np.concatenate([[len(chosen)], row_bounds, byte_bounds, rows[order]]).astype(np.int64)
    # The index last: a chunk without one is routed again.
    with atomic_path(route.index) as temporary, temporary.open("wb") as file:
        np.save(file, index)
    return len(chosen)


def _routed(route: Route, shard: int) -> tuple[bytes, np.ndarray]:
    """A shard's lines of a routed chunk, and their row numbers."""
    index = np.load(route.index, mmap_mode="r")
    width = route.shards + 1
    first, last = index[1 + shard], index[2 + shard]
    start, stop = int(index[1 + width + shard]), int(index[2 + width + shard])
    rows = np.array(index[1 + 2 * width + first : 1 + 2 * width + last])
    with route.lines.open("rb") as file:
        file.seek(start)
        return file.read(stop - start), rows


@dataclass(frozen=True)
class Build:
    """Pass 2's job for one shard."""

    shard: int
    routes: list[Route]
    where: str
    news: Path  # news.parquet
    labelled: bool
    block_size: int
    out: Path
    account: Path  # the shard's line of the index and its account, for resuming and merging

    @property
    def done(self) -> bool:
        """Whether the shard is made, and whole."""
        if not (self.account.exists() and self.out.exists()):
            return False
        return self.out.stat().st_size == finished_shard(self.account)[0].bytes


class _Finished(TypedDict):
    """The file `Build.account`."""

    shard: dict[str, object]
    account: dict[str, object]


def finished_shard(file: Path) -> tuple[ShardInfo, SplitCounts]:
    """A shard's line of the index and its account, as `build_shard` left them in its file `account`."""
    found = checked(read_json_object(file), _Finished, f"{file}: ")
    return built(ShardInfo, found["shard"]), built(SplitCounts, found["account"])


@lru_cache(maxsize=1)  # one per worker process: reading the ids and building the table costs more than a shard
def _lookup(news: Path, written: int, inode: int) -> NewsLookup:
    return NewsLookup(pq.read_table(news, columns=["id"])["id"].combine_chunks())


def build_shard(build: Build) -> tuple[ShardInfo, SplitCounts]:
    """Gather, parse and write one shard. Finished shards are not made again."""
    if build.done:
        return finished_shard(build.account)
    pa.set_cpu_count(1)
    # Another run of this process may have put other news under the same name.
    state = build.news.stat()
    lookup = _lookup(build.news, state.st_mtime_ns, state.st_ino)
    pieces = [_routed(route, build.shard) for route in build.routes]
    rows = np.concatenate([piece[1] for piece in pieces])
    blocks: list[Block] = []
    account = SplitCounts()
    if len(rows):
        table = parse_behaviours(b"".join(piece[0] for piece in pieces), rows, build.where)
        del pieces
        blocks, account = build_blocks(table, lookup, build.labelled, build.block_size, build.where)
    info = write_shard(build.out, blocks)
    write_json(build.account, {"shard": vars(info), "account": asdict(account)})
    mark_progress()
    return info, account


@dataclass(frozen=True)
class Candidates:
    """The I rows that have a candidate, and their C candidates."""

    table: pa.Table  # as `parse_behaviours`, of those rows
    kept: np.ndarray  # [rows of the table that was read] bool
    news: np.ndarray  # [C] int32; -1 (in an unlabelled split): no such news
    clicked: np.ndarray | None  # [C] uint8; None in an unlabelled split
    offsets: np.ndarray  # [I + 1] int64


def read_candidates(
    table: pa.Table, lookup: NewsLookup, labelled: bool, where: str, account: SplitCounts
) -> Candidates:
    """Read the last column of some rows and count in `account` what is there and what is dropped.

    Raises InputError naming the line of the first candidate with a label that it should not have, or without one.
    """
    account.impressions += len(table)
    forms = np.bincount(table["time_form"].to_numpy(), minlength=len(FORMS))
    for name, count in zip(FORMS[1:], forms[1:], strict=True):
        setattr(account, f"times_{name}", getattr(account, f"times_{name}") + int(count))
    words = split_words(table["impressions"])
    rows = table["row"].to_numpy()
    check_words(words, "candidate", where, lambda text: int(rows[text]))
    clicked = None
    if labelled:
        clicked = _labels(words, rows, where)
        account.clicks += int(clicked.sum())
        news = lookup.find(words, ending=2)
    else:
        news = lookup.find(words)
        _check_no_labels(words, news, rows, where)
    known = news >= 0
    merged = int(count_separators(words, ~known).sum())
    account.candidates += len(news) + merged
    account.unknown_candidates += int(np.count_nonzero(~known)) + merged
    counts = segment_sums(known, words.offsets) if labelled else np.diff(words.offsets)
    kept = counts > 0
    account.impressions_without_candidates += int(np.count_nonzero(~kept))
    if clicked is not None:
        account.unknown_clicks += int(clicked.sum()) - int(clicked[known].sum())
        if not known.all():
            news, clicked = news[known], clicked[known]
    offsets = np.zeros(int(kept.sum()) + 1, np.int64)
    np.cumsum(counts[kept], out=offsets[1:])
    if not kept.all():
        table = table.filter(pa.array(kept)).combine_chunks()
    account.impressions_kept += len(table)
    return Candidates(table, kept, news, clicked, offsets)


def build_blocks(
    table: pa.Table, lookup: NewsLookup, labelled: bool, block_size: int, where: str
) -> tuple[list[Block], SplitCounts]:
    """Rows of one shard (in file order) as blocks of whole users, and the account of what was kept and dropped."""
    account = SplitCounts()
    users = hash_strings(table["user"])
    # Sorted by user, then by place in the file: the result does not depend on how the file was cut into chunks.
    order = np.lexsort((table["row"].to_numpy(), users))
    table, users = table.take(pa.array(order)).combine_chunks(), users[order]
    read = read_candidates(table, lookup, labelled, where, account)
    table, users, news, clicked, candidate_offsets = read.table, users[read.kept], read.news, read.clicked, read.offsets
    if not len(table):
        return [], account
    times = table["time"].to_numpy()
    account.first_time, account.last_time = int(times.min()), int(times.max())
    account.max_candidates = int(np.diff(candidate_offsets).max())

    pair, pair_history, history_news, history_offsets = _histories(table, lookup, account, where)
    blocks = []
    rows, ids = table["row"].to_numpy(), table["impression_id"].to_numpy()
    starts = _block_starts(users, block_size)
    for start, stop in itertools.pairwise(starts):
        low, high = candidate_offsets[start], candidate_offsets[stop]
        first = pair[start]
        last = int(pair[start:stop].max()) + 1
        values, block_history = gather_rows(history_news, history_offsets, pair_history[first:last])
        block: Block = {
            "row": rows[start:stop],
            "impression_id": ids[start:stop],
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


def read_histories(
    texts: pa.Array, lookup: NewsLookup, where: str, row_of: Callable[[int], int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The known news of some histories, flat; their offsets [n + 1]; and how many items each text has, known or not.

    An unknown word is as many items as a separator other than the space makes of it. `row_of` gives a row with a text,
    for the message about a word that is no id.
    """
    words = split_words(texts)
    check_words(words, "news of a history", where, row_of)
    found = lookup.find(words)
    known = found >= 0
    offsets = np.zeros(len(words.offsets), np.int64)
    np.cumsum(segment_sums(known, words.offsets), out=offsets[1:])
    items = np.diff(words.offsets) + segment_sums(count_separators(words, ~known), words.offsets)
    return found[known], offsets, items


def check_words(words: Words, what: str, where: str, row_of: Callable[[int], int]) -> None:
    """Raise InputError for a word that no id is: looking it up would take minutes."""
    lengths = words.ends - words.starts
    if len(lengths) and lengths.max() > LONGEST_ID + 2:
        text = int(np.searchsorted(words.offsets, int(np.argmax(lengths)), side="right")) - 1
        raise InputError(
            f"{where}, line {row_of(text) + 1}: {what} of {lengths.max():,} bytes; at most {LONGEST_ID:,} are read, "
            "separated by spaces"
        )


def _histories(
    table: pa.Table, lookup: NewsLookup, account: SplitCounts, where: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Distinct (user, history) pairs, numbered by first appearance.

    Returns the pair of each row [I], the text code of each pair, and the parsed distinct texts (flat, offsets).
    """
    user = _array(table["user"]).dictionary_encode().indices.to_numpy().astype(np.int64)
    encoded = _array(table["history"]).dictionary_encode()
    text = encoded.indices.to_numpy().astype(np.int64)
    rows = table["row"].to_numpy()
    news, news_offsets, read_items = read_histories(
        encoded.dictionary, lookup, where, lambda one: int(rows[text == one].min())
    )
    _, first, inverse = np.unique(user * len(encoded.dictionary) + text, return_index=True, return_inverse=True)
    by_appearance = np.argsort(first, kind="stable")
    number = np.empty(len(first), np.int64)
    number[by_appearance] = np.arange(len(first))
    pair_text = text[first[by_appearance]]
    account.users = int(user.max()) + 1
    account.histories = len(first)
    pairs_of_user = np.bincount(user[first])
    account.users_with_changing_history = int(np.count_nonzero(pairs_of_user > 1))
    read = read_items[pair_text]
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


def _labels(words: Words, rows: np.ndarray, where: str) -> np.ndarray:
    """1 for candidates that end in -1, 0 for those in -0, uint8 [W]; InputError for any other."""
    data, ends = words.data, words.ends
    clicked: np.ndarray = data[ends - 1] - np.uint8(ord("0"))
    fine = (clicked <= 1) & (ends - words.starts > 2)
    fine &= data[np.maximum(ends - 2, 0)] == ord("-")
    if not fine.all():
        _raise_bad_word(words, int(np.argmin(fine)), rows, where, "expected NEWS-0 or NEWS-1, separated by spaces")
    return clicked


def _check_no_labels(words: Words, news: np.ndarray, rows: np.ndarray, where: str) -> None:
    unknown = np.flatnonzero(news < 0)
    ends = words.ends[unknown]
    long = ends - words.starts[unknown] > 2
    last = words.data[ends - 1]
    marked = long & ((last == ord("0")) | (last == ord("1"))) & (words.data[np.maximum(ends - 2, 0)] == ord("-"))
    if marked.any():
        message = "a label in a split whose impressions have none"
        _raise_bad_word(words, int(unknown[np.argmax(marked)]), rows, where, message)


def _raise_bad_word(words: Words, at: int, rows: np.ndarray, where: str, what: str) -> None:
    row = int(np.searchsorted(words.offsets, at, side="right")) - 1
    raise InputError(f"{where}, line {rows[row] + 1}: candidate {words.text(at)!r}: {what}")


def is_labelled(path: Path, start: int = 0) -> bool:
    """Whether the candidates of a behaviours file carry -0 / -1: those of most words of its first rows do.

    `start` is the byte at which the rows begin.
    """
    labelled = words = 0
    with path.open("rb") as file:
        file.seek(start)
        for line in itertools.islice(file, _ROWS_LOOKED_AT):
            fields = line.split(b"\t")
            found = fields[4].split() if len(fields) == 5 else []
            words += len(found)
            labelled += sum(word.rstrip(b",;|").endswith((b"-0", b"-1")) for word in found)
    return 2 * labelled > words
