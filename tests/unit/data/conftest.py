"""Small random prepared splits, with the corner cases that real data has."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tnr_dist.data.shards import Block, SplitIndex, index_to_dict, write_shard
from tnr_dist.data.source import ShardSource
from tnr_dist.data.teacher_cache import TeacherColumns

NEWS = 500
TEACHERS = 2


def random_block(rng: np.random.Generator, first_row: int, impressions: int) -> Block:
    """Impressions of which some have no click, no negative, few negatives or an empty history.

    Candidates of an impression are distinct, so that a negative can be looked up by its news.
    """
    users = int(rng.integers(1, impressions + 1))
    lengths = rng.integers(0, 9, users) * rng.integers(0, 2, users)
    counts = rng.integers(1, 12, impressions)
    candidates, clicked = [], []
    for count in counts:
        kind = rng.integers(6)
        share = {0: 0.0, 1: 1.0}.get(int(kind), 0.3)
        candidates.append(rng.choice(NEWS, count, replace=False))
        clicked.append(rng.random(count) < share)
    return {
        "row": np.arange(first_row, first_row + impressions),
        "impression_id": np.arange(first_row, first_row + impressions) + 1,
        "time": np.zeros(impressions, np.int64),
        "impression_history": rng.integers(0, users, impressions).astype(np.int32),
        "history_offsets": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32),
        "history_news": rng.integers(0, NEWS, lengths.sum()).astype(np.int32),
        "candidate_offsets": np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
        "candidate_news": np.concatenate(candidates).astype(np.int32),
        "candidate_clicked": np.concatenate(clicked).astype(np.uint8),
    }


@dataclass
class Split:
    """A split on disk and what it holds."""

    folder: Path
    index: SplitIndex
    blocks: list[list[Block]]  # shard -> blocks

    @property
    def source(self) -> ShardSource:
        return ShardSource(self.folder)

    def impressions(self) -> dict[int, dict]:
        """row -> shard, history (all of it), candidates, clicked, and flat positions in the shard."""
        out = {}
        for number, blocks in enumerate(self.blocks):
            flat = histories = 0
            for block in blocks:
                offsets, spans = block["candidate_offsets"], block["history_offsets"]
                for i, row in enumerate(block["row"]):
                    low, high, h = offsets[i], offsets[i + 1], block["impression_history"][i]
                    out[int(row)] = {
                        "shard": number,
                        "history": block["history_news"][spans[h] : spans[h + 1]],
                        "history_row": histories + int(h),
                        "candidates": block["candidate_news"][low:high],
                        "clicked": block["candidate_clicked"][low:high].astype(bool),
                        "flat": flat + int(low),
                    }
                flat += len(block["candidate_news"])
                histories += len(spans) - 1
        return out

    def samples(self) -> set[tuple[int, int]]:
        """(row, flat position of the click in its shard) of every training sample."""
        return {
            (row, i["flat"] + int(c))
            for row, i in self.impressions().items()
            if not i["clicked"].all()
            for c in np.flatnonzero(i["clicked"])
        }

    def teachers(self, info):
        """Columns that say where they come from: users (shard, history row, teacher), logits (shard, position)."""
        shard = [s.name for s in self.index.shards].index(info.name)
        rows = sum(block["histories"] for block in info.blocks)
        flat = sum(block["candidates"] for block in info.blocks)
        users = np.empty((rows, TEACHERS, 3), np.float32)
        users[..., 0], users[..., 1], users[..., 2] = shard, np.arange(rows)[:, None], np.arange(TEACHERS)
        logits = (shard * 10_000 + np.arange(flat))[:, None] + np.arange(TEACHERS) / 4
        return TeacherColumns(users, logits.astype(np.float32))


def make_split(folder: Path, seed: int, sizes: list[list[int]]) -> Split:
    """`sizes`: impressions of each block of each shard."""
    rng = np.random.default_rng(seed)
    row, infos, blocks = 0, [], []
    for number, shard in enumerate(sizes):
        parts = []
        for impressions in shard:
            parts.append(random_block(rng, row, impressions))
            row += impressions
        blocks.append(parts)
        infos.append(write_shard(folder / f"shard-{number:06d}.tar", parts))
    index = SplitIndex("train", True, infos)
    (folder / "index.json").write_text(json.dumps(index_to_dict(index)))
    return Split(folder, index, blocks)


@pytest.fixture(scope="session")
def splits(tmp_path_factory):
    """make_split for property tests: the same arguments give the same folder, which a test must not change."""
    made = {}

    def make(seed: int, sizes: list[list[int]]) -> Split:
        key = (seed, str(sizes))
        if key not in made:
            made[key] = make_split(tmp_path_factory.mktemp("split"), seed, sizes)
        return made[key]

    return make


@pytest.fixture
def split(tmp_path) -> Split:
    """Five uneven shards, about 100 samples; a test may damage them."""
    return make_split(tmp_path / "train", 7, [[20, 5, 11], [3], [31, 17], [1, 1], [25]])
