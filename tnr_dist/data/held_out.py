"""The last train impressions by time, kept apart so that a training can be scored on clicks it has not seen.

Time, not chance, divides: dev and test come after train, and most of their news are new. A model that has learned which
news of the train split are popular would look good on a part that was drawn at random.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from tnr_dist.data.shards import Block, ShardInfo, SplitIndex, count_samples
from tnr_dist.data.source import ShardSource
from tnr_dist.data.tokens import gather_rows
from tnr_dist.util.errors import InputError


@dataclass(frozen=True)
class HeldOut:
    """A split in two.

    Attributes:
        before: impressions of this time (seconds since 1970) and later are kept apart.
        index: the split's index with the samples that are left to train on.
        blocks: the impressions that are kept apart and have both a click and a non-click.
    """

    before: int
    index: SplitIndex
    blocks: list[Block]

    @property
    def impressions(self) -> int:
        """How many are kept apart."""
        return sum(len(block["row"]) for block in self.blocks)


def hold_out_last(index: SplitIndex, source: ShardSource, share: float, skip_damaged: bool = False) -> HeldOut:
    """Keep the last `share` of a labelled split's impressions apart.

    Reads every shard twice. With `skip_damaged` a shard that cannot be read stays as it is in the index; the loader deals
    with it.

    Raises:
        InputError: a shard is damaged, or one of the two parts would be empty.
    """

    def shards() -> Iterator[tuple[int, dict[str, Block]]]:
        for number, info in enumerate(index.shards):
            try:
                yield number, source.read_blocks(info)
            except InputError:
                if not skip_damaged:
                    raise

    times = [block["time"] for _, blocks in shards() for block in blocks.values()]
    every = np.sort(np.concatenate(times)) if times else np.zeros(0, np.int64)
    kept = int(share * len(every))
    before = int(every[len(every) - kept]) if kept else int(every.max(initial=0)) + 1
    infos, apart = list(index.shards), []
    for number, blocks in shards():
        infos[number] = _trained_part(infos[number], blocks, before)
        for block in blocks.values():
            rows = np.flatnonzero((block["time"] >= before) & _has_both(block))
            if len(rows):
                apart.append(_select(block, rows))
    out = HeldOut(before, replace(index, shards=infos), apart)
    if not out.blocks or not out.index.samples:
        part = "validate on" if not out.blocks else "train on"
        raise InputError(
            f"{source.folder}: a share of {share} of {len(every):,} impressions leaves nothing to {part}; choose another "
            "share, or 0 to train on all"
        )
    return out


def _trained_part(info: ShardInfo, blocks: dict[str, Block], before: int) -> ShardInfo:
    """The index's line of a shard with the samples of impressions before `before` only."""
    counts = [count_samples(_select(block, np.flatnonzero(block["time"] < before))) for block in blocks.values()]
    return replace(info, samples=sum(counts))


def _has_both(block: Block) -> np.ndarray:
    """[I] bool: impressions with a click and a non-click."""
    offsets = block["candidate_offsets"].astype(np.int64)
    total = np.concatenate([[0], np.cumsum(block["candidate_clicked"], dtype=np.int64)])
    clicks = total[offsets[1:]] - total[offsets[:-1]]
    mixed: np.ndarray = (clicks > 0) & (clicks < np.diff(offsets))
    return mixed


def _select(block: Block, rows: np.ndarray) -> Block:
    """Impressions `rows` of a block, with their own histories only."""
    histories, impression_history = np.unique(block["impression_history"][rows], return_inverse=True)
    history_news, history_offsets = gather_rows(block["history_news"], block["history_offsets"], histories)
    candidate_news, candidate_offsets = gather_rows(block["candidate_news"], block["candidate_offsets"], rows)
    clicked, _ = gather_rows(block["candidate_clicked"], block["candidate_offsets"], rows)
    return {
        **{name: block[name][rows] for name in ("row", "impression_id", "time")},
        "impression_history": impression_history.reshape(-1),
        "history_offsets": history_offsets,
        "history_news": history_news,
        "candidate_offsets": candidate_offsets,
        "candidate_news": candidate_news,
        "candidate_clicked": clicked,
    }
