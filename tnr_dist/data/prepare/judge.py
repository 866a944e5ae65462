"""Whether raw files can be prepared: the one judgement of `tnr data prepare` and `tnr data verify`.

Both read files and rows by the same functions. What `prepare` finds wrong in a shard, which holds rows from all over the
file, is looked for here again in the order of the file, so that both name the same line.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa

from tnr_dist.data.prepare.counts import SplitCounts
from tnr_dist.data.prepare.impressions import is_labelled, read_candidates, read_histories
from tnr_dist.data.prepare.news_ids import NewsLookup, hash_strings, mix
from tnr_dist.data.prepare.raw import Chunk, behaviours_start, chunks_of, news_start, parse_behaviours, scan_chunk
from tnr_dist.data.prepare.raw_files import Source
from tnr_dist.data.prepare.unknown import describe_unknown

CHUNK_BYTES = 32 << 20


def behaviour_chunks(path: Path, size: int, where: str) -> list[Chunk]:
    """The rows of an uncompressed behaviors.tsv, without its header. Raises InputError when there are none."""
    return list(chunks_of(path, size, where, begin=behaviours_start(path, where)))


def judge_behaviours(path: Path, lookup: NewsLookup, where: str, size: int = CHUNK_BYTES) -> SplitCounts:
    """Read all rows as `tnr data prepare` does, and count candidates and news in histories.

    Of the account, what concerns single users and samples stays empty. Raises InputError for the first chunk's first fault.
    """
    account = SplitCounts()
    labelled = is_labelled(path, behaviours_start(path, where).byte)
    seen: list[np.ndarray] = []
    for chunk in behaviour_chunks(path, size, where):
        scan_chunk(chunk, where)
        rows = np.arange(chunk.lines, dtype=np.int64) + (chunk.first_line - 1)
        table = parse_behaviours(chunk.read(), rows, where)
        seen.append(_pairs(read_candidates(table, lookup, labelled, where, account).table, lookup, where))
    _, first = np.unique(np.concatenate([part[0] for part in seen]), return_index=True)
    items, unknown = (np.concatenate([part[column] for part in seen])[first] for column in (1, 2))
    account.histories = len(first)
    account.history_items, account.unknown_history_items = int(items.sum()), int(unknown.sum())
    return account


def _pairs(table: pa.Table, lookup: NewsLookup, where: str) -> np.ndarray:
    """A key of each row's (user, history), its history's items, and those that are unknown; uint64 [3, I]."""
    encoded = table["history"].combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0)
    text = encoded.indices.to_numpy().astype(np.int64)
    rows = table["row"].to_numpy()
    _, offsets, items = read_histories(encoded.dictionary, lookup, where, lambda one: int(rows[text == one].min()))
    unknown = items - np.diff(offsets)
    texts = hash_strings(encoded.dictionary)
    keys = mix(hash_strings(table["user"]) ^ mix(texts + np.uint64(1))[text])
    return np.stack([keys, items[text].astype(np.uint64), unknown[text].astype(np.uint64)])


def counts_fault(
    account: SplitCounts,
    split: str,
    where: str,
    max_unknown: float,
    texts: Iterable[tuple[str, str]],
    news: pa.ChunkedArray,
) -> str:
    """What makes a whole split useless although each row can be read; '' for none.

    Args:
        account: the split's.
        split: its name.
        where: its file's name.
        max_unknown: the largest share of candidates, or of news in histories, that may be in no news.tsv.
        texts: (history, candidates) of rows, to show one that is unknown.
        news: ids of the news that are there.
    """
    if not account.candidates:
        return f"{where}: no candidates in any row of the {split} split; the fifth column lists them, such as N1-0 N2-1"
    none = not account.impressions_kept
    accepts = f"more than max_unknown={max_unknown}"
    if none or account.unknown_share > max_unknown:
        known = set(news.to_pylist())
        said = describe_unknown((candidates for _, candidates in texts), known, account.clicks > 0)
        share = f"{where}: {account.unknown_share:.1%} of the candidates (fifth column) are in no news.tsv"
        if none:
            return f"{share}, no impression is left, {said}"
        return f"{share}, {accepts}, {said} (--max-unknown 1 accepts it)"
    if account.unknown_history_share > max_unknown:
        known = set(news.to_pylist())
        said = describe_unknown((history for history, _ in texts), known)
        return (
            f"{where}: {account.unknown_history_share:.1%} of the news in the histories (fourth column) are in no news.tsv, "
            f"{accepts}, {said} (--max-unknown 1 accepts it)"
        )
    return ""


def texts_of(path: Path) -> Iterable[tuple[str, str]]:
    """History and candidates of each row of an uncompressed behaviors.tsv, as text."""
    with path.open("rb") as file:
        file.seek(behaviours_start(path, str(path)).byte)
        for line in file:
            fields = line.decode("utf-8", "replace").rstrip("\r\n").split("\t")
            if len(fields) == 5:
                yield fields[3], fields[4]


def header_rows(news: Source, behaviours: Path) -> int:
    """How many of a split's two files begin with a header row; `behaviours` is the uncompressed text."""
    return news_start(news).header + behaviours_start(behaviours, str(behaviours)).header
