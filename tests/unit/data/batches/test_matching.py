"""The matching loader: every pair once, N other titles each, the same for every rank count, exact resume."""

from collections import Counter

import numpy as np
import pytest

from tnr_dist.data.batches.matching import MatchingLoader
from tnr_dist.data.tokens import TableWriter
from tnr_dist.util.errors import InputError


@pytest.fixture
def corpus(tmp_path):
    """Makes a corpus of n pairs; row i of both tables has i % 5 + 1 tokens."""

    def make(n: int, titles: int | None = None):
        for name, rows in (("body", n), ("corpus_title", n if titles is None else titles)):
            lengths = np.arange(rows) % 5 + 1
            with TableWriter(tmp_path / "tokens" / name, np.dtype(np.uint16)) as table:
                table.append(np.arange(lengths.sum()) % 60_000, np.concatenate([[0], np.cumsum(lengths)]))
        return tmp_path

    return make


def joined(folder, world, epoch=0, start=0, batch=16, **kw):
    """step -> the global batch without empty slots."""
    ranks = [
        list(MatchingLoader(folder, batch, 4, 3, rank=r, world_size=world, **kw).epoch(epoch, start))
        for r in range(world)
    ]
    out = []
    for parts in zip(*ranks, strict=True):
        whole = {k: np.concatenate([p[k][p["weights"] > 0] for p in parts]) for k in ("body", "titles", "weights")}
        assert all(p["count"] == len(whole["body"]) and len(p["weights"]) for p in parts)
        out.append(whole)
    return out


@pytest.mark.parametrize("pairs", [5, 83, 97])
def test_every_pair_once_with_distinct_others(corpus, pairs):
    batches = joined(corpus(pairs), 1)
    assert sorted(np.concatenate([b["body"] for b in batches]).tolist()) == list(range(pairs))
    for batch in batches:
        np.testing.assert_array_equal(batch["titles"][:, 0], batch["body"])
        assert all(len(set(row)) == 5 and min(row) >= 0 and max(row) < pairs for row in batch["titles"].tolist())


@pytest.mark.parametrize("world", [2, 4, 8])
@pytest.mark.parametrize("pairs", [83, 97])  # 97 = 6 * 16 + 1: the last batch leaves all ranks but one empty
def test_rank_counts_and_resume_are_bit_identical(corpus, world, pairs):
    folder = corpus(pairs)
    whole = joined(folder, 1, epoch=1)
    for start in (0, 3, len(whole) - 1, len(whole)):
        part = joined(folder, world, epoch=1, start=start)
        assert len(part) == len(whole) - start
        for a, b in zip(part, whole[start:], strict=True):
            for name in a:
                np.testing.assert_array_equal(a[name], b[name], strict=True)


def test_others_are_uniform_and_redrawn(corpus):
    folder = corpus(12)
    loader = MatchingLoader(folder, 12, 4, 0)
    tally, epochs = Counter(), 600
    for epoch in range(epochs):
        (batch,) = loader.epoch(epoch)
        for own, *others in batch["titles"].tolist():
            tally.update((own, other) for other in others)
    expected = epochs * 4 / 11
    assert len(tally) == 12 * 11
    chi = sum((n - expected) ** 2 / expected for n in tally.values())
    assert abs(chi - 12 * 10 * 7 / 10) < 60  # 4 of 11 without replacement: (11 - 4) / 10 of independent draws
    first, second = ([b["titles"] for b in loader.epoch(e)] for e in (0, 1))
    assert not np.array_equal(first[0], second[0])


@pytest.mark.parametrize("pairs", [83, 97])
def test_others_from_the_batch(corpus, pairs):
    """All titles are those of the batch's own bodies; the last batch of 97, one pair, takes them from the corpus."""
    folder = corpus(pairs)
    whole = joined(folder, 1, epoch=1, negatives_from="batch")
    assert sorted(np.concatenate([b["body"] for b in whole]).tolist()) == list(range(pairs))
    for batch in whole:
        np.testing.assert_array_equal(batch["titles"][:, 0], batch["body"])
        assert all(len(set(row)) == 5 for row in batch["titles"].tolist())
        if len(batch["body"]) > 4:
            assert set(batch["titles"].ravel().tolist()) == set(batch["body"].tolist())
    for a, b in zip(joined(folder, 4, epoch=1, negatives_from="batch"), whole, strict=True):
        np.testing.assert_array_equal(a["titles"], b["titles"])
    assert MatchingLoader(folder, 16, 4, 3).fingerprint() != (
        MatchingLoader(folder, 16, 4, 3, negatives_from="batch").fingerprint()
    )


def test_held_out_pairs_are_apart(corpus):
    folder = corpus(100)
    loader = MatchingLoader(folder, 16, 4, 0, held_out=0.2)
    other = MatchingLoader(folder, 16, 4, 9, held_out=0.2)
    held = np.concatenate([b["body"] for b in loader.held_out_batches()])
    assert len(held) == 20 and set(held) == set(other.held_out.tolist())
    trained = {int(x) for b in loader.epoch(0) for x in b["titles"].ravel()}
    assert not trained & set(held.tolist())
    for batch in loader.held_out_batches():
        assert set(batch["titles"].ravel().tolist()) <= set(held.tolist())
        assert len(batch["body"]) == batch["count"] == len(batch["weights"])
    assert not list(MatchingLoader(folder, 16, 4, 0, held_out=0.04).held_out_batches())


def test_bad_corpora(corpus):
    folder = corpus(5)
    assert MatchingLoader(folder, 2, 4, 0).steps == 3
    with pytest.raises(InputError, match="too few for 5 other titles"):
        MatchingLoader(folder, 2, 5, 0)
    with pytest.raises(InputError, match="cannot be shared by 4 ranks"):
        MatchingLoader(folder, 2, 4, 0, world_size=4)
    with pytest.raises(InputError, match="4 titles and 5 bodies"):
        MatchingLoader(corpus(5, titles=4), 2, 2, 0)


def test_the_fingerprint_knows_what_changes_the_order(corpus):
    folder = corpus(50)
    prints = {
        MatchingLoader(folder, *arguments, held_out=held).fingerprint()
        for arguments, held in (((16, 4, 0), 0.0), ((8, 4, 0), 0.0), ((16, 3, 0), 0.0), ((16, 4, 1), 0.0), ((16, 4, 0), 0.1))
    }  # fmt: skip
    assert len(prints) == 5
    assert MatchingLoader(folder, 16, 4, 0, rank=1, world_size=2).fingerprint() in prints
