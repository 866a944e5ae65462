"""The numbers that are drawn: the batches of a tiny data set, value by value.

A change of these is no bug, but every run of the same seed then trains on other batches, resumed runs go on with others
than they began with, and no loss curve can be compared with an earlier one. CHANGELOG.md has to say so.
"""

import numpy as np
import pytest

from tnr_dist.data.batches.clicks import ClickLoader, LoaderOptions
from tnr_dist.data.batches.masking import Masking
from tnr_dist.data.batches.matching import MatchingLoader
from tnr_dist.data.shards import SplitIndex, write_shard
from tnr_dist.data.source import ShardSource
from tnr_dist.data.tokens import TableWriter

HISTORY = 3


def block(impressions):
    """Impression i shows news 10 i to 10 i + 5 after a history of i % 4 news; every third has two clicks."""
    rows = np.array(impressions)
    lengths = rows % 4
    clicked = np.zeros((len(rows), 6), np.uint8)
    clicked[np.arange(len(rows)), rows % 6] = 1
    clicked[rows % 3 == 0, 5] = 1
    return {
        "row": rows,
        "impression_id": rows + 1,
        "time": np.zeros(len(rows), np.int64),
        "impression_history": np.arange(len(rows), dtype=np.int32),
        "history_offsets": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32),
        "history_news": np.concatenate([history(row) for row in rows]).astype(np.int32),
        "candidate_offsets": (6 * np.arange(len(rows) + 1)).astype(np.int32),
        "candidate_news": (10 * rows[:, None] + np.arange(6)).ravel().astype(np.int32),
        "candidate_clicked": clicked.ravel(),
    }


def history(row):
    return [200 + row + n for n in range(row % 4)]


@pytest.fixture
def split(tmp_path):
    shards = [[0, 1, 2, 3], [4, 5], [6, 7, 8, 9, 10]]
    infos = [write_shard(tmp_path / f"shard-{number:06d}.tar", [block(rows)]) for number, rows in enumerate(shards)]
    return SplitIndex("train", True, infos), ShardSource(tmp_path)


# Epoch -> candidates of each batch: the click, then its two negatives.
CLICKS = {
    0: [
        [[95, 91, 94], [55, 50, 52], [11, 13, 10], [0, 3, 4], [93, 92, 94]],
        [[104, 103, 101], [82, 81, 85], [35, 31, 34], [22, 21, 25], [5, 1, 4]],
        [[44, 41, 43], [60, 63, 62], [71, 73, 74], [33, 32, 34], [65, 63, 61]],
    ],
    1: [
        [[65, 61, 62], [71, 73, 75], [11, 14, 15], [35, 31, 34], [33, 31, 34]],
        [[55, 51, 54], [104, 101, 105], [60, 62, 64], [22, 23, 20], [95, 90, 94]],
        [[82, 83, 80], [44, 43, 40], [5, 3, 1], [0, 3, 2], [93, 90, 92]],
    ],
}


@pytest.mark.parametrize("epoch", CLICKS)
def test_click_batches(split, epoch):
    index, source = split
    options = LoaderOptions(5, history=HISTORY, negatives=2, seed=4, streams=2, window_shards=2)
    batches = list(ClickLoader(index, source, options).epoch(epoch))
    assert [batch["candidates"].tolist() for batch in batches] == CLICKS[epoch]
    for batch in batches:
        for row, click, seen in zip(batch["row"], batch["candidates"][:, 0], batch["history"].tolist(), strict=True):
            assert row == click // 10 and [news for news in seen if news >= 0] == history(row)


# (negatives from, epoch) -> titles of each batch: the own one, then three others.
MATCHING = {
    ("corpus", 0): [
        [[3, 7, 4, 0], [8, 1, 0, 7], [1, 4, 0, 9], [9, 0, 1, 2], [2, 0, 4, 9]],
        [[0, 4, 7, 6], [7, 2, 3, 9], [4, 1, 0, 2], [6, 2, 8, 4]],
    ],
    ("corpus", 1): [
        [[6, 1, 7, 9], [7, 1, 2, 4], [3, 4, 8, 6], [8, 3, 7, 9], [2, 3, 8, 7]],
        [[0, 2, 6, 3], [1, 0, 7, 2], [4, 2, 8, 6], [9, 4, 7, 8]],
    ],
    ("batch", 0): [
        [[3, 1, 9, 8], [8, 3, 9, 2], [1, 8, 3, 2], [9, 3, 1, 8], [2, 3, 8, 9]],
        [[0, 7, 4, 6], [7, 0, 4, 6], [4, 0, 7, 6], [6, 0, 7, 4]],
    ],
}


def matching_loader(folder, negatives_from="corpus"):
    """Eleven pairs, two of them held out, in batches of five with three other titles each."""
    for name in ("body", "corpus_title"):
        with TableWriter(folder / "tokens" / name, np.dtype(np.uint16)) as table:
            table.append(np.arange(11), np.arange(12))
    return MatchingLoader(folder, 5, 3, 4, held_out=0.2, negatives_from=negatives_from)


@pytest.mark.parametrize(("negatives_from", "epoch"), MATCHING)
def test_matching_batches(tmp_path, negatives_from, epoch):
    batches = list(matching_loader(tmp_path, negatives_from).epoch(epoch))
    assert [batch["titles"].tolist() for batch in batches] == MATCHING[negatives_from, epoch]
    assert [batch["body"].tolist() for batch in batches] == [batch["titles"][:, 0].tolist() for batch in batches]


def test_held_out_pairs(tmp_path):
    assert matching_loader(tmp_path).held_out.tolist() == [5, 10]
    held_out = list(MatchingLoader(tmp_path, 5, 2, 4, held_out=0.5).held_out_batches())
    assert [batch["titles"].tolist() for batch in held_out] == [
        [[0, 5, 10], [5, 9, 0], [8, 9, 10], [9, 5, 10], [10, 8, 9]]
    ]


def test_masked_tokens():
    """Two texts of 12 and 10 tokens, 3 is [MASK]."""
    rule = Masking(0.4, mask_id=3, vocab_size=1000, seed=4)
    tokens, lengths = np.arange(100, 122), np.array([12, 10])
    seen = [rule.mask(tokens, lengths, np.array([7, 9]), epoch)[0] for epoch in (0, 1)]
    changed = [{int(i): int(after[i]) for i in np.flatnonzero(after != tokens)} for after in seen]
    assert changed == [{1: 3, 6: 3, 9: 368, 14: 3, 17: 48, 19: 3}, {2: 3, 8: 3, 10: 3, 14: 3, 16: 3, 19: 3}]
